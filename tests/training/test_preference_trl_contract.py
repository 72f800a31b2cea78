"""What the trainers of preferences take from TRL and transformers beyond their public interfaces.

When one of these fails after an upgrade, read the changed method and adapt the trainers before moving the pin.
"""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import pytest

trl = pytest.importorskip("trl")

from packaging.version import Version  # noqa: E402
from transformers import Trainer  # noqa: E402
from trl.trainer.dpo_config import DPOConfig  # noqa: E402
from trl.trainer.dpo_trainer import DPOTrainer  # noqa: E402
from trl.trainer.reward_trainer import RewardTrainer  # noqa: E402


def test_the_version_is_the_one_that_was_read() -> None:
    """The methods below were read in this minor version."""
    assert Version(trl.__version__).release[:2] == (1, 16)


@pytest.mark.parametrize("trainer", [RewardTrainer, DPOTrainer])
def test_both_trainers_prepare_rows_and_choose_columns_as_they_did(trainer: Any) -> None:
    """Every data set goes through one method, before it is tokenized, and a list says which columns stay."""
    assert list(inspect.signature(trainer._prepare_dataset).parameters) == [
        "self",
        "dataset",
        "processing_class",
        "args",
        "dataset_name",
    ]
    holder = object.__new__(trainer)
    holder._signature_columns = None
    holder._is_vision_dataset = False
    trainer._set_signature_columns_if_needed(holder)
    assert {"chosen_ids", "rejected_ids"} <= set(holder._signature_columns)
    assert "chosen_prob" not in holder._signature_columns


def test_signatures_are_as_they_were() -> None:
    """Each method that is called or replaced takes what it took."""
    loss = ["self", "model", "inputs", "return_outputs", "num_items_in_batch"]
    assert list(inspect.signature(RewardTrainer.compute_loss).parameters) == loss
    assert list(inspect.signature(DPOTrainer.compute_loss).parameters) == loss
    assert list(inspect.signature(DPOTrainer.compute_ref_log_probs).parameters) == ["self", "model", "inputs"]
    assert list(inspect.signature(DPOTrainer.__init__).parameters)[:4] == ["self", "model", "ref_model", "args"]
    assert list(inspect.signature(Trainer.evaluation_loop).parameters) == [
        "self",
        "dataloader",
        "description",
        "prediction_loss_only",
        "ignore_keys",
        "metric_key_prefix",
    ]


def test_dpo_still_has_no_soft_label_and_no_margin() -> None:
    """If TRL learns them, its own way is the one to take."""
    assert not {"chosen_prob", "margin"} & set(inspect.getsource(DPOTrainer._compute_loss).split('"'))
    assert {field.name for field in dataclasses.fields(DPOConfig)} >= {
        "loss_type",
        "loss_weights",
        "f_divergence_type",
        "ld_alpha",
        "use_weighting",
        "label_smoothing",
        "precompute_ref_log_probs",
    }


def test_dpo_reads_what_the_soft_loss_sets_aside() -> None:
    """The variations of the loss that are refused, the router's loss that is added, and the reference, by these names."""
    source = inspect.getsource(DPOTrainer)
    for name in ("self.aux_loss_enabled", "self.router_aux_loss_coef", "self.precompute_ref_logps", "self.ref_model"):
        assert name in source, name
    assert "fused_lm_head=True).log_probs" in source
