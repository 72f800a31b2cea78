"""The runs of distilled and of direct RLAIF in ``examples``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("trl")

from rlaif_sdk.quickstart.model import MissingModelError, prepare_policy
from rlaif_sdk.training.distill import load_distill_run, run_distill
from rlaif_sdk.training.methods import (
    load_run,
    train,
)
from tests.training.distill_runs import distill_config

EXAMPLES = Path(__file__).parents[2] / "examples"
DISTILLED, DIRECT = EXAMPLES / "distilled-rlaif" / "run.yaml", EXAMPLES / "direct-rlaif" / "run.yaml"
SHORT = ("ppo.max_completion_length=12", "ppo.steps_per_generation=1", "data.held_out_rows=4")

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


@pytest.fixture
def real_model() -> str:
    """SmolLM2-135M-Instruct, where its package is installed."""
    try:
        return str(prepare_policy())
    except MissingModelError as error:
        pytest.skip(str(error))


def test_the_examples_prompts_are_there() -> None:
    """Both configs are accepted as they stand, and their tables exist."""
    for run in (load_distill_run(DISTILLED), load_run("ppo", DIRECT)):
        for table in (run.config.data.train, run.config.data.held_out):
            assert (run.folder / table).is_file()


def test_direct_rlaif_rewards_the_judges_expected_score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a tiny Llama: the example's composition, each answer's raw score in [-1, 1], with no row unscored."""
    folder = distill_config(tmp_path)["model"]["name"]
    run = load_run(
        "ppo",
        DIRECT,
        overrides=[
            f"model.name={folder}",
            "model.dtype=float32",
            "composition.rewards.judge.params.dtype=float32",
            "composition.rewards.judge.params.labels=numbers",
            "composition.rewards.judge.params.scale=[1, 2]",
            *SHORT,
            f"data.train={tmp_path}/prompts.jsonl",
            f"data.held_out={tmp_path}/prompts.jsonl",
            "ppo.max_steps=1",
            "ppo.use_cpu=true",
            f"output={tmp_path}/out",
        ],
    )
    result = train("ppo", run)
    scores = result.after.rewards()["judge"]
    assert np.isfinite(scores).all()
    assert (np.abs(scores) <= 1).all()
    assert np.std(scores) > 0


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_direct_rlaif_runs_on_the_real_model(tmp_path: Path, real_model: str) -> None:
    """SmolLM2-135M-Instruct as policy and as judge."""
    overrides = [f"model.name={real_model}", *SHORT, "ppo.max_steps=2", f"output={tmp_path}/out"]
    result = train("ppo", load_run("ppo", DIRECT, overrides=overrides))
    assert np.isfinite(result.after.rewards()["judge"]).all()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_distilled_rlaif_runs_on_the_real_model(tmp_path: Path, real_model: str) -> None:
    """SmolLM2-135M-Instruct as policy, as judge and as reward model."""
    overrides: list[Any] = [
        *(f"model.name={real_model}", f"reward_base.name={real_model}"),
        *("candidates.prompts=8", "candidates.max_completion_length=12", "reward_model.max_steps=2"),
        *(*SHORT, "ppo.max_steps=2", f"output={tmp_path}/out"),
    ]
    result = run_distill(load_distill_run(DISTILLED, overrides=overrides))
    assert result.stages["labels"]["labelled"] == result.stages["candidates"]["pairs"]
    rewards = result.stages["policy"]["rewards"]["reward_model"]
    assert rewards["change"]["n"] == 4
    assert json.dumps(result.stages)
