"""The hub as the pages see it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.local_hub import fill


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which hub names are found in a cache of tiny models and tables, see `tests.local_hub`."""
    pytest.importorskip("transformers")
    pytest.importorskip("datasets")
    return {**os.environ, **fill(Path(tmp_path_factory.mktemp("hub")))}
