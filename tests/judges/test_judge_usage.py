"""What judges take is counted, priced and kept within limits."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
import stamina
from hypothesis import given
from hypothesis import strategies as st

from rlaif_sdk import Composer, ConfigError, RewardBatch, load_judge
from rlaif_sdk.config import BudgetConfig
from rlaif_sdk.exceptions import BudgetExceededError, JudgeConnectionError, JudgeResponseError
from rlaif_sdk.judges import Prices, Usage
from rlaif_sdk.judges.backends import usage_of
from rlaif_sdk.judges.backends.openai import OpenAIBackend
from rlaif_sdk.judges.loading import load_backend

ASKED = [[{"role": "user", "content": "Rate this."}]]
usages = st.builds(
    Usage, *(st.integers(0, 1000) for _ in range(4)), st.one_of(st.none(), st.integers(0, 100).map(float))
)


def counted(body: dict[str, Any], asked: Any = 100, answered: Any = 3) -> dict[str, Any]:
    return {**body, "usage": {"prompt_tokens": asked, "completion_tokens": answered}}


@given(st.lists(usages))
def test_usages_add_up_and_survive_a_record(many: list[Usage]) -> None:
    """Every count is the sum; the cost is the sum of the known ones, and unknown when none is."""
    total = sum(many, Usage())
    for name in ("calls", "retries", "input_tokens", "output_tokens", "tokens"):
        assert getattr(total, name) == sum(getattr(usage, name) for usage in many)
    known = [usage.cost for usage in many if usage.cost is not None]
    assert total.cost == (sum(known) if known else None)
    assert Usage.of_record(total.record()) == total


def test_tokens_calls_retries_and_cost_are_counted(judge_server: Any, replies: Any) -> None:
    """A row knows its attempts, the tokens that the server counted, and their price."""
    good = (200, {}, counted(replies.letters({"J": -0.01})))
    judge_server.answer = lambda number, _: (503, {}, {}) if number < 2 else good
    backend = OpenAIBackend("tiny", judge_server.url, prices=Prices(input=2.0, output=10.0))
    with stamina.set_testing(True, attempts=3, cap=True):
        [reply] = asyncio.run(backend.label_logprobs(ASKED, list("ABCDEFGHIJ")))
    assert reply.usage == Usage(calls=3, retries=2, input_tokens=100, output_tokens=3, cost=pytest.approx(230e-6))


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (lambda r: counted(r.completion("J", logprobs=None)), JudgeResponseError),
        (lambda r: counted({"choices": []}), JudgeResponseError),
    ],
    ids=["text without a rating", "no choice"],
)
def test_what_a_useless_answer_cost_is_counted_too(judge_server: Any, replies: Any, body: Any, expected: Any) -> None:
    """A paid answer without a verdict is an unscored row with its usage."""
    judge_server.answer = lambda *_: (200, {}, body(replies))
    judge = load_judge(model="tiny", base_url=judge_server.url, mode="rating", input_price=1.0, output_price=1.0)
    [score] = asyncio.run(judge.score(RewardBatch(["Why?"], ["So."])))
    assert score.value is None
    assert score.details["usage"] == {
        "calls": 1, "retries": 0, "tokens": 103, "input_tokens": 100, "output_tokens": 3, "cost": pytest.approx(103e-6)
    }  # fmt: skip


def test_a_request_that_never_succeeds_has_its_attempts(judge_server: Any) -> None:
    """The error carries what was tried."""
    judge_server.answer = lambda *_: (500, {}, {})
    backend = OpenAIBackend("tiny", judge_server.url)
    with stamina.set_testing(True, attempts=3, cap=True):
        [error] = asyncio.run(backend.generate(ASKED, max_new_tokens=5))
    assert isinstance(error, JudgeConnectionError)
    assert usage_of(error) == Usage(calls=3, retries=2)


@pytest.mark.parametrize(
    "reported", [None, {}, {"prompt_tokens": "many"}, {"prompt_tokens": -5}, {"prompt_tokens": True}, 7]
)
def test_a_server_that_counts_nothing_costs_nothing(judge_server: Any, replies: Any, reported: Any) -> None:
    """Missing or malformed counts are zero, and the answer stands."""
    judge_server.answer = lambda *_: (200, {}, {**replies.completion("ok"), "usage": reported})
    [reply] = asyncio.run(OpenAIBackend("tiny", judge_server.url).generate(ASKED, max_new_tokens=5))
    assert (reply.text, reply.usage) == ("ok", Usage(calls=1))


def test_a_composition_budget_sees_what_a_judge_takes(judge_server: Any, replies: Any) -> None:
    """Tokens and cost reach the composer as any reward's do."""
    judge_server.answer = lambda *_: (200, {}, counted(replies.letters({"J": -0.01})))
    judge = load_judge(model="tiny", base_url=judge_server.url, input_price=5.0, output_price=5.0)
    batch = RewardBatch(["Why?"] * 2, ["So.", "Thus."])
    with Composer({"judge": judge}, budget=BudgetConfig(tokens=150)) as composer:
        assert composer.compose(batch).rewards["judge"].score(0).details["usage"]["tokens"] == 103
        with pytest.raises(BudgetExceededError, match="206 of 150 tokens"):
            composer.compose(batch)


def test_a_local_model_counts_its_own_tokens(tiny_chat: Any) -> None:
    """Prompt tokens as encoded, answer tokens up to the end of the answer."""
    from rlaif_sdk.judges.backends.local import TransformersBackend

    model, tokenizer = tiny_chat
    backend = TransformersBackend(model, tokenizer)
    length = len(tokenizer.apply_chat_template(ASKED[0], add_generation_prompt=True, return_dict=False))
    [labels] = asyncio.run(backend.label_logprobs(ASKED, ["A", "B"]))
    [text] = asyncio.run(backend.generate(ASKED, max_new_tokens=4))
    assert labels.usage == Usage(calls=1, input_tokens=length)
    assert text.usage == Usage(calls=1, input_tokens=length, output_tokens=4)


def test_requests_a_minute_are_kept(judge_server: Any, replies: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more requests than allowed are begun in any minute, retries included."""
    from rlaif_sdk.scoring import limits

    monkeypatch.setattr(limits, "MINUTE", 0.5)
    begun: list[float] = []

    def answer(number: int, _: Any) -> Any:
        begun.append(time.monotonic())
        return (503, {}, {}) if number == 0 else (200, {}, replies.letters({"J": -0.01}))

    judge_server.answer = answer
    backend = OpenAIBackend("tiny", judge_server.url, requests_per_minute=3)
    with stamina.set_testing(True, attempts=3, cap=True):
        asyncio.run(backend.label_logprobs(ASKED * 7, list("ABCDEFGHIJ")))
    assert len(begun) == 8
    begun.sort()
    assert all(later - earlier > 0.4 for earlier, later in zip(begun, begun[3:], strict=False))


def test_tokens_a_minute_are_kept_as_the_server_counts_them(
    judge_server: Any, replies: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the first answer requests are known to take 100 tokens, so a limit of 250 lets two through a minute."""
    from rlaif_sdk.scoring import limits

    monkeypatch.setattr(limits, "MINUTE", 0.5)
    judge_server.answer = lambda *_: (200, {}, counted(replies.letters({"J": -0.01}), 97, 3))
    backend = OpenAIBackend("tiny", judge_server.url, tokens_per_minute=250, concurrency=1)
    asyncio.run(backend.label_logprobs(ASKED, list("ABCDEFGHIJ")))
    started = time.monotonic()
    asyncio.run(backend.label_logprobs(ASKED * 4, list("ABCDEFGHIJ")))
    assert time.monotonic() - started > 0.8


def test_newer_models_get_the_field_that_they_take(judge_server: Any, replies: Any) -> None:
    """max_completion_tokens stands in the place of max_tokens, for labels and for text."""
    judge_server.answer = lambda *_: (200, {}, replies.letters({"J": -0.01}))
    backend = load_backend(
        None, {"model": "tiny", "base_url": judge_server.url, "limit_field": "max_completion_tokens"}
    )
    asyncio.run(backend.label_logprobs(ASKED, list("ABCDEFGHIJ")))
    asyncio.run(backend.generate(ASKED, max_new_tokens=9))
    assert [request["max_completion_tokens"] for request in judge_server.requests] == [1, 9]
    assert not any("max_tokens" in request for request in judge_server.requests)


@pytest.mark.parametrize(
    "prices", [{"input_price": 1.0}, {"output_price": 1.0}, {"input_price": -1, "output_price": 1}]
)
def test_half_a_price_list_is_refused(prices: dict[str, float]) -> None:
    """A cost that leaves out one side would be wrong in silence."""
    with pytest.raises(ConfigError, match="price"):
        load_backend(None, {"model": "m", "base_url": "http://h/v1", **prices})
