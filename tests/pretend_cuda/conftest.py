"""These tests need the pretend device: ``nox -s pretend-gpu``."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.tiny_models import accept_renamed_checkpointing

if "tests.pretend_cuda.plugin" not in sys.modules:
    collect_ignore_glob = ["test_*.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    accept_renamed_checkpointing(items, Path(__file__).parent)
