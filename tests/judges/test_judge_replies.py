"""Whatever a judge's server replies, the row is scored rightly or is unscored with a reason: no other error, and no hang."""

from __future__ import annotations

import asyncio
import json
import math
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import stamina
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlaif_sdk.exceptions import ConfigError, JudgeConnectionError, JudgeError, JudgeResponseError
from rlaif_sdk.judges import Pair, PairwiseLabeler, PointwiseJudge, Scale
from rlaif_sdk.judges.backends import LabelLogprobs, label_mass
from rlaif_sdk.judges.backends.openai import OpenAIBackend
from rlaif_sdk.judges.pairwise import parse_preference
from rlaif_sdk.judges.pointwise import parse_rating
from rlaif_sdk.types import RewardBatch
from tests.judges.conftest import completion, letters

ASKED = [[{"role": "user", "content": "Rate this."}]]


def nested(depth: int) -> Any:
    """A list in a mapping in a list …"""
    value: Any = 0
    for level in range(depth):
        value = [value] if level % 2 else {"a": value}
    return value


ODD: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.sampled_from([0, -1, 10**30, -(10**400), 10**4299, 1e308, -1e308, math.nan, math.inf, -math.inf]),
        st.sampled_from(["", "\ud800", "\x00\x1b[2J", "9" * 5000, "x" * 5000, "J", "1", "429", "error", "<think>"]),
        st.sampled_from([20, 90, 110, 300, 470, 900]).map(nested),
    ),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["error", "content", "text", "type", "message", "code", "token", "logprob", "detail"]),
            inner,
            max_size=2,
        )
    ),
    max_leaves=4,
)
FIELDS = [
    "error",
    "errors",
    "usage",
    "object",
    "success",
    "detail",
    "refusal",
    "finish_reason",
    "reasoning_content",
    "tool_calls",
]
ENCODINGS = ["utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1"]
RETRY_AFTER = [
    "9" * 400,
    "Wed, 21 Oct 2015 07:28:00 +99999999999999999",
    "Wed, 21 Oct 99999 07:28:00 GMT",
    "1.1.1",
    "-",
]


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON value."""
    yield at
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in inner:
        yield from places(item, (*at, name))


@st.composite
def replies(draw: st.DrawFn) -> Any:
    """A good reply in which something was replaced, taken out, added or repeated."""
    tops = {"A": math.log(0.5), "B": math.log(0.2), "1": math.log(0.1), "2": math.log(0.1)}
    reply: Any = draw(
        st.sampled_from([letters(tops), completion("Fine.\nRating: 3.00"), completion("So.\nPreferred: 1")])
    )
    reply = {**json.loads(json.dumps(reply)), "usage": {"prompt_tokens": 3, "completion_tokens": 2}}
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.sampled_from(list(places(reply))))
        if not at:
            return draw(ODD)
        inside = reply
        for name in at[:-1]:
            inside = inside[name]
        change = draw(st.sampled_from(["replace", "remove", "add", "repeat"]))
        if change == "replace":
            inside[at[-1]] = draw(ODD)
        elif change == "remove":
            del inside[at[-1]]
        elif isinstance(inside, dict):
            inside[draw(st.sampled_from(FIELDS))] = draw(ODD)
        else:
            inside.extend(inside[:1] * (3 if change == "repeat" else 1))
        if not isinstance(reply, dict):
            break
    return reply


@st.composite
def answers(draw: st.DrawFn) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body: a reply in some encoding, whole or cut, or as a stream of events."""
    text = json.dumps(draw(replies()), ensure_ascii=draw(st.booleans()))
    body = text.encode(draw(st.sampled_from(ENCODINGS)), "replace")
    frame = draw(st.sampled_from(["whole"] * 6 + ["cut", "events"]))
    if frame == "cut":
        body = body[: draw(st.integers(0, len(body)))]
    elif frame == "events":
        body = b"data: " + body + b"\n\ndata: [DONE]\n\n"
    status = draw(st.sampled_from([200] * 6 + [400, 404, 418, 429, 500]))
    kind = draw(st.sampled_from(["application/json", "text/event-stream", "application/json; charset=utf-16", "x"]))
    return status, {"content-type": kind, "retry-after": draw(st.sampled_from(RETRY_AFTER))}, body


@pytest.mark.parametrize("key", [None, "sk/secret-0123456789"], ids=["no key", "key"])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_every_reply_scores_its_row_or_leaves_it_unscored_with_a_reason(
    judge_server: Any, monkeypatch: pytest.MonkeyPatch, key: str | None
) -> None:
    """Through the real client: types, sizes, depths, encodings and frames that no server should send."""
    if key is not None:
        monkeypatch.setenv("TEST_JUDGE_KEY", key)
    backend = OpenAIBackend("tiny", judge_server.url, timeout=5, api_key_env=key and "TEST_JUDGE_KEY")
    ask = asyncio.Runner()
    judges = [PointwiseJudge(backend), PointwiseJudge(backend, mode="rating")]
    labelers = [PairwiseLabeler(backend), PairwiseLabeler(backend, mode="verdict")]

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(answer=answers(), which=st.integers(0, 3))
    def asked(answer: Any, which: int) -> None:
        judge_server.answer = lambda *_: answer
        try:
            if which < 2:
                [score] = ask.run(judges[which].score(RewardBatch(["p"], ["an answer"])))
                assert (score.value is None) == bool(score.error)
                assert score.value is None or -1 <= score.value <= 1
                json.dumps(score.details, allow_nan=False)
            else:
                [label] = ask.run(labelers[which - 2].label([Pair("p", "an answer", "another")]))
                assert (label.prob_1 is None) == bool(label.error)
                assert label.prob_1 is None or 0 <= label.prob_1 <= 1
                assert label.label_mass is None or label.label_mass <= 1.01
                json.dumps(label.record(), allow_nan=False)
        except (JudgeConnectionError, JudgeResponseError):  # errors of a row, not of every row
            raise
        except JudgeError:
            pass

    with ask, stamina.set_testing(True, attempts=1):
        asked()


@pytest.mark.parametrize("depth", [*range(90, 111, 4), *range(900, 1000, 9), 100_000])
def test_a_reply_that_is_nested_deep_is_read_or_unscored(judge_server: Any, depth: int) -> None:
    """Whatever depth the parser still takes, nothing behind it runs out of stack."""
    deep = b'{"a":' * depth + b"0" + b"}" * depth
    for body in (deep, b'{"error":' + deep + b"}", b'{"choices":[' + deep + b"]}"):
        judge_server.answer = lambda *_, body=body: (200, {}, body)
        with stamina.set_testing(True, attempts=1):
            [found] = asyncio.run(OpenAIBackend("tiny", judge_server.url).generate(ASKED, max_new_tokens=5))
        assert isinstance(found, JudgeError)


@pytest.mark.parametrize(
    "logprobs", [(0.0, 0.0), (math.log(0.6), math.log(0.6)), (-0.1, -0.2), (math.log(0.98), math.log(0.04))]
)
def test_probabilities_of_labels_that_add_up_to_more_than_one_are_refused(logprobs: tuple[float, float]) -> None:
    """Whatever backend gave them: a plugin's too."""
    with pytest.raises(JudgeResponseError, match="add up to"):
        label_mass(LabelLogprobs(logprobs), ["1", "2"])
    assert label_mass(LabelLogprobs((math.log(0.6), math.log(0.4))), ["1", "2"]) == pytest.approx(1)


@pytest.mark.parametrize(
    "logprobs", [5, "x", {"content": {"a": 1}}, {"content": ["x"]}, {"content": [{"top_logprobs": {"J": 1}}]}]
)
def test_log_probabilities_of_another_shape_concern_their_row(judge_server: Any, logprobs: Any) -> None:
    """A server that gives none ends the call; one that garbles a reply loses the row."""
    judge_server.answer = lambda *_: (200, {}, completion("J", logprobs=logprobs))
    [found] = asyncio.run(OpenAIBackend("tiny", judge_server.url).label_logprobs(ASKED, ["J", "K"]))
    assert isinstance(found, JudgeResponseError)
    assert "malformed" in str(found)


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"code": 429, "message": "slow down"}},
        [{"error": {"code": 503, "message": "busy"}}],
        {"object": "error", "code": 429, "message": "slow down"},
        {"type": "error", "message": "overloaded"},
        {"success": False, "errors": [{"code": 500, "message": "inside"}]},
        {"code": 502, "message": "bad gateway"},
        {"detail": "too many requests"},
        {"error": {"code": "9" * 5000, "message": "?"}},
    ],
    ids=["field", "list", "object", "type", "success", "bare", "detail", "long code"],
)
def test_an_error_with_status_200_is_tried_again_and_each_attempt_counted(judge_server: Any, body: Any) -> None:
    """In whatever shape a server or proxy says it."""
    judge_server.answer = lambda number, _: (200, {}, body if number < 2 else completion("ok"))
    with stamina.set_testing(True, attempts=3):
        [found] = asyncio.run(OpenAIBackend("tiny", judge_server.url).generate(ASKED, max_new_tokens=5))
    assert (found.text, found.usage.calls, found.usage.retries) == ("ok", 3, 2)


@pytest.mark.parametrize(
    "body",
    [[{"error": {"code": 401}}], {"object": "error", "code": 404}, {"code": "insufficient_quota", "message": "pay"}],
)
def test_an_error_of_another_shape_that_will_not_pass_ends_the_call(judge_server: Any, body: Any) -> None:
    """It stands for its status, as it does within ``error``."""
    judge_server.answer = lambda *_: (200, {}, body)
    with pytest.raises(JudgeError):
        asyncio.run(OpenAIBackend("tiny", judge_server.url).generate(ASKED, max_new_tokens=5))
    assert len(judge_server.requests) == 1


@pytest.mark.parametrize(
    "reply",
    ["rating: 5{}x", "preferred: 1{}x", "{}rating", "rating{}x", "rating:{}x", "final{}x", "preferred{}: 1{}.x"],
)
@pytest.mark.parametrize("piece", ["*", " ", "_ "])
def test_no_reply_takes_long_to_be_read(reply: str, piece: str) -> None:
    """A verdict's dress may be as long as a server likes."""
    text = reply.replace("{}", piece * 100_000)
    began = time.process_time()
    for parse in (lambda: parse_rating(text, Scale(1, 5)), lambda: parse_preference(text)):
        with pytest.raises(JudgeResponseError):
            parse()
    assert time.process_time() - began < 2


@contextmanager
def talkative_server(extra: bytes) -> Iterator[tuple[str, list[int]]]:
    """A server on a raw socket: it answers the n-th request of all with the text n, then says ``extra`` unasked."""
    listener = socket.create_server(("127.0.0.1", 0))
    connections: list[int] = []

    def serve(peer: socket.socket) -> None:
        with peer:
            while asked := peer.recv(65_536):
                while b"Rate this" not in asked:
                    asked += peer.recv(65_536)
                connections.append(peer.fileno())
                peer.sendall(response(completion(str(len(connections)))))
                time.sleep(0.01)  # a packet of its own, when the connection rests
                peer.sendall(extra)

    def accept() -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=quietly, args=(serve, peer), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1", connections
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def quietly(serve: Any, peer: socket.socket) -> None:
    with suppress(OSError):
        serve(peer)


def response(reply: Any) -> bytes:
    body = json.dumps(reply).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)


@pytest.mark.parametrize(
    "extra", [response(completion("stale")), response(completion("stale")) * 2, b"HTTP/1.1 200 OK\r\n", b"\r\nx"],
    ids=["an answer", "two answers", "part of one", "garbage"],
)  # fmt: skip
@pytest.mark.parametrize("arrives", ["while the loop runs", "while it does not", "where nobody can be asked for it"])
def test_an_answer_before_its_request_is_thrown_away_with_its_connection(
    extra: bytes, arrives: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a server says unasked on a connection that is kept is no answer to the next request, on Windows neither."""
    if arrives == "where nobody can be asked for it":
        monkeypatch.delattr("select.poll")

    async def ask(url: str) -> list[str]:
        backend = OpenAIBackend("tiny", url, attempts=1, timeout=5)
        found = []
        for _ in range(3):
            [reply] = await backend.generate(ASKED, max_new_tokens=5)
            found.append(reply.text)
            if arrives == "while it does not":
                time.sleep(0.05)  # noqa: ASYNC251 - the loop stands still, and reads nothing
            else:
                await asyncio.sleep(0.05)
        return found

    with talkative_server(extra) as (url, _):
        assert asyncio.run(ask(url)) == ["1", "2", "3"]
    with talkative_server(b"") as (url, connections):
        assert asyncio.run(ask(url)) == ["1", "2", "3"]
        assert len(set(connections)) == 1


@pytest.mark.parametrize(
    "url",
    [
        "host:8000",
        "http://host:99999/v1",
        "http://[::1/v1",
        "http://ho st/v1",
        "http://host/v1#x",
        "http://u:p4ss@host/v1",
    ],
)
def test_an_address_is_checked_when_a_backend_is_made(url: str) -> None:
    """In whatever way it is made, and before anything is asked."""
    with pytest.raises(ConfigError, match="address") as refused:
        OpenAIBackend("tiny", url)
    assert "p4ss" not in str(refused.value)
