"""The worker process of one reward: makes it, sets it up, scores what it is sent, and dies with its parent."""

from __future__ import annotations

import asyncio
import ctypes
import faulthandler
import inspect
import json
import os
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlaif_sdk.io.forks import on_fork
from rlaif_sdk.scoring import wire
from rlaif_sdk.scoring.processes import kill_descendants

if TYPE_CHECKING:
    from rlaif_sdk.rewards import Reward, Scores
    from rlaif_sdk.types import RewardBatch

PR_SET_CHILD_SUBREAPER = 36


def main(connection_fd: int, lifeline_fd: int) -> None:
    """Serve one parent until it closes the connection."""
    _die_with_parent(lifeline_fd)
    faulthandler.enable()
    os.dup2(2, 1)
    os.set_inheritable(connection_fd, False)  # noqa: FBT003 - it takes no keyword
    connection = socket.socket(fileno=connection_fd)
    on_fork(connection.close)
    channel = wire.Channel(connection)
    reward: Reward | None = None
    with asyncio.Runner() as runner:
        while (frame := channel.receive()) is not None:
            message = json.loads(frame.message)
            try:
                if "import" in message:
                    reply = _import(**message["import"])
                elif "make" in message:
                    reward = _make(**message["make"])
                    reply = _stated(reward)
                else:
                    assert reward is not None
                    reply = _score(reward, wire.decode_batch(message["score"]), runner)
            except BaseException as error:  # noqa: BLE001 - whatever a plugin raises is handed to its caller
                reply = wire.encode_error(error)
            if connection.fileno() < 0:  # the reward forked, and this is the child, which has no connection
                os._exit(0)
            channel.send(wire.Frame(frame.number, reply))
    if reward is not None:
        reward.close()
    kill_descendants("self")


def _import(reference: str, folder: str) -> bytes:
    from rlaif_sdk.plugins.references import load_reference

    load_reference(reference, Path(folder))
    return wire.encode_scores([])


def _make(use: str, params: Mapping[str, Any], folder: str) -> Reward:
    from rlaif_sdk.scoring.factory import make_reward

    reward = make_reward(use, params, Path(folder))
    reward.setup()
    return reward


def _stated(reward: Reward) -> bytes:
    from rlaif_sdk.rewards import stated_by
    from rlaif_sdk.types import Score

    return wire.encode_scores([Score(None, details=stated_by(reward))])


def _score(reward: Reward, batch: RewardBatch, runner: asyncio.Runner) -> bytes:
    from rlaif_sdk.scoring.checks import plain_scores

    answer: Any = reward.score(batch)
    if inspect.isawaitable(answer):
        answer = runner.run(_awaited(answer))
    return wire.encode_scores(plain_scores(answer, len(batch)))


async def _awaited(answer: Any) -> Scores:
    scores: Scores = await answer
    return scores


def _die_with_parent(lifeline_fd: int) -> None:
    """Have the kernel end this process group when the parent is gone, however it went and whatever runs here.

    The parent holds the other end of the lifeline, a pipe: when it closes, the kernel sends SIGKILL to the group. (A
    parent-death signal would end this process alone, and before that.) As subreaper, this process stays the ancestor of
    what its children leave behind, so that all of it can be found and ended.
    """
    if sys.platform == "linux":
        import fcntl  # Windows has none

        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        fcntl.fcntl(lifeline_fd, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(lifeline_fd, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(lifeline_fd, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
    os.set_inheritable(lifeline_fd, False)  # noqa: FBT003 - as above
    os.set_blocking(lifeline_fd, False)
    try:
        gone = os.read(lifeline_fd, 1) == b""
    except BlockingIOError:
        gone = False
    if gone:
        os._exit(1)
