"""The price of divergence brings the policy back to its reference, whichever way it is paid."""

from __future__ import annotations

from collections.abc import Callable
from statistics import mean
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from transformers import PrinterCallback  # noqa: E402

from rlaif_sdk.training.ppo import PPOTrainer  # noqa: E402
from tests.training.ppo_runs import rollouts_of  # noqa: E402

WAYS: dict[str, dict[str, Any]] = {
    "k1": {},
    "k2": {"use_kl_loss": True},
    "k3": {"use_kl_loss": True, "kl_estimator": "k3"},
}


def indifferent(completions: list[str], **_: Any) -> list[float]:
    return [0.0] * len(completions)


def test_over_120_steps_the_divergence_falls(
    make_trainer: Callable[..., PPOTrainer], make_llama: Callable[..., Any]
) -> None:
    """A policy that is pushed away from its reference, and paid for nothing else, comes back to it.

    Where a term of the loss costs next to nothing it wanders about where it was pushed to.
    """

    def divergence(rollouts: int, **settings: Any) -> list[float]:
        trainer = make_trainer(
            make_llama(),
            indifferent,
            max_steps=rollouts,
            steps_per_generation=1,
            per_device_train_batch_size=16,
            learning_rate=3e-3,
            lr_scheduler_type="constant",
            log_samples=0,
            **settings,
        )
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for weight in trainer._policy.model.parameters():
                weight.add_(0.04 * torch.randn(weight.shape, generator=generator))
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        return [entry["kl"] for entry in rollouts_of(trainer)]

    unpaid = mean(divergence(40, kl_coef=1e-9, use_kl_loss=True))
    ends = {way: mean(divergence(120, kl_coef=1.0, **settings)[-20:]) / unpaid for way, settings in WAYS.items()}
    assert max(ends.values()) < 0.9, ends
