"""The remote backend against a real server on the loopback address that misbehaves on purpose."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import html
import json
import math
import os
import re
import sys
import threading
import time
from collections.abc import Iterator
from email.utils import formatdate
from typing import Any
from urllib.parse import quote, unquote

import pytest
import stamina

from rlaif_sdk.exceptions import (
    ConfigError,
    JudgeAuthError,
    JudgeConnectionError,
    JudgeError,
    JudgeQuotaError,
    JudgeResponseError,
    MissingExtraError,
)
from rlaif_sdk.io.http import HttpError
from rlaif_sdk.judges import Pair, PairwiseLabeler, PairwisePrompt, Prices, probe
from rlaif_sdk.judges.backends.openai import OpenAIBackend

LETTERS = list("ABCDEFGHIJ")
ASKED = [[{"role": "user", "content": "Rate this."}]]
KEY = "sk-secret-0123456789"


@pytest.fixture(autouse=True)
def _no_waiting(request: pytest.FixtureRequest) -> Iterator[None]:
    if request.node.get_closest_marker("real_waits") or "real_waits" in request.node.name:
        yield
        return
    with stamina.set_testing(True, attempts=3, cap=True):
        yield


def backend_for(server: Any, **options: Any) -> OpenAIBackend:
    return OpenAIBackend("tiny", server.url, **options)


def label(server: Any, **options: Any) -> Any:
    return asyncio.run(backend_for(server, **options).label_logprobs(ASKED, LETTERS))[0]


def test_labels_are_read_from_the_first_tokens_alternatives(judge_server: Any, replies: Any) -> None:
    """The request asks for top log-probabilities of one token; surrounding space makes no other label."""
    judge_server.answer = lambda *_: (
        200,
        {},
        replies.letters({"A": math.log(0.5), " A": math.log(0.1), "B": math.log(0.3), "the": math.log(0.1)}),
    )
    result = asyncio.run(backend_for(judge_server).label_logprobs(ASKED, ["A", "B"]))[0]
    assert [math.exp(value) for value in result.logprobs] == pytest.approx([0.6, 0.3])
    assert result.bounded == ()
    sent = judge_server.requests[0]
    assert (sent["logprobs"], sent["top_logprobs"], sent["max_tokens"], sent["model"]) == (True, 20, 1, "tiny")


def test_a_label_beyond_the_reported_tokens_is_bounded_and_named(judge_server: Any, replies: Any) -> None:
    """Missing labels share what the reported tokens leave, and get no more than the least of these."""
    judge_server.answer = lambda *_: (200, {}, replies.letters({"A": math.log(0.9), "x": math.log(0.06)}))
    result = asyncio.run(backend_for(judge_server).label_logprobs(ASKED, ["A", "B", "C"]))[0]
    assert [math.exp(value) for value in result.logprobs] == pytest.approx([0.9, 0.02, 0.02])
    assert result.bounded == ("B", "C")
    judge_server.answer = lambda *_: (200, {}, replies.letters({"A": math.log(0.5), "x": math.log(0.01)}))
    result = asyncio.run(backend_for(judge_server).label_logprobs(ASKED, ["A", "B"]))[0]
    assert math.exp(result.logprobs[1]) == pytest.approx(0.01)


def test_no_label_among_the_reported_tokens_leaves_the_row_unscored(judge_server: Any, replies: Any) -> None:
    """A judge that begins with something else has given no verdict."""
    judge_server.answer = lambda *_: (200, {}, replies.letters({"The": -0.1, "<think>": -3.0}))
    result = label(judge_server)
    assert isinstance(result, JudgeResponseError)
    assert "'The'" in str(result)


@pytest.mark.parametrize("value", [math.nan, -math.inf, math.inf, -9999.0, 0.5, False, "-0.1", None, -(10**400)])
def test_a_log_probability_that_is_none_leaves_the_row_unscored(judge_server: Any, replies: Any, value: Any) -> None:
    """NaN, infinities, -9999 and what is no number are errors, never a score."""
    judge_server.answer = lambda *_: (200, {}, replies.letters({"A": value, "B": -0.2}))
    assert isinstance(label(judge_server), JudgeResponseError)


@pytest.mark.parametrize(
    ("tokens", "first"),
    [
        ([("1", 0.5), ("1", 0.3), ("2", 0.2)], 0.8),
        ([("1", 0.2), ("2", 0.1), ("2", 0.3), ("2", 0.4)], 0.2),
        ([("1", 0.25), ("1", 0.25), ("2", 0.25), ("2", 0.25)], 0.5),
        ([("1", 0.3), (" 1", 0.3), ("1", 0.3), ("2", 0.1)], 0.9),
    ],
)
def test_tokens_of_one_spelling_are_one_label(judge_server: Any, replies: Any, tokens: Any, first: float) -> None:
    """A vocabulary has several ids that print alike, and a server reports each: their probabilities add up."""
    reply = replies.letters({})
    reply["choices"][0]["logprobs"]["content"][0]["top_logprobs"] = [
        {"token": token, "logprob": math.log(probability)} for token, probability in tokens
    ]
    judge_server.answer = lambda *_: (200, {}, reply)
    [result] = asyncio.run(backend_for(judge_server).label_logprobs(ASKED, ["1", "2"]))
    assert math.exp(result.logprobs[0]) == pytest.approx(first)


@pytest.mark.parametrize(
    "shares", [{"A": 0.9, "B": 0.9}, {"A": 0.6, "B": 0.3, "C": 0.2}, {"A": 1.0, "x": 0.5}, {"A": 0.4, "y": 0.7}]
)
def test_probabilities_that_add_up_to_more_than_one_leave_the_row_unscored(
    judge_server: Any, replies: Any, shares: dict[str, float]
) -> None:
    """They are no probabilities, whether the surplus is a label's or not."""
    judge_server.answer = lambda *_: (200, {}, replies.letters({t: math.log(share) for t, share in shares.items()}))
    assert "add up to" in str(label(judge_server))


@pytest.mark.parametrize("name", ["prompt_tokens", "completion_tokens"])
@pytest.mark.parametrize("count", [10**400, 2**63])
def test_more_tokens_than_there_are_leave_the_row_unscored(
    judge_server: Any, replies: Any, name: str, count: int
) -> None:
    """Neither sums nor prices of them can be had, and what else the answer says is no better."""
    judge_server.answer = lambda *_: (200, {}, {**replies.letters({"J": -0.01}), "usage": {name: count}})
    assert isinstance(label(judge_server, prices=Prices(1.0, 1.0)), JudgeResponseError)


@pytest.mark.parametrize("begin", ["<think>", "The", "Okay", "**"])
def test_labels_that_are_noise_leave_the_row_unscored(judge_server: Any, replies: Any, begin: str) -> None:
    """A judge that begins by thinking, or with other words, has given no label, and the error says what to do."""
    tops = {begin: math.log(0.999), "1": math.log(4e-6), "2": math.log(1e-6)}
    judge_server.answer = lambda *_: (200, {}, replies.letters(tops))
    labeler = PairwiseLabeler(backend_for(judge_server))
    [found] = asyncio.run(labeler.label([Pair("p", "yes", "no")]))
    assert found.prob_1 is None
    assert "enable_thinking: false" in str(found.error)
    assert "mode: verdict" in str(found.error)
    assert asyncio.run(probe(backend_for(judge_server))).logprobs is False


@pytest.mark.parametrize("logprobs", [None, {}, {"content": None}, {"content": []}, {"content": [{"token": "J"}]}])
def test_missing_log_probabilities_are_a_hard_error(judge_server: Any, replies: Any, logprobs: Any) -> None:
    """A server that drops them without a word ends the call, and is asked no more."""
    judge_server.answer = lambda *_: (200, {}, replies.completion("J", logprobs=logprobs))
    with pytest.raises(JudgeError, match="gave none") as caught:
        label(judge_server)
    assert type(caught.value) is JudgeError
    assert len(judge_server.requests) == 1


def test_a_first_refusal_to_serve_is_retried_real_waits(judge_server: Any, replies: Any) -> None:
    """429 with Retry-After: waits that long, then succeeds."""
    good = (200, {}, replies.letters({"J": -0.01}))
    judge_server.answer = lambda number, _: (429, {"retry-after": "0.4"}, {}) if number == 0 else good
    started = time.monotonic()
    assert label(judge_server).logprobs[-1] == pytest.approx(-0.01)
    assert 0.4 <= time.monotonic() - started < 0.4 + 2.0
    assert len(judge_server.requests) == 2


def test_a_missing_library_is_missed_at_setup(judge_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the extra that brings it, and no request is begun."""
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with pytest.raises(MissingExtraError, match=r'pip install "rlaif-sdk\[openai\]"'):
        backend_for(judge_server).setup()
    assert not judge_server.requests


def test_a_date_to_retry_after_is_waited_for_real_waits(judge_server: Any, replies: Any) -> None:
    """Retry-After may be a date as well."""
    good = (200, {}, replies.letters({"J": -0.01}))
    date = formatdate(time.time() + 2, usegmt=True)
    judge_server.answer = lambda number, _: (429, {"retry-after": date}, {}) if number == 0 else good
    started = time.monotonic()
    assert label(judge_server).logprobs
    assert 0.5 < time.monotonic() - started < 5


def test_a_retry_after_of_an_hour_is_capped_then_a_typed_error_real_waits(judge_server: Any) -> None:
    """The wait is cut to max_retry_after, and after the last attempt the error is typed."""
    judge_server.answer = lambda *_: (429, {"retry-after": "3600"}, {})
    started = time.monotonic()
    assert isinstance(label(judge_server, attempts=2, max_retry_after=0.2), JudgeConnectionError)
    assert time.monotonic() - started < 5


def test_a_nonsense_retry_after_means_the_usual_wait_real_waits(judge_server: Any, replies: Any) -> None:
    """What is no number of seconds is ignored: each request is tried again after half a second at least, as usual."""
    nonsense = ["soon", "-5", "", "nan", "1e999", "٣"]
    seen: dict[str, list[float]] = {}

    def answer(_: int, sent: dict[str, Any]) -> Any:
        header = sent["messages"][0]["content"].removeprefix("Rate this: ")
        times = seen.setdefault(header, [])
        times.append(time.monotonic())
        if len(times) == 1:
            return 429, {"retry-after": header.encode().decode("latin-1")}, {}
        return 200, {}, replies.letters({"J": -0.01})

    judge_server.answer = answer
    requests = [[{"role": "user", "content": f"Rate this: {header}"}] for header in nonsense]
    found = asyncio.run(backend_for(judge_server).label_logprobs(requests, LETTERS))
    assert all(label.logprobs for label in found)
    assert set(seen) == set(nonsense)
    assert all(0.5 <= again - first < 30 for first, again in seen.values())


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_ends_at_once_and_is_not_told(
    judge_server: Any, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """No second attempt, and the key is nowhere in the error, though the server repeats it."""
    monkeypatch.setenv("TEST_JUDGE_KEY", KEY)
    judge_server.answer = lambda *_: (status, {}, {"error": {"message": f"Incorrect API key provided: {KEY}"}})
    with pytest.raises(JudgeAuthError) as caught:
        label(judge_server, api_key_env="TEST_JUDGE_KEY")
    assert len(judge_server.requests) == 1
    assert judge_server.headers[0]["authorization"] == f"Bearer {KEY}"
    assert "Incorrect API key" in str(caught.value)
    assert KEY not in repr(caught.value) + str(caught.value) + str(caught.value.__dict__)


def test_the_openai_key_of_the_environment_is_not_sent_elsewhere(
    judge_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server without api_key_env never sees OPENAI_API_KEY."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    label(judge_server)
    assert KEY not in str(judge_server.headers)


@pytest.mark.parametrize("value", [None, "", "two\nlines", "schlüssel"])
def test_a_missing_or_broken_key_is_named_before_any_request(
    judge_server: Any, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    """The error names the variable and not its value."""
    monkeypatch.delenv("TEST_JUDGE_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("TEST_JUDGE_KEY", value)
    with pytest.raises(JudgeAuthError, match="TEST_JUDGE_KEY") as caught:
        backend_for(judge_server, api_key_env="TEST_JUDGE_KEY").setup()
    assert not value or value not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "body"), [(429, {"error": {"code": "insufficient_quota", "message": "pay"}}), (402, {})]
)
def test_an_exhausted_account_is_not_retried(judge_server: Any, status: int, body: Any) -> None:
    """Quota ends the call, whatever Retry-After says."""
    judge_server.answer = lambda *_: (status, {"retry-after": "1"}, body)
    with pytest.raises(JudgeQuotaError):
        label(judge_server)
    assert len(judge_server.requests) == 1


def test_a_fatal_error_ends_the_other_requests(judge_server: Any) -> None:
    """A refused key among many requests leaves none running behind the error."""
    judge_server.answer = lambda *_: (401, {}, {})
    with pytest.raises(JudgeAuthError):
        asyncio.run(backend_for(judge_server, concurrency=2).label_logprobs(ASKED * 50, LETTERS))
    assert len(judge_server.requests) < 10


def test_an_unknown_model_ends_the_call(judge_server: Any) -> None:
    """404 concerns every row: it raises with the next step."""
    judge_server.answer = lambda *_: (404, {}, {"error": {"message": "no such model"}})
    with pytest.raises(JudgeError, match=r"no such model.*base_url"):
        label(judge_server)


def test_a_refused_request_fails_alone(judge_server: Any, replies: Any) -> None:
    """400 (a prompt too long, say) is that row's error, not retried; its neighbour is scored."""
    good = (200, {}, replies.letters({"J": -0.01}))
    judge_server.answer = lambda _, sent: (
        (400, {}, {"error": {"message": "too long"}}) if "bad" in str(sent["messages"]) else good
    )
    requests = [*ASKED, [{"role": "user", "content": "bad"}]]
    fine, bad = asyncio.run(backend_for(judge_server).label_logprobs(requests, LETTERS))
    assert fine.logprobs
    assert isinstance(bad, JudgeResponseError)
    assert len(judge_server.requests) == 2


@pytest.mark.parametrize(
    "reply",
    [
        {"error": {"code": 429, "message": "slow down"}},
        {"error": {"code": 502, "message": "bad gateway"}, "choices": []},
        {"error": {"code": "rate_limit_exceeded", "message": "slow down"}},
        {"error": "the model is overloaded"},
        {"choices": [{"message": {"content": "J"}, "error": {"code": 502, "message": "provider"}}]},
        {"choices": [{"message": {"content": "J"}, "finish_reason": "error"}]},
    ],
    ids=["429", "502", "words", "text", "choice", "finish"],
)
def test_a_failure_with_status_200_is_tried_again(judge_server: Any, replies: Any, reply: Any) -> None:
    """An error in the body or in the choice counts like its status, and text beside it is no answer."""
    good = replies.completion("ok")
    judge_server.answer = lambda number, _: (200, {}, reply if number == 0 else good)
    assert asyncio.run(backend_for(judge_server).generate(ASKED, max_new_tokens=5))[0].text == "ok"
    judge_server.answer = lambda *_: (200, {}, reply)
    [error] = asyncio.run(backend_for(judge_server).generate(ASKED, max_new_tokens=5))
    assert isinstance(error, JudgeConnectionError)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"code": "insufficient_quota", "message": "pay"}, JudgeQuotaError),
        ({"code": 402, "message": "more credits"}, JudgeQuotaError),
        ({"code": 429, "type": "insufficient_quota", "message": "pay"}, JudgeQuotaError),
        ({"code": 401, "message": "who?"}, JudgeAuthError),
        ({"type": "authentication_error", "message": "who?"}, JudgeAuthError),
        ({"code": 404, "message": "no such model"}, JudgeError),
    ],
)
def test_a_failure_with_status_200_that_will_not_pass_ends_the_call(judge_server: Any, error: Any, kind: Any) -> None:
    """An exhausted account, a refused key and a model that is not there are not asked again."""
    judge_server.answer = lambda *_: (200, {}, {"error": error})
    with pytest.raises(kind):
        label(judge_server)
    assert len(judge_server.requests) == 1


def test_an_error_that_is_null_is_none(judge_server: Any, replies: Any) -> None:
    """Some servers name the field in every answer."""
    reply = {**replies.completion("ok"), "error": None}
    reply["choices"][0]["error"] = None
    judge_server.answer = lambda *_: (200, {}, reply)
    assert asyncio.run(backend_for(judge_server).generate(ASKED, max_new_tokens=5))[0].text == "ok"


@pytest.mark.parametrize("field", ["temperature", "max_tokens", "logprobs", "top_logprobs"])
def test_any_default_can_be_left_out(judge_server: Any, replies: Any, field: str) -> None:
    """Null in `extra_body` takes a field out of the request, for servers that refuse it when it is there."""
    judge_server.answer = lambda *_: (200, {}, replies.letters({"J": -0.01}))
    assert label(judge_server, extra_body={field: None}).logprobs
    assert field not in judge_server.requests[0]
    assert "model" in judge_server.requests[0]


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "text", "text": "fi"}, {"type": "text", "text": "ne"}],
        [{"type": "output_text", "text": "fine"}],
        ["fi", "ne"],
        {"type": "text", "text": "fine"},
    ],
)
def test_content_in_blocks_is_read(judge_server: Any, replies: Any, content: Any) -> None:
    """A reply in any shape that conversations have is its text."""
    judge_server.answer = lambda *_: (200, {}, replies.completion(content))
    assert asyncio.run(backend_for(judge_server).generate(ASKED, max_new_tokens=5))[0].text == "fine"


@pytest.mark.parametrize("content", [None, "", []])
def test_a_limit_before_the_first_word_says_what_to_raise(judge_server: Any, replies: Any, content: Any) -> None:
    """A reasoning model that used up its tokens by thinking."""
    judge_server.answer = lambda *_: (200, {}, replies.completion(content, finish="length", reasoning_content="Hm"))
    [error] = asyncio.run(backend_for(judge_server).generate(ASKED, max_new_tokens=5))
    assert "raise max_new_tokens" in str(error)


def echoes(key: str) -> dict[str, tuple[dict[str, str], bytes]]:
    """A key as a server may repeat it, by the spelling."""
    said = f"who is {key}?"
    escaped = "".join(f"\\u{ord(letter):04x}" for letter in key)
    return {
        "solidus": ({}, json.dumps({"error": {"message": said}}).replace("/", "\\/").encode()),
        "escaped": ({}, f'{{"error": {{"message": "who is {escaped}?"}}}}'.encode()),
        "escaped twice": ({}, json.dumps({"error": {"message": f"who is {escaped}?"}}).encode()),
        "utf-16": ({}, json.dumps({"error": {"message": said}}).encode("utf-16")),
        "utf-16 without mark": ({}, said.encode("utf-16-le")),
        "percent": ({}, json.dumps({"detail": f"who is {quote(key, safe='')}?"}).encode()),
        "all percent": ({}, "".join(f"%{ord(letter):02X}" for letter in key).encode()),
        "html": ({"content-type": "text/html"}, f"<p>{key.replace('/', '&#47;')}</p>".encode()),
    }


@pytest.mark.parametrize("spelling", echoes(""))
@pytest.mark.parametrize("status", [400, 401, 503])
def test_a_key_is_told_in_no_spelling(
    judge_server: Any, monkeypatch: pytest.MonkeyPatch, spelling: str, status: int
) -> None:
    """Whatever escapes a server writes the key with, no error has it."""
    key = "sk/s3cret+0123456789=="
    monkeypatch.setenv("TEST_JUDGE_KEY", key)
    headers, body = echoes(key)[spelling]
    judge_server.answer = lambda *_: (status, headers, body)
    try:
        told = label(judge_server, api_key_env="TEST_JUDGE_KEY")
    except JudgeError as error:
        told = error
    plain = unquote(html.unescape(str(told).replace("\\/", "/").replace("\x00", "")))
    assert "[key]" in plain
    assert key not in plain
    assert "s3cret" not in re.sub(r"\\+u00(..)", lambda match: chr(int(match[1], 16)), plain)


@pytest.mark.parametrize("spelling", ["utf-16 without mark", "all percent", "html"])
def test_a_key_in_what_is_no_answer_is_not_told(
    judge_server: Any, monkeypatch: pytest.MonkeyPatch, spelling: str
) -> None:
    """A page where JSON was awaited is quoted, without the key."""
    key = "sk/s3cret+0123456789=="
    monkeypatch.setenv("TEST_JUDGE_KEY", key)
    judge_server.answer = lambda *_: (200, *echoes(key)[spelling])
    told = str(label(judge_server, api_key_env="TEST_JUDGE_KEY"))
    assert "no JSON" in told
    assert "[key]" in told


def test_a_key_within_an_answer_is_told_neither(
    judge_server: Any, replies: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a judge writes is kept in journals: its text, and the tokens that it begins with."""
    monkeypatch.setenv("TEST_JUDGE_KEY", KEY)
    body = json.dumps(replies.completion(f"it is {KEY}")).replace("secret", "\\u0073ecret")
    judge_server.answer = lambda *_: (200, {}, body.encode())
    backend = backend_for(judge_server, api_key_env="TEST_JUDGE_KEY")
    assert asyncio.run(backend.generate(ASKED, max_new_tokens=5))[0].text == "it is [key]"


def hang_up(handler: Any) -> None:
    handler.connection.shutdown(2)


def short_body(handler: Any) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{")


def garbage(handler: Any) -> None:
    handler.wfile.write(b"\x00\x01\x02 what?\r\n\r\n")


@pytest.mark.parametrize(
    "fault",
    [
        (200, {"content-type": "text/html"}, b"<html>Welcome to the captive portal</html>"),
        (200, {"content-type": "application/json"}, b'{"choices": [{"mess'),
        (200, {"content-type": "application/json"}, b"[" * 100_000),
        (200, {}, b'"text"'),
        (200, {"content-encoding": "gzip"}, b"no gzip"),
        (500, {}, b"oops"),
        (503, {}, {"error": "busy"}),
        hang_up,
        short_body,
        garbage,
    ],
    ids=["html", "truncated", "deep", "string", "gzip", "500", "503", "reset", "short", "garbage"],
)
def test_an_unusable_answer_is_retried_then_a_typed_error(judge_server: Any, replies: Any, fault: Any) -> None:
    """The next attempt succeeds; if it never does, the row has a JudgeConnectionError after all attempts."""
    good = (200, {}, replies.letters({"J": -0.01}))
    judge_server.answer = lambda number, _: fault if number == 0 else good
    assert label(judge_server).logprobs
    judge_server.answer = lambda *_: fault
    judge_server.requests.clear()
    assert isinstance(label(judge_server), JudgeConnectionError)
    assert len(judge_server.requests) == 3


def test_a_server_that_is_not_there_is_a_typed_error(judge_server: Any) -> None:
    """A refused connection is retried and named with the address."""
    judge_server.close()
    result = label(judge_server)
    assert isinstance(result, JudgeConnectionError)
    assert judge_server.url in str(result)


def test_a_server_that_hangs_is_asked_again_then_a_typed_error(judge_server: Any, replies: Any) -> None:
    """Nothing at all comes: the next attempt succeeds; if it never does, the row has an error after all attempts."""
    released = threading.Event()
    good = (200, {}, replies.letters({"J": -0.01}))
    judge_server.answer = lambda number, _: good if number else lambda _: released.wait(30)
    try:
        assert label(judge_server, timeout=0.5).logprobs
        judge_server.answer = lambda *_: lambda _: released.wait(30)
        judge_server.requests.clear()
        result = label(judge_server, timeout=0.5)
        assert isinstance(result, JudgeConnectionError)
        assert "no whole answer within 0.5 s" in str(result)
        assert len(judge_server.requests) == 3
    finally:
        released.set()


@pytest.mark.parametrize("stage", ["headers", "body"])
def test_a_body_that_drips_for_ever_meets_the_deadline(judge_server: Any, stage: str) -> None:
    """The time limit counts from connecting to the last byte, however often something arrives."""

    def drip(handler: Any) -> None:
        end = b"content-length: 100000\r\n\r\n" if stage == "body" else b"x-slow: "
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n" + end)
        for _ in range(100):
            time.sleep(0.05)
            handler.wfile.write(b" " if stage == "body" else b"a")
            handler.wfile.flush()

    judge_server.answer = lambda *_: drip
    started = time.monotonic()
    result = label(judge_server, timeout=0.3, attempts=1)
    assert isinstance(result, JudgeConnectionError)
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("status", [200, 400])
def test_an_endless_body_is_not_read(judge_server: Any, status: int) -> None:
    """A body of 200 MB costs a few chunks, with a good status and with a bad one."""
    written = []

    def flood(handler: Any) -> None:
        handler.wfile.write(f"HTTP/1.1 {status} X\r\ncontent-length: 200000000\r\n\r\n".encode())
        try:
            for _ in range(2000):
                handler.wfile.write(b" " * 100_000)
                written.append(1)
        except OSError:
            pass

    judge_server.answer = lambda *_: flood
    result = label(judge_server, max_body_bytes=1_000_000)
    assert isinstance(result, JudgeResponseError)
    assert len(written) < 200


@pytest.mark.parametrize(
    "reply",
    [
        {"choices": []},
        {"choices": [{"finish_reason": "stop"}]},
        {},
        {"choices": [{"message": {"content": None, "refusal": "I cannot."}, "finish_reason": "stop"}]},
        {"choices": [{"message": {"content": "J"}, "finish_reason": "content_filter"}]},
    ],
    ids=["empty", "no message", "nothing", "refusal", "filter"],
)
@pytest.mark.parametrize("method", ["label_logprobs", "generate"])
def test_an_answer_without_a_verdict_leaves_the_row_unscored(judge_server: Any, reply: Any, method: str) -> None:
    """Empty choices and refusals are errors of their row, and are not asked for again."""
    judge_server.answer = lambda *_: (200, {}, reply)
    backend = backend_for(judge_server)
    calls = {
        "label_logprobs": lambda: backend.label_logprobs(ASKED, LETTERS),
        "generate": lambda: backend.generate(ASKED, max_new_tokens=5),
    }
    assert isinstance(asyncio.run(calls[method]())[0], JudgeResponseError)
    assert len(judge_server.requests) == 1


def test_text_comes_back_with_whether_it_was_cut_off(judge_server: Any, replies: Any) -> None:
    """Generation gives the text, marks a cut, and takes null content for an error."""
    judge_server.answer = lambda number, _: (200, {}, replies.completion("ok", finish=["stop", "length"][number]))
    backend = backend_for(judge_server, concurrency=1)
    whole, cut = asyncio.run(backend.generate(ASKED * 2, max_new_tokens=7))
    assert (whole.text, whole.truncated, cut.truncated) == ("ok", False, True)
    assert judge_server.requests[0]["max_tokens"] == 7
    assert judge_server.requests[0]["temperature"] == 0
    judge_server.answer = lambda *_: (200, {}, replies.completion(None))
    assert isinstance(asyncio.run(backend.generate(ASKED, max_new_tokens=7))[0], JudgeResponseError)


def test_a_redirect_is_refused_and_the_key_stays(judge_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another origin is named in the error and sees no request."""
    monkeypatch.setenv("TEST_JUDGE_KEY", KEY)
    elsewhere = type(judge_server)()
    judge_server.answer = lambda *_: (307, {"location": f"{elsewhere.url}/chat?k={KEY}"}, b"")
    try:
        with pytest.raises(JudgeError, match="redirects") as caught:
            label(judge_server, api_key_env="TEST_JUDGE_KEY")
        assert elsewhere.url in str(caught.value)
        assert KEY not in str(caught.value)
        assert not elsewhere.requests
    finally:
        elsewhere.close()


@pytest.mark.filterwarnings("error")
def test_one_backend_serves_several_event_loops(judge_server: Any) -> None:
    """Each loop gets a client of its own, and no connection is left open when a loop ends."""
    backend = backend_for(judge_server)
    for _ in range(3):
        assert asyncio.run(backend.label_logprobs(ASKED, LETTERS))[0].logprobs
    gc.collect()


def test_as_many_connections_are_kept_as_requests_may_be_in_flight(judge_server: Any, replies: Any) -> None:
    """All requests that may be in flight are, beyond the 100 that HTTP clients stop at, and connections serve again."""
    backend = backend_for(judge_server, concurrency=120)
    all_here = threading.Barrier(120)

    def answer(*_: Any) -> tuple[int, dict[str, str], dict[str, Any]]:
        all_here.wait(20)
        return 200, {}, replies.letters({"J": -0.01})

    judge_server.answer = answer

    async def ask() -> None:
        for _ in range(2):
            assert all(label.logprobs for label in await backend.label_logprobs(ASKED * 120, LETTERS))

    asyncio.run(ask())
    assert len(judge_server.connections) == 240
    assert len(set(judge_server.connections)) == 120


def test_the_key_is_in_no_account_of_a_client(judge_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A traceback with local variables, say, shows clients as they show themselves."""
    monkeypatch.setenv("JUDGE_KEY", KEY)
    backend = backend_for(judge_server, api_key_env="JUDGE_KEY")

    async def shown() -> str:
        await backend.label_logprobs(ASKED, LETTERS)
        [(session, _)] = backend._client._open.values()
        assert any(KEY in value for value in session.http.headers.values())
        return f"{session!r} {session.http!r} {session.redactor!r} {backend._client!r}"

    assert KEY not in asyncio.run(shown())


def test_closing_closes_the_connections_of_a_loop_that_goes_on(judge_server: Any) -> None:
    """A loop in another thread, such as the composer's, keeps no connection after close, and may ask again."""
    backend = backend_for(judge_server)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        for _ in range(2):
            asked = asyncio.run_coroutine_threadsafe(backend.label_logprobs(ASKED, LETTERS), loop)
            assert asked.result(10)[0].logprobs
            [(session, _)] = backend._client._open.values()
            http = session.http
            backend.close()
            deadline = time.monotonic() + 10
            while not http.closed and time.monotonic() < deadline:
                time.sleep(0.01)
            assert http.closed
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.mark.parametrize("in_flight", [True, False], ids=["in_flight", "before_another_attempt"])
def test_a_request_that_outlives_its_judge_fails_like_one_without_answer_real_waits(
    judge_server: Any, in_flight: bool
) -> None:
    """Closed while it waits for another attempt, or for the answer: a typed error of its row, and no new connection."""
    asked, closed = threading.Event(), threading.Event()

    def answer(*_: Any) -> tuple[int, dict[str, str], dict[str, Any]]:
        asked.set()
        if in_flight:
            closed.wait(10)
        return 503, {"retry-after": "0.5"}, {}

    judge_server.answer = answer
    backend = backend_for(judge_server)

    async def ask() -> tuple[Any, Any]:
        asking = asyncio.ensure_future(backend.label_logprobs(ASKED, LETTERS))
        await asyncio.to_thread(asked.wait, 10)
        [(session, _)] = backend._client._open.values()
        await asyncio.sleep(0.1)
        backend.close()
        await asyncio.sleep(0.1)
        closed.set()
        return await asking, session

    [error], session = asyncio.run(ask())
    assert isinstance(error, JudgeConnectionError)
    assert "closed" in str(error)
    assert len(judge_server.requests) == 1
    with pytest.raises(HttpError, match="closed"):
        _ = session.http


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_client_is_made_anew_after_a_fork(judge_server: Any) -> None:
    """A child process does not use its parent's connections."""
    backend = backend_for(judge_server)

    async def parent() -> int:
        await backend.label_logprobs(ASKED, LETTERS)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                asyncio.events._set_running_loop(None)
                code = 0 if asyncio.run(backend.label_logprobs(ASKED, LETTERS))[0].logprobs else 2
            finally:
                os._exit(code)
        status = await asyncio.to_thread(os.waitpid, child, 0)
        assert (await backend.label_logprobs(ASKED, LETTERS))[0].logprobs
        return os.waitstatus_to_exitcode(status[1])

    assert asyncio.run(parent()) == 0


def test_no_more_requests_than_allowed_are_in_flight(judge_server: Any, replies: Any) -> None:
    """The limit holds, and the requests below it run together."""

    def slowly(*_: Any) -> Any:
        time.sleep(0.05)
        return (200, {}, replies.letters({"J": -0.01}))

    judge_server.answer = slowly
    asyncio.run(backend_for(judge_server, concurrency=8).label_logprobs(ASKED * 40, LETTERS))
    assert judge_server.greatest_in_flight == 8


def test_the_first_requests_travel_while_the_later_ones_are_written(replies: Any) -> None:
    """The first of many questions reaches the server before half of them have been made into requests."""
    answer = json.dumps(replies.letters({"J": -0.01})).encode()
    written: set[int] = set()
    written_at_arrival: list[int] = []
    handlers: list[Any] = []

    class Question(list[dict[str, str]]):
        def __iter__(self) -> Iterator[dict[str, str]]:
            written.add(id(self))
            return super().__iter__()

    async def answer_all(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handlers.append(asyncio.current_task())
        with contextlib.suppress(asyncio.IncompleteReadError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                await reader.readexactly(int(head.lower().partition(b"content-length:")[2].split()[0]))
                written_at_arrival.append(len(written))
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(answer), answer))
        writer.close()
        await writer.wait_closed()

    async def ask() -> Any:
        async with await asyncio.start_server(answer_all, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            backend = OpenAIBackend("tiny", f"http://127.0.0.1:{port}/v1", concurrency=4)
            given = await backend.label_logprobs([Question(ASKED[0]) for _ in range(400)], LETTERS)
            backend.close()
            await asyncio.gather(*handlers)
            return given

    assert all(reply.logprobs for reply in asyncio.run(ask()))
    assert len(written_at_arrival) == 400
    assert written_at_arrival[0] < 200


@pytest.mark.parametrize(
    "marker",
    [
        "<|im_end|>",
        "<|im_start|>system",
        "<\uff5cUser\uff5c>",
        "[INST]",
        "[/INST]",
        "<start_of_turn>",
        "</s>",
        "<<SYS>>",
        "[|endofturn|]",
        "[SYSTEM_PROMPT]",
        "[TOOL_RESULTS]",
        "<bos>",
        "<reserved_106>",
        "<|turn>",
        "<turn|>",
        "<extra_id_1>",
        "<unused12>",
        "<eoh>",
        "</think>",
        "<seed:think>",
        "[gMASK]",
        "[UNUSED_TOKEN_146]",
        "\u25c1think\u25b7",
        "<fim_prefix>",
        "<|START_OF_TURN_TOKEN|>",
        "<\uff5ctool\u2581calls\u2581begin\uff5c>",
        "<SPECIAL_12>",
        "{|im_end|}",
        "<endoftext>",
        "<start>",
        "<tools>",
        "<role>",
        "<sep/>",
        "<minimax:tool_call>",
        "]~b]system",
        "[e~[",
        "[control_10]",
        "<unusedtoken>",
    ],
)
def test_role_markers_do_not_reach_the_server_whole(judge_server: Any, marker: str) -> None:
    """A server that obeys special tokens inside messages gets none; the answer is flagged."""
    request = [[{"role": "user", "content": f"fine{marker}\nJ"}]]
    result = asyncio.run(backend_for(judge_server).label_logprobs(request, LETTERS))[0]
    assert marker not in judge_server.requests[0]["messages"][0]["content"]
    assert result.flags == ("markers_defused",)
    assert label(judge_server).flags == ()


@pytest.mark.parametrize("marker", ["<|im_end|>", "[/INST]", "<end_of_turn>", "</s>"])
def test_markers_are_defused_in_every_field_of_a_message(judge_server: Any, replies: Any, marker: str) -> None:
    """Whoever speaks: roles, names, thinking, calls with their arguments and ids, and results."""
    call = {
        "id": marker,
        "type": "function",
        "function": {"name": f"f{marker}", "arguments": json.dumps({marker: [marker]})},
    }
    request = [
        {"role": "system", "content": f"Judge.{marker}"},
        {"role": "user", "content": f"Rate this.{marker}", "name": marker},
        {"role": "assistant", "content": f"Well.{marker}", "reasoning_content": f"Hm.{marker}", "tool_calls": [call]},
        {"role": "tool", "content": f"42{marker}", "tool_call_id": marker, "name": marker},
        {"role": f"narrator{marker}", "content": "?"},
    ]
    judge_server.answer = lambda *_: (200, {}, replies.completion("ok"))
    [found] = asyncio.run(backend_for(judge_server).generate([request], max_new_tokens=5))
    sent = json.dumps(judge_server.requests[0]["messages"])
    assert marker not in sent
    assert sent.count(f"{marker[0]} {marker[1:]}") >= 12
    assert found.flags == ("markers_defused",)


@pytest.mark.parametrize(
    "text",
    ["a < b and b > a", "<div><h1>Hi</h1></div>", "x[0] = y[i]", "List<int>", "[1] see [A], [US]", "a | b", "std::cout << x >> y"],
)  # fmt: skip
def test_code_and_prose_reach_the_server_as_they_are(judge_server: Any, text: str) -> None:
    """What only looks a little like a marker is left alone, and so are the tags that the judge's prompt sets."""
    prompt = PairwisePrompt.named().question(text, text, "no", "1 or 2?")
    result = asyncio.run(backend_for(judge_server).label_logprobs([[{"role": "user", "content": prompt}]], LETTERS))[0]
    assert judge_server.requests[0]["messages"][0]["content"] == prompt
    assert result.flags == ()


def test_labels_that_begin_one_another_are_refused(judge_server: Any) -> None:
    """A server's single token "1" may be the start of "10", so numbers up to ten are a config error."""
    with pytest.raises(ConfigError, match="letters"):
        asyncio.run(backend_for(judge_server).label_logprobs(ASKED, ["1", "2", "10"]))
