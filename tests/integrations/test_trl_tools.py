"""TRL's GRPO with tools and environments: turns reach the rewards, and what an environment says is one of them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

trl = pytest.importorskip("trl")

import numpy as np  # noqa: E402
import torch  # noqa: E402
from datasets import Dataset  # noqa: E402

from rlaif_sdk import Composer, Composition, RewardBatch, view  # noqa: E402
from rlaif_sdk.composer import Component  # noqa: E402
from rlaif_sdk.conversations import read  # noqa: E402
from rlaif_sdk.integrations.environments import COLUMN, EnvironmentReward, own_rewards  # noqa: E402
from tests.integrations.conftest import build_llama  # noqa: E402
from tests.tiny_models import byte_tokenizer  # noqa: E402

Script = Callable[[int, str], str]
"""What the policy says: of the place of a row in the batch, and of all that it has read."""


def call(name: str, **arguments: Any) -> str:
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


def add(a: int, b: int) -> int:
    """Add two numbers.

    Args:
        a: The first.
        b: The second.
    """
    return a + b


class Till:
    """Adds up what is bought; what a row is worth is what stands on its bill."""

    def reset(self, **_: Any) -> str:
        self.total = 0.0
        return " Your bill is empty."

    def buy(self, price: int) -> str:
        """Buy something.

        Args:
            price: What it costs.
        """
        self.total += price
        return f"{self.total:g} in all"

    def get_reward(self) -> float | None:
        if self.total > 90:
            raise OverflowError("the till is full")
        return self.total or None


class SlowTill(Till):
    """The same, where asking takes its time."""

    async def get_reward(self) -> float | None:  # type: ignore[override]
        return self.total or None


SETTINGS = {
    "per_device_train_batch_size": 4,
    "num_generations": 2,
    "max_completion_length": 400,
    "max_steps": 1,
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": [],
    "use_cpu": True,
    "bf16": False,
    "disable_tqdm": True,
    "dataloader_pin_memory": False,
    "chat_template_kwargs": {"enable_thinking": False},
}


class Scripted(trl.GRPOTrainer):  # type: ignore[misc, name-defined]
    """GRPO whose policy says what a script has it say; all else is TRL's own."""

    script: Script

    def _generate_single_turn(self, prompt_ids: Sequence[list[int]], *_: Any, **__: Any) -> Any:
        told = [self.processing_class.decode(ids) for ids in prompt_ids]
        said = [f"{self.script(row, text)}<|im_end|>" for row, text in enumerate(told)]
        return self.processing_class(said)["input_ids"], None


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """A step of GRPO on two prompts of two completions each, in which the policy follows a script."""
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")

    def made(reward_funcs: Any, script: Script, *, settings: Any = None, **options: Any) -> Any:
        prompts = [[{"role": "user", "content": f"Shop for {name}."}] for name in ("Ada", "Ben", "Cy", "Di")]
        trainer = Scripted(
            model=build_llama(vocab_size=300, max_position_embeddings=4096),
            reward_funcs=reward_funcs,
            args=trl.GRPOConfig(**{**SETTINGS, "output_dir": str(tmp_path / "run"), **(settings or {})}),
            train_dataset=Dataset.from_dict({"prompt": prompts}),
            processing_class=byte_tokenizer(),
            **options,
        )
        trainer.script = script
        trainer.train()
        return trainer

    return made


def prices(row: int, told: str) -> str:
    """The rows of a batch buy for 1, 2, 3 and not at all, and then say so."""
    if (
        told.rstrip().endswith("<|im_start|>assistant\n<think>\n\n</think>")
        and "<tool_response>" not in told
        and row < 3
    ):
        return call("buy", price=row + 1)
    return "Done."


def constant(completions: list[Any]) -> list[float]:
    return [0.5] * len(completions)


def test_tool_calls_and_results_are_turns(play: Callable[..., Any]) -> None:
    """A reward gets what was called, what came of it and what the policy said then; views leave out what it did not say."""
    seen: list[Composition] = []

    def script(row: int, told: str) -> str:
        return (
            f"It is {told.rpartition('<tool_response>')[2][:2].strip()}."
            if "<tool_resp" in told
            else call("add", a=row, b=2)
        )

    composer = Composer({"constant": constant}, observers=[seen.append])
    trainer = play(composer.for_trl(), script, tools=[add])
    (composition,) = seen
    turns = [read(completion) for completion in composition.batch.completions]
    assert [[turn.role for turn in row] for row in turns] == [["assistant", "tool", "assistant"]] * 4
    assert [json.loads(row[0].calls[0].arguments) for row in turns] == [{"a": row, "b": 2} for row in range(4)]
    assert [row[1].content for row in turns] == ["2", "3", "4", "5"]
    assert composition.batch.views("answer") == ("It is 2.", "It is 3.", "It is 4.", "It is 5.")
    assert all(row[0].calls[0].name == "add" for row in turns)
    assert trainer.state.log_history[0]["tools/call_frequency"] == 1.0


WRONG_CALLS = {
    '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b"\n</tool_call>': None,
    '<tool_call>\n{"arguments": {"a": 1}}\n</tool_call>': None,
    "<tool_call>\n[1, 2]\n</tool_call>": None,
    '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}': None,
    call("subtract", a=1, b=2): "{'error': 'Tool subtract not found.'}",
    call("add", a=1, c=2): "unexpected keyword argument",
    call("add", a=1, b="two"): "unsupported operand",
    call("add", a=1, b=2): "3",
}
"""What a policy may write, and the result of the call; None where it is none, for its JSON or its form."""


def test_a_call_that_goes_wrong_is_no_fault_of_the_run(play: Callable[..., Any]) -> None:
    """What is no call is the policy's words, as TRL has it; a call that cannot be made has the error for its result."""
    seen: list[Composition] = []

    def script(row: int, told: str) -> str:
        return "So." if "<tool_response>" in told else list(WRONG_CALLS)[row]

    composer = Composer({"constant": constant}, observers=[seen.append])
    play(composer.for_trl(), script, settings={"per_device_train_batch_size": 8}, tools=[add])
    batch = seen[0].batch
    assert not batch.unreadable
    for completion, (said, result) in zip(batch.completions, WRONG_CALLS.items(), strict=True):
        turns = read(completion)
        if result is None:
            assert [(turn.role, turn.content, turn.calls) for turn in turns] == [("assistant", said, ())]
        else:
            assert [turn.role for turn in turns] == ["assistant", "tool", "assistant"]
            assert len(turns[0].calls) == 1
            assert result in turns[1].content
            assert view(turns, "answer") == "So."


@pytest.mark.parametrize("environment", [Till, SlowTill])
def test_what_an_environment_says_is_a_reward_of_the_composition(play: Callable[..., Any], environment: type) -> None:
    """With a weight of its own, counted once, and abstaining where the environment says nothing."""
    seen: list[Composition] = []
    parts = {"environment": Component(EnvironmentReward(), weight=10.0), "constant": constant}
    composer = Composer(parts, observers=[seen.append])
    trainer = play(composer.for_trl(), prices, environment_factory=environment)
    (composition,) = seen
    assert composition.rewards["environment"].raw[:3].tolist() == [1.0, 2.0, 3.0]
    assert math.isnan(composition.rewards["environment"].raw[3])
    logged = trainer.state.log_history[0]
    assert logged["reward"] == pytest.approx(composition.totals.mean())
    assert logged[f"rewards/{environment.__name__}/mean"] == 2.0
    assert all(view(prompt, "transcript").endswith(". Your bill is empty.") for prompt in composition.batch.prompts)


def test_a_composition_without_it_leaves_the_environment_s_reward_to_trl(play: Callable[..., Any]) -> None:
    """TRL adds it to the total with the weight 1, as it does without us."""
    composer = Composer({"constant": constant})
    trainer = play(composer.for_trl(), prices, environment_factory=Till)
    assert trainer.state.log_history[0]["reward"] == pytest.approx((1.5 + 2.5 + 3.5 + 0.5) / 4)


def test_an_environment_that_fails_leaves_its_row_unscored(play: Callable[..., Any]) -> None:
    """Also for TRL, which would count a row that is None here and 91 there."""
    seen: list[Composition] = []
    composer = Composer({"environment": EnvironmentReward()}, observers=[seen.append])

    def script(row: int, told: str) -> str:
        return "Done." if "<tool_response>" in told else call("buy", price=91 if row == 1 else row + 1)

    trainer = play(composer.for_trl(), script, environment_factory=Till)
    (composition,) = seen
    assert composition.rewards["environment"].status(1) == "failed"
    assert "OverflowError: the till is full" in (composition.rewards["environment"].reason(1) or "")
    assert math.isnan(composition.totals[1])
    assert list(trainer._logs["advantages"])[1] == 0.0


def test_separate_rewards_count_it_once(play: Callable[..., Any]) -> None:
    """GDPO standardises the environment's reward among ours, and TRL's own column weighs nothing."""
    composer = Composer({"environment": Component(EnvironmentReward(), weight=2.0), "constant": constant})
    functions, weights = composer.for_trl(separate=True)
    settings = {"multi_objective_aggregation": "normalize_then_sum", "reward_weights": weights}
    trainer = play(functions, prices, settings=settings, environment_factory=Till)
    assert trainer.reward_weights.tolist() == [2.0, 1.0, 0.0]


def test_a_function_that_names_environments_gets_them(play: Callable[..., Any]) -> None:
    """As TRL's documentation has it: one for each completion, and of a reward's own rows only."""
    found: list[Any] = []

    def bills(completions: list[Any], environments: Any) -> list[float]:
        found.append(environments)
        return [each.total for each in environments]

    seen: list[Composition] = []
    parts = {"bills": bills, "late": Component(bills)}
    play(Composer(parts, observers=[seen.append]).for_trl(), prices, environment_factory=Till)
    assert seen[0].rewards["bills"].raw.tolist() == [1.0, 2.0, 3.0, 0.0]
    assert [len(row) for row in found] == [4, 4]
    batch = seen[0].batch.select([2, 0])
    assert [each.total for each in batch.trainer.environments] == [3.0, 1.0]  # type: ignore[union-attr]


def test_elsewhere_a_function_gets_no_environments() -> None:
    """None, as a reward that may run outside TRL tells it."""

    def told(completions: list[Any], environments: Any) -> list[float]:
        return [float(environments is None)] * len(completions)

    assert Composer({"told": told}).compose(RewardBatch(["p"], ["c"])).to_list() == [1.0]


def test_what_environments_say_is_a_number_nothing_or_why_not() -> None:
    """Whatever get_reward does, the other rows have theirs."""

    class Says:
        def __init__(self, value: Any) -> None:
            self.get_reward: Any = partial(self._said, value)

        def _said(self, value: Any) -> Any:
            if isinstance(value, Exception):
                raise value
            return value

    said = own_rewards([Says(2), Says(None), object(), Says(True), Says("3"), Says(ValueError("no")), Says([1])])
    assert said[:4] == [2.0, None, None, 1.0]
    assert said[4:] == [
        "the environment's get_reward returned '3', which is no number",
        "the environment's get_reward raised ValueError: no",
        "the environment's get_reward returned [1], which is no number",
    ]
    for several in (np.zeros(2), torch.zeros(2), 10**400):  # each can be asked for a float, and raises
        (problem,) = own_rewards([Says(several)])
        assert problem == f"the environment's get_reward returned {several!r:.60}, which is no number"
    assert own_rewards([Says(np.float32(2)), Says(torch.tensor(2))]) == [2.0, 2.0]


def test_a_table_may_hold_what_environments_said() -> None:
    """The column is one like others, so that recorded rollouts are scored again; without it the reward abstains."""
    batch = RewardBatch(["p"] * 3, ["c"] * 3, columns={COLUMN: [1.5, None, "the server was gone"]})
    with Composer.from_config({"rewards": {"environment": {}}}) as composer:
        column = composer.compose(batch).rewards["environment"]
        assert column.raw[0] == 1.5
        assert [column.status(row) for row in range(3)] == ["scored", "abstained", "failed"]
        assert composer.compose(RewardBatch(["p"], ["c"])).to_list() == [None]


def test_a_column_called_environments_is_refused() -> None:
    """A reward function gets something else under that name."""
    with pytest.raises(Exception, match="'environments' has a reserved name"):
        RewardBatch(["p"], ["c"], columns={"environments": [1]})
