"""bubblewrap takes the place of Landlock where there is none. The suite of attacks runs in it too, marked slow."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from rlaif_execution import bubblewrap, policy, rlaif_rewards
from rlaif_sdk import ConfigError, RewardBatch

SPEC = next(iter(rlaif_rewards()))
ATTACKS = """
import ctypes, os, socket, threading
def f(path, parent):
    libc, found = ctypes.CDLL(None, use_errno=True), []
    def raw(*call):
        if libc.syscall(*call) == -1:
            raise OSError
    acts = [lambda: open(path), lambda: os.stat(path), lambda: os.listdir("/proc"), lambda: open("/x", "w"),
            os.fork, lambda: raw(58), lambda: raw(56, 17, 0, 0, 0, 0), lambda: raw(435, 0, 0),
            lambda: os.kill(parent, 0), lambda: socket.socket(), lambda: raw(272, 0x10000000), lambda: os.execv("/usr/bin/true", ["true"])]
    for number, act in enumerate(acts):
        try:
            act()
            found.append(number)
        except OSError:
            pass
    thread = threading.Thread(target=found.append, args=("thread",))
    thread.start()
    thread.join()
    return found
"""


@pytest.fixture
def in_bubblewrap(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a kernel without Landlock."""
    monkeypatch.setattr(policy, "_what_landlock_lacks", lambda: ("no Landlock", "another kernel"))


def score(code: str, tests: Any, **params: Any) -> Any:
    reward = SPEC.build({"code": "whole", **params})
    reward.setup()
    try:
        (found,) = asyncio.run(
            reward.score(RewardBatch([""], [code], columns={"tests": [tests], "entry_point": ["f"]}))
        )
    finally:
        reward.close()
    return found


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers of the calls are this machine's")
def test_a_program_in_it_gets_nothing_out_and_its_threads_work(in_bubblewrap: None, tmp_path: Path) -> None:
    """Neither a file, nor its name, a process, a socket or another process; after the same trial as Landlock's."""
    if not bubblewrap.is_installed():
        pytest.skip("bubblewrap is not installed")
    (tmp_path / "secret").write_text("secret")
    found = score(ATTACKS, [{"args": [str(tmp_path / "secret"), os.getpid()], "expected": ["thread"]}])
    assert found.value == 1.0, found.reason


def test_without_either_sandbox_nothing_runs(in_bubblewrap: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lacks of each is told."""
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match=r"no Landlock, and bubblewrap is not installed.*apt-get install bubblewrap"):
        SPEC.build({}).setup()


def test_one_that_may_make_no_namespaces_is_refused(
    in_bubblewrap: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As in a container that forbids them: with its own words."""
    refusing = tmp_path / "bwrap"
    refusing.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    refusing.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(ConfigError, match="did not start: bwrap: No permissions to create new namespace"):
        SPEC.build({}).setup()


@pytest.mark.parametrize(
    ("hole", "could"),
    [
        (("--ro-bind", "/", "/"), "read a file of its user"),
        (("--bind", "/tmp", "/tmp"), "read a file of its user, write a file"),
        (("--setenv", "RLAIF_SECRET", "s"), "read the environment"),
    ],
)
def test_one_with_a_hole_is_refused(
    in_bubblewrap: None, monkeypatch: pytest.MonkeyPatch, hole: tuple[str, ...], could: str
) -> None:
    """The trial finds it before the first row."""
    if not bubblewrap.is_installed():
        pytest.skip("bubblewrap is not installed")
    whole = bubblewrap.command

    def holed(*arguments: Any) -> list[str]:
        program, *made = whole(*arguments)
        return [program, *hole, *made]

    monkeypatch.setattr(bubblewrap, "command", holed)
    with pytest.raises(ConfigError, match=could):
        SPEC.build({}).setup()
