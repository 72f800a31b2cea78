"""Clients that are strangers, slow, many or half gone: who is let in, what is held, and what is given up."""

from __future__ import annotations

import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
import pytest

from rlaif_sdk import Composer
from rlaif_sdk.io import http_server
from rlaif_sdk.preferences.review import ReviewStore
from rlaif_sdk.serving.server import LocalOnly
from tests.serving.lengths import length
from tests.serving.loopback import Loopback, serving, until
from tests.serving.test_serve_command import KEY, folder, running

__all__ = ["folder"]
BODY = {"rows": [{"completion": "four"}]}


@pytest.fixture(scope="module")
def local():
    with Composer({"length": length}) as composer, serving(composer, middleware=LocalOnly) as server:
        yield server


@pytest.mark.parametrize(
    ("header", "value", "status"),
    [
        ("host", "127.0.0.1:8000", 200),
        ("host", "localhost", 200),
        ("host", "LOCALHOST:1", 200),
        ("host", "[::1]:8000", 200),
        ("host", "127.8.9.1", 200),
        ("host", "evil.example", 403),
        ("host", "evil.example:8000", 403),
        ("host", "localhost.evil.example", 403),
        ("host", "127.0.0.1.nip.io", 403),
        ("host", "127.0.0.1@evil.example", 403),
        ("host", "10.0.0.7", 403),
        ("host", "0.0.0.0", 403),
        ("host", "[::", 403),
        ("host", "", 403),
        ("origin", "http://localhost:3000", 200),
        ("origin", "http://127.0.0.1", 200),
        ("origin", "https://evil.example", 403),
        ("origin", "null", 403),
        ("origin", "http://localhost.evil.example", 403),
        ("origin", "file://", 403),
    ],
)
def test_without_a_key_only_this_machine_and_its_pages_are_answered(local: Loopback, header, value, status) -> None:
    """A page elsewhere whose name leads here (DNS rebinding) carries its own name."""
    for path, body in (("/v1/score", BODY), ("/health", None), ("/openapi.json", None)):
        request = local.client.build_request(
            "GET" if body is None else "POST", path, json=body, headers={header: value}
        )
        answer = local.client.send(request)
        assert answer.status_code == status
        if status == 403:
            assert header.title() in answer.json()["detail"]


def test_the_command_refuses_strangers_without_a_key_alone(folder) -> None:
    """With a key any name will do: it is the key that lets in."""
    strange = {"host": "rewards.example", "origin": "https://trainer.example"}
    for key in ((), ("--api-key-env", "REWARD_KEY")):
        with running(folder, *key, REWARD_KEY=KEY) as (_, port):
            headers = {**strange, "authorization": f"Bearer {KEY}"}
            answer = httpx.post(f"http://127.0.0.1:{port}/v1/score", json=BODY, headers=headers, trust_env=False)
            assert answer.status_code == (200 if key else 403)


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"POST /v1/score HTTP/1.1\r\n",
        b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Long: aaaa",
        b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nGET /health HTTP",
    ],
    ids=["nothing", "a line", "half a header", "half of a second request"],
)
def test_a_request_whose_headers_do_not_come_is_given_up(local: Loopback, monkeypatch, sent: bytes) -> None:
    """The connection is closed at the limit, and another one is answered meanwhile."""
    monkeypatch.setattr(http_server, "HEADERS_WITHIN", 0.5)
    with local.connect() as connection:
        since = time.monotonic()
        connection.sendall(sent)
        assert local.score("abc").status_code == 200
        while connection_gives(connection):
            assert time.monotonic() - since < 10
        assert time.monotonic() - since > 0.3


def test_headers_that_drip_are_given_up_too(local: Loopback, monkeypatch) -> None:
    """A byte now and then is no progress."""
    monkeypatch.setattr(http_server, "HEADERS_WITHIN", 0.5)
    with local.connect() as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\n")
        since = time.monotonic()
        while not gives_within(connection, 0.1):
            connection.sendall(b"X-Next: 1\r\n")
            assert time.monotonic() - since < 10
        assert not connection_gives(connection)


def test_a_long_answer_and_an_idle_connection_are_not_given_up(local: Loopback, monkeypatch) -> None:
    """The limit is of headers, not of scoring, nor of a connection that is kept."""
    monkeypatch.setattr(http_server, "HEADERS_WITHIN", 0.3)
    with httpx.Client(base_url=local.url, trust_env=False) as client:
        for _ in range(2):
            assert client.post("/v1/score", json=BODY).status_code == 200
            time.sleep(0.8)


def gives_within(connection: socket.socket, seconds: float) -> bool:
    return bool(select.select([connection], [], [], seconds)[0])


def connection_gives(connection: socket.socket) -> bool:
    try:
        return bool(connection.recv(4096))
    except ConnectionError:
        return False


def unfinished(server: Loopback, size: int) -> socket.socket:
    connection = server.connect()
    head = f"POST /v1/score HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {size + 1}\r\n\r\n"
    connection.sendall(head.encode() + b" " * size)
    return connection


def test_the_bodies_of_all_requests_together_have_a_limit() -> None:
    """A hundred that never end hold no more than sixteen do; when they leave there is room again."""
    size = 1_000_000
    with Composer({"length": length}) as composer, serving(composer, max_body=size + 1, timeout=60.0) as server:
        before = psutil.Process().memory_info().rss
        with ThreadPoolExecutor(10) as pool:
            connections = list(pool.map(lambda _: unfinished(server, size), range(100)))
        queue = server.app.state.service.queue
        until(lambda: queue._requests <= 16, 30)
        assert queue._bytes <= 16 * (size + 1)
        assert psutil.Process().memory_info().rss - before < 120_000_000
        for _ in range(3):
            connections.append(unfinished(server, size))
            answers = [connection for connection in connections[-1:] if gives_within(connection, 1.0)]
        assert answers
        assert answers[0].recv(4096).startswith(b"HTTP/1.1 503")
        for connection in connections:
            connection.close()
        until(lambda: queue._requests == 0, 30)
        assert queue._bytes == 0
        assert server.score("abc").json()["rows"][0]["total"] == 3.0


def test_a_body_beyond_the_room_of_all_is_refused_while_the_others_are_still_there() -> None:
    """Sixteen of the longest fill it; then a short one gets 503 and is told when to come again, until one leaves."""
    size = 100_000
    with Composer({"length": length}) as composer, serving(composer, max_body=size, timeout=60.0) as server:
        queue = server.app.state.service.queue
        connections = [unfinished(server, size - 1) for _ in range(16)]
        try:
            until(lambda: queue._bytes == 16 * (size - 1), 30)
            refused = server.score("x" * 100)
            assert refused.status_code == 503
            assert int(refused.headers["retry-after"]) >= 1
            connections.pop().close()
            until(lambda: queue._bytes == 15 * (size - 1), 30)
            assert server.score("x" * 100).status_code == 200
        finally:
            for connection in connections:
                connection.close()


@pytest.mark.parametrize("size", [0, 1, 100_000])
def test_room_is_given_back_whatever_comes_of_a_request(size: int) -> None:
    """Answered, refused, or left in the middle."""
    with Composer({"length": length}) as composer, serving(composer, max_body=200_000) as server:
        queue = server.app.state.service.queue
        assert server.score("x" * size).status_code == 200
        assert server.raw("/v1/score", b"{" * size).status_code in {400, 422}
        unfinished(server, size).close()
        until(lambda: queue._requests == 0)
        assert queue._bytes == 0


@pytest.mark.parametrize("part", ["whole", "half"])
def test_a_client_that_closes_its_side_has_left(local: Loopback, part: str) -> None:
    """Its connection is closed at once, whether its request was whole or not, and nothing of it stays."""
    request = local.request_bytes("x" * 1000).replace(b"Host: x", b"Host: 127.0.0.1")
    for _ in range(20):
        with local.connect() as connection:
            connection.sendall(request if part == "whole" else request[:-10])
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(5)
            while connection_gives(connection):
                pass
    until(lambda: local.app.state.service.queue._requests == 0)
    assert local.score("abc").status_code == 200


SLOW_REWARD = """
import time
def slow(completion_texts):
    time.sleep(1.5)
    return [float(len(text)) for text in completion_texts]
"""


@pytest.mark.parametrize("name", ["SIGHUP", "SIGTERM", "SIGINT"])
def test_a_signal_that_asks_for_an_end_lets_requests_be_answered(folder, name: str) -> None:
    """Also when the terminal goes away."""
    (folder / "lengths.py").write_text(SLOW_REWARD)
    (folder / "rewards.yaml").write_text('rewards: {length: {use: "lengths.py:slow", timeout: 60}}\n')
    with running(folder) as (process, port), ThreadPoolExecutor(1) as pool:
        url = f"http://127.0.0.1:{port}"
        asked = pool.submit(httpx.post, f"{url}/v1/score", json=BODY, trust_env=False, timeout=30)
        until(lambda: httpx.get(f"{url}/health", trust_env=False).json()["waiting"] == 1)
        process.send_signal(getattr(signal, name))
        assert asked.result().json()["rows"][0]["total"] == 4.0
        process.wait(20)
        assert process.returncode in {0, -signal.SIGTERM}


def test_a_server_under_nohup_stays(folder) -> None:
    """Who ignores SIGHUP for it means it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with running(folder) as (process, port):
            process.send_signal(signal.SIGHUP)
            time.sleep(0.5)
            assert httpx.post(f"http://127.0.0.1:{port}/v1/score", json=BODY, trust_env=False).status_code == 200
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_review_page_ends_on_sighup(tmp_path) -> None:
    """As on the other signals."""
    row = {"prompt": "p", "chosen": "a", "rejected": "b", "chosen_prob": 0.6}
    (tmp_path / "labels.jsonl").write_text(json.dumps(row) + "\n")
    program = "from rlaif_sdk.cli import main; main()"
    command = [sys.executable, "-c", program, "review", str(tmp_path / "labels.jsonl")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    assert process.stdout is not None
    while "http://" not in (line := process.stdout.readline()):
        assert process.poll() is None
    page = next(word for word in line.split() if word.startswith("http://"))

    def answers() -> bool:
        try:
            return httpx.get(page).is_success
        except httpx.TransportError:
            return False

    until(answers)
    process.send_signal(signal.SIGHUP)
    assert process.wait(20) == 0
    process.stdout.close()
    (kept,) = tmp_path.rglob("*.sqlite")
    ReviewStore(kept).close()


BAD: list[tuple[bytes, set[int]]] = [
    (b"{", {400}),
    (b"", {422}),
    (b"[" * 3000, {400}),
    (b'{"rows": []}', {422}),
    (b'{"rows": [{"completion": 1}]}', {422}),
    (b'{"rows": [{"completion": NaN}]}', {400}),
    (b'{"rows": [{"completion": "' + b"x" * 30_000 + b'"}]}', {413}),
    (b"\xff\xfe\x00", {400}),
]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ten_thousand_good_and_bad_requests_lose_none_and_hold_nothing() -> None:
    """Each good one gets its own score, each bad one its status, those that leave get nothing; memory stays flat."""
    draw = random.Random(7)
    script = (
        "from rlaif_sdk import Composer\nfrom rlaif_sdk.serving import ServeSettings, serve\n"
        "def length(completions):\n    return [float(len(text)) for text in completions]\n"
        "serve(Composer({'length': length}), ServeSettings(max_body=20_000), port=PORT)\n"
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "NO_PROXY": "*"}
    process = subprocess.Popen(
        [sys.executable, "-c", script.replace("PORT", str(port))], env=environment, stderr=subprocess.DEVNULL
    )
    url = f"http://127.0.0.1:{port}"
    counts = {"good": 0, "bad": 0, "left": 0}

    def ask(number: int, client: httpx.Client) -> str:
        kind = draw.choice(("good", "good", "good", "bad", "left"))
        if kind == "left":
            with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
                connection.sendall(b"POST /v1/score HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99\r\n\r\n{")
        elif kind == "bad":
            body, statuses = draw.choice(BAD)
            headers = {"content-type": "application/json"}
            assert client.post("/v1/score", content=body, headers=headers).status_code in statuses
        else:
            texts = ["x" * draw.randrange(1, 200) for _ in range(1 + number % 3)]
            answer = client.post("/v1/score", json={"rows": [{"completion": text} for text in texts]})
            assert [row["total"] for row in answer.json()["rows"]] == [len(text) for text in texts]
        return kind

    def ask_many(part: range) -> list[str]:
        with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
            return [ask(number, client) for number in part]

    try:
        until(lambda: _is_up(url), 60)
        sizes = []
        for _ in range(5):
            with ThreadPoolExecutor(8) as pool:
                for kinds in pool.map(ask_many, [range(250)] * 8):
                    for kind in kinds:
                        counts[kind] += 1
            sizes.append(psutil.Process(process.pid).memory_info().rss)
        assert sum(counts.values()) == 10_000
        assert min(counts.values()) > 1000
        assert sizes[-1] - sizes[1] < 8_000_000, [size // 1000 for size in sizes]
        assert httpx.get(f"{url}/health", trust_env=False).json()["waiting"] == 0
    finally:
        process.terminate()
        process.wait(20)


def _is_up(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False
