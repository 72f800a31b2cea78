"""Starts commands again and again without importing everything each time, and kills them: a script with JSON lines.

A request is ``{"arguments": [...], "folder": ..., "kill_after": seconds or null, "file_limit": bytes or null, "done": a
path or null}``; the answer has the exit ``code`` (-9 of a killed one), the ``seconds`` that it ran and what it ``said``.
Once there is a file at ``done`` the command gets SIGINT, as one that serves must. A command is a fork
that leads a process group of its own, and the whole group is killed. Of root's rights it does without those that ignore
the permissions of files.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import resource
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
        ours, theirs = os.pipe()
        child = os.fork()
        if child == 0:
            run(asked["arguments"], Path(asked["folder"]), theirs, asked["file_limit"])
            return
        os.close(theirs)
        answer(watch(child, asked["kill_after"], asked["done"], ours))
        os.close(ours)


def answer(value: Any) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def run(arguments: Sequence[str], folder: Path, output: int, file_limit: int | None) -> None:
    """The command itself, in the child."""
    os.setsid()
    os.chdir(folder)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's job in the background ignores
    for descriptor, target in ((os.open(os.devnull, os.O_RDONLY), 0), (output, 1), (output, 2)):
        os.dup2(descriptor, target)
    sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))  # noqa: SIM115
    obey_permissions()
    if file_limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
    sys.argv = ["rlaif", *arguments]
    from rlaif_sdk.cli.main import main as rlaif

    rlaif()


CAP_DAC_OVERRIDE, CAPABILITIES_3 = 1, 0x20080522


def obey_permissions() -> None:
    """Do without the right of root's to write what is not to be written."""
    libc = ctypes.CDLL(None)
    header, sets = (ctypes.c_uint32 * 2)(CAPABILITIES_3, 0), (ctypes.c_uint32 * 6)()
    if libc.capget(header, sets) == 0:
        sets[0] &= ~(1 << CAP_DAC_OVERRIDE)
        libc.capset(header, sets)


def watch(child: int, kill_after: float | None, done: str | None, output: int) -> dict[str, Any]:
    """Wait for the end of the child, or kill its group."""
    os.set_blocking(output, False)
    since, said, ended, status = time.monotonic(), b"", 0, 0
    while not ended:
        if done is not None and os.path.exists(done):  # noqa: PTH110 - a thousand times a second
            os.remove(done)  # noqa: PTH107
            os.kill(child, signal.SIGINT)
        if kill_after is not None and time.monotonic() - since > kill_after:
            os.killpg(child, signal.SIGKILL)
            ended, status = os.waitpid(child, 0)
        else:
            time.sleep(0.001)
            ended, status = os.waitpid(child, os.WNOHANG)
        with contextlib.suppress(BlockingIOError):
            while part := os.read(output, 2**16):
                said += part
    seconds, code = time.monotonic() - since, os.waitstatus_to_exitcode(status)
    return {"code": code, "seconds": seconds, "said": said.decode(errors="replace")}


if __name__ == "__main__":
    main()
