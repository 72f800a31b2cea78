"""The folder that a job's results are in: it belongs to one job, and to one process at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rlaif_sdk.exceptions import ConfigError, DataError
from rlaif_sdk.io.files import write_json
from rlaif_sdk.job_folder import JOB_FILE, begun_with, differing, held

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
    hint = "wait for it to end, or name another --output"
    refusal = DataError("another process is writing into this folder", file=str(folder), hint=hint)
    with held(folder / _LOCK_FILE, refusal):
        _check(folder, identity)
        yield


def _check(folder: Path, identity: Mapping[str, str]) -> None:
    begun = begun_with(folder, hint="name another --output")
    if begun is None:
        if any(folder.glob("part-*.parquet")):
            raise DataError(f"has parts and no {JOB_FILE} to say what they are of", file=str(folder))
        write_json(folder / JOB_FILE, {"identity": dict(identity)})
    elif differs := differing(begun, identity):
        raise ConfigError(
            f"{folder} holds results that were made with another {', '.join(differs)}",
            key="output",
            hint="name another --output, or go back to what it was begun with",
        )
