"""A command of the user's takes the place of the machine's sandbox. The suite of attacks runs in podman too, marked slow."""

from __future__ import annotations

import sys

import pytest

from rlaif_execution import rlaif_rewards
from rlaif_sdk import ConfigError

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
        ([sys.executable, "-c", PLAIN], "could read a file of its user, write a file, have 128 threads"),
        ([sys.executable, "-c", PLAIN], r"'sandbox_command' must start a container with python3 \(3.11 or later\)"),
        (["true"], "it ended its own process"),
    ],
)
def test_a_command_that_confines_nothing_is_refused(command: list[str], said: str) -> None:
    """With what a program could do in it, or what the command said itself, and what it must do."""
    with pytest.raises(ConfigError, match=f"untrusted code cannot be confined here: .*{said}"):
        SPEC.build({"sandbox_command": command}).setup()
