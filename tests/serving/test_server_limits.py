"""What a reward server refuses, and that it lives on."""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from rlaif_sdk import Composer, Score
from rlaif_sdk.composer.component import Component
from rlaif_sdk.exceptions import ConfigError
from rlaif_sdk.serving import ServeSettings, create_app, serve
from tests.serving.lengths import length
from tests.serving.loopback import serving, until

DEEP = 1000


@pytest.fixture(scope="module")
def server():
    with Composer({"length": length}) as composer, serving(composer, max_body=20_000, max_rows=4) as running:
        yield running


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 422),
        (b"{", 400),
        (b"<html>", 400),
        (b"\xff\xfe", 400),
        (b'{"rows": [{"completion": NaN}]}', 400),
        (b'{"rows": [{"completion": "x", "columns": {"a": NaN}}]}', 400),
        (b'{"rows": [{"completion": "x", "columns": {"a": -Infinity}}]}', 400),
        (b'{"rows": [{"completion": "x", "columns": {"a": [{"b": 1e999}]}}]}', 422),
        (b'{"rows": [{"completion": "x", "columns": {"a": ' + b"[" * DEEP + b"]" * DEEP + b"}}]}", 400),
        (b'{"a":' * DEEP + b"1" + b"}" * DEEP, 400),
        (b'{"rows": [{"completion": "\\ud800"}]}', 400),
        (b'{"rows": [{"completion": "x", "columns": {"a": ' + b"9" * 5000 + b"}}]}", 400),
        (b'{"rows": [{"completion": 3}]}', 422),
        (b'{"rows": [{"completion": null}]}', 422),
        (b'{"rows": [{"completion": ["text"]}]}', 422),
        (b'{"rows": [{"completion": "x", "columns": []}]}', 422),
        (b'{"rows": [{"completion": "x", "columns": {"prompts": 1}}]}', 422),
        (b'{"rows": [{"completion": "x", "colums": {}}]}', 422),
        (b'{"rows": [{"completion": "x", "group": 1}, {"completion": "x"}]}', 422),
        (b'{"rows": [{"completion": "x", "group": 1}, {"completion": "x", "group": 1, "columns": {"a": 1}}]}', 422),
        (b'{"rows": []}', 422),
        (b'{"rows": "x"}', 422),
        (b"[]", 422),
        (b"null", 422),
        (b'"rows"', 422),
    ],
    ids=lambda value: value[:48].decode("latin-1") if isinstance(value, bytes) else None,
)
def test_a_bad_body_is_refused_and_the_server_lives(server, body, status):
    """Whatever is wrong with a body, the client is told so and the next request is answered."""
    answer = server.raw("/v1/score", body)
    assert answer.status_code == status, answer.text
    assert answer.json()["detail"]
    assert server.score("four").json()["rows"][0]["total"] == 4.0


def test_a_row_whose_messages_cannot_be_read_fails_alone(server):
    """One such row refused the whole request; the others get their scores."""
    broken = [[{"role": "assistant", "content": 42}], [{"content": "who says so?"}]]
    rows = [{"completion": "four"}, *({"completion": one} for one in broken), {"completion": [{"role": "assistant"}]}]
    answers = server.raw("/v1/score", json.dumps({"rows": rows}).encode()).json()["rows"]
    assert [answer["total"] for answer in answers] == [4.0, None, None, 0.0]
    assert [answer["status"] for answer in answers] == ["scored", "failed", "failed", "scored"]
    assert "message 1" in answers[1]["reason"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/get_reward", {"query": ["pa", "pb"], "prompts": ["p"]}),
        ("/get_reward", {"query": ["pa"], "prompts": ["p"], "labels": []}),
        ("/get_reward", {"query": ["something"], "prompts": ["else"]}),
        ("/get_reward", {"query": [], "prompts": []}),
        ("/compute_score", {"data_source": "d", "solution_str": "s"}),
        ("/compute_score", []),
        ("/remote_rm", {"prompt": "p", "response": ["r"]}),
    ],
)
def test_other_protocols_refuse_what_does_not_fit(server, path, body):
    """Wrong lengths, a query without its prompt, a missing prompt: 422 with a reason."""
    answer = server.post(path, body)
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["msg"]


def test_an_error_does_not_repeat_what_was_sent(server):
    """A refusal names the place and the reason alone: a completion may be long, or secret."""
    answer = server.raw(
        "/v1/score", b'{"rows": [{"completion": "x", "colums": "hush-hush"}, {"completion": 12345678}]}'
    )
    assert "hush" not in answer.text
    assert "12345678" not in answer.text


def test_the_room_of_a_body_is_given_back(server):
    """More bodies than are held at once are read one after another, refused ones among them."""
    for status, text in [(200, "x" * 19_000), (422, '", "colums": "')] * 20:
        body = b'{"rows": [{"completion": "' + text.encode() + b'"' + b" " * (19_050 - len(text)) + b"}]}"
        assert server.raw("/v1/score", body).status_code == status


def test_json_that_is_not_called_so_is_not_read(server):
    """A web page cannot post to a server on its reader's machine without asking it first."""
    assert server.raw("/v1/score", b'{"rows": [{"completion": "x"}]}', content_type="text/plain").status_code == 422


def test_the_routes_answer_within_another_application():
    """Mounted below a path, with the same limits and words; a method that is none of theirs is told so on both ways."""
    with Composer({"length": length}) as composer:
        app = create_app(composer, ServeSettings(max_rows=1))
        outer = FastAPI()
        outer.mount("/rewards", app)
        for client, path in ((TestClient(outer), "/rewards/v1/score"), (TestClient(app), "/v1/score")):
            answer = client.post(path, json={"rows": [{"completion": "four"}]})
            assert answer.json()["rows"][0]["total"] == 4.0
            assert client.post(path, json={"rows": [{"completion": "x"}] * 2}).status_code == 413
            assert client.post(path, json={"rows": []}).json()["detail"][0]["loc"] == ["body", "rows"]
            assert client.get(path).status_code == 405


def test_an_error_of_ours_is_told_without_its_words_and_raised_for_the_log(monkeypatch):
    """uvicorn logs it with its traceback; the client gets 500."""

    def broken(*_, **__):
        raise RuntimeError("inside")

    with Composer({"length": length}) as composer:
        app = create_app(composer)
        monkeypatch.setattr(app.state.service, "score", broken)
        answer = TestClient(app, raise_server_exceptions=False).post("/v1/score", json={"rows": [{"completion": "x"}]})
        assert answer.status_code == 500
        assert "inside" not in answer.text
        with pytest.raises(RuntimeError, match="inside"):
            TestClient(app).post("/v1/score", json={"rows": [{"completion": "x"}]})


def test_too_many_rows_are_refused(server):
    """The limit itself is allowed."""
    assert server.score(*"abcd").status_code == 200
    assert server.score(*"abcde").status_code == 413


def test_a_body_that_says_it_is_too_long_is_not_read(server):
    """413 comes before a byte of the body does."""
    with server.connect() as connection:
        connection.sendall(
            b"POST /v1/score HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 20001\r\n\r\n"
        )
        assert b" 413 " in connection.recv(1000)


def test_a_body_that_does_not_say_its_length_is_read_up_to_the_limit(server):
    """An endless chunked body is refused when it passes the limit, while it still comes."""
    with server.connect() as connection:
        connection.sendall(
            b"POST /v1/score HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        chunk = b"1000\r\n" + b" " * 4096 + b"\r\n"
        for _ in range(5):
            connection.sendall(chunk)
        assert b" 413 " in connection.recv(1000)


def test_a_body_that_drips_is_given_up():
    """A client that announces a body and does not send it gets 408 in time."""
    with Composer({"length": length}) as composer, serving(composer, timeout=0.2) as server:
        with server.connect() as connection:
            connection.sendall(server.request_bytes("x")[:-5])
            answer = b"".join(iter(lambda: connection.recv(1000), b""))
        assert b" 408 " in answer
        assert server.score("x").status_code == 200


class Tap:
    """An async reward that waits until it is let go."""

    def __init__(self) -> None:
        self.begun: list[list[str]] = []
        self.cancelled = 0
        self.open = threading.Event()

    async def __call__(self, completions):
        self.begun.append(list(completions))
        try:
            await asyncio.to_thread(self.open.wait, 30)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return [float(len(text)) for text in completions]


@pytest.fixture
def tap():
    tap = Tap()
    yield tap
    tap.open.set()


def tapped(tap: Tap, **component: object) -> Composer:
    async def score(completions):
        return await tap(completions)

    return Composer({"tap": Component(score, **component)})


def test_a_full_queue_answers_429_with_a_time_to_come_again(tap):
    """Rows beyond the queue are refused at once, nothing is lost, and there is room again afterwards."""
    with tapped(tap) as composer, serving(composer, max_queue=4, max_rows=4) as server, ThreadPoolExecutor(8) as pool:
        accepted = [pool.submit(server.score, "x", "yy") for _ in range(2)]
        until(lambda: server.waiting == 4)
        refused = server.score("z")
        assert refused.status_code == 429
        assert 1 <= int(refused.headers["retry-after"]) <= 30
        assert server.metric("rlaif_queue_rows") == 4
        tap.open.set()
        for answer in accepted:
            assert [row["total"] for row in answer.result().json()["rows"]] == [1.0, 2.0]
        assert server.score("z").status_code == 200
        assert server.metric('rlaif_requests_total{route="/v1/score",status="429"}') == 1


def test_requests_that_wait_are_scored_together(tap):
    """Those that come while a batch is under way become one batch."""
    with tapped(tap) as composer, serving(composer, in_flight=1) as server, ThreadPoolExecutor(8) as pool:
        first = pool.submit(server.score, "a")
        until(lambda: tap.begun)
        others = [pool.submit(server.score, "b" * size) for size in range(1, 7)]
        until(lambda: server.waiting == 7)
        tap.open.set()
        assert [answer.result().json()["rows"][0]["total"] for answer in (first, *others)] == [1, *range(1, 7)]
    assert [len(batch) for batch in tap.begun] == [1, 6]


def test_a_request_that_takes_too_long_is_told_so(tap, caplog):
    """503 with Retry-After at the time limit, and its work is given up, all parts of it and without a word in the log."""
    with tapped(tap) as composer, serving(composer, timeout=0.2) as server:
        answer = server.score("x")
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
        until(lambda: tap.cancelled == 1)
        rows = [{"completion": "x"}, {"completion": "x", "columns": {"a": 1}}]
        assert server.post("/v1/score", {"rows": rows}).status_code == 503
        until(lambda: tap.cancelled == len(tap.begun) >= 2)
        assert server.waiting == 0
        gc.collect()
    assert not caplog.records


def test_a_client_that_leaves_takes_its_work_along(tap):
    """The reward's call is cancelled, its rows leave the queue, and a request beside it is answered."""
    with tapped(tap) as composer, serving(composer, in_flight=1) as server, ThreadPoolExecutor(2) as pool:
        leaver = server.connect()
        leaver.sendall(server.request_bytes("gone"))
        until(lambda: tap.begun)
        stayer = pool.submit(server.score, "stays")
        until(lambda: server.waiting == 2)
        leaver.close()
        until(lambda: server.waiting == 1)
        until(lambda: tap.cancelled == 1)
        tap.open.set()
        assert stayer.result().json()["rows"][0]["total"] == 5.0
    assert tap.begun == [["gone"], ["stays"]]


def test_one_clients_bad_row_does_not_unscore_anothers():
    """Where a reward raises on a batch of several requests, each is scored by itself again."""
    gate = threading.Event()

    def picky(completions):
        if completions == ["first"]:
            gate.wait(10)
        if "bad" in completions:
            raise ValueError("not this")
        return [1.0] * len(completions)

    with (
        Composer({"picky": picky}) as composer,
        serving(composer, in_flight=1) as server,
        ThreadPoolExecutor(8) as pool,
    ):
        first = pool.submit(server.score, "first")
        until(lambda: server.waiting == 1)
        others = [pool.submit(server.score, text) for text in ("good", "bad", "fine")]
        until(lambda: server.waiting == 4)
        gate.set()
        rows = [answer.result().json()["rows"][0] for answer in (first, *others)]
    assert [row["total"] for row in rows] == [1.0, 1.0, None, 1.0]
    assert "not this" in rows[2]["reason"]


KEY = "k3y-0123456789"


def basic(password: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"any:{password}".encode()).decode()}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"authorization": f"Bearer {KEY}"}, 200),
        ({"authorization": f"bearer  {KEY}"}, 200),
        (basic(KEY), 200),
        ({}, 401),
        ({"authorization": ""}, 401),
        ({"authorization": KEY}, 401),
        ({"authorization": "Bearer"}, 401),
        ({"authorization": f"Bearer {KEY}x"}, 401),
        ({"authorization": f"Bearer {KEY[:-1]}"}, 401),
        ({"authorization": "Bearer k\u00e9y".encode("latin-1")}, 401),
        (basic("wrong"), 401),
        ({"authorization": "Basic !!!"}, 401),
        ({"authorization": "Basic \u00e9".encode("latin-1")}, 401),
    ],
)
def test_a_server_with_a_key_asks_for_it(headers, status):
    """Bearer, or Basic's password; anything else is 401, for the metrics too. Whether it lives, anybody may ask."""
    with Composer({"length": length}) as composer, serving(composer, api_key=KEY) as server:
        assert server.score("x", headers=headers).status_code == status
        assert server.client.get("/metrics", headers=headers).status_code == status
        assert server.client.get("/health").status_code == 200


def test_the_document_says_which_routes_ask_for_the_key():
    """All but whether it lives; the scheme is HTTP's Bearer."""
    with Composer({"length": length}) as composer:
        document = create_app(composer).openapi()
    asked = {path for path, methods in document["paths"].items() for route in methods.values() if "security" in route}
    assert asked == set(document["paths"]) - {"/health"}
    schemes = document["components"]["securitySchemes"]
    assert {name: scheme["scheme"] for name, scheme in schemes.items()} == {"HTTPBearer": "bearer"}
    assert document["paths"]["/v1/score"]["post"]["security"] == [{"HTTPBearer": []}]


def test_the_key_is_asked_for_before_the_body_is_read():
    """A stranger cannot make the server read."""
    composer = Composer({"length": length})
    with composer, serving(composer, api_key=KEY) as server, server.connect() as connection:
        connection.sendall(server.request_bytes("x")[:-5])
        assert b" 401 " in connection.recv(1000)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", ""])
def test_a_server_without_a_key_answers_its_own_machine_alone(host):
    """It does not start where other machines reach it."""
    with pytest.raises(ConfigError, match="without a key"):
        serve({"rewards": {"length": {"use": "tests/serving/lengths.py:length"}}}, host=host)


@pytest.mark.parametrize(
    "settings",
    [
        {"api_key": ""},
        {"api_key": "a b"},
        {"api_key": "ké"},
        {"max_rows": 0},
        {"timeout": float("nan")},
        {"timeout": float("inf")},
        {"max_queue": 5},
        {"unscored": float("-inf")},
    ],
)
def test_settings_that_make_no_sense_are_refused(settings):
    """An unusable key, a limit of nothing or without end, a queue shorter than a request, a score that JSON has not."""
    with pytest.raises(ConfigError):
        ServeSettings(**settings)


def test_the_key_is_in_no_text_of_the_settings():
    """A log of the settings does not tell it."""
    assert KEY not in repr(ServeSettings(api_key=KEY))


def test_numbers_that_would_depend_on_other_requests_are_refused():
    """A normalizer that learns from what it sees needs a saved state."""
    config = {"rewards": {"length": {"use": "tests/serving/lengths.py:length", "normalize": "zscore"}}}
    with pytest.raises(ConfigError, match="training batches"):
        create_app(config)


def test_a_reward_that_ends_the_run_is_an_error_of_the_server(caplog):
    """500 with the reward's words, a line in the log without the completion, and the server lives."""

    def broken(completions):
        raise ConfigError("the key is refused", hint="give another")

    with Composer({"broken": broken}) as composer, serving(composer) as server, caplog.at_level(logging.ERROR):
        answer = server.score("a secret text")
        assert answer.status_code == 500
        assert "the key is refused" in answer.json()["detail"]
        assert server.client.get("/health").status_code == 200
    assert "the key is refused" in caplog.text
    assert "secret" not in caplog.text


def test_shutting_down_answers_what_is_under_way(tap):
    """A request that is being scored is finished."""
    with tapped(tap) as composer, ThreadPoolExecutor(1) as pool:
        with serving(composer) as server:
            answer = pool.submit(server.score, "last")
            until(lambda: server.waiting == 1)
            threading.Timer(0.3, tap.open.set).start()
            began = time.monotonic()
        assert answer.result().json()["rows"][0]["total"] == 4.0
        assert time.monotonic() - began < 5


def test_metrics_count_rows_and_failures():
    """Scored and unscored rows, and each reward's failures, apart."""

    def picky(completions):
        return [None if text == "abstain" else 1.0 / len(text) if text else float("nan") for text in completions]

    with Composer({"picky": picky}) as composer, serving(composer) as server:
        server.score("x", "abstain", "")
        assert server.metric('rlaif_rows_total{outcome="scored"}') == 1
        assert server.metric('rlaif_rows_total{outcome="unscored"}') == 2
        assert server.metric('rlaif_reward_failures_total{reward="picky"}') == 1
        assert server.metric("rlaif_batch_rows_count") == 1


@pytest.mark.parametrize("failing", [False, True])
@pytest.mark.parametrize("path", ["/v1/score", "/get_reward", "/compute_score", "/remote_rm"])
def test_half_a_character_in_what_a_reward_says_stops_no_answer(path, failing, caplog):
    """A reason or an error with a lone surrogate comes as U+FFFD, which every client can read."""
    bodies = {
        "/v1/score": {"rows": [{"completion": "x"}], "detail": True},
        "/get_reward": {"query": ["px"], "prompts": ["p"]},
        "/compute_score": {"data_source": "d", "solution_str": "s", "extra_info": {"prompt": "p"}},
        "/remote_rm": {"prompt": "p", "response": "r"},
    }

    def cut(completions):
        if failing:
            raise RuntimeError("cut \ud83d")
        return [Score(None, reason="cut \ud83d")] * len(completions)

    with Composer({"cut": cut}) as composer, serving(composer, unscored=0.0) as running:
        answer = running.post(path, bodies[path])
    assert answer.content.decode()
    assert "\\ud83d" not in answer.text
    assert answer.status_code in {200, 500}
    if path == "/v1/score":
        assert "cut \ufffd" in answer.text
    assert "\ud83d" not in caplog.text
