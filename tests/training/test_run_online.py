"""GRPO and RLOO runs from a config, end to end on a tiny real model."""

from __future__ import annotations

import dataclasses
import inspect
import json
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from rich.console import Console  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402
from trl.trainer.grpo_trainer import GRPOTrainer  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

from rlaif_sdk import BatchError, ConfigError, DataError  # noqa: E402
from rlaif_sdk.cli.train import train_app  # noqa: E402
from rlaif_sdk.reporting.live_view import watch_run  # noqa: E402
from rlaif_sdk.training.methods import (  # noqa: E402
    load_run,
    train,
    trainer_settings,
)
from rlaif_sdk.training.online import GRPO_CHOICES  # noqa: E402

REWARDS = """\
def wanted(completions, target):
    return [text.split().count(word) / 8 for text, word in zip(completions, target)]
"""


@pytest.fixture(params=["grpo", "rloo"])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def config(tmp_path: Path, llama: Any, tokenizer: Any, kind: str) -> dict[str, Any]:
    """A run on a tiny Llama and eight prompts; the reward's scale is learned, so that there is state."""
    llama.save_pretrained(tmp_path / "start")
    tokenizer.save_pretrained(tmp_path / "start")
    (tmp_path / "rewards.py").write_text(REWARDS)
    rows = [{"prompt": f"w{row} w3", "target": "w5"} for row in range(8)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {
        "model": {"name": str(tmp_path / "start")},
        "data": {"train": str(tmp_path / "prompts.jsonl"), "held_out": str(tmp_path / "prompts.jsonl")},
        "composition": {"rewards": {"wanted": {"use": f"{tmp_path}/rewards.py:wanted", "normalize": "zscore"}}},
        kind: {
            "max_steps": 2,
            "per_device_train_batch_size": 8,
            "per_device_eval_batch_size": 8,
            "num_generations": 4,
            "max_completion_length": 8,
            "learning_rate": 1e-2,
            "beta": 0.01,
            "use_cpu": True,
        },
        "output": str(tmp_path / "out"),
    }


def test_a_run_trains_and_reports_as_ppo_s_does(config: dict[str, Any], kind: Any, capsys: Any) -> None:
    """RewardHandle-out answers before and after, the trained model for plain from_pretrained, history, metrics and curves."""
    result = watch_run(load_run(kind, config), Console())
    model = AutoModelForCausalLM.from_pretrained(result.model_folder)
    start = AutoModelForCausalLM.from_pretrained(config["model"]["name"])
    assert any(not torch.equal(a, b) for a, b in zip(model.parameters(), start.parameters(), strict=True))
    assert result.method == kind.upper()
    assert [entry["step"] for entry in result.history] == [1, 2]
    assert "reward/wanted/raw_mean" in result.history[0]
    assert "kl" in result.history[0]
    assert {"metrics.json", "curves.png", "samples.jsonl", "history.jsonl", "model"} <= {
        path.name for path in result.output.iterdir()
    }
    printed = capsys.readouterr().out
    assert "Rewards on 8 held-out prompts" in printed
    assert "nats a token in the last rollout" in printed
    assert "kl_per_token" in json.loads((result.output / "metrics.json").read_text())


def test_what_the_trainer_itself_refuses_is_said_without_a_traceback(config: dict[str, Any], kind: Any) -> None:
    """With the key of its settings: TRL checks some as it makes the trainer."""
    config[kind]["use_vllm"] = True
    with pytest.raises(ConfigError, match=f"^{kind}: TRL refuses this: vLLM is not available"):
        train(kind, load_run(kind, config))


def test_an_error_of_the_sdk_s_own_is_not_told_as_trl_s(
    config: dict[str, Any], kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever its kind: it has a place and a next step of its own."""
    error = DataError("is refused", file="rows.jsonl", row=3)
    trainer = f"trl.trainer.{kind}_trainer.{kind.upper()}Trainer.__init__"
    monkeypatch.setattr(trainer, Mock(side_effect=error))
    with pytest.raises(DataError) as caught:
        train(kind, load_run(kind, config))
    assert caught.value is error


@pytest.mark.parametrize("name", GRPO_CHOICES)
def test_choices_of_grpo_are_checked_before_a_model_loads(config: dict[str, Any], kind: Any, name: str) -> None:
    """TRL comes to them while it trains; each that is known here is one that TRL's trainer speaks of."""
    if kind == "rloo":
        pytest.skip("RLOO has no such setting")
    config[kind][name] = "at times"
    with pytest.raises(ConfigError, match=rf"^grpo\.{name}: is one of .*, not 'at times'"):
        trainer_settings(load_run(kind, config))
    source = inspect.getsource(GRPOTrainer)
    for choice in GRPO_CHOICES[name]:
        assert f'"{choice}"' in source
        config[kind][name] = choice
        assert getattr(trainer_settings(load_run(kind, config)), name) in GRPO_CHOICES[name]


def test_grpo_gets_separate_rewards_where_it_normalises_each(config: dict[str, Any], kind: Any) -> None:
    """GDPO: the composition's weights go along, each reward is in TRL's log, and what holds over totals is refused."""
    if kind == "rloo":
        pytest.skip("RLOO has no such setting")
    rewards = config["composition"]["rewards"]
    rewards["other"] = {**rewards["wanted"], "weight": 0.3}
    config[kind]["multi_objective_aggregation"] = "normalize_then_sum"
    (first, _) = train(kind, load_run(kind, config)).history
    assert first["reward"] == pytest.approx(first["rewards/wanted/mean"] + 0.3 * first["rewards/other/mean"])
    config["composition"]["gates"] = [{"reward": "wanted", "min": 0.0, "floor": -1.0}]
    config["output"] += "-gated"
    with pytest.raises(ConfigError, match="gates hold over the total"):
        train(kind, load_run(kind, config))


def test_an_adapter_is_merged(config: dict[str, Any], kind: Any) -> None:
    """With LoRA the saved model is a plain one."""
    config["model"]["lora"] = {"r": 2, "alpha": 4}
    result = train(kind, load_run(kind, config))
    _, loading = AutoModelForCausalLM.from_pretrained(result.model_folder, output_loading_info=True)
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]


def test_a_run_resumes_from_its_checkpoint_with_the_composer_s_state(config: dict[str, Any], kind: Any) -> None:
    """A run that ended early is taken up where it was, and its statistics are those of both parts."""
    config[kind] |= {"save_strategy": "steps", "save_steps": 1, "max_steps": 1}
    first = train(kind, load_run(kind, config))
    first.model_folder.rename(first.output / "early")
    config[kind]["max_steps"] = 2
    result = train(kind, dataclasses.replace(load_run(kind, config), allow_changed=True), resume=True)
    assert [entry["step"] for entry in result.history] == [1, 2]
    saved = json.loads((result.output / "checkpoints" / "checkpoint-2" / "trainer_state.json").read_text())
    state = saved["stateful_callbacks"]["rlaif_sdk.composer"]["attributes"]
    assert state["rewards"]["wanted"]["state"]["count"] == 16


def test_a_column_of_a_reserved_name_is_refused_before_training(
    config: dict[str, Any], kind: Any, tmp_path: Path
) -> None:
    """Also one that TRL itself stumbles on."""
    rows = [{"prompt": "w1", "target": "w5", "prompts": "x"}] * 8
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(BatchError, match="'prompts' has a reserved name"):
        train(kind, load_run(kind, config))


@pytest.mark.parametrize(
    ("key", "message"),
    [("learning_rat", "did you mean 'learning_rate'"), ("seed", "set 'seed' of the run"), ("gamma", "unknown key")],
)
def test_settings_are_checked_by_name(config: dict[str, Any], kind: Any, key: str, message: str) -> None:
    """A key that the trainer's config does not have, or that stands elsewhere, is refused before a model loads."""
    config[kind][key] = 1
    with pytest.raises(ConfigError, match=message):
        train(kind, load_run(kind, config))


def test_the_settings_of_the_other_trainer_are_refused(config: dict[str, Any], kind: Any) -> None:
    """A GRPO run has no key ``rloo``, and the other way round."""
    with pytest.raises(ConfigError, match=kind):
        load_run("rloo" if kind == "grpo" else "grpo", config)


def test_the_command_line_trains(config: dict[str, Any], kind: Any, tmp_path: Path) -> None:
    """``rlaif train grpo --config`` and ``rlaif train rloo --config``, with overrides."""
    (tmp_path / "run.json").write_text(json.dumps(config))
    arguments = [kind, "--config", str(tmp_path / "run.json"), "--set", f"{kind}.max_steps=1"]
    done = CliRunner().invoke(train_app, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    assert (tmp_path / "out" / "model" / "config.json").exists()
