"""Starts commands again and again without importing everything each time, and kills them: a script with JSON lines.

A request is ``{"arguments": [...], "folder": ..., "log": ..., "kill_after": seconds or null}``; the answer has the exit
``code`` (-9 of a killed one) and the ``seconds`` that it ran. A command is a fork that leads a process group of its own,
and the whole group is killed.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

IMPORTS = ("torch", "transformers", "trl", "peft", "datasets", "fastapi", "uvicorn", "rlaif_sdk.cli.main")


def main() -> None:
    for name in IMPORTS:
        importlib.import_module(name)
    import torch

    torch.set_num_threads(1)
    answer({"ready": True})
    for line in sys.stdin:
        asked = json.loads(line)
        child = os.fork()
        if child == 0:
            run(asked["arguments"], Path(asked["folder"]), Path(asked["log"]))
            return
        answer(watch(child, asked["kill_after"]))


def answer(value: Any) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def run(arguments: Sequence[str], folder: Path, log: Path) -> None:
    """The command itself, in the child."""
    os.setsid()
    os.chdir(folder)
    nothing, kept = os.open(os.devnull, os.O_RDONLY), os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for descriptor, target in ((nothing, 0), (kept, 1), (kept, 2)):
        os.dup2(descriptor, target)
    sys.argv = ["rlaif", *arguments]
    from rlaif_sdk.cli.main import main as rlaif

    rlaif()


def watch(child: int, kill_after: float | None) -> dict[str, Any]:
    """Wait for the end of the child, or kill its group."""
    since = time.monotonic()
    while kill_after is None or time.monotonic() - since < kill_after:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return {"code": os.waitstatus_to_exitcode(status), "seconds": time.monotonic() - since}
        time.sleep(0.001)
    os.killpg(child, signal.SIGKILL)
    return {"code": os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), "seconds": time.monotonic() - since}


if __name__ == "__main__":
    main()
