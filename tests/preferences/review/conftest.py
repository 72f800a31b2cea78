"""A file of labels, a review of it, and its page on a real server."""

from __future__ import annotations

import json
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rlaif_sdk.preferences.review import ReviewStore


def labelled(row: int, prob_1: float, **fields: Any) -> dict[str, Any]:
    """A row as ``rlaif label`` writes it."""
    responses = [f"answer {row} one", f"answer {row} two"]
    chosen, rejected = responses if prob_1 >= 0.5 else responses[::-1]
    label = {
        "prompt": f"question {row}",
        "chosen": chosen,
        "rejected": rejected,
        "chosen_prob": max(prob_1, 1 - prob_1),
        "chosen_response": 1 if prob_1 >= 0.5 else 2,
        "prob_1": prob_1,
        "flipped": False,
        "tie": False,
        "rationales": [],
        "judge": "a judge",
        "topic": "tests",
    }
    return label | fields


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    """Six pairs whose labels are surer and surer."""
    return write_jsonl(tmp_path / "labels.jsonl", [labelled(row, 0.5 + row / 12) for row in range(6)])


@pytest.fixture
def store(tmp_path: Path, labels: Path) -> Iterator[ReviewStore]:
    """A review of them without a random sample."""
    opened = ReviewStore(tmp_path / "review.sqlite", audit=0)
    opened.add([labels])
    yield opened
    opened.close()


@dataclass
class Page:
    """A running review page."""

    host: str
    token: str
    store: ReviewStore

    @property
    def address(self) -> str:
        return f"{self.host}/#token={self.token}"

    def post(self, route: str, body: Any = None, *, token: str | None = None, raw: bytes | None = None) -> Any:
        """The status and the JSON of an answer."""
        data = json.dumps(body or {}).encode() if raw is None else raw
        headers = {"Content-Type": "application/json", "X-Review-Token": self.token if token is None else token}
        request = urllib.request.Request(f"{self.host}/api/{route}", data, headers)
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=20) as response:
                text = response.read().decode()
                jsonl = "ndjson" in response.headers["content-type"]
                return response.status, [json.loads(line) for line in text.splitlines()] if jsonl else json.loads(text)
        except urllib.error.HTTPError as error:
            text = error.read().decode()
            return error.code, json.loads(text) if text else None

    def next(self, reviewer: str) -> Any:
        return self.post("next", {"reviewer": reviewer})[1]["pair"]

    def judge(self, reviewer: str, pair: str, choice: str, **fields: Any) -> Any:
        status, answer = self.post("judge", {"reviewer": reviewer, "pair": pair, "choice": choice, **fields})
        assert status == 200, answer
        return answer


@pytest.fixture
def serve() -> Iterator[Any]:
    """A function that serves a review on loopback, by uvicorn as the command does."""
    uvicorn = pytest.importorskip("uvicorn", reason="the extra 'review' is not installed")
    pytest.importorskip("fastapi", reason="the extra 'review' is not installed")
    from rlaif_sdk.preferences.review.app import create_app

    running = []

    def start(store: ReviewStore, **options: Any) -> Page:
        listener = socket.create_server(("127.0.0.1", 0))
        app = create_app(store, token=store.token(), **options)
        server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        running.append((server, thread, listener))
        return Page(f"http://127.0.0.1:{listener.getsockname()[1]}", store.token(), store)

    yield start
    for server, thread, listener in running:
        server.should_exit = True
        thread.join(timeout=20)
        listener.close()


@pytest.fixture
def page(serve: Any, store: ReviewStore) -> Page:
    """The page of the review."""
    return serve(store)
