"""The folder of a job's results: one process works in it at a time, and it belongs to one job.

What says so, and what else the job keeps beside its results, lies in ``__job__/`` within it. Readers of tables
(pyarrow, Spark, ``datasets``) pass over a folder of such a name, so a folder of Parquet parts is a plain data set.
"""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, Literal

import filelock

from rlaif_sdk.exceptions import ConfigError, DataError
from rlaif_sdk.io.files import read_json, write_json
from rlaif_sdk.io.redaction import without_secrets

JOB_FOLDER = "__job__"
IDENTITY_FILE = f"{JOB_FOLDER}/identity.json"
JOURNAL_FILE = f"{JOB_FOLDER}/journal.jsonl"
SUMMARY_FILE = f"{JOB_FOLDER}/summary.json"
FAILURES_FILE = f"{JOB_FOLDER}/failures.jsonl"
RESUME_ANOTHER = "undo that, name another output folder, or resume it all the same with --allow-changed"
"""The next step where a command with this option refuses a folder."""
UNSET = "unset"
"""Stands for the value of a key that is not there."""

_LOCK_FILE = f"{JOB_FOLDER}/lock"
_ASIDE = f"{JOB_FOLDER}/earlier-"
_DIGEST = re.compile(r"[0-9a-f]{32,64}")
_SHOWN = 60
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}

OnChange = Literal["refuse", "set_aside", "note"]


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder, which is made if need be; a process that dies lets go of it.

    Raises:
        DataError: Another process is at work in it, or the file system has no locks.
        OSError: The folder cannot be written.
    """
    (folder / JOB_FOLDER).mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / _LOCK_FILE, timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout as error:
        hint = "wait for it to end, or name another output folder"
        raise DataError("another process is at work in this folder", file=str(folder), hint=hint) from error
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
            raise
        hint = "name a folder on a local disk, or on a file system with locks"
        raise DataError(f"cannot be locked: {error}", file=str(folder / _LOCK_FILE), hint=hint) from error
    try:
        yield
    finally:
        lock.release()


def claim(
    folder: Path,
    identity: Mapping[str, Any],
    *,
    kind: str,
    resume: bool = True,
    on_change: OnChange = "refuse",
    results: Sequence[str] = (),
    may_change: Sequence[str] = (),
    file: str | None = None,
    hint: str = "name another output folder, or set it back to resume this one",
) -> None:
    """Note whose a folder is at the start of a job, and refuse to resume another one in it; to be called in `locked`.

    Args:
        folder: The job's folder.
        identity: What the results depend on, JSON values. What stands under the name of a secret is hidden.
        kind: What the job is called, such as ``sweep``.
        resume: False to refuse a folder that the same job has begun.
        on_change: Where the folder was begun with another identity: ``refuse``; ``set_aside`` to begin anew and move
            what is there to ``__job__/earlier-1/``, or the next number that is free; ``note`` to keep what is done as it
            was made and note what has changed.
        results: Patterns of what must not be in a folder that says nothing of whose it is.
        may_change: Keys of the identity that are left out of it.
        file: The config, for errors.
        hint: The next step where another identity is refused.

    Raises:
        ConfigError: The folder has a job that is not to be resumed, or one with another identity; names what differs.
        DataError: It has results and does not say whose, or cannot be read.
    """
    kept = folder / IDENTITY_FILE
    stated = {key: value for key, value in identity.items() if key not in may_change}
    stated = json.loads(json.dumps(without_secrets(stated)))
    begun = _begun(kept)
    if begun is None:
        if found := next((path for pattern in results for path in folder.glob(pattern)), None):
            raise DataError(
                f"has {found.name} and no {IDENTITY_FILE} to say whose it is",
                file=str(folder),
                hint="name another output folder",
            )
        write_json(kept, {"kind": kind, "identity": stated})
        return
    if not resume:
        message = f"{folder} already holds a {kind}"
        raise ConfigError(message, file=file, key="output", hint="--resume resumes it, or name another folder")
    changed = changes(begun["identity"], stated)
    if not changed:
        return
    if on_change == "refuse":
        lines = "\n  ".join(changed)
        raise ConfigError(f"{folder} holds another {kind}:\n  {lines}", file=file, key="output", hint=hint)
    if on_change == "set_aside":
        _set_aside(folder)
        write_json(kept, {"kind": kind, "identity": stated})
    else:
        write_json(kept, {"kind": kind, "identity": stated, "changed": [*begun.get("changed", []), changed]})


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What differs between two identities, a line each: ``ppo.gamma: 0.9 → 0.99``."""
    return [f"{key}: {shown(before)} → {shown(after)}" for key, before, after in differences(old, new)]


def differences(old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    """What differs between two JSON values.

    Yields:
        The dotted key, the old and the new value of each leaf; `UNSET` where there is none. Lists are leaves.
    """
    before, after = dict(_leaves(old, ())), dict(_leaves(new, ()))
    for keys in dict.fromkeys([*before, *after]):
        if before.get(keys, UNSET) != after.get(keys, UNSET):
            yield ".".join(keys), before.get(keys, UNSET), after.get(keys, UNSET)


def flattened(value: Any) -> list[tuple[str, str]]:
    """Each leaf of a JSON value: its dotted key, and itself in words."""
    return [(key, leaf if isinstance(leaf, str) else shown(leaf)) for key, _, leaf in differences({}, value)]


def shown(value: Any) -> str:
    """A value in at most 60 characters; of a digest the first eight."""
    if isinstance(value, str) and _DIGEST.fullmatch(value):
        return f"{value[:8]}…"
    text = value if value == UNSET else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


class NumberedFiles:
    """Numbered parts of a job's results, each a JSON file that appears whole: what is there is done.

    Args:
        folder: Where they are.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __contains__(self, index: int) -> bool:
        return self._file(index).exists()

    def __getitem__(self, index: int) -> Any:
        return read_json(self._file(index))

    def __setitem__(self, index: int, value: Any) -> None:
        write_json(self._file(index), value, indent=None)

    def _file(self, index: int) -> Path:
        return self._folder / f"{index:06}.json"


def _leaves(value: Any, keys: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if not isinstance(value, Mapping) or not value:
        if value not in (None, {}):
            yield keys, value
        return
    for name, item in value.items():
        yield from _leaves(item, (*keys, str(name)))


def _begun(file: Path) -> dict[str, Any] | None:
    if not file.exists():
        return None
    begun = read_json(file)
    if not isinstance(begun, dict) or not isinstance(begun.get("identity"), dict):
        raise DataError("says nothing readable about the job in this folder", file=str(file), hint="name another one")
    return begun


def _set_aside(folder: Path) -> None:
    """Move a job's files into a folder of their own; what says whose they are comes last, so that a kill loses none."""
    aside = next(path for number in count(1) if not (path := folder / f"{_ASIDE}{number}").exists())
    own = {folder / JOB_FOLDER, folder / _LOCK_FILE, folder / IDENTITY_FILE, *folder.glob(f"{_ASIDE}*")}
    (aside / JOB_FOLDER).mkdir(parents=True)
    for path in [*folder.iterdir(), *(folder / JOB_FOLDER).iterdir()]:
        if path not in own and path != aside:
            path.rename(aside / path.relative_to(folder))
    (folder / IDENTITY_FILE).rename(aside / IDENTITY_FILE)
