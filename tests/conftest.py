"""What the tests of the SDK share: batches, a registry of its own for each test, config files, installed plugins."""

from __future__ import annotations

import gc
import importlib
import os
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from rlaif_sdk import Registry, RewardBatch
from rlaif_sdk.composer import builtin

settings.register_profile("rlaif", deadline=None, max_examples=80)
settings.load_profile("rlaif")


def pytest_collection_finish() -> None:
    """Leave all that is imported out of garbage collections: accelerate makes one at every start of a training run."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def one_environment() -> Iterator[None]:
    """Put the object ``os.environ`` back: `datasets` replaces it by a copy when it maps in processes."""
    environment = os.environ
    yield
    os.environ = environment  # noqa: B003


@pytest.fixture(autouse=True)
def a_standard_input_of_its_own() -> Iterator[None]:
    """A process has one standard input, which is read once; a command in a test has another."""
    yield
    if "rlaif_sdk.io.tables" in sys.modules:
        sys.modules["rlaif_sdk.io.tables"]._standard_input.cache_clear()


@pytest.fixture(scope="session")
def make_batch() -> Callable[..., RewardBatch]:
    """A function that makes a batch of ``rows`` numbered rows."""

    def make(rows: int, **fields: object) -> RewardBatch:
        return RewardBatch(
            prompts=[f"prompt {row}" for row in range(rows)],
            completions=[f"completion {row}" for row in range(rows)],
            **fields,
        )

    return make


@pytest.fixture
def registry() -> Registry:
    """A registry with nothing but what comes with the SDK."""
    registry = Registry()
    registry.register(builtin, name="builtin")
    return registry


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], Path]:
    """A function that writes a dedented file into the test's folder and returns its path."""

    def write_file(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return path

    return write_file


@pytest.fixture
def install(
    write: Callable[[str, str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., None]]:
    """A function that installs a distribution as pip leaves it: a module, and metadata with an entry point."""
    monkeypatch.syspath_prepend(str(tmp_path))
    modules: list[str] = []

    def install_distribution(distribution: str, source: str, *, version: str = "1.0", target: str = "") -> None:
        module = f"{distribution.replace('-', '_')}_module"
        modules.append(module)
        write(f"{module}.py", source)
        info = f"{distribution.replace('-', '_')}-{version}.dist-info"
        write(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        write(f"{info}/entry_points.txt", f"[rlaif_sdk]\n{distribution} = {target or module}\n")
        importlib.invalidate_caches()

    yield install_distribution
    for module in modules:
        sys.modules.pop(module, None)
