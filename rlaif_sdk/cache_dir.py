"""Where the SDK keeps what it need not make twice."""

from __future__ import annotations

import os
from pathlib import Path


def default_cache_dir() -> Path:
    """``$XDG_CACHE_HOME/rlaif-sdk``, or ``~/.cache/rlaif-sdk`` where that is unset or relative (as XDG has it)."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".cache") / "rlaif-sdk"
