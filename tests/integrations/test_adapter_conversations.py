"""What a stack hands over reaches rewards in canonical form: tool pages are never the policy's words."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import BaseModel

from rlaif_sdk import Composer, DataError, RewardBatch
from rlaif_sdk.conversations import plain_words
from rlaif_sdk.integrations import nemo_gym, nemo_rl, skyrl, slime, swift, verifiers, verl
from rlaif_sdk.integrations.samples import answer_of, completion_of, prompt_of
from tests.conversations.small_tokenizers import small_tokenizer
from tests.integrations.environment_calls import Spoken, TaskData, TextEnv, Trace
from tests.serving.loopback import serving

DATA = Path(os.environ.get("RLAIF_DATA", Path(__file__).parents[2].parent / "shared" / "data"))

PAGE = "DAMN page with many many words that no policy wrote"
CALL = {"type": "function_call", "name": "search", "arguments": '{"q": "cats"}', "call_id": "c1", "status": None}
RESULT = {"type": "function_call_output", "call_id": "c1", "output": PAGE}
SAID = {
    "type": "message",
    "role": "assistant",
    "content": [{"type": "output_text", "text": "Cats purr.", "annotations": []}],
}
THOUGHT = {
    "type": "reasoning",
    "summary": [{"type": "summary_text", "text": "I should search."}],
    "encrypted_content": None,
}
CHAT = [
    {
        "role": "assistant",
        "content": None,
        "refusal": None,
        "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "search", "arguments": '{"q": "cats"}'}}],
    },
    {"role": "tool", "tool_call_id": "c1", "content": PAGE, "name": None},
    {"role": "assistant", "content": "Cats purr.", "tool_calls": None},
]


def words(sample: Any) -> tuple[str, str]:
    """The prompt as text, and the policy's words."""
    batch = RewardBatch(prompts=[sample.prompt], completions=[sample.completion])
    return batch.prompt_texts[0], batch.completion_texts[0]


def gym(output: list[Any], **params: Any) -> Any:
    return nemo_gym.sample_of(
        {"responses_create_params": {"input": "About cats?", **params}, "response": {"output": output}, "label": "x"}
    )


class TestNeMoGym:
    """Items of OpenAI's Responses, null fields and all."""

    def test_calls_results_and_reasoning_are_not_the_policys_words(self) -> None:
        """The final message is, whatever stands before it."""
        sample = gym([THOUGHT, CALL, RESULT, SAID])
        assert words(sample) == ("About cats?", "Cats purr.")
        assert [message["role"] for message in sample.completion].count("tool") == 1
        assert sample.columns == {"label": "x"}

    def test_words_alone_are_text(self) -> None:
        """A reward that takes text takes such a completion as it is."""
        assert gym([SAID]).completion == "Cats purr."
        assert gym([]).completion == ""

    def test_a_call_alone_says_nothing(self) -> None:
        """It is no empty answer."""
        assert RewardBatch(prompts=["q"], completions=[gym([CALL]).completion]).views("assistant") == (None,)

    def test_instructions_are_the_systems(self) -> None:
        """They go before the input, whether it is text or items."""
        for asked in ("About cats?", [{"role": "user", "content": "About cats?", "type": "message"}]):
            prompt = gym([SAID], input=asked, instructions="Be brief.").prompt
            assert prompt == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "About cats?"}]
        assert gym([SAID], instructions=None).prompt == "About cats?"

    @pytest.mark.parametrize("name", ["single_tool_call", "session_state_mgmt", "tool_call_multireward"])
    def test_real_rollouts(self, name: str) -> None:
        """Of each, what the assistant's own messages say, and nothing of what tools gave."""
        file = DATA / "trajectories" / f"nemo_gym_example_{name}_rollouts.jsonl"
        if not file.exists():
            pytest.skip(f"needs {file}")
        for line in file.read_text(encoding="utf-8").splitlines():
            body = json.loads(line)
            _, said = words(nemo_gym.sample_of(body))
            output = body["response"]["output"]
            told = [item for item in output if item.get("type") == "message"]
            assert said == "\n\n".join("".join(part["text"] for part in item["content"]) for item in told)
            for item in output:
                if item.get("type") == "function_call_output" and len(item["output"]) > 20:
                    assert item["output"] not in said


class TestSlime:
    """A response is text; its loss mask tells who wrote what."""

    @pytest.fixture
    def tokenizer(self, monkeypatch: pytest.MonkeyPatch) -> Any:
        made = small_tokenizer("byte level")
        monkeypatch.setattr(slime, "_tokenizer", lambda folder: made)
        return made

    @staticmethod
    def sample(tokenizer: Any, *parts: tuple[str, int], **fields: Any) -> Any:
        ids = [tokenizer(text)["input_ids"] for text, _ in parts]
        return SimpleNamespace(
            prompt=[{"role": "user", "content": "About cats?", "name": None}],
            response="".join(text for text, _ in parts),
            tokens=[1, 2, 3, *(token for part in ids for token in part)],
            loss_mask=[written for part, (_, written) in zip(ids, parts, strict=True) for _ in part],
            metadata=None,
            label="x",
            **fields,
        )

    def test_what_the_policy_did_not_write_is_a_tools(self, tokenizer: Any) -> None:
        """Between its turns stands what a tool answered."""
        parts = [("Search cats<|im_end|>", 1), (f"<|im_start|>user\n{PAGE}", 0), ("Cats purr.<|im_end|>", 1)]
        sample = slime.sample_of(self.sample(tokenizer, *parts), SimpleNamespace(hf_checkpoint="policy"))
        assert words(sample) == ("About cats?", "Search cats\n\nCats purr.")
        assert PAGE in sample.completion[1]["content"]

    def test_without_others_words_it_is_text(self, tokenizer: Any) -> None:
        """A mask of ones, none at all, or one of zeros, as of a sample that is left out."""
        for written in (1, 0):
            sample = self.sample(tokenizer, ("Cats purr.<|im_end|>", written))
            assert slime.sample_of(sample).completion == "Cats purr."
            sample.loss_mask = None
            assert slime.sample_of(sample).completion == "Cats purr."

    def test_an_earlier_policys_words_are_the_policys(self, tokenizer: Any) -> None:
        """With partial rollouts the mask leaves out what is off policy."""
        sample = self.sample(tokenizer, ("Cats ", 0), ("purr.", 1))
        args = SimpleNamespace(mask_offpolicy_in_partial_rollout=True, hf_checkpoint="policy")
        assert slime.sample_of(sample, args).completion == "Cats purr."

    def test_without_a_tokenizer_nobody_guesses(self, tokenizer: Any) -> None:
        """The row is refused rather than scored with the tool's page."""
        with pytest.raises(DataError, match="cannot be told which"):
            slime.sample_of(self.sample(tokenizer, (PAGE, 0), ("Cats purr.", 1)), SimpleNamespace())


class Log(BaseModel):
    """A message that is an object."""

    role: str
    content: str | None = None
    tool_calls: list[Any] | None = None
    tool_call_id: str | None = None


class Array(list):  # type: ignore[type-arg]
    """As numpy's arrays of objects, which Parquet's rows hold through pandas."""

    def tolist(self) -> list[Any]:
        return list(self)


def test_verifiers_states_hold_messages_with_tools() -> None:
    """As mappings or objects, with null fields."""
    objects = [Log(**{name: message.get(name) for name in Log.model_fields}) for message in CHAT]
    for completion in (CHAT, objects):
        state = {"prompt": [{"role": "user", "content": "About cats?"}], "completion": completion, "answer": "x"}
        sample = verifiers._sample_of_state(state)
        assert words(sample) == ("About cats?", "Cats purr.")
        assert sample.completion[1] == {"role": "tool", "content": PAGE, "tool_call_id": "c1"}


class TestVerifiersTraces:
    """All of a trace's last branch is the completion, and who said what is the trace's to say."""

    @staticmethod
    def seen(trace: Trace) -> tuple[Any, Any]:
        rows: list[tuple[Any, Any]] = []

        def spy(prompts: list[Any], completions: list[Any]) -> list[float]:
            rows.extend(zip(prompts, completions, strict=True))
            return [1.0] * len(prompts)

        with Composer({"spy": spy}) as composer:
            asyncio.run(verifiers.task_reward(composer)(TaskData(prompt="About cats?", label="x"), trace))
        return rows[0]

    def test_calls_and_results_stand_between_the_policys_words(self) -> None:
        """In canonical form, with the prompt as it stood in the trace."""
        prompt, completion = self.seen(
            Trace(
                [
                    (Spoken(role="system", content="Be brief."), False),
                    (Spoken(role="user", content="About cats?"), False),
                    (
                        Spoken(role="assistant", tool_calls=[{"id": "c1", "name": "search", "arguments": "{}"}]),
                        True,
                    ),
                    (Spoken(role="tool", tool_call_id="c1", content=PAGE), False),
                    (Spoken(role="assistant", content="Cats purr."), True),
                ]
            )
        )
        assert [turn["role"] for turn in prompt] == ["system", "user"]
        assert [turn["role"] for turn in completion] == ["assistant", "tool", "assistant"]
        assert completion[0]["tool_calls"][0]["function"] == {"name": "search", "arguments": "{}"}
        assert RewardBatch([prompt], [completion]).completion_texts == ("Cats purr.",)

    def test_an_assistants_message_that_no_model_said_is_not_the_policys(self) -> None:
        """Role alone does not tell; the trace does."""
        _, completion = self.seen(
            Trace(
                [
                    (Spoken(role="user", content="About cats?"), False),
                    (Spoken(role="assistant", content="Cats purr."), True),
                    (Spoken(role="assistant", content=PAGE), False),
                ]
            )
        )
        assert RewardBatch([""], [completion]).completion_texts == ("Cats purr.",)

    def test_the_root_agents_reply_is_the_answer(self) -> None:
        """Where it stands in no branch, as a harness with agents of its own reports it."""
        asked = (Spoken(role="user", content="About cats?"), False)
        helper = (Spoken(role="assistant", content="Found."), True)
        _, completion = self.seen(Trace([asked, helper], root_reply="Cats purr."))
        assert RewardBatch([""], [completion]).views("answer") == ("Found.\n\nCats purr.",)
        prompt, completion = self.seen(Trace([], root_reply="Cats purr."))
        assert (prompt, completion) == ([{"role": "user", "content": "About cats?"}], "Cats purr.")


def test_nemo_rl_logs_hold_tensors_beside_messages() -> None:
    """The last message is the completion, in whatever shape its content is."""
    log = [
        {"role": "user", "content": [{"type": "text", "text": "About cats?"}], "token_ids": object()},
        {"role": "environment", "content": PAGE, "token_ids": object()},
        {"role": "assistant", "content": [{"type": "text", "text": "Cats purr."}], "token_ids": object()},
    ]
    sample = nemo_rl.sample_of(log, {"label": "x", "rlaif": {}})
    assert words(sample)[1] == "Cats purr."
    assert [message["role"] for message in sample.prompt] == ["user", "tool"]
    assert words(nemo_rl.sample_of([*log[:2], {**log[2], "content": "Cats purr."}], None))[1] == "Cats purr."


def test_verl_prompts_may_be_arrays() -> None:
    """And solutions may still have the token that ended them."""
    extra = {"prompt": Array([{"role": "user", "content": "About cats?", "name": None}]), "index": 3}
    sample = verl.sample_of("suite", "Cats purr.<|im_end|>", "x", extra, prompt_key="prompt")
    assert words(sample) == ("About cats?", "Cats purr.")
    assert sample.prompt == [{"role": "user", "content": "About cats?"}]


def test_skyrl_and_swift_prompts_lose_their_null_fields() -> None:
    """Chat histories as their data sets hold them."""
    asked = [{"role": "user", "content": "About cats?", "tool_calls": None}]
    seen: list[Any] = []

    def spy(prompts: list[Any], completions: list[Any]) -> list[float]:
        seen.extend(zip(prompts, completions, strict=True))
        return [1.0] * len(prompts)

    with Composer({"spy": spy}) as composer:
        made = skyrl.environment(composer, TextEnv)()
        made.init(asked)
        made.step("Cats purr.<|im_end|>")
    assert seen == [([{"role": "user", "content": "About cats?"}], "Cats purr.")]
    (sample,) = swift.samples_of(["Cats purr."], {"messages": [[*asked, CHAT[-1]]]})
    assert sample.prompt == [{"role": "user", "content": "About cats?"}]


def test_what_cannot_be_read_fails_its_row_alone() -> None:
    """An adapter raises nothing for it: the reward's failure says why."""
    for odd in ([42], [{"content": "no role"}], {"role": 3, "content": "x"}):
        completion = completion_of(odd)
        batch = RewardBatch(prompts=["q", "q"], completions=[completion, "fine"])
        assert list(batch.unreadable) == [0]
    assert prompt_of("plain") == "plain"


def test_messages_with_media_stay_whole() -> None:
    """A reward that looks at images needs them."""
    asked = [
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}, {"type": "text", "text": "?"}]}
    ]
    assert prompt_of(asked) == asked


def test_over_http_the_completion_alone_is_scored() -> None:
    """OpenRLHF's route and slime's take off what stands before and after it, as the adapters do."""
    prompt = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHi<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"

    def letters(completions: list[str]) -> list[float]:
        return [float(len(text)) for text in completions]

    with Composer({"letters": letters}) as composer, serving(composer) as server:
        queries = [f"<|endoftext|><|endoftext|>{prompt}Blue.<｜end▁of▁sentence｜>", f"<s>{prompt}Blue.<|end|>"]
        said = server.post("/get_reward", {"query": queries, "prompts": [prompt] * 2}).raise_for_status().json()
        assert said["rewards"] == [5.0, 5.0]
        assert server.post("/remote_rm", {"prompt": "p", "response": "Blue.<|im_end|>"}).json() == 5.0


def test_another_s_words_are_no_answer_of_the_policy() -> None:
    """However plain their message is."""
    asked = [{"role": "user", "content": "Why?"}]
    assert plain_words(asked) is None
    assert plain_words(asked, "user") == "Why?"
    assert answer_of(asked) != "Why?"
