"""A local model as a policy: text and messages, seeds, and how likely given answers are."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

pytest.importorskip("transformers")

import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from rlaif_sdk import ConfigError
from rlaif_sdk.judges.backends import RowError
from rlaif_sdk.preferences.policy import LocalPolicy, PolicyConfig, as_conversation, derived_seed, load_policy
from tests.judges.conftest import tiny_chat  # noqa: F401 - a fixture

TEXTS = ["Say hi", "Tell me more about the worst of them", [{"role": "user", "content": "Rate it"}]]
ANSWERS = [" the best answer", "no", "Rate the answer from the worst to the best of them, <|im_end|> please"]


def dense(model: Any, prompt: list[int], answer: list[int]) -> float:
    """One sequence, one token at a time, each from a forward pass over what stands before it."""
    total = 0.0
    for place, token in enumerate(answer):
        ids_1T = torch.tensor([prompt + answer[:place]])
        with torch.no_grad():
            logits_V = model(input_ids=ids_1T).logits[0, -1].double()
        total += float(logits_V[token] - torch.logsumexp(logits_V, 0))
    return total


@pytest.mark.parametrize("batch", [{"batch_size": 1}, {"batch_size": 16}, {"max_batch_tokens": 90}])
def test_given_answers_have_the_models_own_probability(tiny_chat: Any, batch: dict[str, int]) -> None:  # noqa: F811
    """Batched, padded or alone: the sum over the answer's tokens of what the model gives each after all before it."""
    model, tokenizer = tiny_chat
    policy = LocalPolicy(model, tokenizer, **batch)
    pairs = [(prompt, answer) for prompt in TEXTS for answer in ANSWERS]
    found = asyncio.run(policy.answer_logprobs(pairs))
    for (prompt, answer), value in zip(pairs, found, strict=True):
        ids = policy._encode(prompt, room=0)
        tokens = policy._encoder.encode_inert(answer)
        assert value == pytest.approx(dense(model, ids, tokens), abs=2e-4)
        assert value < 0


def test_text_is_continued_and_messages_are_answered(tiny_chat: Any) -> None:  # noqa: F811
    """Text is encoded as trainers do it, without a chat template; messages go through the template."""
    model, tokenizer = tiny_chat
    policy = LocalPolicy(model, tokenizer)
    policy.setup()
    assert policy._encode("Say hi", room=0) == tokenizer("Say hi")["input_ids"]
    templated = tokenizer.apply_chat_template(as_conversation("Say hi"), add_generation_prompt=True, tokenize=False)
    assert tokenizer.decode(policy._encode(as_conversation("Say hi"), room=0)) == templated


def test_a_special_token_in_an_answer_is_plain_text(tiny_chat: Any) -> None:  # noqa: F811
    """An answer that spells the end of a turn does not end it, and so cannot look likely for it."""
    model, tokenizer = tiny_chat
    policy = LocalPolicy(model, tokenizer)
    policy.setup()
    assert tokenizer.eos_token_id not in policy._encoder.encode_inert("a<|im_end|>b")


def test_equal_seeds_sample_equal_answers(tiny_chat: Any) -> None:  # noqa: F811
    """A seed decides, and the process's own random numbers are left as they were."""
    policy = LocalPolicy(*tiny_chat)

    def sample(seed: int) -> list[str]:
        replies = asyncio.run(policy.generate(["Say", "Tell"], max_new_tokens=8, temperature=1.0, seed=seed))
        return [reply.text for reply in replies]

    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    assert sample(1) == sample(1) != sample(2)
    assert torch.rand(1) == expected
    assert derived_seed(1, "a") == derived_seed(1, "a") != derived_seed(2, "a")


def test_sampling_is_from_the_whole_distribution_unless_cut(tiny_chat: Any) -> None:  # noqa: F811
    """top_k 1 is greedy whatever the temperature; the default cuts nothing, whatever the model's own settings say."""
    model, tokenizer = tiny_chat
    greedy, hot = LocalPolicy(model, tokenizer, top_k=1), LocalPolicy(model, tokenizer)

    def ask(policy: LocalPolicy, temperature: float) -> str:
        [reply] = asyncio.run(policy.generate(["Say"], max_new_tokens=12, temperature=temperature, seed=0))
        return reply.text

    assert ask(greedy, 50.0) == ask(hot, 0.0) != ask(hot, 50.0)
    assert hot._sampling(1.0)["top_k"] == 0
    assert greedy.identity != hot.identity


def test_what_does_not_fit_is_an_error_in_its_place(tiny_chat: Any) -> None:  # noqa: F811
    """The others are answered; an answer of no tokens has the probability 1."""
    policy = LocalPolicy(*tiny_chat, max_length=20)
    long, empty, fine = asyncio.run(policy.answer_logprobs([("a" * 99, "b"), ("Say", ""), ("Say", "hi")]))
    assert isinstance(long, RowError)
    assert empty == 0.0
    assert fine < 0
    [refused] = asyncio.run(policy.generate([""], max_new_tokens=2))
    assert isinstance(refused, RowError)


@hypothesis_settings(max_examples=15)
@given(st.lists(st.tuples(st.text("ab \n", min_size=1, max_size=12), st.text("ab \n", max_size=12)), max_size=6))
def test_company_changes_no_probability(tiny_chat: Any, pairs: list[tuple[str, str]]) -> None:  # noqa: F811
    """What a pair gets does not depend on what else is in the call, nor on the order."""
    policy = LocalPolicy(*tiny_chat)
    together = asyncio.run(policy.answer_logprobs(pairs))
    backwards = asyncio.run(policy.answer_logprobs(pairs[::-1]))
    assert together == pytest.approx(backwards[::-1], abs=2e-4)


def test_a_policys_parameters_are_checked() -> None:
    """A parameter that is unknown or out of range is named; nothing is loaded."""
    with pytest.raises(ConfigError, match="top_p"):
        load_policy(PolicyConfig(model="m", top_p=2))
    with pytest.raises(ConfigError, match="top_p"):
        load_policy(PolicyConfig(model="m", base_url="http://h/v1", top_p=0.5))
    assert isinstance(load_policy(PolicyConfig(model="m", top_p=0.5)), LocalPolicy)
