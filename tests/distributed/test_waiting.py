"""Processes that wait for the first, which answers and scores for all. ``nox -s distributed``."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("accelerate")

from tests.two_processes import run_two

WORKER = Path(__file__).with_name("waiting_worker.py")
pytestmark = pytest.mark.slow


def test_the_others_wait_longer_than_a_collective_may_take(tmp_path: Path) -> None:
    """Hundreds of answers, or a slow judge, take longer than the launcher's limit of half an hour."""
    first, second = run_two(WORKER, "slow", str(tmp_path), folder=tmp_path)
    assert first == second == {"shared": [["an answer"], ["an answer"]]}


def test_what_fails_in_the_first_process_ends_the_others(tmp_path: Path) -> None:
    """At once, and with a message that says where to look."""
    first, second = run_two(WORKER, "failing", str(tmp_path), folder=tmp_path)
    assert "the judge cannot be reached" in first["error"]
    assert "TrainingError: the first process has failed" in second["error"]
