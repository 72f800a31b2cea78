"""What the tests of jobs share: tables, labelling from a config, a slow server, a kill in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rlaif_sdk.io.tables import read_rows
from rlaif_sdk.preferences import load_label_job, run_labeling


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def rows_of(path: Path) -> list[dict[str, Any]]:
    return list(read_rows(path))


def label(config: Path, *overrides: str, **options: Any) -> Any:
    return run_labeling(load_label_job(config, overrides=overrides), **options)


def slow_down(server: Any, noted: Callable[[dict[str, Any], Any], Any]) -> list[Any]:
    """Let a server answer 10 ms late; returns what is noted of each request and its answer, as they come."""
    answer, notes, lock = server.answer, [], threading.Lock()

    def slowly(number: int, sent: dict[str, Any]) -> Any:
        time.sleep(0.01)
        answered = answer(number, sent)
        with lock:
            notes.append(noted(sent, answered))
        return answered

    server.answer = slowly
    return notes


def kill_when(program: str, journal: Path, lines: int) -> list[dict[str, Any]]:
    """Run a program, end it by SIGKILL once so many lines are in the journal, and return the whole lines."""
    process = subprocess.Popen([sys.executable, "-c", program], env={**os.environ, "NO_PROXY": "*"})
    deadline = time.monotonic() + 50
    while not (journal.exists() and journal.read_bytes().count(b"\n") >= lines):
        assert time.monotonic() < deadline
        assert process.poll() is None, "the job ended before it could be killed"
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = journal.read_bytes()
    return [json.loads(line) for line in kept[: kept.rindex(b"\n")].splitlines()]
