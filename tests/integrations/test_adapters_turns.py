"""One conversation with a tool, as each stack hands it over: the policy's words are the same, and the tool's never among them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from rlaif_sdk import Composer, RewardBatch
from rlaif_sdk.integrations import nemo_rl, skyrl, slime, swift, verifiers, verl
from tests.integrations.environment_calls import EnvironmentReturn, Rubric, Spoken, TaskData, TextEnv, Trace, verified
from tests.integrations.trainer_calls import (
    Settings,
    SlimeSample,
    VerlBase,
    verl_data,
    verl_settings,
    verl_tokenizer,
)

PAGE = "DAMN page that no policy wrote"
ASKED = [{"role": "user", "content": "About cats?"}]
CALL = {"id": "c1", "type": "function", "function": {"name": "search", "arguments": "{}"}}
SAID = [
    {"role": "assistant", "content": "I look.", "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c1", "content": PAGE},
    {"role": "assistant", "content": "Cats purr."},
]
RENDERED = [
    ("I look.<|im_end|>", 1),
    (f"\n<|im_start|>tool\n{PAGE}<|im_end|>\n<|im_start|>assistant\n", 0),
    ("Cats purr.<|im_end|>", 1),
]
"""The same as tokens have it, with a mask of what the policy wrote."""


def words(completion_texts: list[str]) -> list[float]:
    """How many words are the policy's."""
    return [float(len(text.split())) for text in completion_texts]


def turns(completions: list[Any]) -> list[float]:
    """How many turns there are."""
    return [float(len(completion)) for completion in completions]


def awaited(call: Any) -> Any:
    async def run() -> Any:
        return await call

    return asyncio.run(run())


def by_trl(composer: Composer) -> Any:
    (total,) = composer.for_trl()(prompts=[ASKED], completions=[SAID])
    return total


def by_swift(composer: Composer) -> Any:
    """It hands over the last answer alone as the completion; what stood before is in its messages."""
    (total,) = swift.orm(composer)()(["Cats purr."], messages=[[*ASKED, *SAID]])
    return total


def by_slime(composer: Composer) -> Any:
    tokenizer = verl_tokenizer()
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text, _ in RENDERED]
    sample: Any = SlimeSample(ASKED, "".join(text for text, _ in RENDERED), None)
    sample.tokens = [1, 2, *(token for part in ids for token in part)]
    sample.loss_mask = [by for part, (_, by) in zip(ids, RENDERED, strict=True) for _ in part]
    return awaited(slime.reward_model(composer)(SimpleNamespace(hf_checkpoint="policy"), sample))


def by_verl(composer: Composer) -> Any:
    data = verl_data(ASKED, "".join(text for text, _ in RENDERED), num_turns=4)
    settings: Settings = verl_settings()
    manager = verl.reward_manager(VerlBase, composer)(settings, verl_tokenizer())
    return awaited(manager.run_single(data))["reward_score"]


def by_nemo_gym(composer: Composer) -> Any:
    output = [
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I look."}]},
        {"type": "function_call", "name": "search", "arguments": "{}", "call_id": "c1"},
        {"type": "function_call_output", "call_id": "c1", "output": PAGE},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Cats purr."}]},
    ]
    body = {"responses_create_params": {"input": ASKED}, "response": {"output": output}}
    return verified(composer, [body])[0]["reward"]


def by_skyrl(composer: Composer) -> Any:
    class Search(TextEnv):
        def step(self, action: str) -> Any:
            self.turns += 1
            seen = [{"role": "user", "content": PAGE}] if self.turns == 1 else []
            return {"observations": seen, "reward": 0.0, "done": not seen, "metadata": {}}

    environment = skyrl.environment(composer, Search)()
    environment.init(ASKED)
    assert environment.step("I look.")["reward"] == 0.0
    return environment.step("Cats purr.")["reward"]


def by_verifiers_rubric(composer: Composer) -> Any:
    state: dict[str, Any] = {"prompt": ASKED, "completion": SAID, "input": {}}
    asyncio.run(verifiers.rubric(composer, Rubric).score_group([state]))
    return state["reward"]


def by_verifiers_task(composer: Composer) -> Any:
    call = {"id": "c1", "name": "search", "arguments": "{}"}
    trace = Trace(
        [
            (Spoken(role="user", content="About cats?"), False),
            (Spoken(role="assistant", content="I look.", tool_calls=[call]), True),
            (Spoken(role="tool", tool_call_id="c1", content=PAGE), False),
            (Spoken(role="assistant", content="Cats purr."), True),
        ]
    )
    return awaited(verifiers.task_reward(composer)(TaskData(prompt="About cats?", label="x"), trace))


WHOLE: dict[str, Callable[[Composer], Any]] = {
    "trl": by_trl,
    "slime": by_slime,
    "verl": by_verl,
    "nemo gym": by_nemo_gym,
    "skyrl": by_skyrl,
    "verifiers, a rubric": by_verifiers_rubric,
    "verifiers, a task": by_verifiers_task,
}
"""Stacks that hand over all that the policy said and was answered."""


def by_nemo_rl(composer: Composer) -> Any:
    """Its message log has no word for where the rollout began: the last message is the completion."""
    environment = nemo_rl.environment(composer, object, EnvironmentReturn)()
    log = [*ASKED, SAID[0], {"role": "environment", "content": PAGE}, SAID[2]]
    return environment.step([log], [None]).rewards.item()


@pytest.fixture(autouse=True)
def _tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slime, "_tokenizer", lambda _: verl_tokenizer())


@pytest.mark.parametrize("stack", WHOLE)
def test_all_turns_are_scored_and_each_word_is_its_speakers(stack: str) -> None:
    """The number is the composer's own for the conversation."""
    with Composer({"words": words}) as composer:
        batch = RewardBatch(prompts=[ASKED], completions=[SAID], training=False)
        assert WHOLE[stack](composer) == composer.compose(batch).totals[0] == 4.0
    with Composer({"turns": turns}) as composer:
        found = WHOLE[stack](composer)
    # A Responses item that is a call is a turn of its own.
    assert found == (4.0 if stack == "nemo gym" else 3.0)


@pytest.mark.parametrize("adapter", [by_swift, by_nemo_rl])
def test_where_the_last_answer_alone_is_the_completion_a_tools_page_is_none_of_it(
    adapter: Callable[[Composer], Any],
) -> None:
    """The turns before it are part of the prompt."""
    with Composer({"words": words}) as composer:
        assert adapter(composer) == 2.0
