"""Commands on a full disk and in folders that cannot be written: one line, exit code 2, nothing torn, no litter."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("trl")

from tests.kills.commands import COMMANDS
from tests.kills.killing import Ran, Starter, check_whole, left, renew, starter

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
WRITERS = [name for name, command in COMMANDS.items() if command.client is None]
LIMITS = (0, 500, 4_000, 30_000, 120_000)
"""Bytes that a file may have, which writing learns as it learns of a full disk: of training, the last lets weights pass and
not the optimizer's state."""


@pytest.fixture(scope="module")
def start() -> Iterator[Starter]:
    with starter() as starting:
        yield starting


def check_told(ran: Ran, folder: Path) -> None:
    """A refusal is told in a line; what is there is whole, and nothing unfinished but what the refusal names."""
    assert ran.code in {0, 2}, ran.said
    assert "Traceback" not in ran.said
    check_whole(folder)
    if ran.code == 2:
        assert len(re.findall("^error: ", ran.said, re.MULTILINE)) == 1, ran.said
        hidden = [path for path in folder.rglob(".*.partial") if str(path.relative_to(folder)) not in ran.said]
        assert not hidden


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_is_told_in_a_line(start: Starter, tmp_path: Path, name: str) -> None:
    """Whichever file is the first that does not fit; at the least limit none does."""
    folder, inputs = tmp_path / "run", tmp_path / "inputs"
    folder.mkdir()
    COMMANDS[name].prepare(folder)
    shutil.copytree(folder, inputs)
    for limit in LIMITS:
        ran = start.run(list(COMMANDS[name].arguments), folder, file_limit=limit)
        check_told(ran, folder)
        assert ran.code == 2 or limit
        renew(inputs, folder)


@pytest.mark.parametrize("name", WRITERS)
def test_a_read_only_folder_is_told_in_a_line(start: Starter, tmp_path: Path, name: str) -> None:
    """And nothing is in it that was not before."""
    folder = tmp_path / "run"
    folder.mkdir()
    COMMANDS[name].prepare(folder)
    before = left(folder)
    folder.chmod(0o555)
    try:
        ran = start.run(list(COMMANDS[name].arguments), folder)
    finally:
        folder.chmod(0o755)
    check_told(ran, folder)
    assert ran.code == 2
    assert left(folder) == before
