"""OpenRLHF hands prompt and completion over as one text: the completion alone is scored, in the process and over HTTP."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlaif_sdk import Composer, DataError
from rlaif_sdk.integrations.openrlhf import completion_of, reward_function
from tests.serving.loopback import serving

CHAT = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
LLAMA = "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
TWICE = f"{CHAT}Hello.<|im_end|>\n{CHAT}"
"""A prompt whose end stands in it twice."""


@pytest.mark.parametrize(
    "before", ["", "<|endoftext|>" * 3, "<s>", "<|begin_of_text|>", "<pad><pad><bos>", "[PAD] [PAD] "]
)
@pytest.mark.parametrize("prompt", [CHAT, LLAMA, TWICE, f"<s>{CHAT}", "Name a colour. ", "x" * 500 + TWICE])
@pytest.mark.parametrize(
    "completion", ["Blue.", f"As in {CHAT}so", "", " \n Blue", "<|im_start|>user\nHi", "Name a colour. "]
)
def test_the_completion_alone_is_taken(before: str, prompt: str, completion: str) -> None:
    """Whatever stands before the prompt, and wherever its end occurs again."""
    assert completion_of(before + prompt + completion, prompt) == completion


@pytest.mark.parametrize("prompt", [CHAT, TWICE, f"<s>{TWICE}"])
def test_a_beginning_that_the_query_lacks_is_passed_over(prompt: str) -> None:
    """The prompt has its token for the beginning, and the query was decoded without it, or the other way round."""
    assert completion_of(f"{prompt.removeprefix('<s>')}Blue.<|im_end|>", prompt) == "Blue."
    assert completion_of(f"<s> {prompt.removeprefix('<s>')}Blue.", prompt) == "Blue."


@pytest.mark.parametrize("cut", [20, 60, 100, 130])
def test_a_prompt_that_was_cut_is_known_by_what_is_left(cut: int) -> None:
    """OpenRLHF cuts a long prompt at its beginning, perhaps within a character; its end may occur twice in the rest."""
    prompt = f"A long tale of Ämter and Bäume. {TWICE}"
    for before in ("", "<|endoftext|>", "\ufffd"):
        assert completion_of(f"{before}{prompt[cut - 20 :]}As in {CHAT}so", prompt) == f"As in {CHAT}so"


def test_white_space_that_decoding_changes_makes_no_difference() -> None:
    """Tokenizers put spaces after special tokens and take them from before commas."""
    assert (
        completion_of("<s> [INST] Hi, you [/INST] Blue , or green", "<s>[INST] Hi , you [/INST]") == " Blue , or green"
    )


def test_a_prompt_that_is_not_there_is_refused() -> None:
    """Nothing tells where the completion begins, and a guess would score the prompt."""
    with pytest.raises(DataError, match="does not begin with its prompt"):
        completion_of("something else entirely", CHAT)
    changed = "ﬁrst " + CHAT  # decoding changed it, and its end stands in the query twice
    with pytest.raises(DataError, match="does not begin with its prompt"):
        completion_of(f"first {CHAT}{CHAT}Blue", changed.replace("user", "USER", 1))


@settings(max_examples=200)
@given(
    prompt=st.text("ab \n<|>", max_size=30),
    completion=st.text("ab \n", max_size=30).filter(lambda text: ">" not in text),
)
def test_any_prompt_is_taken_off_exactly(prompt: str, completion: str) -> None:
    """The completion is what follows the prompt, to the character."""
    assert completion_of(prompt + completion, prompt) == completion


def test_the_reward_reads_the_completion_alone() -> None:
    """A length is that of the answer, not of the end tokens or of the prompt's second half."""

    def letters(completions: list[str]) -> list[float]:
        return [float(len(text)) for text in completions]

    with Composer({"letters": letters}) as composer:
        reward = reward_function(composer)
        queries = [f"<|endoftext|>{TWICE}Blue.<|im_end|>", f"{TWICE}Blue.<｜end▁of▁sentence｜>", f"{TWICE}Blue.<|end|>"]
        assert reward(queries, [TWICE] * 3, [None] * 3)["rewards"].tolist() == [5.0] * 3
        custom = reward_function(composer, end_tokens=["##END"])
        assert custom([f"{CHAT}Blue.##END<pad>"], [CHAT], [None])["rewards"].tolist() == [5.0]


def test_the_logs_have_the_same_finite_numbers_for_every_completion() -> None:
    """OpenRLHF batches them: a key that one completion lacks, or has no number for, ends the run. Here and over HTTP."""

    def picky(completions: list[str]) -> list[float | None]:
        return [None if "pass" in text else 2.0 for text in completions]

    def always(completions: list[str]) -> list[float]:
        return [1.0] * len(completions)

    texts = ["Name a colour. pass", "Name a colour. Blue."]
    names = ["picky", "always", "picky/missing", "always/missing", "unscored"]
    with Composer({"picky": picky, "always": always}) as composer, serving(composer) as server:
        here = [reward_function(composer)([text], ["Name a colour. "], ["x"])["extra_logs"] for text in texts]
        posted = [{"query": [text], "prompts": ["Name a colour. "], "labels": ["x"]} for text in texts]
        there = [server.post("/get_reward", body).raise_for_status().json()["extra_logs"] for body in posted]
    assert [list(logs) for logs in here] == [list(logs) for logs in there] == [names, names]
    told = [[values[0] for values in logs.values()] for logs in there]
    assert told == [[0.0, 1.0, 1.0, 0.0, 0.0], [2.0, 1.0, 0.0, 0.0, 0.0]]
    assert [[values.item() for values in logs.values()] for logs in here] == told
