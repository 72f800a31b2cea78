"""A run in a process of its own that is killed again and again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path


def run_with_kills(script: str, output: Path, awaited: Sequence[str]) -> int:
    """Start a script anew after each SIGKILL, which comes as soon as the next file has appeared; the last start ends.

    Returns:
        How often it was killed.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "PYTHONWARNINGS": "ignore"}
    kills = 0
    for file in (*awaited, None):
        process = subprocess.Popen(
            [sys.executable, "-c", script],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        while file and process.poll() is None and not (output / file).exists():
            time.sleep(0.002)
        if file:
            assert process.poll() is None, process.stderr and process.stderr.read()
            process.send_signal(signal.SIGKILL)
            kills += 1
        _, errors = process.communicate()
        assert file or process.returncode == 0, errors
    return kills
