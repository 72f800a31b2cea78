"""Soft labels, each the probability that an answer is preferred: losses, and what the trainers of preferences share.

B pairs. The model's belief that the first completion is preferred is the logistic of a difference: of two scores for a
reward model, of two scaled log-ratios for DPO.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from rlaif_sdk.statistics.calibration import BINS, Calibration, calibrate
from rlaif_sdk.training.data import SameAnswersWarning, TooLongWarning, checked_preferences, same_answers, too_long
from rlaif_sdk.training.evaluation_means import MeansOverRows
from rlaif_sdk.training.models import check_special_tokens, check_trainable


def soft_preference_losses(differences_B: Tensor, chosen_prob_B: Tensor) -> Tensor:
    """The cross-entropy between the labels and the beliefs: -p log s(d) - (1 - p) log s(-d), with s the logistic.

    With scores it is the cross-entropy on the softmax of the two (Lee et al. 2023, arXiv:2309.00267); with log-ratios
    it is conservative DPO with a label a pair (Mitchell 2023, "A note on DPO with noisy preferences"). At p = 1 it is
    exactly the usual loss -log s(d).

    Args:
        differences_B: By how much the first of each pair is ahead, in nats.
        chosen_prob_B: Probability in [0, 1] that it is preferred.

    Returns:
        losses_B, in nats.
    """
    return -logsigmoid(differences_B) + soft_label_terms(differences_B, chosen_prob_B)


def soft_label_terms(differences_B: Tensor, chosen_prob_B: Tensor) -> Tensor:
    """What a soft label adds to the hard loss -log s(d): (1 - p) d, since log s(d) - log s(-d) = d.

    Args:
        differences_B: See `soft_preference_losses`.
        chosen_prob_B: See `soft_preference_losses`.
    """
    return (1 - chosen_prob_B) * differences_B


def dpo_differences(
    *,
    chosen_logprobs_B: Tensor,
    rejected_logprobs_B: Tensor,
    ref_chosen_logprobs_B: Tensor,
    ref_rejected_logprobs_B: Tensor,
    beta: float,
) -> Tensor:
    """The implicit reward difference of DPO (Rafailov et al. 2023, arXiv:2305.18290, equation 7), in nats.

    Args:
        chosen_logprobs_B: Log-probability of each first completion under the policy, summed over its tokens.
        rejected_logprobs_B: The same of the second.
        ref_chosen_logprobs_B: Of the first under the reference.
        ref_rejected_logprobs_B: Of the second under the reference.
        beta: Strength of the tie to the reference.
    """
    return beta * ((chosen_logprobs_B - ref_chosen_logprobs_B) - (rejected_logprobs_B - ref_rejected_logprobs_B))


class SoftLabelTrainer(MeansOverRows):
    """Stands before a trainer of TRL's among the bases of a class.

    Attributes:
        needs_prompt: Whether pairs of messages need a prompt.
        soft_columns: Columns of numbers that reach the loss beside what TRL's collator makes.
        calibration_bins: How many bins the calibration error of an evaluation has.
        calibration: What the last evaluation found, with its reliability bins; None before the first.
    """

    sequences_a_row = 2
    soft_columns: tuple[str, ...] = ()
    needs_prompt: bool = False
    calibration_bins: int = BINS
    calibration: Calibration | None = None

    model: Any
    processing_class: Any
    _signature_columns: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._evaluated: list[tuple[Tensor, Tensor]] = []
        super().__init__(*args, **kwargs)
        check_trainable(self.model)
        check_special_tokens(self.processing_class, self.model.get_input_embeddings().num_embeddings)
        self.data_collator = SoftLabelCollator(self.data_collator, self.soft_columns)

    def _prepare_dataset(self, dataset: Any, processing_class: Any, args: Any, dataset_name: str) -> Any:
        """Check the rows, as they are given to the trainer and to `evaluate`, and say which are too long.

        Raises:
            DataError: A row is refused, or all are longer than the trainer takes.
        """
        name = f"the {dataset_name} set"
        dataset = checked_preferences(dataset, name, needs_prompt=self.needs_prompt)
        if (same := same_answers(dataset, name)) is not None:
            warnings.warn(same, SameAnswersWarning, stacklevel=2)
        prepared = super()._prepare_dataset(dataset, processing_class, args, dataset_name)  # type: ignore[misc]
        if isinstance(prepared, Sized) and args.max_length is not None:
            skipped, truncated = len(dataset) - len(prepared), self._cut(prepared, args.max_length)
            for said in too_long(name, len(dataset), skipped, truncated, args.max_length):
                warnings.warn(said, TooLongWarning, stacklevel=2)
        return prepared

    def _cut(self, prepared: Any, max_length: int) -> int:
        """How many of the prepared pairs lose tokens at their end, or beginning, in the collator."""
        del prepared, max_length
        return 0

    def _set_signature_columns_if_needed(self) -> None:
        """Keep the columns of soft labels, which TRL would drop."""
        super()._set_signature_columns_if_needed()
        kept: list[str] = self._signature_columns or []
        self._signature_columns = [*kept, *(column for column in self.soft_columns if column not in kept)]

    def _evaluation_metrics(self) -> dict[str, float | None]:
        metrics = super()._evaluation_metrics()
        if not self._evaluated:
            return metrics
        differences_B, chosen_prob_B = (torch.cat(parts) for parts in zip(*self._evaluated, strict=True))
        self.calibration = calibrate(differences_B.numpy(), chosen_prob_B.numpy(), bins=self.calibration_bins)
        return {**metrics, **self.calibration.metrics()}

    def _note_beliefs(self, differences_B: Tensor, chosen_prob_B: Tensor) -> None:
        """Log how a training batch agrees with its labels; keep an evaluation batch, which is judged with the rest."""
        gathered = self.accelerator.gather_for_metrics((differences_B.detach().float(), chosen_prob_B.float()))
        beliefs, labels = (part.cpu() for part in gathered)
        if not self.model.training:
            self._evaluated.append((beliefs, labels))
        elif bool((labels != 0.5).any()):
            self._metrics["train"]["agreement"].append(calibrate(beliefs.numpy(), labels.numpy()).agreement)


class SoftLabelCollator:
    """Adds columns of numbers to the batch that another collator makes.

    Args:
        collate: Makes the batch of everything else.
        columns: What to add, as float tensors of shape (B,), where the rows have it.
    """

    def __init__(self, collate: Callable[[list[dict[str, Any]]], dict[str, Any]], columns: Sequence[str]) -> None:
        self.collate = collate
        self.columns = columns

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        present = [column for column in self.columns if column in rows[0]]
        numbers = {column: torch.tensor([row[column] for row in rows], dtype=torch.float) for column in present}
        return {**self.collate(rows), **numbers}


def without(batch: Mapping[str, Any], columns: Iterable[str]) -> dict[str, Any]:
    """The batch without some of its columns."""
    dropped = set(columns)
    return {name: value for name, value in batch.items() if name not in dropped}


def column_or(batch: Mapping[str, Any], column: str, default: float, like_B: Tensor) -> Tensor:
    """A column of a batch on the device of ``like_B``, or ``default`` for each of its B pairs."""
    values_B: Tensor = batch[column] if column in batch else torch.full_like(like_B, default)
    return values_B.to(like_B)
