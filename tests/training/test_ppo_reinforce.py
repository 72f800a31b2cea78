"""REINFORCE with a learned baseline, by the same trainer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from rlaif_sdk.exceptions import ConfigError  # noqa: E402
from rlaif_sdk.training.ppo import PPOConfig, PPOTrainer  # noqa: E402
from tests.training.ppo_runs import Recorder, by_length, by_rule, moved, rollouts_of, state_of  # noqa: E402

Make = Callable[..., PPOTrainer]
ONE_STEP: dict[str, Any] = {"per_device_train_batch_size": 8, "steps_per_generation": 1, "temperature": 3.0}


def test_its_step_is_the_gradient_of_the_log_probabilities(make_trainer: Make, make_llama: Any) -> None:
    """On its own samples PPO's first step is the same one; the losses differ."""
    ended, losses = [], []
    for algorithm in ("ppo", "reinforce"):
        trainer = make_trainer(make_llama(), Recorder(by_length), algorithm=algorithm, max_steps=3, **ONE_STEP)
        trainer.train()
        ended.append(state_of(trainer.model))
        losses.append([entry["policy_loss"] for entry in rollouts_of(trainer)])
    torch.testing.assert_close(*ended, atol=1e-5, rtol=1e-4)
    assert losses[0] != pytest.approx(losses[1], abs=1e-3)


def test_its_baseline_is_learned(make_trainer: Make, llama: Any) -> None:
    """The value head moves, and its values are taken from the returns."""
    trainer = make_trainer(llama, by_rule, algorithm="reinforce", max_steps=2, normalize_advantages=False, **ONE_STEP)
    trainer.train()
    assert trainer.value_head.linear.weight.any()
    rollout = trainer._rollout
    assert rollout.old_values_BT.any()
    mask_BT = rollout.mask_BT.bool()
    torch.testing.assert_close(
        rollout.advantages_BT[mask_BT], (rollout.returns_BT - rollout.old_values_BT)[mask_BT], atol=1e-5, rtol=1e-4
    )


def test_without_reward_or_divergence_nothing_is_learnt(make_trainer: Make, llama: Any) -> None:
    """A reward of 0 throughout has no gradient."""
    trainer = make_trainer(
        llama, Recorder(lambda batch: [0.0] * len(batch)), algorithm="reinforce", kl_coef=0.0, **ONE_STEP
    )
    before = state_of(trainer.model)
    trainer.train()
    assert not moved(before, state_of(trainer.model))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_iterations": 2}, "num_iterations is 2, not 1"),
        ({"steps_per_generation": 2}, "steps_per_generation is 2, not 1"),
    ],
)
def test_a_rollout_is_learnt_from_once(settings: dict[str, Any], message: str) -> None:
    """A second step would be off its policy, and nothing corrects for that."""
    with pytest.raises(ConfigError, match=message):
        PPOConfig("unused", use_cpu=True, report_to=[], algorithm="reinforce", **settings)
    made = PPOConfig("unused", use_cpu=True, report_to=[], algorithm="reinforce", gradient_accumulation_steps=4)
    assert made.rollout_size == 32


def test_an_algorithm_of_another_name_is_refused() -> None:
    """With those that there are."""
    with pytest.raises(ConfigError, match="algorithm is one of ppo, reinforce, not 'a2c'"):
        PPOConfig("unused", use_cpu=True, report_to=[], algorithm="a2c")
