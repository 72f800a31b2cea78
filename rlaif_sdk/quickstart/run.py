"""The quickstart: a real language model learns from four composed rewards, in minutes, on a CPU."""

from __future__ import annotations

import json
import shutil
from functools import partial
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING

from rlaif_sdk.config import CompositionConfig
from rlaif_sdk.exceptions import ConfigError
from rlaif_sdk.io.files import write_text
from rlaif_sdk.quickstart.model import prepare_policy
from rlaif_sdk.training.methods import load_run
from rlaif_sdk.training.online import PPORunConfig

if TYPE_CHECKING:
    from rich.console import Console

    from rlaif_sdk.training.online import PolicyResult

CONFIG_FILE = "quickstart.yaml"
MODEL_PLACEHOLDER = "MODEL_FOLDER"


def run_quickstart(
    output: Path, config: Path | None = None, *, console: Console | None = None, cache_dir: Path | None = None
) -> PolicyResult:
    """Train a small instruct model by PPO on four composed rewards, and show what it has learnt.

    Args:
        output: A new folder for the config, the model, ``metrics.json``, ``samples.jsonl`` and ``curves.png``.
        config: A config to use in place of the one that is written to the folder, for instance an edited copy of it.
        console: Where to print; the terminal if None.
        cache_dir: Where the starting model is kept; by default in the user's cache.

    Raises:
        ConfigError: The folder is not empty, or the config is refused.
        MissingModelError: The package with the starting model is not installed.
        MissingExtraError: The extra ``quickstart`` is not installed.
    """
    from rich.console import Console

    from rlaif_sdk.reporting.training_report import watch_policy

    console = console or Console()
    report = partial(console.print, markup=False, highlight=False, soft_wrap=True)
    if output.exists() and any(output.iterdir()):
        raise ConfigError(f"{output} is not empty", hint="name a new folder")
    if config is None:
        config = write_config(output, prepare_policy(cache_dir, report))
        report(f"The config is {config}: read it, change it, and pass it with --config.")
    run = load_run("ppo", config).with_output(output)
    if judges_itself(run.config):
        report("The judge is the model itself, rating its own answers: a weak judge, so its weight is small.")
    return watch_policy(run, console)


def judges_itself(config: PPORunConfig) -> bool:
    """Whether the composition's judge is the model that is trained, as in the config that comes with the quickstart."""
    composition = config.composition
    return isinstance(composition, CompositionConfig) and any(
        (reward.use or name) == "judge" and reward.params.get("model") == config.model.name
        for name, reward in composition.rewards.items()
    )


def write_config(output: Path, model_folder: Path) -> Path:
    """Write the config and the prompts of the quickstart to a folder.

    Returns:
        The config file.
    """
    package = files("rlaif_sdk.quickstart")
    output.mkdir(parents=True, exist_ok=True)
    with as_file(package / "data") as data:
        shutil.copytree(data, output / "prompts")
    template = (package / CONFIG_FILE).read_text(encoding="utf-8")
    config = output / CONFIG_FILE
    write_text(config, template.replace(MODEL_PLACEHOLDER, json.dumps(str(model_folder.resolve()))))
    return config
