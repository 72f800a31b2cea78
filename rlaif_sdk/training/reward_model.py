"""Reward models trained on preferences whose label is a probability."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from tokenizers.processors import Sequence, TemplateProcessing
from torch import Tensor
from transformers import AutoTokenizer
from trl.trainer.reward_config import RewardConfig
from trl.trainer.reward_trainer import RewardTrainer

from rlaif_sdk.exceptions import ConfigError, TrainingError
from rlaif_sdk.training.data import CHOSEN_PROB, MARGIN
from rlaif_sdk.training.soft_labels import SoftLabelTrainer, column_or, soft_label_terms, without


class SoftRewardTrainer(SoftLabelTrainer, RewardTrainer):
    """`trl.RewardTrainer` that knows soft labels.

    A column ``chosen_prob`` in [0, 1] says how likely ``chosen`` is preferred; the loss is then the cross-entropy on the
    softmax of the two scores (Lee et al. 2023, arXiv:2309.00267): with r the scores and p the label,
    -p log s(r_c - r_r - margin) - (1 - p) log s(r_r - r_c + margin). Without the column, or with 1 in it, it is TRL's
    own. A column ``margin`` is taken from the difference of the scores, as TRL does.

    Evaluation reports, beside TRL's metrics, the calibration error, the agreement with the labels and the distance from
    them; `calibration` holds the reliability table.

    The arguments are those of `trl.RewardTrainer`.

    Raises:
        ConfigError: The settings smooth the labels.
        DataError: A row is refused; the message names it.
    """

    soft_columns = (CHOSEN_PROB,)

    def __init__(self, model: Any, args: RewardConfig | None = None, **options: Any) -> None:
        check_settings(args)
        super().__init__(model, args=args, **options)

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,  # noqa: FBT001, FBT002 - the base class's signature
        num_items_in_batch: Any = None,
    ) -> Any:
        """TRL's loss of a batch, and what the soft labels add to it."""
        hard = without(inputs, self.soft_columns)
        loss, outputs = super().compute_loss(  # type: ignore[no-untyped-call]
            model, hard, return_outputs=True, num_items_in_batch=num_items_in_batch
        )
        chosen_B, rejected_B = outputs.logits.squeeze(-1).chunk(2)
        differences_B: Tensor = chosen_B - rejected_B
        chosen_prob_B = column_or(inputs, CHOSEN_PROB, 1.0, differences_B)
        if CHOSEN_PROB in inputs:
            ahead_B = differences_B - column_or(inputs, MARGIN, 0.0, differences_B)
            loss = loss + torch.mean(soft_label_terms(ahead_B, chosen_prob_B))
        self._note_beliefs(differences_B, chosen_prob_B)
        return (loss, outputs) if return_outputs else loss

    def save_reward(self, folder: str | Path) -> None:
        """Save a reward that scores prompt and completion, one after the other, as the model was trained to.

        An adapter is merged. Texts were trained with an end-of-sequence token after them, so the saved tokenizer puts
        one after every text; messages were trained in the chat template, which the caller applies.

        Args:
            folder: Loads with plain ``AutoModelForSequenceClassification.from_pretrained``, and with
                `rlaif_sdk.load_classifier`.

        Raises:
            TrainingError: The tokenizer is of a kind that cannot be told to end its texts.
        """
        tokenizer: Any = copy.deepcopy(self.processing_class)
        rows: Any = self.train_dataset
        of_text = isinstance(next(iter(rows)).get("chosen"), str)
        model = self.accelerator.unwrap_model(self.model)
        if hasattr(model, "merge_and_unload"):
            model = model.merge_and_unload()
        model.save_pretrained(folder)
        if of_text:
            _end_texts(tokenizer)
        tokenizer.save_pretrained(folder)
        if of_text:
            _check_ends(self.processing_class, AutoTokenizer.from_pretrained(folder))


def check_settings(args: RewardConfig | None) -> None:
    """Refuse what a reward model's loss would ignore.

    Raises:
        ConfigError: It is set; ``key`` is its name.
    """
    if args is not None and args.label_smoothing_factor != 0:
        raise ConfigError(
            "label_smoothing_factor is of classes, which a reward model has none of",
            key="label_smoothing_factor",
            hint="soft labels take its place: chosen_prob = 1 - label_smoothing_factor",
        )


def _end_texts(tokenizer: Any) -> None:
    """Put the end-of-sequence token after whatever else the tokenizer adds to a text."""
    token = tokenizer.eos_token
    ending = TemplateProcessing(
        single=f"$A {token}", pair=f"$A $B {token}", special_tokens=[(token, tokenizer.eos_token_id)]
    )
    backend = tokenizer.backend_tokenizer
    present = backend.post_processor
    backend.post_processor = ending if present is None else Sequence([present, ending])


def _check_ends(trained: Any, saved: Any) -> None:
    if saved("a text").input_ids != trained(f"a text{trained.eos_token}").input_ids:
        raise TrainingError(
            "the saved tokenizer does not end a text as it ended in training",
            hint=f"put {trained.eos_token!r} after every text that is scored",
        )
