"""Distilled RLAIF that is killed in every stage comes to the end of one that is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from rlaif_sdk.training.distill import run_distill  # noqa: E402
from tests.training.distill_runs import distill_config  # noqa: E402
from tests.training.kills import run_with_kills  # noqa: E402

AWAITED = (
    "candidates/completions/000001.json",
    "labels/__job__/journal.jsonl",
    "reward_model/run.json",
    "reward_model/model",
    "policy/rollouts.jsonl",
    "policy/model",
    "comparison/labels/__job__/journal.jsonl",
)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_run_that_is_killed_in_every_stage_comes_to_the_same_end(tmp_path: Path) -> None:
    """SIGKILL as soon as the next file has appeared, wherever the process is then; --resume from the first start."""
    config = distill_config(tmp_path)
    whole = run_distill({**config, "output": str(tmp_path / "whole")})
    (tmp_path / "run.json").write_text(json.dumps(config))
    script = (
        f"from rlaif_sdk.training.distill import run_distill; run_distill({str(tmp_path / 'run.json')!r}, resume=True)"
    )
    output = tmp_path / "out"
    run_with_kills(script, output, AWAITED)
    timed = dict.fromkeys(("training_seconds", "usage"))
    for name, stage in whole.stages.items():
        found = json.loads((output / name / "stage.json").read_text())
        assert {**found, **timed} == {**stage, **timed}
