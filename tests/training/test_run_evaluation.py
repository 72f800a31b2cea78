"""PPO runs from a config: rewards of evaluation, samples of rollouts, REINFORCE."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

import yaml  # noqa: E402
from rich.console import Console  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

from rlaif_sdk import ConfigError  # noqa: E402
from rlaif_sdk.cli.main import app  # noqa: E402
from rlaif_sdk.reporting.training_report import report_online  # noqa: E402
from rlaif_sdk.training.methods import train  # noqa: E402
from tests.training.ppo_runs import TWO_STEPS  # noqa: E402

REWARDS = """\
def length(completions):
    return [len(text.split()) / 8 for text in completions]

def brevity(completions):
    return [-len(text.split()) / 8 for text in completions]
"""


def rows_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.fixture
def config(tmp_path: Path, llama: Any, tokenizer: Any) -> dict[str, Any]:
    """Trained for length, evaluated for brevity."""
    llama.save_pretrained(tmp_path / "start")
    tokenizer.save_pretrained(tmp_path / "start")
    (tmp_path / "rewards.py").write_text(REWARDS)
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps({"prompt": f"w{row} w3"}) + "\n" for row in range(8)))
    return {
        "model": {"name": str(tmp_path / "start")},
        "data": {"train": str(tmp_path / "prompts.jsonl"), "held_out": str(tmp_path / "prompts.jsonl")},
        "composition": {"rewards": {"length": {"use": f"{tmp_path}/rewards.py:length"}}},
        "evaluation": {"rewards": {"brevity": {"use": f"{tmp_path}/rewards.py:brevity"}}},
        "ppo": {**TWO_STEPS, "eval_strategy": "steps", "eval_steps": 1},
        "output": str(tmp_path / "out"),
    }


def test_held_out_prompts_are_scored_by_rewards_of_their_own(config: dict[str, Any]) -> None:
    """Between steps, and before and after training, beside the rewards that were trained on."""
    result = train("ppo", config)
    evaluations = rows_of(result.output / "evaluation.jsonl")
    assert [entry["step"] for entry in evaluations] == [1, 2]
    assert all(entry["eval_reward"] == entry["eval_reward/brevity/raw_mean"] < 0 for entry in evaluations)
    for side in (result.before, result.after):
        assert side.rewards().keys() == {"length", "composed_reward"}
        assert side.evaluation_rewards().keys() == {"brevity", "composed_reward"}
        assert (side.evaluation_rewards()["brevity"] == -side.rewards()["length"]).all()
    before = rows_of(result.output / "samples.jsonl")[0]["before"]
    assert before["evaluation"]["total"] == -before["total"]
    assert not any("brevity" in key for entry in result.history for key in entry)

    printed = io.StringIO()
    report_online(result, Console(file=printed, width=120))
    assert "not trained on" in printed.getvalue()
    metrics = json.loads((result.output / "metrics.json").read_text())
    assert metrics["evaluation"]["brevity"]["before"]["mean"] < 0


def test_a_bad_evaluation_is_refused_by_its_key(config: dict[str, Any]) -> None:
    """As a bad composition is, before any model loads."""
    config["evaluation"]["rewards"]["brevity"]["use"] = "no_such_reward"
    config["model"]["name"] = "no/such-model"
    with pytest.raises(Exception, match="no_such_reward"):
        train("ppo", config)


def test_samples_of_the_rollouts_stand_beside_the_results(config: dict[str, Any]) -> None:
    """In the run's folder, of training and evaluation, with every reward; a second start begins them anew."""
    del config["evaluation"]
    (Path(config["output"])).mkdir()
    file = Path(config["output"], "rollouts.jsonl")
    file.write_text("of a run that was given up\n")
    train("ppo", config)
    samples = rows_of(file)
    assert {(sample["step"], sample["split"]) for sample in samples} == {
        (0, "train"),
        (1, "eval"),
        (1, "train"),
        (2, "eval"),
    }
    assert samples[0]["rewards"]["length"]["raw"] == samples[0]["total"]
    assert not Path(config["output"], "checkpoints").exists()


def test_reinforce_is_a_command(config: dict[str, Any], tmp_path: Path) -> None:
    """``rlaif train reinforce`` takes the config of ``rlaif train ppo``."""
    config["ppo"]["eval_strategy"] = "no"
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    done = CliRunner().invoke(app, ["train", "reinforce", "--config", str(tmp_path / "run.yaml")])
    assert done.exit_code == 0, done.output
    assert Path(config["output"], "model", "config.json").is_file()


def test_reinforce_refuses_what_ppo_alone_can_do(config: dict[str, Any]) -> None:
    """Several steps of a rollout; the message has the key."""
    config["ppo"] |= {"algorithm": "reinforce", "num_iterations": 2}
    with pytest.raises(ConfigError, match=r"ppo\.num_iterations.*one optimiser step"):
        train("ppo", config)


def test_the_result_says_how_it_was_trained(config: dict[str, Any]) -> None:
    """For titles and tables."""
    config["ppo"]["algorithm"] = "reinforce"
    assert train("ppo", config).method == "REINFORCE"
