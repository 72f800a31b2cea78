"""A composer as the reward function of TRL's experimental OnlineDPOTrainer."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("trl")

from rlaif_sdk import BatchError, Composer, Composition, ConfigError, Progress, RewardError, Score
from rlaif_sdk.composer import Component
from rlaif_sdk.composer.normalizers import GroupZScore, ZScore
from rlaif_sdk.exceptions import StateError, TrainingError
from rlaif_sdk.integrations.trl import STATE_KEY
from tests.integrations.conftest import build_llama, build_prompts, build_tokenizer, length, wanted_words


@pytest.fixture
def make_trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """OnlineDPOTrainer on a small Llama, four prompts a batch."""
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    from trl.experimental.online_dpo import OnlineDPOConfig, OnlineDPOTrainer

    def make(reward_funcs: Any, *, train_dataset: Any = None, **settings: Any) -> Any:
        defaults = {
            "output_dir": str(tmp_path / "run"),
            "per_device_train_batch_size": 4,
            "max_new_tokens": 6,
            "max_steps": 2,
            "logging_steps": 1,
            "save_strategy": "no",
            "learning_rate": 1e-3,
            "report_to": [],
            "use_cpu": True,
            "disable_tqdm": True,
            "dataloader_pin_memory": False,
            "bf16": False,
        }
        return OnlineDPOTrainer(
            model=build_llama(),
            reward_funcs=reward_funcs,
            args=OnlineDPOConfig(**{**defaults, **settings}),
            train_dataset=build_prompts() if train_dataset is None else train_dataset,
            processing_class=build_tokenizer(),
        )

    return make


def test_one_line_trains_on_the_totals(
    make_trainer: Callable[..., Any], composer: Composer, seen: list[Composition]
) -> None:
    """Each step's pairs are scored once, two completions to a prompt, and TRL's mean score is that of the totals."""
    trainer = make_trainer(composer.for_trl())
    trainer.train()
    logged = [entry["objective/scores"] for entry in trainer.state.log_history if "objective/scores" in entry]
    assert logged == pytest.approx([composition.totals.mean() for composition in seen], rel=1e-5)
    batches = [composition.batch for composition in seen]
    assert [batch.prompts[:4] == batch.prompts[4:] for batch in batches] == [True, True]
    assert [batch.group for batch in batches] == [[0, 1, 2, 3] * 2] * 2
    assert [batch.progress for batch in batches] == [Progress(0, 2), Progress(1, 2)]
    assert [batch.training for batch in batches] == [True, True]
    assert set(batches[0].columns) == {"wanted"}


def test_what_compares_the_completions_to_a_prompt_does(
    make_trainer: Callable[..., Any], seen: list[Composition]
) -> None:
    """TRL passes all first completions and then all second ones: a prompt's two are one above and one below."""

    def row(completions: list[str]) -> list[float]:
        return [float(index * index) for index in range(len(completions))]

    composer = Composer({"row": Component(row, normalizer=GroupZScore())}, observers=[seen.append])
    make_trainer(composer.for_trl(), max_steps=1).train()
    assert seen[0].totals.tolist() == pytest.approx([-1.0] * 4 + [1.0] * 4, abs=1e-2)


@pytest.mark.parametrize("nothing", [None, Score.failed("the judge was out")])
def test_an_unscored_completion_ends_the_run_before_it_counts_as_0(
    make_trainer: Callable[..., Any], nothing: Score | None
) -> None:
    """TRL would reject or choose a completion for a score that nobody gave; the error says how to go on."""

    def mostly(completions: list[str]) -> list[Any]:
        return [nothing, *(1.0 for _ in completions[1:])]

    trainer = make_trainer(Composer({"mostly": mostly}).for_trl())
    with pytest.raises(RewardError, match="completions are unscored, which online DPO would count as 0") as caught:
        trainer.train()
    assert "on_failure" in str(caught.value)
    assert trainer.state.global_step == 0


def test_running_statistics_are_in_its_checkpoints_and_come_back(
    make_trainer: Callable[..., Any], tmp_path: Path, composer: Composer
) -> None:
    """A checkpoint holds what was learned until then; resuming restores it, and refuses another composition's."""
    saving = {"save_strategy": "steps", "save_steps": 1, "max_steps": 2}
    make_trainer(composer.for_trl(), **saving).train()
    (tmp_path / "run" / "checkpoint-1").rename(tmp_path / "kept")
    saved = json.loads((tmp_path / "kept" / "trainer_state.json").read_text())["stateful_callbacks"][STATE_KEY]
    assert saved["attributes"]["rewards"]["length"]["state"]["count"] == 8

    rest = Composer({"wanted": wanted_words, "length": Component(length, weight=-0.1, normalizer=ZScore())})
    make_trainer(rest.for_trl(), **saving).train(resume_from_checkpoint=str(tmp_path / "kept"))
    assert rest.state_dict() == composer.state_dict()
    with pytest.raises(StateError):
        make_trainer(Composer({"length": length}).for_trl(), **saving).train(
            resume_from_checkpoint=str(tmp_path / "kept")
        )


def test_a_trainer_of_pairs_can_be_checked(make_trainer: Callable[..., Any], composer: Composer) -> None:
    """Columns of reserved names are refused before anything is generated; both completions are always together."""
    reward = composer.for_trl()
    reward.check(make_trainer(reward))
    rows = build_prompts().add_column("completion_ids", ["x"] * 16)
    with pytest.raises(BatchError, match="the column 'completion_ids' has a reserved name"):
        reward.check(make_trainer(reward, train_dataset=rows))


def test_separate_rewards_are_refused(make_trainer: Callable[..., Any], composer: Composer) -> None:
    """Online DPO adds rewards up as they are, where GDPO standardises each."""
    functions, weights = composer.for_trl(separate=True)
    with pytest.raises(ConfigError, match="for_trl\\(\\) as one function"):
        make_trainer(functions, reward_weights=weights).train()


def test_rows_that_are_no_pairs_are_refused(composer: Composer) -> None:
    """Whoever else passes a state and nothing to log with is not taken for online DPO."""
    state = SimpleNamespace(global_step=0, max_steps=2, stateful_callbacks={})
    for prompts in (["a", "a", "b", "b"], ["a", "b", "a"]):
        words = ["w1"] * len(prompts)
        with pytest.raises(TrainingError, match="not two completions' to each"):
            composer.for_trl()(prompts=prompts, completions=words, wanted=words, trainer_state=state)


def test_online_dpo_is_as_it_was_read(make_trainer: Callable[..., Any]) -> None:
    """No function to log with, the first completions before the second ones, None counted as 0, nothing evaluated."""
    from trl.experimental.online_dpo import OnlineDPOTrainer

    calls: list[dict[str, Any]] = []

    def spy(**passed: Any) -> list[float | None]:
        calls.append(passed)
        return [None] * len(passed["prompts"])

    trainer = make_trainer(spy, max_steps=1)
    trainer.train()
    assert set(calls[0]) == {"prompts", "completions", "completion_ids", "wanted", "trainer_state"}
    assert calls[0]["prompts"][:4] == calls[0]["prompts"][4:]
    assert calls[0]["trainer_state"] is trainer.state
    assert trainer.state.log_history[0]["objective/scores"] == 0.0
    assert not hasattr(trainer.args, "steps_per_generation")
    source = inspect.getsource(OnlineDPOTrainer)
    assert source.count("self._calculate_rewards_from_functions(") == 1
    assert "def prediction_step" not in source
