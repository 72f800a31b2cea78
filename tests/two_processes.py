"""A script run as the two processes of a launcher."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def run_two(script: Path, *arguments: str, folder: Path, **environment: str) -> list[dict[str, Any]]:
    """What each process wrote to ``rank0.json`` and ``rank1.json`` in a folder.

    Both end when one has failed; its errors are told.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        **environment,
    }
    started = [
        subprocess.Popen(
            [sys.executable, str(script), *arguments],
            env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    try:
        errors = [process.communicate(timeout=240)[1] for process in started]
        assert [process.returncode for process in started] == [0, 0], "\n\n".join(errors)
    finally:
        for process in started:
            process.kill()
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in (0, 1)]
