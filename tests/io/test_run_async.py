"""Coroutines run from plain code, within an event loop or without."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest

import rlaif_sdk
from rlaif_sdk.attacks import attack_judge, load_attacks
from rlaif_sdk.io.run_async import run_async
from rlaif_sdk.judges import Pair, PairwiseLabeler, label_pairs
from rlaif_sdk.testing import ScriptedJudge

where: ContextVar[str] = ContextVar("where", default="nowhere")


def plainly(function: Callable[[], Any]) -> Any:
    return function()


def in_a_cell(function: Callable[[], Any]) -> Any:
    async def cell() -> Any:
        return function()

    return asyncio.run(cell())


@pytest.mark.parametrize("run", [plainly, in_a_cell])
def test_results_errors_and_context_are_the_coroutines(run: Callable[..., Any]) -> None:
    """Whoever waits gets what it returns, or what it raises, and it sees the caller's context."""

    async def answer(value: Any) -> Any:
        await asyncio.sleep(0)
        if isinstance(value, BaseException):
            raise value
        return value, where.get()

    where.set("here")
    assert run(lambda: run_async(answer(42))) == (42, "here")
    with pytest.raises(LookupError, match="not there"):
        run(lambda: run_async(answer(LookupError("not there"))))


def test_an_interrupted_wait_cancels_the_coroutine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in a notebook ends what was asked for; nothing goes on in a thread."""
    cancelled = threading.Event()
    begun = threading.Event()

    async def for_ever() -> None:
        begun.set()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    def interrupted(self: Any, timeout: float | None = None) -> Any:
        begun.wait(10)
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr("concurrent.futures.Future.result", interrupted)
    with pytest.raises(KeyboardInterrupt):
        in_a_cell(lambda: run_async(for_ever()))
    assert cancelled.wait(10)


@pytest.mark.parametrize("run", [plainly, in_a_cell])
def test_judges_are_asked_from_a_cell(run: Callable[..., Any]) -> None:
    """Labels and attacks are plain functions over judges that are not."""
    labeler = PairwiseLabeler(ScriptedJudge(lambda request: {"1": 0.8, "2": 0.2}))
    (label,) = run(lambda: label_pairs([Pair("What is 2 + 2?", "4", "5")], labeler))
    assert label.prob_1 == pytest.approx(0.5)
    assert run(lambda: attack_judge(labeler, attacks=load_attacks()[:1]))


def test_nothing_else_of_the_package_starts_a_loop_that_one_may_be_in() -> None:
    """``asyncio.run`` refuses to within a running loop; commands are never called from one."""
    root = Path(rlaif_sdk.__file__).parent
    found = [
        str(file.relative_to(root))
        for file in root.rglob("*.py")
        if re.search(r"asyncio\.run\(|run_until_complete", file.read_text(encoding="utf-8")) and file.parts[-2] != "cli"
    ]
    assert found == ["io/run_async.py"]
