"""Where the SDK keeps what it need not make twice."""

from __future__ import annotations

from pathlib import Path

import platformdirs


def default_cache_dir() -> Path:
    """The user's cache folder of this SDK: on Linux ``$XDG_CACHE_HOME/rlaif-sdk``, or ``~/.cache/rlaif-sdk``."""
    return Path(platformdirs.user_cache_dir("rlaif-sdk", appauthor=False))
