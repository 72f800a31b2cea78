"""Kills a command at random instants, starts it again, and checks what is promised: ``python -m tests.kills.killing``.

After every kill each file that has its own name is whole: JSON, tables in it, weights, graphs and ledgers can be read; only the last
line of a journal may be torn. At the end the command has made what a run makes that was never killed, and nothing
unfinished is left.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlaif_sdk.cli.exits import ExitCode
from rlaif_sdk.training.preflight.model_files import safetensors_header
from tests.kills.commands import COMMANDS

ROOT = Path(__file__).parents[2]
JOURNALS = {"journal.jsonl", "history.jsonl", "rollouts.jsonl", "samples.jsonl", "evaluation.jsonl"}
"""Files that grow line by line."""


@dataclass
class Tally:
    """What came of killing a command.

    Attributes:
        kills: How often it was killed.
        starts: How often it was started, the first run that nobody killed left out.
        finished: How often it came to its end.
        checkpoints: How many checkpoints were read after the kills.
    """

    kills: int = 0
    starts: int = 0
    finished: int = 0
    checkpoints: int = 0


@dataclass(frozen=True)
class Ran:
    """How a command ended.

    Attributes:
        code: Its exit code, -9 of one that was killed.
        seconds: How long it ran.
        said: What it printed.
    """

    code: int
    seconds: float
    said: str


class Starter:
    """Starts commands, see `tests.kills.starter`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        assert self._answer() == {"ready": True}

    def run(
        self,
        arguments: list[str],
        folder: Path,
        *,
        kill_after: float | None = None,
        file_limit: int | None = None,
        client: Callable[[Path, threading.Event], None] | None = None,
    ) -> Ran:
        """Start a command and wait for its end; one that serves is told to end when its client has nothing left to do."""
        asked = {"arguments": arguments, "folder": str(folder), "kill_after": kill_after, "file_limit": file_limit}
        done = folder.with_name("done") if client is not None else None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({**asked, "done": done and str(done)}) + "\n")
        self._process.stdin.flush()
        if client is None:
            return Ran(**self._answer())
        ended = threading.Event()

        def serve_client() -> None:
            client(folder, ended)
            if not ended.is_set():
                done.touch()

        using = threading.Thread(target=serve_client)
        using.start()
        try:
            return Ran(**self._answer())
        finally:
            ended.set()
            using.join()
            done.unlink(missing_ok=True)

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


@contextmanager
def starter() -> Iterator[Starter]:
    """One that is gone afterwards."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONWARNINGS": "ignore",
    }
    command = [sys.executable, str(Path(__file__).with_name("starter.py"))]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as process:
        yield Starter(process)


def kill_often(start: Starter, name: str, kills: int, seed: int, work: Path) -> Tally:
    """Kill a command so many times; in between it resumes, and begins anew in another folder where it has finished."""
    command, draw, tally = COMMANDS[name], random.Random(seed), Tally()
    inputs, folder = work / "inputs", work / "run"
    folder.mkdir()
    command.prepare(folder)  # at its last place, since configs may name it
    shutil.copytree(folder, inputs)
    whole = start.run(list(command.arguments), folder, client=command.client)
    done = 0 if command.client is None else ExitCode.INTERRUPTED
    assert whole.code == done, (whole.code, whole.said)
    expected = command.result(folder)
    names = left(folder)
    renew(inputs, folder)
    seconds, is_new = whole.seconds, True
    while True:
        last = tally.kills == kills
        kill_after = None if last else draw.uniform(0.02, 0.95) * seconds
        arguments = [*command.arguments, *(command.resume if can_resume(folder) else ())]
        ran = start.run(arguments, folder, kill_after=kill_after, client=command.client)
        tally.starts += 1
        check_whole(folder)
        command.check(folder)
        if ran.code == -9:
            tally.kills += 1
            tally.checkpoints += check_checkpoints(folder)
            is_new = False
            continue
        has_finished = ran.code == 2 and re.search("already holds a trained model|exists already", ran.said)
        assert ran.code == done or has_finished, f"{arguments}: {ran.said}"  # or killed when its work was done
        tally.finished += 1
        if is_new:  # on a machine that has become faster, later kills would all come too late
            seconds = min(seconds, ran.seconds)
        assert command.result(folder) == expected
        assert not names - left(folder), sorted(names - left(folder))
        assert left(folder) <= names, sorted(left(folder) - names)
        if last:
            return tally
        renew(inputs, folder)
        is_new = True


def renew(inputs: Path, folder: Path) -> None:
    shutil.rmtree(folder)
    shutil.copytree(inputs, folder)


def can_resume(folder: Path) -> bool:
    """Whether a training run has begun."""
    return (folder / "out" / "run.json").exists()


_HIDDEN = re.compile(r"\..*\.partial")


def left(folder: Path) -> set[str]:
    """The names of files and folders, checkpoints and what a ledger has beside it left out."""
    names = {str(path.relative_to(folder)) for path in folder.rglob("*")}
    return {name for name in names if not re.search(r"checkpoint|-wal$|-shm$|__pycache__", name)}


def check_whole(folder: Path) -> None:
    """Whether all files that have their own names are whole."""
    for path in folder.rglob("*"):
        inside = path.relative_to(folder).parts
        if not path.is_file() or any(_HIDDEN.fullmatch(part) or part.startswith("checkpoint-") for part in inside):
            continue
        try:
            READERS.get(path.suffix, Path.stat)(path)
        except Exception as error:
            raise AssertionError(f"{path} is not whole: {error}") from error


def check_checkpoints(folder: Path) -> int:
    """Read every file of each checkpoint that a run would resume from, and say how many checkpoints there are."""
    from rlaif_sdk.training.run_folder import last_checkpoint

    runs = {path.parent for path in folder.rglob("checkpoint-*")}
    found = [checkpoint for run in runs if (checkpoint := last_checkpoint(run)) is not None]
    for checkpoint in found:
        for path in checkpoint.rglob("*"):
            if path.is_file():
                try:
                    READERS.get(path.suffix, Path.stat)(path)
                except Exception as error:
                    raise AssertionError(f"{path} is not whole: {error}") from error
    return len(found)


def read_archive(path: Path) -> None:
    """What torch saves is an archive, whose parts have check sums."""
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None


def read_lines(path: Path) -> None:
    *lines, torn = path.read_bytes().split(b"\n")
    assert not torn or path.name in JOURNALS, f"ends with {torn[-40:]!r}"
    for line in lines:
        json.loads(line)


def read_graph(path: Path) -> None:
    import onnx

    onnx.load(path)


def read_database(path: Path) -> None:
    """In a copy, with what is beside it: opening one tidies it up."""
    with tempfile.TemporaryDirectory() as copies:
        for part in path.parent.glob(f"{path.name}*"):
            shutil.copy(part, copies)
        with closing(sqlite3.connect(Path(copies) / path.name)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


READERS: dict[str, Callable[[Path], Any]] = {
    ".json": lambda path: json.loads(path.read_bytes()),
    ".jsonl": read_lines,
    ".safetensors": safetensors_header,
    ".onnx": read_graph,
    ".sqlite": read_database,
    **dict.fromkeys((".pt", ".pth", ".bin"), read_archive),
}


def main(names: list[str], kills: int = 20) -> None:
    """Print a row of the table for each command."""
    with starter() as start:
        for name in names or COMMANDS:
            work = Path(tempfile.mkdtemp(prefix="rlaif-kills-"))
            try:
                tally = kill_often(start, name, kills, sum(map(ord, name)), work)
                counts = (tally.kills, tally.starts, tally.finished, tally.checkpoints)
                print(f"| `{name}` | {' | '.join(map(str, counts))} |", flush=True)  # noqa: T201
            except AssertionError as error:
                print(f"| `{name}` | FAILED: {str(error)[-1500:]}", flush=True)  # noqa: T201
            finally:
                shutil.rmtree(work)


if __name__ == "__main__":
    main(sys.argv[1:])
