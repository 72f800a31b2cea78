"""``rlaif report``, run as a program over ledgers that composers wrote."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rlaif_sdk import Composer, Progress, RewardBatch
from rlaif_sdk.composer import Ledger

pytest.importorskip("plotly", reason="the report needs plotly")

REWARDS = """
from rlaif_sdk import Score
def gain(completions, gain): return gain
def brevity(completions):
    return [Score(1.0 / len(text.split()), reason="counted its words") for text in completions]
def judge(completions, judge): return judge
"""
CONFIG = """
rewards:
  gain: {use: "./my_rewards.py:gain", normalize: zscore}
  brevity: {use: "./my_rewards.py:brevity", weight: 0.5}
  judge: {use: "./my_rewards.py:judge", weight: 0}
ledger: run/ledger.sqlite
"""


def rlaif(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("rlaif")
    return subprocess.run(
        [program, *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "120", "NO_COLOR": "1"},
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with a config and the ledger of a run of 20 steps, in which the judge falls as the gain rises."""
    folder = tmp_path_factory.mktemp("reported")
    (folder / "my_rewards.py").write_text(REWARDS)
    (folder / "rewards.yaml").write_text(CONFIG)
    with Composer.from_config(folder / "rewards.yaml") as composer:
        for step in range(20):
            composer.compose(
                RewardBatch(
                    ["p"] * 4,
                    [f"{'word ' * (1 + row)}at {step}" for row in range(4)],
                    columns={
                        "gain": [step + row / 4 for row in range(4)],
                        "judge": [-step - row / 4 for row in range(4)],
                    },
                    group=[0, 0, 1, 1],
                    progress=Progress(step, 20),
                )
            )
    (folder / "run" / "history.jsonl").write_text(json.dumps({"step": 1, "kl": 0.5}) + "\n")
    answer = {"completion": "held-out answer", "total": 0.5}
    (folder / "run" / "samples.jsonl").write_text(json.dumps({"prompt": "q", "before": answer, "after": answer}) + "\n")
    return folder


def test_report_writes_a_page_beside_the_ledger_and_prints_what_is_wrong(folder):
    """The warnings on the terminal are those of the page; history and held-out answers are taken along."""
    done = rlaif("report", "run", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "Reward hacking: between steps 0–4 and 15–19 'gain' changed by +15 ±" in done.stdout
    assert "wrote run/report.html" in done.stdout
    page = (folder / "run" / "report.html").read_text(encoding="utf-8")
    assert "80 rows of 20 steps, 0 to 19, in 40 groups" in page
    assert 'id="log"' in page
    assert "held-out answer" in page
    assert "counted its words" in page


def test_what_each_reward_adds_is_read_from_the_record(folder):
    """No config is needed, whatever normalizers the run had."""
    rlaif("report", "run", "-o", "plain.html", cwd=folder)
    page = (folder / "plain.html").read_text(encoding="utf-8")
    assert 'id="variance"' in page


@pytest.mark.parametrize("config", ["rewards.yaml", "inline.yaml", "file.yaml"])
def test_with_the_run_s_config_the_parts_are_computed_again(folder, config):
    """A composition's file, or a training config that holds it or names it; nothing is scored again."""
    (folder / "file.yaml").write_text("composition: rewards.yaml\n")
    inline = "\n".join(f"  {line}" for line in CONFIG.splitlines())
    (folder / "inline.yaml").write_text(f"composition:{inline}\n")
    before = (folder / "run" / "ledger.sqlite").stat().st_size
    done = rlaif("report", "run/ledger.sqlite", "-c", config, "-o", "page.html", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    page = (folder / "page.html").read_text(encoding="utf-8")
    assert 'id="variance"' in page
    assert "not recorded" not in page
    assert "counted its words" in page
    assert (folder / "run" / "ledger.sqlite").stat().st_size == before


def test_a_config_that_is_not_the_run_s_is_noticed(folder):
    """Other totals come out than were recorded, which is warned of; other rewards are refused."""
    (folder / "other.yaml").write_text(CONFIG.replace("0.5", "0.7"))
    done = rlaif("report", "run", "-c", "other.yaml", "-o", "page.html", cwd=folder)
    assert "warning: the config gives other totals than were recorded, in 20 batches" in done.stderr
    (folder / "fewer.yaml").write_text("rewards:\n  gain: {use: './my_rewards.py:gain'}\n")
    done = rlaif("report", "run", "-c", "fewer.yaml", "-o", "page.html", cwd=folder)
    assert done.returncode == 2
    assert "the config has no reward brevity, judge, and the run has" in done.stderr


def test_held_out_rewards_are_named_on_the_command_line(folder):
    """A name that is no reward of the run is refused with those that there are."""
    done = rlaif("report", "run", "--held-out", "jugde", cwd=folder)
    assert done.returncode == 2
    assert "no reward is named 'jugde' (the run has gain, brevity, judge)" in done.stderr


def test_a_folder_without_a_ledger_is_refused_in_one_line(tmp_path):
    """The error says what is wanted."""
    done = rlaif("report", tmp_path, cwd=tmp_path)
    assert done.returncode == 2
    assert "ledger" in done.stderr
    assert "Traceback" not in done.stderr


def record(folder: Path, method: str) -> Path:
    """The folder of a run, with what it was made of."""
    run = folder / "run"
    run.mkdir()
    config = {"seed": 3, "model": "<b>m</b>"}
    manifest = {"method": method, "config": config, "data": {}, "code": {}, "models": [], "versions": {}}
    (run / "run.json").write_text(json.dumps(manifest))
    return run


def test_a_run_that_was_stopped_before_its_first_batch_has_a_report(tmp_path):
    """It says that nothing is composed yet, where a ledger without a run was refused; one run by number still is."""
    run = record(tmp_path, "ppo")
    Ledger(run / "ledger.sqlite").close()
    done = rlaif("report", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "wrote run/report.html; the run has composed nothing yet" in done.stdout
    assert "config.seed" in (run / "report.html").read_text()
    done = rlaif("report", "run", "--run", "2", cwd=tmp_path)
    assert done.returncode == 2
    assert "no run 2 is recorded (nothing has been composed with it yet" in done.stderr


@pytest.mark.parametrize("method", ["dpo", "grpo", "sft", "reward_model"])
def test_a_run_without_a_ledger_has_a_report_of_its_log(tmp_path, method):
    """Its log, what it was made of, and that rewards are missing from it; text is no markup."""
    run = record(tmp_path, method)
    (run / "history.jsonl").write_text('{"step": 1, "loss": 0.5}\n{"step": 2, "loss": 0.25}\n')
    done = rlaif("report", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "wrote run/report.html; the run has no ledger" in done.stdout
    page = (run / "report.html").read_text()
    assert all(said in page for said in ("config.seed", "Training log", method, "&lt;b&gt;m"))
