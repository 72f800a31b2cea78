"""What the tests of the makers share: prompts, a tiny policy on disk, a kill in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rlaif_sdk.records import read_records


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def rows_of(path: Path) -> list[dict[str, Any]]:
    return list(read_records(path))


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
