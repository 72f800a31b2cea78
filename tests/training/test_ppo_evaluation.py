"""Evaluation on held-out prompts, and what is logged of completions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from datasets import Dataset  # noqa: E402
from transformers import TrainerCallback  # noqa: E402

from rlaif_sdk import RewardBatch  # noqa: E402
from rlaif_sdk.exceptions import ConfigError  # noqa: E402
from rlaif_sdk.training.ppo import PPOTrainer  # noqa: E402
from tests.training.ppo_runs import Recorder, by_length, by_rule, moved, state_of  # noqa: E402

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


def by_first_token(batch: RewardBatch) -> list[float | None]:
    return [float(ids[0]) for ids in batch.completion_ids or []]


def test_evaluation_may_have_rewards_of_its_own(make_trainer: Make, llama: Any, prompts: Dataset) -> None:
    """RewardHandle-out completions are scored by them alone, and training's by its own; the figures stay apart."""
    training, held_out = Recorder(by_length, "length"), Recorder(by_first_token, "first")
    trainer = make_trainer(
        llama,
        training,
        eval_reward_funcs=held_out,
        eval_dataset=prompts.select(range(4)),
        eval_strategy="steps",
        eval_steps=2,
        log_completions=True,
        max_steps=2,
    )
    trainer.train()
    assert [batch.training for batch in training.batches] == [True]
    assert [batch.training for batch in held_out.batches] == [False]
    logged = trainer.state.log_history
    assert "reward/length/raw_mean" in logged[0]
    (evaluated,) = [entry for entry in logged if "eval_reward" in entry]
    first = by_first_token(held_out.batches[0])
    assert evaluated["eval_reward"] == evaluated["eval_reward/first/raw_mean"] == pytest.approx(np.mean(first))
    assert not any("length/raw_mean" in key for key in evaluated)
    assert not any("first" in key for key in logged[0])


def test_rewards_of_evaluation_may_be_plain_functions(make_trainer: Make, llama: Any, prompts: Dataset) -> None:
    """As those of training may; two of one name are refused."""
    trainer = make_trainer(llama, eval_reward_funcs=[by_rule], eval_dataset=prompts.select(range(4)))
    assert trainer.evaluate()["eval_reward/by_rule/raw_mean"] > 0
    with pytest.raises(ConfigError, match="two rewards are named 'by_rule'"):
        make_trainer(llama, eval_reward_funcs=[by_rule, by_rule])


def samples_in(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_samples_of_every_rollout_are_kept_in_a_file(make_trainer: Make, llama: Any, prompts: Dataset) -> None:
    """Prompt, completion, every reward, total: of training and of evaluation, by step, without being asked for."""
    recorder = Recorder(by_length, "length")
    trainer = make_trainer(
        llama, recorder, eval_dataset=prompts.select(range(4)), eval_strategy="steps", eval_steps=2, log_samples=3
    )
    trainer.train()
    samples = samples_in(Path(trainer.args.output_dir, "rollouts.jsonl"))
    assert [(sample["step"], sample["split"]) for sample in samples] == [
        *[(0, "train")] * 3,
        *[(2, "eval")] * 3,
        *[(2, "train")] * 3,
        *[(4, "eval")] * 3,
    ]
    first, batch = samples[0], recorder.batches[0]
    ids = batch.completion_ids[0]
    assert (first["prompt"], first["completion"]) == (batch.prompts[0], batch.completions[0])
    assert first["total"] == len(ids) / 8
    values = dict.fromkeys(("raw", "normalized", "weighted"), len(ids) / 8)
    assert first["rewards"] == {"length": {**values, "status": "scored", "reason": None}}
    assert first["truncated"] == (ids[-1] != 1)
    assert first["kl"] == pytest.approx(0.0, abs=1e-4)


def test_the_file_of_samples_may_be_named_and_left_out(make_trainer: Make, llama: Any, tmp_path: Path) -> None:
    """``log_samples=0`` writes none; rows without a score have null."""
    file = tmp_path / "elsewhere" / "samples.jsonl"
    unscored = Recorder(lambda batch: [None] * len(batch))
    make_trainer(llama, unscored, samples_file=str(file), max_steps=1).train()
    assert [sample["total"] for sample in samples_in(file)] == [None] * 8
    trainer = make_trainer(llama, log_samples=0, max_steps=1)
    trainer.train()
    assert not Path(trainer.args.output_dir, "rollouts.jsonl").exists()


def test_a_resumed_run_replaces_the_samples_that_followed_its_checkpoint(
    make_trainer: Make, make_llama: Any, prompts: Dataset
) -> None:
    """Its file ends up as that of a run that was never interrupted, though a kill left half a line in it."""
    settings: dict[str, Any] = {"save_strategy": "steps", "save_steps": 2, "eval_strategy": "steps", "eval_steps": 2}
    settings |= {"eval_dataset": prompts.select(range(4)), "max_steps": 6, "log_samples": 2}
    whole = make_trainer(make_llama(), **settings)
    whole.train()
    file = Path(whole.args.output_dir, "rollouts.jsonl")
    expected = file.read_text()
    with file.open("a") as handle:
        handle.write('{"step": 6, "spl')
    resumed = make_trainer(make_llama(), **settings)
    resumed.train(resume_from_checkpoint=f"{whole.args.output_dir}/checkpoint-4")
    assert [(s["step"], s["split"]) for s in samples_in(file)] == [
        (s["step"], s["split"]) for s in map(json.loads, expected.splitlines())
    ]
    assert len(samples_in(file)) == 12


def test_any_callback_may_ask_for_samples(make_trainer: Make, llama: Any) -> None:
    """A method more on a callback of transformers; compositions of another kind give their raw scores."""
    seen: list[tuple[int, str, Any]] = []

    class Keeper(TrainerCallback):
        def on_samples(self, args: Any, state: Any, control: Any, *, split: str, samples: Any, **kwargs: Any) -> None:
            seen.append((state.global_step, split, samples))

    class Minimal:
        class Scored:
            totals = np.array([1.0, np.nan] * 4)
            rewards = MappingProxyType({"mine": SimpleNamespace(raw=totals)})

            def metrics(self) -> dict[str, float]:
                return {}

        def compose(self, batch: RewardBatch) -> Any:
            return self.Scored()

    make_trainer(llama, Minimal(), callbacks=[Keeper()], log_samples=2, max_steps=1).train()
    ((step, split, (first, second)),) = seen
    assert (step, split) == (0, "train")
    assert (first["total"], first["rewards"]) == (1.0, {"mine": {"raw": 1.0}})
    assert (second["total"], second["rewards"]) == (None, {"mine": {"raw": None}})
