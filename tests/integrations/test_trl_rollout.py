"""Scoring while TRL's GRPO generates the next completions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl")

from datasets import Dataset

from rlaif_sdk import BatchError, Composer, Composition, ConfigError, RewardError
from rlaif_sdk.composer import Component, FailurePolicy
from rlaif_sdk.composer.normalizers import ZScore
from rlaif_sdk.exceptions import TrainingError
from rlaif_sdk.integrations.trl import generate_as_trainer
from tests.integrations.conftest import build_prompts


@pytest.fixture(autouse=True)
def _silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """TRL warns that ``rollout_func`` is experimental."""
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")


@pytest.fixture
def seen() -> list[Composition]:
    """The compositions that were made."""
    return []


def wanted_words(completions: list[str], wanted: list[str]) -> list[float]:
    return [float(text.split().count(word)) for text, word in zip(completions, wanted, strict=True)]


def length(completions: list[str]) -> list[float]:
    return [float(len(text.split())) for text in completions]


def build(seen: list[Composition], **rewards: Any) -> Composer:
    """Two rewards, one of which learns the scale of its scores."""
    parts = {"wanted": wanted_words, "length": Component(length, weight=-0.1, normalizer=ZScore()), **rewards}
    return Composer(parts, observers=[seen.append])


@pytest.mark.parametrize(
    ("micro_batch", "sampling"),
    [(1, {"top_k": 1}), *(pytest.param(rows, {}, marks=pytest.mark.slow) for rows in (2, 9))],
)
def test_the_run_is_the_one_without(
    make_trainer: Callable[..., Any], micro_batch: int, sampling: dict[str, Any]
) -> None:
    """Where chance does not differ, greedily or with the whole batch at once: the same rewards and losses at each step."""
    logs = []
    for overlapped in (False, True):
        with Composer({"wanted": wanted_words, "length": Component(length, weight=-0.1)}) as composer:
            reward = composer.for_trl()
            rollout = reward.overlapped(micro_batch=micro_batch) if overlapped else None
            trainer = make_trainer("grpo", reward, rollout_func=rollout, **sampling)
            trainer.train()
        steps = [entry for entry in trainer.state.log_history if "reward" in entry]
        logs.append([entry[key] for entry in steps for key in ("reward", "loss", "grad_norm")])
    assert len(logs[0]) == 6
    assert logs[0] == pytest.approx(logs[1], rel=1e-4, abs=1e-6)


def test_totals_are_those_of_composing_the_completions(make_trainer: Callable[..., Any]) -> None:
    """What TRL gets for a batch is what composing it at once says, in the same order."""
    seen: list[Composition] = []
    with Composer({"wanted": wanted_words, "length": Component(length, weight=-0.1)}, observers=[seen.append]) as it:
        reward = it.for_trl()
        trainer = make_trainer("grpo", reward, rollout_func=reward.overlapped(), per_device_train_batch_size=16)
        given: list[list[float | None]] = []
        trainer.reward_funcs[0] = _recording(reward, given)
        trainer.train()
    batches = [composition.batch for composition in seen]
    assert [len(batch) for batch in batches] == [4] * 8
    again = Composer({"wanted": wanted_words, "length": Component(length, weight=-0.1)}).for_trl()
    for step, values in enumerate(given):
        four = batches[4 * step : 4 * step + 4]
        rows = {key: [value for batch in four for value in getattr(batch, key)] for key in ("prompts", "completions")}
        wanted = [value for batch in four for value in batch.columns["wanted"]]
        assert values == again(**rows, wanted=wanted)
        prompt = {row["prompt"]: row["wanted"] for row in build_prompts()}
        assert wanted == [prompt[text] for text in rows["prompts"]]


def _recording(reward: Any, given: list[list[float | None]]) -> Any:
    def composed_reward(**call: Any) -> list[float | None]:
        given.append(reward(**call))
        return given[-1]

    composed_reward.scoring = reward.scoring  # type: ignore[attr-defined]
    return composed_reward


def test_scoring_overlaps_with_generation(make_trainer: Callable[..., Any]) -> None:
    """Four micro-batches, 0.4 s to generate and 0.4 s to score each: 2.0 s rather than 3.2 s."""

    async def slow(completions: list[str]) -> list[float]:
        await asyncio.sleep(0.4)
        return length(completions)

    def generate(prompts: list[Any], trainer: Any) -> dict[str, Any]:
        begun = time.perf_counter()
        part = generate_as_trainer(prompts, trainer)
        time.sleep(max(0.0, 0.4 - (time.perf_counter() - begun)))
        return part

    with Composer({"slow": slow}) as composer:
        reward = composer.for_trl()
        rollout = reward.overlapped(generate=generate)
        begun: list[float] = []
        ended: list[float] = []

        def timed(prompts: list[Any], trainer: Any) -> dict[str, Any]:
            begun.append(time.perf_counter())
            return rollout(prompts, trainer)

        trainer = make_trainer(
            "grpo", reward, rollout_func=timed, per_device_train_batch_size=16, num_generations=4, max_steps=1
        )

        def composed_reward(**call: Any) -> list[float | None]:
            values = reward(**call)
            ended.append(time.perf_counter())
            return values

        composed_reward.scoring = reward.scoring  # type: ignore[attr-defined]
        trainer.reward_funcs[0] = composed_reward
        trainer.train()
    assert 1.9 < ended[0] - begun[0] < 2.9


def test_statistics_go_from_one_micro_batch_to_the_next(
    make_trainer: Callable[..., Any], seen: list[Composition], tmp_path: Path
) -> None:
    """In the order of the prompts, each row once; and a resumed run ends where the whole one does."""
    saving = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4}
    with build(seen) as whole, build([]) as rest:
        reward = whole.for_trl()
        make_trainer("grpo", reward, rollout_func=reward.overlapped(), **saving).train()
        alone = build([])
        for composition in list(seen):
            assert alone.compose(composition.batch).to_list() == composition.to_list()
        assert alone.state_dict() == whole.state_dict()
        (tmp_path / "run" / "checkpoint-2").rename(tmp_path / "kept")
        reward = rest.for_trl()
        trainer = make_trainer("grpo", reward, rollout_func=reward.overlapped(), **saving)
        trainer.train(resume_from_checkpoint=str(tmp_path / "kept"))
        assert rest.state_dict() == whole.state_dict()


def test_groups_are_never_cut(make_trainer: Callable[..., Any], seen: list[Composition]) -> None:
    """A micro-batch has all completions of its prompts; what is left over is the last one."""
    with build(seen) as composer:
        reward = composer.for_trl()
        trainer = make_trainer(
            "grpo", reward, rollout_func=reward.overlapped(micro_batch=3), per_device_train_batch_size=16, max_steps=1
        )
        trainer.train()
    assert [composition.batch.group for composition in seen] == [[0] * 4 + [1] * 4 + [2] * 4, [0] * 4]
    assert "reward/length/raw_mean" in trainer.state.log_history[0]


def test_separate_rewards_overlap_too(make_trainer: Callable[..., Any], seen: list[Composition]) -> None:
    """All functions of one composer return what one rollout began."""
    with Composer({"wanted": wanted_words, "length": length}, observers=[seen.append]) as composer:
        functions, weights = composer.for_trl(separate=True)
        make_trainer(
            "grpo",
            functions,
            rollout_func=functions[0].overlapped(),
            multi_objective_aggregation="normalize_then_sum",
            reward_weights=weights,
        ).train()
    assert len(seen) == 4


def test_evaluation_is_scored_as_without(make_trainer: Callable[..., Any], seen: list[Composition]) -> None:
    """Whole, and without learning; its prompts need not be in the training dataset."""
    rows = Dataset.from_dict({"prompt": ["w20 w3", "w21 w3"], "wanted": ["w3", "w3"]})
    with build(seen) as composer:
        reward = composer.for_trl()
        make_trainer("grpo", reward, rollout_func=reward.overlapped(), eval_dataset=rows).evaluate()
    assert [(len(composition), composition.batch.training) for composition in seen] == [(8, False)]


def test_a_conversation_s_columns_are_found(make_trainer: Callable[..., Any], seen: list[Composition]) -> None:
    """Prompts that are messages are looked up by content, and answered by an assistant."""
    rows = [([{"role": "user", "content": f"w{row} w{row + 1}"}], f"w{row}") for row in range(16)]
    dataset = Dataset.from_dict({"prompt": [prompt for prompt, _ in rows], "wanted": [word for _, word in rows]})

    def first_word(prompts: list[Any], completions: list[Any], wanted: list[str]) -> list[float]:
        assert all(completion[0]["role"] == "assistant" for completion in completions)
        return [float(prompt[0]["content"].split()[0] == word) for prompt, word in zip(prompts, wanted, strict=True)]

    with Composer({"first_word": first_word}, observers=[seen.append]) as composer:
        reward = composer.for_trl()
        trainer = make_trainer("grpo", reward, rollout_func=reward.overlapped(), train_dataset=dataset, max_steps=1)
        trainer.processing_class.chat_template = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
        trainer.train()
    assert [list(composition.totals) for composition in seen] == [[1.0] * 4] * 2


def test_an_error_surfaces_in_the_reward_s_call(make_trainer: Callable[..., Any], seen: list[Composition]) -> None:
    """A reward whose policy is to raise does so when TRL asks for its values."""

    def broken(completions: list[str]) -> list[float]:
        raise RuntimeError("no judge")

    with build(seen, broken=Component(broken, failure=FailurePolicy("raise"))) as composer:
        reward = composer.for_trl()
        rollouts: list[int] = []
        rollout = reward.overlapped()

        def counted(prompts: list[Any], trainer: Any) -> dict[str, Any]:
            part = rollout(prompts, trainer)
            rollouts.append(len(part["completion_ids"]))
            return part

        with pytest.raises(RewardError, match="broken"):
            make_trainer("grpo", reward, rollout_func=counted).train()
        assert rollouts == [8]


def test_a_failed_generation_leaves_nothing_under_way(
    make_trainer: Callable[..., Any], seen: list[Composition]
) -> None:
    """The next training scores its own completions."""
    calls: list[int] = []

    def flaky(prompts: list[Any], trainer: Any) -> dict[str, Any]:
        calls.append(len(prompts))
        if len(calls) == 2:
            raise OSError("out of memory")
        return generate_as_trainer(prompts, trainer)

    with build(seen) as composer:
        reward = composer.for_trl()
        trainer = make_trainer("grpo", reward, rollout_func=reward.overlapped(generate=flaky), max_steps=1)
        with pytest.raises(OSError, match="out of memory"):
            trainer.train()
        trainer.train()
    assert calls == [4] * 4


def test_other_completions_than_the_generated_are_refused(make_trainer: Callable[..., Any]) -> None:
    """No score goes to a text that was not scored."""
    with build([]) as composer:
        reward = composer.for_trl()
        trainer = make_trainer("grpo", reward, rollout_func=reward.overlapped(), max_steps=1)

        def composed_reward(*, completions: list[str], **call: Any) -> list[float | None]:
            return reward(completions=completions[::-1], **call)

        composed_reward.scoring = reward.scoring  # type: ignore[attr-defined]
        trainer.reward_funcs[0] = composed_reward
        with pytest.raises(TrainingError, match="other completions"):
            trainer.train()


def test_fields_of_a_rollout_are_columns(make_trainer: Callable[..., Any], seen: list[Composition]) -> None:
    """As in TRL: a value a row, or one for all."""

    def generate(prompts: list[Any], trainer: Any) -> dict[str, Any]:
        part = generate_as_trainer(prompts, trainer)
        return {**part, "turns": list(range(len(prompts))), "source": "local"}

    def turns_taken(turns: list[int], source: list[str]) -> list[float]:
        assert set(source) == {"local"}
        return [float(turn) for turn in turns]

    with build(seen, turns_taken=turns_taken) as composer:
        reward = composer.for_trl()
        make_trainer("grpo", reward, rollout_func=reward.overlapped(generate=generate), max_steps=1).train()
    assert [list(composition.batch.columns["turns"]) for composition in seen] == [[0, 1, 2, 3]] * 2


def test_a_prompt_with_two_answers_is_refused(make_trainer: Callable[..., Any]) -> None:
    """TRL tells a rollout the prompt alone; equal rows may repeat."""
    with build([]) as composer:
        reward = composer.for_trl()
        same = Dataset.from_dict({"prompt": ["w1"] * 8, "wanted": ["w2"] * 8})
        make_trainer("grpo", reward, rollout_func=reward.overlapped(), train_dataset=same, max_steps=1).train()
        torn = Dataset.from_dict({"prompt": ["w1"] * 8, "wanted": ["w2"] * 7 + ["w3"]})
        with pytest.raises(ConfigError, match="rows 1 and 8 have one prompt and differ in 'wanted'"):
            make_trainer("grpo", reward, rollout_func=reward.overlapped(), train_dataset=torn).train()


def test_what_changes_completions_later_is_refused(make_trainer: Callable[..., Any]) -> None:
    """Before anything is generated."""
    with build([]) as composer:
        reward = composer.for_trl()
        trainer = make_trainer("grpo", reward, rollout_func=reward.overlapped())
        trainer.processing_class.response_schema = {"type": "object"}
        with pytest.raises(ConfigError, match="parses responses"):
            trainer.train()
        with pytest.raises(ConfigError, match="at least 1 prompt"):
            reward.overlapped(micro_batch=0)


def test_a_missing_column_is_named(make_trainer: Callable[..., Any]) -> None:
    """As without."""
    with build([]) as composer:
        reward = composer.for_trl()
        rows = Dataset.from_dict({"prompt": ["w1", "w2"] * 4})
        with pytest.raises(BatchError, match="wanted"):
            make_trainer("grpo", reward, rollout_func=reward.overlapped(), train_dataset=rows).train()
