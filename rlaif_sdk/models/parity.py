"""Is an exported model the model? Its logits beside PyTorch's, on ragged batches, however they are padded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rlaif_sdk.exceptions import RlaifError
from rlaif_sdk.models.batching import BatchedClassifier
from rlaif_sdk.models.encoding import TokenArrays
from rlaif_sdk.models.manifest import ParityFigures
from rlaif_sdk.models.probes import ProbeInput
from rlaif_sdk.statistics.correlation import rank_correlation

if TYPE_CHECKING:
    from torch import nn

Floats = NDArray[np.float64]

_ROWS_PER_BATCH = 4
"""Rows of unlike length are batched by so many, so that most of them are padded."""

_NOISE = 1e-4
"""Differences of less, in units of the spread, are rounding: they make no order among rows that PyTorch ties."""

_SPARE_COLUMNS = 3
"""Columns of nothing but padding that a batch is given more than it needs."""


class ParityError(RlaifError, RuntimeError):
    """An exported model is too far from the one that it was made of.

    Attributes:
        figures: What was measured.
    """

    def __init__(self, message: str, *, figures: ParityFigures | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.figures = figures


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What an export may differ by.

    Attributes:
        difference: Greatest difference of a logit, in units of the spread of the logits, or of 1 if that is more.
        spearman: Least correlation of ranks, over all rows.
    """

    difference: float
    spearman: float


TOLERANCES = {
    "fp32": Tolerance(1e-3, 0.99),
    "fp16": Tolerance(0.1, 0.99),
    "bf16": Tolerance(0.5, 0.99),
    "int8": Tolerance(1.0, 0.98),
}


def measure(
    exported: BatchedClassifier, reference_RL: Floats, probes: Sequence[ProbeInput], *, pads_left: bool
) -> ParityFigures:
    """How far the exported model's logits are from the reference, over every padding.

    The rows are scored each on its own, in ragged batches padded on the right, in the same batches with spare columns,
    and, if ``pads_left``, in batches padded on the left.

    Args:
        exported: What was exported.
        reference_RL: The logits that the R rows should have.
        probes: The rows.
        pads_left: Whether the model is to give the same logits with padding on the left.
    """
    pad_id = exported.encoder.pad_id
    paddings = [("right", 1, 0), ("right", _ROWS_PER_BATCH, 0), ("right", _ROWS_PER_BATCH, _SPARE_COLUMNS)]
    if pads_left:
        paddings.append(("left", _ROWS_PER_BATCH, _SPARE_COLUMNS))
    runs = [
        np.concatenate([exported.forward(batch) for batch in _batches(probes, side, rows, spare, pad_id)])
        for side, rows, spare in paddings
    ]
    logits_PRL = np.stack(runs).astype(np.float64)
    noise = _NOISE * float(reference_RL.std(axis=0).max())
    settled_PRL = np.where(np.abs(logits_PRL - reference_RL) <= noise, reference_RL, logits_PRL)
    kinds = np.array([probe.kind for probe in probes])
    columns = [
        (reference_RL[kinds == kind, label], run_RL[kinds == kind, label])
        for kind in np.unique(kinds)
        for run_RL in settled_PRL
        for label in range(reference_RL.shape[1])
    ]
    return ParityFigures(
        rows=len(probes),
        max_difference=float(np.abs(logits_PRL - reference_RL).max()),
        spread=float(reference_RL.std(axis=0).max()),
        pearson=float(np.min([correlation(expected_R, found_R) for expected_R, found_R in columns])),
        spearman=float(np.min([rank_correlation(expected_R, found_R) for expected_R, found_R in columns])),
        flipped=max(flipped_share(expected_R, found_R) for expected_R, found_R in columns),
    )


def reference_logits(network: nn.Module, probes: Sequence[ProbeInput], *, takes_token_types: bool) -> Floats:
    """PyTorch's logits (R, L), each row on its own and without padding, by transformers' own forward."""
    import torch

    rows = []
    with torch.inference_mode():
        for probe in probes:
            inputs = {"input_ids": probe.input_ids, "token_type_ids": probe.token_type_ids}
            tensors = {
                name: torch.tensor([ids])
                for name, ids in inputs.items()
                if name != "token_type_ids" or takes_token_types
            }
            logits_L = network(**tensors, attention_mask=torch.ones_like(tensors["input_ids"])).logits[0]
            rows.append(logits_L.double().numpy())
    return np.stack(rows)


def check(figures: ParityFigures, variant: str, *, min_agreement: float | None = None) -> None:
    """Hold an export to its variant's tolerance.

    Args:
        figures: What was measured.
        variant: A key of `TOLERANCES`.
        min_agreement: Least rank correlation in place of the variant's own.

    Raises:
        ParityError: It is beyond that; the message has the figures.
    """
    tolerance = TOLERANCES[variant]
    floor = tolerance.spearman if min_agreement is None else min_agreement
    allowed = tolerance.difference * max(1.0, figures.spread)
    too_far = not figures.max_difference <= allowed
    if too_far or not figures.spearman >= floor:
        raise ParityError(
            f"the {variant} export differs from PyTorch beyond its tolerance: {describe(figures)}; allowed are a difference "
            f"of {allowed:.3g} and a rank agreement of {floor:g}",
            figures=figures,
            hint="choose a variant of higher precision"
            if variant != "fp32"
            else "the exporter does not follow this architecture; please report it",
        )


def describe(figures: ParityFigures) -> str:
    """The figures in a line."""
    return (
        f"greatest difference {figures.max_difference:.2g} where logits spread by {figures.spread:.2g}, "
        f"Pearson {figures.pearson:.4f}, rank agreement {figures.spearman:.4f}, "
        f"{figures.flipped:.2%} of preferences flipped, over {figures.rows} inputs"
    )


def correlation(left_R: Floats, right_R: Floats) -> float:
    """Pearson's correlation; 1 for two equal constants, NaN where one alone is constant or not finite."""
    if np.array_equal(left_R, right_R):
        return 1.0
    if not (left_R.std() > 0 and right_R.std() > 0):
        return float("nan")
    return float(np.corrcoef(left_R, right_R)[0, 1])


def flipped_share(expected_R: Floats, found_R: Floats) -> float:
    """Share of the pairs of rows with unlike expected values whose order is another one among the found values."""
    expected_RR = np.sign(np.subtract.outer(expected_R, expected_R))
    found_RR = np.sign(np.subtract.outer(found_R, found_R))
    ordered = np.count_nonzero(expected_RR)
    return float(np.count_nonzero((expected_RR != found_RR) & (expected_RR != 0)) / ordered) if ordered else 0.0


def _batches(probes: Sequence[ProbeInput], side: str, rows: int, spare: int, pad_id: int) -> Iterator[TokenArrays]:
    for start in range(0, len(probes), rows):
        yield padded(probes[start : start + rows], side=side, spare=spare, pad_id=pad_id)


def padded(probes: Sequence[ProbeInput], *, side: str, spare: int, pad_id: int) -> TokenArrays:
    """The rows as arrays, padded on the given side to the longest and ``spare`` columns more, if all are short enough."""
    longest = max(len(probe.input_ids) for probe in probes)
    width = longest + spare * all(probe.room >= spare for probe in probes)
    shape = (len(probes), width)
    arrays = TokenArrays(
        np.full(shape, pad_id, dtype=np.int64), np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    )
    for row, probe in enumerate(probes):
        length = len(probe.input_ids)
        columns = slice(0, length) if side == "right" else slice(width - length, width)
        arrays.input_ids[row, columns] = probe.input_ids
        arrays.token_type_ids[row, columns] = probe.token_type_ids
        arrays.attention_mask[row, columns] = 1
    return arrays
