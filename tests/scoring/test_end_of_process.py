"""How a process ends while a reward is still at work."""

from __future__ import annotations

import subprocess
import sys

import pytest

REWARDS = """
import time

def fixed(completions):
    return [1.0] * len(completions)

def stubborn(completions):
    while True:
        try:
            time.sleep(0.01)
        except BaseException:
            pass
"""
SCRIPT = """
import sys
from rlaif_sdk import Composer, RewardBatch

texts = [f"you idiot {row} " * 60 for row in range(600)]
late = {"use": sys.argv[1], "timeout": 0.5, "on_failure": {"policy": "abstain", "fail_fast": False}}
composer = Composer.from_config({"rewards": {"late": late, "fixed": {"use": "./rewards.py:fixed"}}})
print(composer.compose(RewardBatch(["a"] * len(texts), texts)).rewards["late"].status(0))
"""


@pytest.mark.parametrize("use", ["toxicity", "./rewards.py:stubborn"])
def test_a_call_past_its_limit_does_not_spoil_the_end_of_the_process(tmp_path, use):
    """Before 3.14 a thread that came back from ONNX Runtime after the interpreter's end aborted the process."""
    (tmp_path / "rewards.py").write_text(REWARDS)
    command = [sys.executable, "-c", SCRIPT, use]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
    assert done.stdout == "failed\n", done.stderr
    assert done.returncode == 0, done.stderr
    assert not done.stderr
