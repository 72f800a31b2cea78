"""A command of the user's takes the place of the machine's sandbox. The suite of attacks runs in podman too, marked slow."""

from __future__ import annotations

import asyncio
import sys

import pytest

from rlaif_execution import rlaif_rewards
from rlaif_sdk import ConfigError, RewardBatch

SPEC = next(iter(rlaif_rewards()))
PLAIN = """
import os, sys
command = sys.argv[1:]
command[command.index("python3")] = sys.executable
os.execvp(command[0], command)
"""


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["nonesuch", "run"], "failed to execute nonesuch"),
        (["sh", "-c", "echo no such image >&2; exit 125"], "exit code 125 no such image"),
        (
            [sys.executable, "-c", PLAIN],
            "could read a file of its user, write a file, .*see the processes of this machine, have 128",
        ),
        ([sys.executable, "-c", PLAIN], r"'sandbox_command' must start a container with python3 \(3.11 or later\)"),
        (["true"], "it ended its own process"),
    ],
)
def test_a_command_that_confines_nothing_is_refused(command: list[str], said: str) -> None:
    """With what a program could do in it, or what the command said itself, and what it must do."""
    with pytest.raises(ConfigError, match=f"untrusted code cannot be confined here: .*{said}"):
        SPEC.build({"sandbox_command": command}).setup()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("option", "could"),
    [
        ("--pid=host", "could see the processes of this machine"),
        ("--pids-limit=1000", "could have 128 threads"),
        ("--read-only=false", "could write a file"),
        ("--volume=/tmp:/tmp:ro", "could read a file of its user"),
        ("--env=SECRET=1", None),
        ("--user=1000:1000", None),
        ("--network=host", None),
    ],
)
def test_a_hole_in_a_container_is_found_or_closed_by_us(podman: list[str], option: str, could: str | None) -> None:
    """Before the first row; the filter of calls closes the network, and what the container has in its environment stays there."""
    name = option.partition("=")[0]
    engine, given = podman[: podman.index("run") + 1], podman[podman.index("run") + 1 :]
    command = [*engine, option, *(word for word in given if name == "--volume" or word.partition("=")[0] != name)]
    reward = SPEC.build({"sandbox_command": command, "code": "whole"})
    if could is not None:
        with pytest.raises(ConfigError, match=could):
            reward.setup()
        return
    reward.setup()
    code = "import os\ndef f(): return sorted(os.environ)"
    tests = [{"expected": ["LC_CTYPE", "PYTHONHASHSEED", "PYTHONUTF8"]}]
    (found,) = asyncio.run(reward.score(RewardBatch([""], [code], columns={"tests": [tests], "entry_point": ["f"]})))
    reward.close()
    assert found.value == 1.0, found.reason
