"""A reward server on the loopback address, in a thread of this process."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import uvicorn

from rlaif_sdk.io.http_server import PunctualProtocol
from rlaif_sdk.serving import ServeSettings, create_app


@dataclass
class Loopback:
    """A running server, and how to ask it.

    Attributes:
        url: Its address.
        port: Its port.
        client: A client with connections of its own.
        app: The application.
    """

    url: str
    port: int
    client: httpx.Client
    app: Any

    def post(self, path: str, body: Any, **options: Any) -> httpx.Response:
        return self.client.post(path, json=body, **options)

    def score(self, *completions: str, **options: Any) -> httpx.Response:
        return self.post(
            "/v1/score", {"rows": [{"prompt": "p", "completion": text} for text in completions]}, **options
        )

    def raw(self, path: str, body: bytes, *, content_type: str = "application/json") -> httpx.Response:
        return self.client.post(path, content=body, headers={"content-type": content_type})

    def request_bytes(self, completion: str) -> bytes:
        """A request as it goes over the wire, for tests that leave early."""
        body = json.dumps({"rows": [{"completion": completion}]}).encode()
        head = f"POST /v1/score HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        return head.encode() + body

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)

    @property
    def waiting(self) -> int:
        return self.client.get("/health").json()["waiting"]

    def metric(self, line: str) -> float:
        """The value of one line of the metrics, 0 where it is not there yet."""
        for found in self.client.get("/metrics").text.splitlines():
            if found.startswith(f"{line} "):
                return float(found.split()[-1])
        return 0.0


@contextmanager
def serving(rewards: Any, *, middleware: Any = None, **settings: Any) -> Iterator[Loopback]:
    """A server that is up when this is entered and gone when it is left."""
    app = create_app(rewards, ServeSettings(**settings))
    if middleware is not None:
        app.add_middleware(middleware)
    limits = {"timeout_graceful_shutdown": 5, "http": PunctualProtocol}
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", **limits)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until(lambda: server.started)
    port = server.servers[0].sockets[0].getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with httpx.Client(base_url=url, timeout=20, trust_env=False) as client:
        try:
            yield Loopback(url, port, client, app)
        finally:
            server.should_exit = True
            thread.join(10)


def until(condition: Any, seconds: float = 10.0) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.005)
