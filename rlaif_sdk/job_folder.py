"""The folder of a job's results: one process works in it at a time, and it says what the job depends on."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rlaif_sdk.exceptions import DataError, RlaifError

JOB_FILE = "job.json"


@contextmanager
def held(lock: Path, refusal: RlaifError) -> Iterator[None]:
    """Hold a folder for this process alone; it is let go of when the process dies.

    Args:
        lock: A file in the folder, both of which are made if they are not there.
        refusal: What is raised where another process holds it.

    Raises:
        DataError: The file system has no locks, or none left.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w", encoding="utf-8") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise refusal from error
        except OSError as error:
            raise DataError(
                f"cannot be locked: {error.strerror}",
                file=str(lock),
                hint="name a folder on a local disk, or on a file system with locks",
            ) from error
        yield


def begun_with(folder: Path, *, hint: str) -> dict[str, str] | None:
    """What the job in a folder depends on, a digest each; None where none was begun.

    Raises:
        DataError: The file that says so cannot be read.
    """
    file = folder / JOB_FILE
    if not file.exists():
        return None
    try:
        return dict(json.loads(file.read_text(encoding="utf-8"))["identity"])
    except (ValueError, LookupError, TypeError) as error:
        raise DataError("says nothing readable about the job in this folder", file=str(file), hint=hint) from error


def differing(begun: Mapping[str, str], identity: Mapping[str, str]) -> list[str]:
    """The names of what is not the same."""
    return sorted(name for name in {*identity, *begun} if begun.get(name) != identity.get(name))
