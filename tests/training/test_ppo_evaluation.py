"""Evaluation on held-out prompts, and what is logged of completions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from datasets import Dataset  # noqa: E402
from transformers import TrainerCallback  # noqa: E402

from rlaif_sdk.training.ppo import PPOTrainer  # noqa: E402
from tests.training.ppo_runs import Recorder, by_length, moved, state_of  # noqa: E402

Make = Callable[..., PPOTrainer]


def test_evaluation_samples_and_scores_without_training(make_trainer: Make, llama: Any, prompts: Dataset) -> None:
    """``evaluate`` reports every reward and the divergence under ``eval_``, marks its batches, moves nothing."""
    recorder = Recorder(by_length)
    trainer = make_trainer(llama, recorder, eval_dataset=prompts.select(range(6)), num_generations=2)
    before = state_of(trainer.model)
    metrics = trainer.evaluate()
    assert [len(batch) for batch in recorder.batches] == [4, 2]
    assert not any(batch.training for batch in recorder.batches)
    assert metrics["eval_reward"] == metrics["eval_reward/recorded/raw_mean"] > 0
    assert metrics["eval_kl"] == pytest.approx(0.0, abs=1e-4)
    assert not moved(before, trainer.model.state_dict())


def test_evaluation_between_steps_does_not_disturb_a_rollout(make_trainer: Make, llama: Any, prompts: Dataset) -> None:
    """Evaluating after every step leaves the number of training rollouts as it is."""
    recorder = Recorder(by_length)
    trainer = make_trainer(llama, recorder, eval_dataset=prompts.select(range(4)), eval_strategy="steps", eval_steps=1)
    trainer.train()
    assert sum(batch.training for batch in recorder.batches) == 2
    assert sum(not batch.training for batch in recorder.batches) == 4
    assert trainer.state.log_history[1]["eval_reward"] > 0


def test_callbacks_and_the_table_of_completions_work(
    make_trainer: Make, llama: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """transformers' callbacks see the logged figures; ``log_completions`` prints samples with their rewards."""
    logged: list[dict[str, float]] = []

    class Keeper(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            logged.append(logs)

    make_trainer(llama, callbacks=[Keeper()], log_completions=True, num_completions_to_print=2, max_steps=1).train()
    assert {"reward", "kl", "entropy", "value_loss", "policy_loss", "approx_kl"} <= logged[0].keys()
    assert "count_wanted" in capsys.readouterr().out
