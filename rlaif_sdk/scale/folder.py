"""The folder that a job's results are in: it belongs to one job, and to one process at a time."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rlaif_sdk.exceptions import ConfigError, DataError
from rlaif_sdk.json_files import write_json

JOB_FILE = "job.json"
_LOCK_FILE = ".lock"


@contextmanager
def claimed(folder: Path, identity: Mapping[str, str]) -> Iterator[None]:
    """Hold a job's folder, which is made if it is not there.

    Args:
        folder: The folder.
        identity: What the results depend on, a digest each; a folder belongs to one.

    Raises:
        ConfigError: The folder was begun with another identity; names what differs.
        DataError: Another process works in the folder, or it holds something else.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK_FILE).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            hint = "wait for it to end, or name another --output"
            raise DataError("another process is writing into this folder", file=str(folder), hint=hint) from error
        _check(folder, identity)
        yield


def _check(folder: Path, identity: Mapping[str, str]) -> None:
    file = folder / JOB_FILE
    if not file.exists():
        if any(folder.glob("part-*.parquet")):
            raise DataError(f"has parts and no {JOB_FILE} to say what they are of", file=str(folder))
        write_json(file, {"identity": dict(identity)})
        return
    try:
        begun = dict(json.loads(file.read_text(encoding="utf-8"))["identity"])
    except (ValueError, LookupError, TypeError) as error:
        hint = "name another --output"
        raise DataError("says nothing readable about the job in this folder", file=str(file), hint=hint) from error
    if differs := sorted(name for name in {*identity, *begun} if begun.get(name) != identity.get(name)):
        raise ConfigError(
            f"{folder} holds results that were made with another {', '.join(differs)}",
            key="output",
            hint="name another --output, or go back to what it was begun with",
        )
