"""``rlaif report`` and ``rlaif runs`` of jobs and loops: labelling, Ray's scoring, rounds, points, stages."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("trl")
pytest.importorskip("plotly")

from typer.testing import CliRunner

from rlaif_sdk.cli.main import app
from rlaif_sdk.exceptions import DataError
from rlaif_sdk.training.sweep import PointResult, SweepResult
from tests.judges.conftest import JudgeServer, judge_server, letters  # noqa: F401 - a fixture

ESTIMATE = {"mean": 0.5, "standard_error": 0.03, "n": 16}
HEALTH = {"length_tokens": {"mean": 12.0, "standard_error": 1.0, "n": 16}}


def rlaif(*arguments: Any) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def a_job(folder: Path, kind: str, **results: Any) -> Path:
    (folder / "__job__").mkdir(parents=True)
    identity = {"kind": kind, "identity": {"run": {"seed": 3}}}
    (folder / "__job__" / "identity.json").write_text(json.dumps(identity))
    for name, value in results.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    return folder


def evaluation(mean: float) -> dict[str, Any]:
    return {
        "composed_reward": {**ESTIMATE, "mean": mean},
        "change": ESTIMATE,
        "rewards": {"helpful": {**ESTIMATE, "higher_is_better": True}},
        "health": HEALTH,
        "kl": ESTIMATE,
    }


LOOP = {"end": "round 2 is the last", "best": 1, "model": "m", "rounds": [evaluation(0.25), evaluation(0.75)]}
STAGES = {
    "candidates": {"prompts": 4, "pairs": 8},
    "labels": {"labelled": 8, "flip_rate": 0.125},
    "reward_model": {"held_out_pairs": 2, "before": {"accuracy": 0.5}, "after": {"accuracy": 1.0}},
    "policy": {
        "rewards": {"reward_model": {"before": ESTIMATE, "after": {**ESTIMATE, "mean": 0.9}, "change": ESTIMATE}},
        "evaluation": {},
        "health": {},
    },
    "comparison": {"win_rate": ESTIMATE},
}


def report_of(folder: Path) -> str:
    done = rlaif("report", folder)
    assert done.exit_code == 0, done.exception
    assert "wrote" in done.output
    return (folder / "report.html").read_text()


def label(server: JudgeServer, *arguments: str) -> Any:
    """Label three pairs in the current folder, of which the second is refused."""
    good = (200, {}, letters({"1": -0.1, "2": -3.0}, "1"))
    server.answer = lambda _, sent: (400, {}, {"error": "no <b>such</b> pair"}) if "q1" in str(sent) else good
    rows = [{"prompt": f"q{row}", "response_1": "yes", "response_2": "no"} for row in range(3)]
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    judge = {"model": "tiny", "base_url": server.url}
    Path("label.yaml").write_text(
        yaml.safe_dump({"pairs": {"file": "pairs.jsonl"}, "judge": judge, "max_failed_share": 1})
    )
    assert rlaif("label", "label.yaml", *arguments).exit_code == 3


def test_a_labelling_job_is_reported_with_its_agreement_failures_and_spread(tmp_path, monkeypatch, judge_server):  # noqa: F811
    """A real job over HTTP: flip rate, mass, a failure by kind with its first row, and the doubtful pairs."""
    monkeypatch.chdir(tmp_path)
    label(judge_server)
    page = report_of(Path("labels"))
    assert "<td>flip_rate</td><td>1.0</td>" in page
    assert "Pairs without a label" in page
    assert re.search(r"no &lt;b&gt;such[^\n]*</td><td>1</td><td>2</td>", page)
    assert "mass of the labels" in page
    listed = rlaif("runs", "list", ".").output
    assert "labelling job" in listed
    assert "finished" in listed
    assert "flip_rate" in rlaif("runs", "show", "labels").output


@pytest.mark.parametrize("where", ["--set=format=csv", "--set=format=parquet", "--output=elsewhere.csv", "--output=-"])
def test_labels_are_reported_in_whatever_form_and_place_they_are(tmp_path, monkeypatch, judge_server, where):  # noqa: F811
    """Though an earlier start of the same job wrote another table; of standard output nothing is left to show."""
    monkeypatch.chdir(tmp_path)
    label(judge_server)
    label(judge_server, where)
    page = report_of(Path("labels"))
    assert ("The most doubtful pairs" in page) == ("0.500 · flipped" in page) == (where != "--output=-")
    assert ("The labels went to standard output and are not there" in page) == (where == "--output=-")


def test_a_loop_is_reported_a_row_a_round_and_compared_by_its_best(tmp_path):
    """Reward, change, divergence; why it ended; curves."""
    page = report_of(a_job(tmp_path / "one", "loop", rounds=LOOP))
    assert "The loop ended: round 2 is the last. The best round is 1" in page
    assert "<td>0.750 ± 0.030</td>" in page
    assert "composed_reward" in page
    other = {**LOOP, "best": 0}
    a_job(tmp_path / "other", "loop", rounds=other)
    compared = rlaif("runs", "compare", tmp_path / "one", tmp_path / "other").output
    assert "results.best: 1 → 0" in compared
    assert "-0.500 ± 0.042" in compared


def test_a_sweep_is_reported_a_row_a_point(tmp_path):
    """With the weights, the means and the frontier."""
    points = [PointResult({"helpful": float(weight)}, {"helpful": [weight, weight + 0.5]}) for weight in (0, 1)]
    SweepResult({"helpful": True}, points, [0, 1]).write(a_job(tmp_path / "sweep", "sweep"))
    page = report_of(tmp_path / "sweep")
    assert "<td>*</td><td>helpful=1</td><td>1.250 ± " in page
    assert "<td></td><td>helpful=0</td>" in page


def test_a_distillation_is_reported_by_stage(tmp_path):
    """Labels, reward model, policy before and after, and the judge's comparison."""
    page = report_of(a_job(tmp_path / "distilled", "distillation", report=STAGES))
    assert "<td>accuracy</td><td>0.500</td><td>1.000</td>" in page
    assert "<td>0.900 ± 0.030</td>" in page
    assert "win_rate.mean" in page
    assert "reward_model" in rlaif("runs", "compare", tmp_path / "distilled", tmp_path / "distilled").output


def test_scores_of_ray_are_reported_by_reward(tmp_path):
    """Counts, moments, and the first row without a total."""
    folder = a_job(tmp_path / "scored", "scoring job")
    rewards = {"words": {"scored": 2, "failed": 1, "mean": 0.5, "std": 0.1, "min": 0.4, "max": 0.6}}
    summary = {"rows": 3, "unscored": 1, "first_unscored": [2, "words failed (nan)"], "rewards": rewards, "shards": 1}
    (folder / "__job__" / "summary.json").write_text(json.dumps(summary))
    page = report_of(folder)
    assert "Of 3 rows 1 are unscored." in page
    assert "The first is row 2: words failed (nan)." in page


def test_a_job_that_has_not_finished_is_told_with_the_next_step(tmp_path):
    """And listed so; one of a kind without results says which kinds there are."""
    done = rlaif("report", a_job(tmp_path / "loop", "loop"))
    assert isinstance(done.exception, DataError)
    assert "holds a loop that has not finished" in str(done.exception)
    assert "start its command again" in str(done.exception)
    assert "unfinished" in rlaif("runs", "list", tmp_path).output
    done = rlaif("report", a_job(tmp_path / "made", "making of pairs"))
    assert "is a making of pairs, of which there is no report" in str(done.exception)
