"""Commands that are killed at random instants, twenty times each, lose nothing and end as if they never had been."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("trl")

from tests.kills.commands import COMMANDS
from tests.kills.killing import Starter, kill_often, starter

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
KILLS = 20


@pytest.fixture(scope="module")
def start() -> Iterator[Starter]:
    with starter() as starting:
        yield starting


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_that_is_killed_again_and_again_loses_nothing(start: Starter, tmp_path: Path, name: str) -> None:
    """SIGKILL to the process group, at instants that are drawn; in between it is started again as a user would."""
    tally = kill_often(start, name, KILLS, sum(map(ord, name)), tmp_path)
    assert tally.kills == KILLS
    assert tally.finished >= 1
    if name.startswith(("train", "iterate", "sweep", "distill")):
        assert tally.checkpoints >= 1
