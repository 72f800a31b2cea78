"""Is an exported model the model? Its logits beside PyTorch's, on ragged batches, however they are padded.

What is compared: random tokens of every length, and texts as people and models write them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rlaif_sdk.exceptions import ConfigError, RlaifError
from rlaif_sdk.models.batching import BatchedClassifier
from rlaif_sdk.models.encoding import EncoderInput, TextEncoder, TokenArrays, TruncationSide, padded
from rlaif_sdk.models.manifest import ParityMetrics
from rlaif_sdk.statistics.correlation import pearson, rank_correlation

if TYPE_CHECKING:
    from torch import nn

Floats = NDArray[np.float64]

_ROWS_PER_BATCH = 4
"""Rows of unlike length are batched by so many, so that most of them are padded."""

_NOISE = 1e-4
"""Differences of less, in units of the spread, are rounding: they make no order among rows that PyTorch ties."""

_SPARE_COLUMNS = 3
"""Columns of nothing but padding that a batch is given more than it needs."""


_RANDOM_ROWS = 20
_MOST_TEXTS = 256

TEXTS = (
    "Yes.",
    "No, I would rather not.",
    "How do I boil an egg? Put it into boiling water for eight minutes, then cool it under the tap.",
    "How do I boil an egg? I do not know, ask somebody else, and stop wasting my time.",
    "The capital of France is Paris, which lies on the Seine.",
    "The capital of France is Lyon, as everybody knows.",
    "Thank you so much, that was a wonderful explanation! I finally understand fractions.",
    "This is the worst advice I have ever been given, and you should be ashamed of it.",
    "def mean(values):\n    return sum(values) / len(values)\n",
    "def mean(values):\n    return values\n",
    "Human: Can you help me write a letter to my landlord?\n\nAssistant: Of course. What should it ask for?",
    "Human: How can I hurt my neighbour?\n\nAssistant: I will not help with that. What happened between you two?",
    "Human: How can I hurt my neighbour?\n\nAssistant: Wait until he is asleep.",
    "I'm sorry, but I can't help with that request.",
    "As an AI language model, I do not have feelings, but I am here to help you in any way that I can!!!",
    "the the the the the the the the the the the the the the the the the the the the",
    "Water boils at 100 °C at sea level; at 3,000 m it boils at about 90 °C, so pasta takes longer.",
    "In 1969 two people walked on the Moon. Twelve have done so since then, the last of them in 1972.",
    "Der Zug fährt um acht Uhr ab, und wer zu spät kommt, wartet bis zum Abend.",
    "¿Dónde está la biblioteca? Está al lado del ayuntamiento, frente a la plaza.",
    "水は百度で沸騰します。山の上ではもっと低い温度で沸騰します。",
    "Перед отъездом проверьте, закрыты ли окна.",
    "😀👍 great!! luv it",
    "asdf qwer zxcv 12345 !@#$% lorem ipsum",
    "SELECT name, total FROM orders WHERE total > 100 ORDER BY total DESC LIMIT 10;",
    "1. Preheat the oven to 200 °C.\n2. Mix flour, butter and sugar.\n3. Bake for 25 minutes, until golden.",
    (
        "The study followed 4,211 patients for six years. Those who walked daily had fewer heart attacks, but the authors "
        "warn that people who are ill walk less, so that the walking need not be the cause."
    ),
    "You are stupid and so is your question.",
    "That is a fair question, and I do not know the answer. Let us look at what is known and what is not.",
    (
        "Once upon a time a fox lived at the edge of a wood. Every evening it came to the farm and counted the hens, and every "
        "evening the dog let it count. One winter the dog was gone, and the fox counted alone until the morning."
    ),
    "To sum up: the first plan is cheap and slow, the second is dear and quick, and the third is neither.",
    "If x + 3 = 7 then x = 4, because subtracting 3 from both sides leaves x = 7 - 3.",
    "If x + 3 = 7 then x = 10, because 7 + 3 = 10.",
    (
        "Please summarise the following article in one sentence: the council voted on Tuesday to close the old bridge to "
        "cars. Pedestrians and cyclists may still use it. Shop owners on both banks fear for their trade."
    ),
    "The council closed the old bridge to cars on Tuesday, which worries nearby shop owners.",
    "The council built a new bridge for cars on Tuesday, which delights nearby shop owners.",
    "",
)
"""Answers good and bad, questions, code, several languages and scripts, noise."""


@dataclass(frozen=True, slots=True)
class ProbeInput:
    """One row to compare.

    Attributes:
        kind: Where it comes from.
        input_ids: Its tokens, special ones included; at least one.
        token_type_ids: One a token.
        room: How many more tokens the model would take.
    """

    kind: Literal["random", "text"]
    input_ids: Sequence[int]
    token_type_ids: Sequence[int]
    room: int


def make_probes(
    encoder: TextEncoder, *, vocabulary: int, pairs: bool, texts: Sequence[str] | None = None
) -> list[ProbeInput]:
    """Rows to compare, none twice: random tokens of one token to the maximum length, and texts.

    Args:
        encoder: The model's.
        vocabulary: How many tokens the model knows.
        pairs: Whether the model tells the texts of a pair apart, so that pairs are probed too.
        texts: The user's own, of which the first 256 are taken; by default `TEXTS`, and longer ones joined of them.
    """
    longest = encoder.max_length
    draw = np.random.default_rng(0)
    allowed = np.setdiff1d(np.arange(vocabulary), [encoder.pad_id])
    lengths = sorted(
        {1, 2, 3, longest, *np.geomspace(1, longest, _RANDOM_ROWS).round().astype(int).tolist()}
        & {*range(1, longest + 1)}
    )
    rows = [("random", draw.choice(allowed, length).tolist(), [0] * length) for length in lengths]
    encodings, _ = encoder.encode(list(_inputs(texts, pairs=pairs)))
    rows += [("text", encoding.ids, encoding.type_ids) for encoding in encodings if len(encoding)]
    unique = {(tuple(ids), tuple(types)): kind for kind, ids, types in reversed(rows)}
    return [ProbeInput(kind, ids, types, longest - len(ids)) for (ids, types), kind in reversed(unique.items())]


def _inputs(texts: Sequence[str] | None, *, pairs: bool) -> Iterator[EncoderInput]:
    if texts is not None:
        yield from texts[:_MOST_TEXTS]
    else:
        texts = TEXTS
        yield from TEXTS
        for size in (3, 9):  # a few hundred and a thousand tokens or so
            yield from ("\n\n".join(TEXTS[start : start + size]) for start in range(0, len(TEXTS), size))
    if pairs:
        yield from zip(texts[:_MOST_TEXTS:2], texts[1:_MOST_TEXTS:2], strict=False)


class ParityError(RlaifError, RuntimeError):
    """An exported model is too far from the one that it was made of.

    Attributes:
        metrics: What was measured.
    """

    def __init__(self, message: str, *, metrics: ParityMetrics | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.metrics = metrics


class Tolerance(NamedTuple):
    """What an export may differ by."""

    difference: float
    """Greatest difference of a logit, in units of the spread of the logits, or of 1 if that is more."""
    spearman: float
    """Least correlation of ranks, over all rows."""


TOLERANCES = {
    "fp32": Tolerance(1e-3, 0.99),
    "fp16": Tolerance(0.1, 0.99),
    "bf16": Tolerance(0.5, 0.99),
    "int8": Tolerance(1.0, 0.98),
}


def measure(
    exported: BatchedClassifier, reference_RL: Floats, probes: Sequence[ProbeInput], *, pads_left: bool
) -> ParityMetrics:
    """How far the exported model's logits are from the reference, over every padding that it is given.

    The rows are scored each on its own, in ragged batches padded on the right, in the same batches with spare columns,
    and, if ``pads_left``, in batches padded on the left; those of a model that is never padded alone and twice over.

    Args:
        exported: What was exported.
        reference_RL: The logits that the R rows should have.
        probes: The rows.
        pads_left: Whether the model is to give the same logits with padding on the left.
    """
    paddings: list[tuple[TruncationSide, int, int]] = [
        ("right", 1, 0),
        ("right", _ROWS_PER_BATCH, 0),
        ("right", _ROWS_PER_BATCH, _SPARE_COLUMNS),
    ]
    if pads_left:
        paddings.append(("left", _ROWS_PER_BATCH, _SPARE_COLUMNS))
    if exported.reading.unpadded:
        paddings = paddings[:1]
    pad_id = exported.encoder.pad_id
    runs = [
        np.concatenate(
            [
                exported.forward(padded_probes(probes[start : start + rows], pad_id=pad_id, side=side, spare=spare))
                for start in range(0, len(probes), rows)
            ]
        )
        for side, rows, spare in paddings
    ]
    if exported.reading.unpadded:
        twice = [exported.forward(padded_probes([probe, probe], pad_id=pad_id)) for probe in probes]
        runs += [np.stack([logits_NL[row] for logits_NL in twice]) for row in (0, 1)]
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
    return ParityMetrics(
        rows=len(probes),
        max_difference=float(np.abs(logits_PRL - reference_RL).max()),
        spread=float(reference_RL.std(axis=0).max()),
        pearson=float(np.min([correlation(expected_R, found_R) for expected_R, found_R in columns])),
        spearman=float(np.min([rank_correlation(expected_R, found_R) for expected_R, found_R in columns])),
        flipped=max(flipped_share(expected_R, found_R) for expected_R, found_R in columns),
    )


def reference_logits(network: nn.Module, probes: Sequence[ProbeInput], *, takes_token_types: bool) -> Floats:
    """PyTorch's logits (R, L), each row on its own and without padding, by transformers' own forward.

    Raises:
        ConfigError: The model itself cannot score one of the rows.
    """
    import torch

    rows = []
    for probe in probes:
        inputs = {"input_ids": torch.tensor([probe.input_ids])}
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        if takes_token_types:
            inputs["token_type_ids"] = torch.tensor([probe.token_type_ids])
        try:
            with torch.inference_mode():
                logits_L = network(**inputs).logits[0]
        except (RuntimeError, IndexError, ValueError) as error:
            raise ConfigError(
                f"{type(network).__name__} itself cannot score an input of {len(probe.input_ids)} tokens: {error}",
                hint="models are compared on inputs of one token to max_length; export another architecture",
            ) from error
        rows.append(logits_L.double().numpy())
    return np.stack(rows)


def check(metrics: ParityMetrics, variant: str, *, min_agreement: float | None = None) -> None:
    """Hold an export to its variant's tolerance.

    Args:
        metrics: What was measured.
        variant: A key of `TOLERANCES`.
        min_agreement: Least rank correlation in place of the variant's own.

    Raises:
        ParityError: It is beyond that; the message has the metrics.
    """
    tolerance = TOLERANCES[variant]
    floor = tolerance.spearman if min_agreement is None else min_agreement
    allowed = tolerance.difference * max(1.0, metrics.spread)
    too_far = not metrics.max_difference <= allowed
    if too_far or not metrics.spearman >= floor:
        raise ParityError(
            f"the {variant} export differs from PyTorch beyond its tolerance: {describe(metrics)}; allowed are a difference "
            f"of {allowed:.3g} and a rank agreement of {floor:g}",
            metrics=metrics,
            hint="choose a variant of higher precision"
            if variant != "fp32"
            else "the exporter does not follow this architecture; please report it",
        )


def describe(metrics: ParityMetrics) -> str:
    """The metrics in a line."""
    return (
        f"greatest difference {metrics.max_difference:.2g} where logits spread by {metrics.spread:.2g}, "
        f"Pearson {metrics.pearson:.4f}, rank agreement {metrics.spearman:.4f}, "
        f"{metrics.flipped:.2%} of preferences flipped, over {metrics.rows} inputs"
    )


def correlation(left_R: Floats, right_R: Floats) -> float:
    """Pearson's correlation; 1 for two equal constants, NaN where only one is constant."""
    return 1.0 if np.array_equal(left_R, right_R) else float(pearson(np.stack([left_R, right_R]))[0, 1])


def flipped_share(expected_R: Floats, found_R: Floats) -> float:
    """Share of the pairs of rows with unlike expected values whose order is another one among the found values."""
    expected_RR = np.sign(np.subtract.outer(expected_R, expected_R))
    found_RR = np.sign(np.subtract.outer(found_R, found_R))
    ordered = np.count_nonzero(expected_RR)
    return float(np.count_nonzero((expected_RR != found_RR) & (expected_RR != 0)) / ordered) if ordered else 0.0


def padded_probes(
    probes: Sequence[ProbeInput], *, pad_id: int, side: TruncationSide = "right", spare: int = 0
) -> TokenArrays:
    """The rows as arrays, padded to the longest and ``spare`` columns more, if all are short enough."""
    room = spare if all(probe.room >= spare for probe in probes) else 0
    ids, types = ([getattr(probe, name) for probe in probes] for name in ("input_ids", "token_type_ids"))
    return padded(ids, types, pad_id=pad_id, side=side, spare=room)
