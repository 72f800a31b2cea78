"""The files of a loop. Each appears whole, by one rename, so that what is there is done, whenever the process died."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rlaif_sdk.config.documents import Document
from rlaif_sdk.exceptions import DataError, TrainingError
from rlaif_sdk.io.files import write_json
from rlaif_sdk.job_folder import held
from rlaif_sdk.training.fingerprints import differences, without_secrets

_CHANGED = "changed"


def read_json(file: Path) -> Any:
    """Read a file that `rlaif_sdk.io.files.write_json` wrote.

    Raises:
        DataError: It was changed by something else and is no JSON any more.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise DataError(
            f"no valid JSON: {error.msg}", file=str(file), hint="delete it, and it is made again"
        ) from error


class Shards:
    """Numbered parts of a job, each a file.

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


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder.

    Raises:
        TrainingError: Another process is at work in it.
    """
    refusal = TrainingError(f"another process is at work in {folder}", hint="wait for it, or end it")
    with held(folder / ".lock", refusal):
        yield


def check_same_job(
    folder: Path,
    settings: Mapping[str, Any],
    document: Document,
    *,
    resume: bool,
    kind: str = "loop",
    allow_changed: bool = False,
) -> None:
    """Note what a job is made of at its start, in ``KIND.json``, and refuse to go on with something else.

    Args:
        folder: The job's folder.
        settings: JSON values; those under ``stop`` may change.
        document: For the place of a refusal.
        resume: Whether to go on with what is there.
        kind: What the job is called.
        allow_changed: Go on though something has changed. What is done stays as it was made; what has changed is noted
            under ``changed``, a list a start.

    Raises:
        ConfigError: There is one and it is not to be resumed, or its settings were other ones: all are named.
    """
    file = folder / f"{kind}.json"
    settings = json.loads(json.dumps(without_secrets({key: settings[key] for key in settings if key != "stop"})))
    if not file.exists():
        write_json(file, settings)
        return
    if not resume:
        raise document.error(
            f"{folder} already holds a {kind}", ("output",), "--resume goes on with it, or name another"
        )
    known = read_json(file)
    earlier = known.pop(_CHANGED, [])
    found = [f"{key} was {_brief(old)} and is {_brief(new)}" for key, old, new in differences(known, settings)]
    if not found:
        return
    if not allow_changed:
        hint = "undo that, name another folder, or go on with --allow-changed"
        hint += "; what stands under 'stop' may always change" if kind == "loop" else ""
        raise document.error(f"this is not the {kind} that {folder} holds: " + "; ".join(found), (), hint)
    write_json(file, {**settings, _CHANGED: [*earlier, found]})


def _brief(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
