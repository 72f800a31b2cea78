"""Small JSON files, each written whole or not at all."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_json(file: Path, value: Any, *, indent: int | None = 2) -> None:
    """Write a file so that whoever reads it finds the old content or the new, never a part, also after a power cut.

    Args:
        file: The file; its folder is made if it is missing.
        value: A JSON value. NaN and infinity are none, see `without_nan`.
        indent: Spaces a level; None puts all on one line, which is quicker for large values.

    Raises:
        ValueError: A number is NaN or infinite.
        TypeError: Something is no JSON value.
        OSError: The file cannot be written.
    """
    text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False) + "\n"
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
    try:
        with partial.open("w", encoding="utf-8", errors="backslashreplace") as stream:  # JSON's escape of a surrogate
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(file)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def without_nan(value: Any) -> Any:
    """The value with None for the numbers that JSON does not know, at any depth."""
    if isinstance(value, Mapping):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
