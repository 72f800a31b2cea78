"""``--check`` of every command that scores or labels: one real row, what failed is named, nothing is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from rlaif_sdk.cli.main import app

REWARDS = """
from rlaif_sdk import Reward, reward
def words(completion_texts):
    return [float(len(text.split())) for text in completion_texts]

def broken(completion_texts):
    raise RuntimeError("the server is out")

def ill(completion_texts, reference):
    return [float("nan")] * len(completion_texts)

class Judged(Reward):
    def model_calls(self, rows):
        return rows * (rows - 1)

    def score(self, batch):
        return [0.5] * len(batch)

@reward(scope="group")
def longest(completion_texts):
    return [float(len(text) == max(map(len, completion_texts))) for text in completion_texts]
"""


@pytest.fixture
def check(tmp_path, monkeypatch):
    """Runs a command with ``--check`` in a folder with rewards and rows, and says its exit code and what it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    (tmp_path / "my_rewards.py").write_text(REWARDS)
    rows = [{"prompt": "Why?", "completion": f"Because {row}.", "reference": "x"} for row in range(3)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def run(*arguments: str, **configs: Any) -> tuple[int, str]:
        for name, config in configs.items():
            (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(config))
        before = files(tmp_path)
        done = CliRunner().invoke(app, [*arguments, "--check"])
        assert files(tmp_path) == before
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done.exit_code, done.output

    return run


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if "__pycache__" not in path.parts}


def composition(*names: str, **options: Any) -> dict[str, Any]:
    patient = {"policy": "abstain", "fail_fast": False}
    return {"rewards": {name: {"use": f"./my_rewards.py:{name}", "on_failure": patient, **options} for name in names}}


def test_score_scores_the_first_row_and_says_what_each_reward_gives(check):
    """With the row's own completion; no ledger is made, whether the composition names one or not."""
    code, said = check("score", "rows.jsonl", "-c", "c.yaml", c=composition("words") | {"ledger": "ledger.sqlite"})
    assert code == 0, said
    assert "rows: 3 rows (prompt, completion, reference)" in said
    assert "gives for the first row, answered by 'Because 0.'" in said
    assert "Nothing keeps this from starting." in said


@pytest.mark.parametrize("extra", [(), ("--engine", "ray"), ("--limit", "2")])
def test_score_names_every_reward_that_fails_on_it(check, extra):
    """With the cause; the command has worked, and what it looked at is not in order."""
    code, said = check("score", "rows.jsonl", "-c", "c.yaml", *extra, c=composition("broken", "words", "ill"))
    assert code == 1, said
    assert "wrong: reward 'broken' fails on row 1 of rows.jsonl: raised RuntimeError: the server is out" in said
    assert "wrong: reward 'ill' fails on row 1 of rows.jsonl: returned nan" in said
    assert "'words' fails" not in said


def test_a_reward_of_groups_scores_two_answers_to_the_first_prompt(check):
    """Those of its group; without a column of groups nothing is compared, which is told before anything is paid for."""
    config = composition("longest")
    code, said = check("score", "rows.jsonl", "-c", "c.yaml", "--group-column", "prompt", c=config)
    assert code == 0, said
    assert "longest      1  scored" in said
    code, said = check("score", "rows.jsonl", "-c", "c.yaml", "--group-column", "prompt", c=composition("Judged"))
    assert "Calls of a model that the composition makes at most for the completions to a prompt (3): Judged 6" in said
    code, said = check("score", "rows.jsonl", "-c", "c.yaml", c=config)
    assert code == 1, said
    assert "reward 'longest' compares the completions to one prompt" in said
    assert "--group-column" in said


def test_score_tells_a_reward_that_cannot_be_made(check):
    """Before any row is scored."""
    code, said = check(
        "score", "rows.jsonl", "-c", "c.yaml", c={"rewards": {"wrods": {"use": "./my_rewards.py:wrods"}}}
    )
    assert code == 1, said
    assert "wrods" in said


def test_sweep_over_ready_answers_scores_the_first(check):
    """No model is looked at."""
    run = {
        "model": {"name": "none"},
        "data": {"train": "rows.jsonl"},
        "composition": composition("words", "ill"),
    }
    sweep = {"run": run, "weights": {"words": [0, 1]}}
    code, said = check("sweep", "s.yaml", "--score-only", "rows.jsonl", s=sweep)
    assert code == 1, said
    assert "completions: 3 rows" in said
    assert "wrong: reward 'ill' fails on row 1 of" in said


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning")
class TestWithModels:
    """Commands that load a tiny judge or look at a tiny policy."""

    @pytest.fixture
    def start(self, tmp_path, check):
        pytest.importorskip("trl")
        from tests.training.distill_runs import distill_config

        config = distill_config(tmp_path, chat=False)
        return {key: config[key] for key in ("model", "data", "ppo")} | {"composition": composition("words")}

    def test_label_labels_the_first_pair(self, check, start, tmp_path):
        """And says what the judge made of it; a judge that is not there is a problem."""
        pair = {"prompt": "w1", "response_1": "w2", "response_2": "w3"}
        (tmp_path / "pairs.jsonl").write_text(json.dumps(pair) + "\n")
        job = {"pairs": {"file": "pairs.jsonl"}, "judge": {"model": str(tmp_path / "start"), "device": "cpu"}}
        code, said = check("label", "l.yaml", l=job)
        assert code == 0, said
        assert "What judge says of one pair: prob_1 " in said
        code, said = check("label", "l.yaml", l=job | {"max_chars": 1})
        assert code == 1, said
        assert "wrong: the judge fails on the first pair: " in said

    def test_sweep_looks_at_its_run(self, check, start):
        """Model, rows and rewards, as for train."""
        sweep = {"run": start, "weights": {"words": [1, 2]}}
        code, said = check("sweep", "s.yaml", s=sweep)
        assert code == 0, said
        assert "policy" in said
        broken = {"run": {**start, "composition": composition("words", "broken")}, "weights": {"words": [0, 1]}}
        code, said = check("sweep", "s.yaml", s=broken)
        assert code == 1, said
        assert "wrong: reward 'broken' fails on the first row of data.train" in said

    def test_iterate_and_distill_score_a_row_and_ask_their_judge(self, check, start, tmp_path):
        """The rewards, and the judge on two stated answers; what needs the reward model that is not there is left out."""
        judge = {"judge": {"model": str(tmp_path / "start"), "device": "cpu"}, "max_failed_share": 1}
        code, said = check(
            "iterate",
            "i.yaml",
            i={key: start[key] for key in ("model", "data", "composition")} | {"method": "dpo", "label": judge},
        )
        assert code == 0, said
        assert "What label says of one pair: prob_1 " in said
        assert "What each reward of composition gives" in said
        rewards = composition("ill")["rewards"] | {"reward_model": {"params": {"model": "$reward_model"}}}
        code, said = check("distill", "d.yaml", d={**start, "composition": {"rewards": rewards}, "label": judge})
        assert code == 1, said
        assert "'ill' needs" in said or "reference" in said
        del rewards["ill"]
        code, said = check("distill", "d.yaml", d={**start, "composition": {"rewards": rewards}, "label": judge})
        assert code == 0, said
        assert "What label says of one pair: prob_1 " in said
