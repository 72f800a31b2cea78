"""What the package ``rlaif-factuality`` promises as a plugin, and what its evaluation measures."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from rlaif_factuality import rlaif_rewards
from rlaif_sdk.testing import check_reward_contract

SPEC = next(iter(rlaif_rewards()))
PACKAGE = Path(__file__).parents[1]


def test_the_entry_point_leads_to_the_registration_module() -> None:
    """An installed plugin is found by name and states its API version."""
    (entry,) = entry_points(group="rlaif_sdk", name="factuality")
    assert entry.load().rlaif_api_version == 1


def test_the_reward_keeps_the_contract() -> None:
    """The checks that the SDK ships for plugin authors pass without any parameter."""
    scores = check_reward_contract(SPEC)
    assert scores[:2] == [1.0, 0.0]


def test_listing_the_plugin_loads_nothing_heavy() -> None:
    """Registration imports neither torch nor numpy."""
    code = "import sys, rlaif_factuality; print({'torch', 'transformers', 'onnxruntime', 'numpy'} & set(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "set()"


def test_the_default_beats_word_overlap_on_held_out_questions() -> None:
    """The figure in the README comes out of the evaluation script again, well above the baseline's."""
    data = Path(os.environ.get("RLAIF_DATA", PACKAGE.parents[2] / "shared" / "data")) / "truthfulqa" / "TruthfulQA.csv"
    if not data.exists():
        pytest.skip("needs truthfulqa/TruthfulQA.csv under RLAIF_DATA")
    command = [sys.executable, str(PACKAGE / "evaluation" / "truthfulqa.py"), str(data)]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    within = {
        line.split(" within ")[0].strip(): float(line.split(" within ")[1].split()[0])
        for line in reversed(shown.splitlines())
        if " within " in line
    }
    assert within["factuality"] > within["word overlap"] + 0.05
