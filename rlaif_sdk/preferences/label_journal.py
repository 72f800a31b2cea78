"""What a job has done, in a file that survives a kill at any instant: labels of pairs, or steps of making them."""

from __future__ import annotations

import json
import os
import warnings
from array import array
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from rlaif_sdk.exceptions import DataError
from rlaif_sdk.io.jobs import claim, locked
from rlaif_sdk.io.text import SURROGATES, is_safe_text, safe_text
from rlaif_sdk.judges.usage import NOTHING, Usage

JOURNAL_FILE = "journal.jsonl"
_MISSING = -1


class LabelJournal:
    """One line a label, appended as soon as it is known; of two lines about one row the later counts.

    A line with an ``error`` stands for no label.

    Memory holds nine bytes a pair, whatever the texts. A last line that was torn by a kill is dropped; a line that
    cannot be read is as good as missing.

    Attributes:
        labelled: How many pairs have a label.
        usage: What all requests of the job took, those of earlier runs and of failed pairs included.
    """

    def __init__(self, path: Path, rows: int) -> None:
        self._path = path
        self._offsets = array("q", [_MISSING]) * rows
        self._labelled = bytearray(rows)
        self.labelled = 0
        self.usage: Usage = NOTHING
        self._end = 0
        self._file: BinaryIO = self._repaired()

    def is_labelled(self, row: int) -> bool:
        """Whether a pair, counted from 0, has a label."""
        return bool(self._labelled[row])

    def append(self, row: int, label: Mapping[str, Any]) -> None:
        """Add what is known of a pair: a label, or the error in its place.

        A lone surrogate in it, as of words that a model cut within a character, is replaced, which ``flags`` then says.

        Raises:
            DataError: The disk is full, or the file cannot be written for another reason.
        """
        text = _line(row, label)
        if not is_safe_text(text):
            text = safe_text(_line(row, {**label, "flags": [*label.get("flags", ()), SURROGATES]}))
        line = text.encode()
        try:
            written = self._file.write(line)
            if written != len(line):
                raise OSError(f"only {written} of {len(line)} bytes could be written")
        except OSError as error:
            raise DataError(
                f"cannot be written: {error}",
                file=str(self._path),
                hint="make room, then start the job again: it goes on where it stopped",
            ) from error
        self._take(row, self._end, label)
        self._end += len(line)

    def record(self, row: int) -> dict[str, Any] | None:
        """What is known of one row, counted from 0: a label, an error, or None."""
        if self._offsets[row] == _MISSING:
            return None
        with self._path.open("rb") as file:
            file.seek(self._offsets[row])
            found: dict[str, Any] = json.loads(file.readline())
        return found

    def records(self) -> Iterator[dict[str, Any] | None]:
        """What is known of each pair in order: a label, an error, or None."""
        with self._path.open("rb") as file:
            for offset in self._offsets:
                if offset == _MISSING:
                    yield None
                    continue
                if file.tell() != offset:
                    file.seek(offset)
                yield json.loads(file.readline())

    def close(self) -> None:
        """Put everything on the disk."""
        os.fsync(self._file.fileno())
        self._file.close()

    def _take(self, row: int, offset: int, label: Mapping[str, Any]) -> None:
        self.usage += Usage.of_record(label.get("usage") or {})
        known = "error" not in label
        if known or not self._labelled[row]:
            self._offsets[row] = offset
        if known:
            self.labelled += not self._labelled[row]
            self._labelled[row] = True

    def _repaired(self) -> BinaryIO:
        """Read what is there, cut off a torn end, and open the file for more."""
        unreadable = 0
        if self._path.exists():
            with self._path.open("rb") as file:
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    label = _parsed(line, len(self._offsets))
                    if label is None:
                        unreadable += 1
                    else:
                        self._take(label["row"], self._end, label)
                    self._end += len(line)
            os.truncate(self._path, self._end)
        if unreadable:
            warnings.warn(f"{self._path}: {unreadable} lines cannot be read; those rows are done again", stacklevel=4)
        return self._path.open("ab", buffering=0)


def _line(row: int, label: Mapping[str, Any]) -> str:
    return json.dumps({"row": row, **label}, ensure_ascii=False, allow_nan=False) + "\n"


def _parsed(line: bytes, rows: int) -> dict[str, Any] | None:
    try:
        label = json.loads(line)
        usable = isinstance(label["row"], int) and 0 <= label["row"] < rows and len(label) > 1
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    return label if usable else None


@contextmanager
def open_job(
    folder: Path, identity: Mapping[str, str], rows: int, *, kind: str, allow_changed: bool = False
) -> Iterator[LabelJournal]:
    """The journal in a job's folder, for this process alone.

    Args:
        folder: Made if it is not there.
        identity: What the labels depend on, a digest each; a folder belongs to one.
        rows: How many pairs there are.
        kind: What the job is called.
        allow_changed: Begin anew in a folder of another identity; what it holds is moved to ``earlier-1/`` in it, or
            the next number that is free.

    Raises:
        ConfigError: The folder was begun with another identity, and that is not allowed; names what differs.
        DataError: Another process works in the folder.
    """
    with locked(folder):
        claim(
            folder,
            identity,
            kind=kind,
            on_change="set_aside" if allow_changed else "refuse",
            results=[JOURNAL_FILE],
            hint="name another output folder, or set the config back to resume this one",
        )
        journal = LabelJournal(folder / JOURNAL_FILE, rows)
        try:
            yield journal
        finally:
            journal.close()
