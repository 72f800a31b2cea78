"""The config of a PPO run: what is accepted, and how a refusal reads."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("trl")

from rlaif_sdk import ConfigError
from rlaif_sdk.training.methods import (
    load_run,
    trainer_settings,
)

CONFIG = """\
model:
  name: my-model
data:
  train: train.jsonl
composition:
  rewards:
    length: {use: "./rewards.py:length"}
ppo:
  learning_rate: 1.0e-4
output: out
seed: 3
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "run.yaml"
    file.write_text(CONFIG)
    (tmp_path / "rewards.py").write_text(
        "def length(prompts, completions):\n    return [len(c) for c in completions]\n"
    )
    return file


def test_paths_of_a_config_are_relative_to_its_file(config: Path):
    """Output, reward files and local models are found beside the config, from whatever folder the run is started."""
    run = load_run("ppo", config)
    assert run.output == config.parent / "out"
    assert run.composer().weights == {"length": 1.0}
    assert run.model_name == "my-model", "no folder of that name: it is one of the hub"
    (config.parent / "my-model").mkdir()
    assert run.model_name == str(config.parent / "my-model")


def test_a_composition_may_stand_in_a_file_of_its_own(config: Path):
    """``composition: rewards.yaml`` is read relative to the run's config."""
    inline = 'composition:\n  rewards:\n    length: {use: "./rewards.py:length"}\n'
    config.write_text(CONFIG.replace(inline, "composition: rewards.yaml\n"))
    (config.parent / "rewards.yaml").write_text('rewards:\n  length: {use: "./rewards.py:length", weight: 0.5}\n')
    assert load_run("ppo", config).composer().weights == {"length": 0.5}


def test_settings_reach_the_trainer(config: Path):
    """Fields under ``ppo`` become the trainer's settings; the seed and the checkpoints' place are the run's."""
    settings = trainer_settings(load_run("ppo", config))
    assert settings.learning_rate == 1e-4
    assert settings.seed == 3
    assert Path(settings.output_dir).is_relative_to(config.parent / "out")


def test_an_override_takes_the_place_of_a_value(config: Path):
    """``--set`` changes single keys, typed as YAML has them."""
    run = load_run("ppo", config, overrides=["ppo.learning_rate=2e-6", "seed=9"])
    settings = trainer_settings(run)
    assert (settings.learning_rate, settings.seed) == (2e-6, 9)


def test_trainer_settings_have_the_types_that_the_trainer_states(config: Path):
    """Text that is a number becomes one, and a value of a fitting type stays as it is: a step of 5 is no 5.0."""
    settings = trainer_settings(
        load_run("ppo", config, overrides=["ppo.learning_rate='2e-6'", "ppo.max_steps='5'", "ppo.save_steps=5"])
    )
    assert (settings.learning_rate, settings.max_steps) == (2e-6, 5)
    assert isinstance(settings.save_steps, int)


def test_a_refused_choice_is_named_among_other_settings(config: Path):
    """transformers says which value it does not know, and not of which setting."""
    config.write_text(CONFIG.replace("1.0e-4", "1.0e-4\n  max_steps: 3\n  save_strategy: sometimes\n  bf16: false"))
    with pytest.raises(ConfigError, match=r"ppo\.save_strategy: refused: sometimes") as refused:
        trainer_settings(load_run("ppo", config))
    assert refused.value.line == 11


def test_names_that_vllm_knows_are_not_looked_for_in_generate(config: Path):
    """Its sampling has settings that transformers' has not."""
    assignments = ["ppo.use_vllm=true", "ppo.generation_kwargs={bad_words: [w1]}"]
    assert trainer_settings(load_run("ppo", config, overrides=assignments)).generation_kwargs == {"bad_words": ["w1"]}


def test_another_output_leaves_everything_else(config: Path, tmp_path: Path):
    """`with_output` changes where results go, and data and rewards are still found beside the config."""
    run = load_run("ppo", config).with_output(tmp_path / "elsewhere")
    assert run.output == tmp_path / "elsewhere"
    assert run.folder == config.parent


@pytest.mark.parametrize(
    "settings",
    [
        {"logging_strategy": "no", "logging_steps": 0},
        {"logging_strategy": "epoch", "logging_steps": 0},
        {"save_strategy": "epoch", "save_steps": 0},
        {"eval_strategy": "no", "eval_steps": 0},
        {"max_grad_norm": math.inf},
        {"num_train_epochs": 0, "max_steps": 5},
    ],
    ids=lambda settings: "-".join(map(str, settings)),
)
def test_what_a_trainer_accepts_is_accepted(settings: dict[str, Any]):
    """An interval that no strategy asks for, epochs where steps are counted, a gradient that is not clipped."""
    run = {**yaml.safe_load(CONFIG), "ppo": settings}
    for name, value in settings.items():
        assert getattr(trainer_settings(load_run("ppo", run)), name) == value


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"logging_steps": 0}, "logging_steps must be above 0, not 0"),
        ({"logging_strategy": "steps", "logging_steps": -1}, "logging_steps must be above 0, not -1"),
        ({"save_strategy": "steps", "save_steps": 0}, "save_steps must be above 0, not 0"),
        ({"eval_strategy": "steps", "eval_steps": -2}, "eval_steps must be above 0, not -2"),
        ({"max_grad_norm": math.nan}, "max_grad_norm must be a number, not nan"),
        ({"max_grad_norm": -1.0}, "max_grad_norm must be at least 0"),
        ({"num_train_epochs": 0}, "num_train_epochs must be above 0, not 0"),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(map(str, value)),
)
def test_what_a_trainer_would_make_use_of_is_checked(settings: dict[str, Any], message: str):
    """The same settings where they hold."""
    with pytest.raises(ConfigError, match=message):
        trainer_settings(load_run("ppo", {**yaml.safe_load(CONFIG), "ppo": settings}))


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("learning_rate", "learning_rat", 9, "did you mean 'learning_rate'"),
        ("learning_rate: 1.0e-4", "gamma: 2", 9, "at most 1"),
        ("learning_rate: 1.0e-4", "output_dir: x", 9, "'output'"),
        ("learning_rate: 1.0e-4", "max_steps: lots", 9, r"ppo\.max_steps: 'lots' is refused.*valid integer"),
        ("learning_rate: 1.0e-4", "kl_target: high", 9, r"ppo\.kl_target: 'high' is refused.*valid number"),
        ("learning_rate: 1.0e-4", "generation_kwargs: 3", 9, r"ppo\.generation_kwargs: 3 is refused"),
        ("learning_rate: 1.0e-4", "learning_rate: -1", 9, r"ppo\.learning_rate: .* at least 0, not -1"),
        ("learning_rate: 1.0e-4", "per_device_train_batch_size: 0", 9, "above 0, not 0"),
        ("learning_rate: 1.0e-4", "max_steps: 0", 9, "without it num_train_epochs holds"),
        ("learning_rate: 1.0e-4", "top_p: 3", 9, "at most 1, not 3"),
        ("learning_rate: 1.0e-4", "adam_beta1: 1", 9, "below 1, not 1"),
        ("learning_rate: 1.0e-4", "weight_decay: .nan", 9, "a finite number"),
        ("learning_rate: 1.0e-4", "reward_clip_range: [1, -1]", 9, "the lower one first"),
        ("learning_rate: 1.0e-4", "gradient_accumulation_steps: 0", 9, "above 0, not 0"),
        (
            "learning_rate: 1.0e-4",
            "report_to: wandbb",
            9,
            r"ppo\.report_to: 'wandbb' is no logger \(did you mean 'wandb'",
        ),
        ("learning_rate: 1.0e-4", "report_to: dvclive", 9, r"ppo\.report_to: dvclive is not installed"),
        ("learning_rate: 1.0e-4", "generation_kwargs: {top_kk: 3}", 9, "generate knows no 'top_kk'.*'top_k'"),
        ("learning_rate: 1.0e-4", "optim: adamm", 9, r"ppo\.optim: refused: adamm is not a valid"),
        ("learning_rate: 1.0e-4", "deepspeed: zero3.json", 9, r"ppo\.deepspeed: .*the launcher's to say"),
        ("learning_rate: 1.0e-4", "resume_from_checkpoint: x", 9, "give --resume"),
        ("learning_rate: 1.0e-4", "reward_weights: [1.0]", 9, "weights in the composition"),
        ("seed: 3", "seed: -1", 11, "greater than or equal to 0"),
        ("data:", "  dtyp: auto\ndata:", 3, "did you mean 'dtype'"),
        ("length: {use:", "length: {us:", 7, "did you mean 'use'"),
    ],
)
def test_a_refusal_names_the_line(config: Path, old: str, new: str, line: int, message: str):
    """Unknown and impossible values are refused before anything is loaded, with file, line and the next step."""
    config.write_text(CONFIG.replace(old, new))
    with pytest.raises(ConfigError, match=message) as refused:
        trainer_settings(load_run("ppo", config))
    assert refused.value.line == line
    assert refused.value.file == str(config)
