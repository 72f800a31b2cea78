"""The config of a PPO run: what is accepted, and how a refusal reads."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("trl")

from rlaif_sdk import ConfigError
from rlaif_sdk.training.config import load_run_config

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
    run = load_run_config(config)
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
    assert load_run_config(config).composer().weights == {"length": 0.5}


def test_settings_reach_the_trainer(config: Path):
    """Fields under ``ppo`` become the trainer's settings; the seed and the checkpoints' place are the run's."""
    settings = load_run_config(config).ppo_config()
    assert settings.learning_rate == 1e-4
    assert settings.seed == 3
    assert Path(settings.output_dir).is_relative_to(config.parent / "out")


def test_an_override_takes_the_place_of_a_value(config: Path):
    """``--set`` changes single keys, typed as YAML has them."""
    run = load_run_config(config, overrides=["ppo.learning_rate=2e-6", "seed=9"])
    settings = run.ppo_config()
    assert (settings.learning_rate, settings.seed) == (2e-6, 9)


def test_trainer_settings_have_the_types_that_the_trainer_states(config: Path):
    """Text that is a number becomes one, and a value of a fitting type stays as it is: a step of 5 is no 5.0."""
    settings = load_run_config(
        config, overrides=["ppo.learning_rate='2e-6'", "ppo.max_steps='5'", "ppo.save_steps=5"]
    ).ppo_config()
    assert (settings.learning_rate, settings.max_steps) == (2e-6, 5)
    assert isinstance(settings.save_steps, int)


def test_another_output_leaves_everything_else(config: Path, tmp_path: Path):
    """`with_output` changes where results go, and data and rewards are still found beside the config."""
    run = load_run_config(config).with_output(tmp_path / "elsewhere")
    assert run.output == tmp_path / "elsewhere"
    assert run.folder == config.parent


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("learning_rate", "learning_rat", 9, "did you mean 'learning_rate'"),
        ("learning_rate: 1.0e-4", "gamma: 2", 9, "at most 1"),
        ("learning_rate: 1.0e-4", "output_dir: x", 9, "'output'"),
        ("learning_rate: 1.0e-4", "max_steps: lots", 9, r"ppo\.max_steps: 'lots' is refused.*valid integer"),
        ("learning_rate: 1.0e-4", "kl_target: high", 9, r"ppo\.kl_target: 'high' is refused.*valid number"),
        ("learning_rate: 1.0e-4", "generation_kwargs: 3", 9, r"ppo\.generation_kwargs: 3 is refused"),
        ("seed: 3", "seed: -1", 11, "greater than or equal to 0"),
        ("data:", "  dtyp: auto\ndata:", 3, "did you mean 'dtype'"),
        ("length: {use:", "length: {us:", 7, "did you mean 'use'"),
    ],
)
def test_a_refusal_names_the_line(config: Path, old: str, new: str, line: int, message: str):
    """Unknown and impossible values are refused before anything is loaded, with file, line and the next step."""
    config.write_text(CONFIG.replace(old, new))
    with pytest.raises(ConfigError, match=message) as refused:
        load_run_config(config).ppo_config()
    assert refused.value.line == line
    assert refused.value.file == str(config)
