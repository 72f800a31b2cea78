"""The results of shards: one Parquet file each, complete or not there, which says in its footer what it is of."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlaif_sdk.exceptions import DataError, RlaifError
from rlaif_sdk.io.arrow import opened_parquet, parquet_writer
from rlaif_sdk.io.files import atomic_path, refusal
from rlaif_sdk.io.jobs import JOB_FOLDER
from rlaif_sdk.io.jsonl import Row
from rlaif_sdk.scale.shards import Shard

if TYPE_CHECKING:
    import pyarrow as pa

MOST_ATTEMPTS = 3
"""A shard whose worker died so often is not tried again in the same run."""
_ATTEMPTS = ".attempts"
_KEY, _SUMMARY = b"rlaif_sdk.shard", b"rlaif_sdk.summary"


def part_file(folder: Path, shard: Shard) -> Path:
    """Where the results of a shard are; in the order of the names, the parts have the table's rows in their order."""
    return folder / f"part-{shard.number:06d}.parquet"


def write_part(
    folder: Path,
    shard: Shard,
    key: str,
    *,
    schema: pa.Schema,
    rows: Iterable[list[Row]],
    summary: Mapping[str, Any],
) -> None:
    """Write the results of a shard; written twice, they are there once.

    Args:
        folder: The folder of the results.
        shard: What they are of.
        key: What they depend on; see `finished_part`.
        schema: The columns, equal for all shards.
        rows: The results, in chunks.
        summary: Figures over them, filled while ``rows`` is read.

    Raises:
        DataError: It cannot be written, for instance because the disk is full.
    """
    target = part_file(folder, shard)
    try:
        with atomic_path(target) as partial, parquet_writer(partial, schema, str(target)) as writer:
            for chunk in rows:
                writer.write(chunk)
            writer.note({_KEY: key.encode(), _SUMMARY: json.dumps(summary).encode()})
    except RlaifError:  # a ledger's is an OSError too
        raise
    except OSError as error:
        refused = refusal(error, target)
        if refused is None:  # it comes of reading or of scoring the rows
            raise
        raise DataError(
            refused.message, file=refused.file, hint=f"{refused.hint}, and start again: finished parts are kept"
        ) from error
    _attempts_file(folder, shard).unlink(missing_ok=True)


def finished_part(folder: Path, shard: Shard, key: str) -> dict[str, Any] | None:
    """The summary of a shard whose results are there under this key, else None."""
    file = part_file(folder, shard)
    if not file.is_file():
        return None
    try:
        with opened_parquet(file) as part:
            kept = part.metadata.metadata or {}
            complete = part.metadata.num_rows == shard.rows
    except RlaifError:
        return None
    if not complete or kept.get(_KEY, b"").decode() != key:
        return None
    summary: dict[str, Any] = json.loads(kept[_SUMMARY])
    return summary


def count_attempt(folder: Path, shard: Shard) -> None:
    """Note that a shard is begun; the note outlives a worker that is killed by it.

    Raises:
        RlaifError: It was begun too often.
    """
    note = _attempts_file(folder, shard)
    note.parent.mkdir(parents=True, exist_ok=True)
    with note.open("ab") as file:
        file.write(b".")
    if note.stat().st_size > MOST_ATTEMPTS:
        last_row = shard.first_row + shard.rows - 1
        raise RlaifError(
            f"rows {shard.first_row} to {last_row} ended their worker {MOST_ATTEMPTS} times",
            hint="it was killed or ran out of memory: try a smaller --chunk or fewer --actors; finished shards are kept",
        )


def forget_attempts(folder: Path) -> None:
    """Begin to count anew how often each shard is begun."""
    for file in folder.glob(f"{JOB_FOLDER}/*{_ATTEMPTS}"):
        file.unlink(missing_ok=True)


def _attempts_file(folder: Path, shard: Shard) -> Path:
    return folder / JOB_FOLDER / f"{part_file(folder, shard).stem}{_ATTEMPTS}"
