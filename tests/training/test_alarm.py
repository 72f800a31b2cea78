"""An alarm during training: the run is paused or stopped, what was found is written down, the good checkpoint is kept."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from datasets import Dataset  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from trl import GRPOConfig, GRPOTrainer  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

from rlaif_sdk import Composer, ConfigError, RewardBatch, reward  # noqa: E402
from rlaif_sdk.cli.main import app  # noqa: E402
from rlaif_sdk.composer import Component  # noqa: E402
from rlaif_sdk.config import AlarmConfig  # noqa: E402
from rlaif_sdk.exceptions import AlarmError  # noqa: E402
from rlaif_sdk.integrations import AlarmCallback  # noqa: E402
from rlaif_sdk.io.tables import read_rows  # noqa: E402
from rlaif_sdk.training.methods import train  # noqa: E402
from rlaif_sdk.training.ppo import PPOTrainer  # noqa: E402

Make = Callable[..., PPOTrainer]
FALLS_AT = 8


@reward(range=(0.0, 1.0))
class People:
    """Likes what it sees until a step, and not after."""

    def score(self, batch: RewardBatch) -> list[float | None]:
        return [0.9 if batch.progress.step < FALLS_AT else 0.1 for _ in range(len(batch))]


@reward(range=(0.0, 1.0))
class Gain:
    """Pays more from step to step."""

    def score(self, batch: RewardBatch) -> list[float | None]:
        return [0.1 + 0.02 * batch.progress.step + 0.001 * row for row in range(len(batch))]


def composer(action: str) -> Composer:
    config = {"watch": [{"witness": "people", "action": action}], "reference": 20, "cooldown": 20}
    return Composer(
        {"gain": Component(Gain()), "people": Component(People(), weight=0.0)}, alarm=AlarmConfig.model_validate(config)
    )


SETTINGS = {
    "max_steps": 40,
    "steps_per_generation": 1,
    "save_strategy": "steps",
    "save_steps": 3,
    "save_total_limit": 1,
}


def test_a_paused_run_is_saved_and_goes_on(make_trainer: Make, llama: Any, tmp_path: Path) -> None:
    """It ends after the batch that raised the alarm; the checkpoint has the alarm's state, and training resumes from it."""
    start = copy.deepcopy(llama)
    with composer("pause") as composed:
        trainer = make_trainer(llama, composed, callbacks=[AlarmCallback(composed)], **SETTINGS)
        trainer.train()
        (raised,) = composed.alarm.raised
    step = trainer.state.global_step
    assert FALLS_AT < step == raised.step + 1 < 40
    (line,) = read_rows(tmp_path / "run" / "alarms.jsonl")
    assert (line["watch"], line["action"], line["good"]) == ("witness_people", "pause", raised.good)
    examples = [*read_rows(tmp_path / "run" / "alarms" / f"witness_people-{raised.step}.jsonl")]
    assert examples[0]["rewards"]["people"] == 0.1
    with composer("pause") as composed:
        resumed = make_trainer(
            start, composed, callbacks=[AlarmCallback(composed)], **{**SETTINGS, "max_steps": step + 2}
        )
        resumed.train(resume_from_checkpoint=str(tmp_path / "run" / f"checkpoint-{step}"))
        assert resumed.state.global_step == step + 2


def test_a_stopped_run_keeps_the_last_good_checkpoint(make_trainer: Make, llama: Any, tmp_path: Path) -> None:
    """With a limit of one checkpoint, rotation removes it from its folder, and its link is left whole."""
    with composer("stop") as composed:
        trainer = make_trainer(llama, composed, callbacks=[AlarmCallback(composed)], **SETTINGS)
        trainer.train()
        (raised,) = composed.alarm.raised
    (good,) = (tmp_path / "run" / "alarms" / "good").iterdir()
    assert good.name == "checkpoint-3"
    assert raised.good == 4
    assert not (tmp_path / "run" / "checkpoint-3").exists()
    assert json.loads((good / "trainer_state.json").read_text())["global_step"] == 3
    assert load_file(good / "model.safetensors")


def test_grpo_is_ended_by_the_callback(llama: Any, tokenizer: Any, tmp_path: Path) -> None:
    """TRL's own trainer, with the composer as its reward function."""
    with composer("pause") as composed:
        trainer = GRPOTrainer(
            llama,
            reward_funcs=composed.for_trl(),
            args=GRPOConfig(
                output_dir=str(tmp_path / "grpo"),
                per_device_train_batch_size=16,
                steps_per_generation=1,
                num_generations=4,
                max_completion_length=4,
                max_steps=30,
                report_to=[],
                use_cpu=True,
                bf16=False,
                disable_tqdm=True,
                logging_steps=1,
            ),
            train_dataset=Dataset.from_dict({"prompt": [f"w{row % 8}" for row in range(64)]}),
            processing_class=tokenizer,
            callbacks=[AlarmCallback(composed)],
        )
        trainer.train()
        (raised,) = composed.alarm.raised
    assert FALLS_AT <= raised.step < 29
    assert trainer.state.global_step == raised.step + 1
    assert (tmp_path / "grpo" / f"checkpoint-{trainer.state.global_step}" / "trainer_state.json").exists()
    logged = [entry["alarm/witness_people/e_value"] for entry in trainer.state.log_history if "reward" in entry]
    assert logged[0] == pytest.approx(1.0)
    assert max(logged) > 1


REWARDS = """\
from rlaif_sdk import Reward


class Falls(Reward):
    range = (0.0, 1.0)

    def score(self, batch):
        return [0.9 if batch.progress.step < 8 else 0.1 for _ in range(len(batch))]


class Gain(Falls):
    def score(self, batch):
        return [0.02 * batch.progress.step + 0.001 * row for row in range(len(batch))]
"""


def test_a_run_from_a_config_ends_with_the_command_that_resumes_it(llama: Any, tokenizer: Any, tmp_path: Path) -> None:
    """An error, so that no script takes it for a finished run; the model folder is not written."""
    llama.save_pretrained(tmp_path / "start")
    tokenizer.save_pretrained(tmp_path / "start")
    (tmp_path / "rewards.py").write_text(REWARDS)
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps({"prompt": f"w{row}"}) + "\n" for row in range(8)))
    use = f"{tmp_path}/rewards.py"
    config = {
        "model": {"name": str(tmp_path / "start")},
        "data": {"train": str(tmp_path / "prompts.jsonl"), "held_out": str(tmp_path / "prompts.jsonl")},
        "composition": {
            "rewards": {"gain": {"use": f"{use}:Gain"}, "people": {"use": f"{use}:Falls", "weight": 0}},
            "alarm": {"watch": [{"witness": "people", "tolerance": 0.05}], "action": "pause", "reference": 20},
        },
        "ppo": {
            "max_steps": 40,
            "per_device_train_batch_size": 4,
            "steps_per_generation": 1,
            "max_completion_length": 4,
            "use_cpu": True,
        },
        "output": str(tmp_path / "out"),
    }
    with pytest.raises(AlarmError, match="alarm witness_people at step") as caught:
        train("ppo", config)
    assert "--resume" in caught.value.hint
    assert (tmp_path / "out" / "alarms.jsonl").exists()
    assert not (tmp_path / "out" / "model").exists()
    assert json.loads((tmp_path / "out" / "run.json").read_text())["status"] == "failed"
    reported = CliRunner().invoke(app, ["report", str(tmp_path / "out")])
    assert reported.exit_code == 0, reported.output
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "plot-alarms-1" in page
    assert "training pauses" in page


def test_a_callback_without_an_alarm_is_refused() -> None:
    """It would do nothing."""
    with Composer({"gain": Gain()}) as composed, pytest.raises(ConfigError, match="has no alarm"):
        AlarmCallback(composed)
