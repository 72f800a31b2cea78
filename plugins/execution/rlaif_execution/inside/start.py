"""The first thing that runs in a sandbox."""

from __future__ import annotations

import builtins
import os
import sys

from rlaif_execution.inside.channel import Channel
from rlaif_execution.inside.locks import lock_down


def main(part: str, memory: str, cpu_seconds: str) -> None:
    """Lock this process down, say so, and run the part of that name."""
    if part == "examiner":
        from rlaif_execution.inside.examiner import main as run
    else:
        from rlaif_execution.inside.solution import main as run
    # `site` defines both, and no sandbox imports that
    builtins.exit = builtins.quit = sys.exit  # type: ignore[assignment]
    for name in ("PWD", "PATH"):  # of bubblewrap, and of a container
        os.environ.pop(name, None)
    channel = Channel()
    lock_down(int(memory), int(cpu_seconds))
    channel.send({"ready": True})
    run(channel)
