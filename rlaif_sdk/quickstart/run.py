"""The quickstart: a real language model learns from four composed rewards, in minutes, on a CPU."""

from __future__ import annotations

import json
import shutil
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING

from rlaif_sdk.config import CompositionConfig
from rlaif_sdk.exceptions import ConfigError
from rlaif_sdk.io.files import write_text
from rlaif_sdk.quickstart.model import fast_dtype, prepare_policy
from rlaif_sdk.training.data import load_prompts
from rlaif_sdk.training.methods import load_run, trainer_settings
from rlaif_sdk.training.online import PPORunConfig
from rlaif_sdk.types import Progress

if TYPE_CHECKING:
    from rich.console import Console

    from rlaif_sdk.composer import Composition
    from rlaif_sdk.training.config import ComposedRun
    from rlaif_sdk.training.online import PolicyResult

CONFIG_FILE = "quickstart.yaml"
MODEL_PLACEHOLDER, DTYPE_PLACEHOLDER = "MODEL_FOLDER", "MODEL_DTYPE"


def run_quickstart(output: Path, config: Path | None = None, *, console: Console | None = None) -> PolicyResult:
    """Show first scores, then train a small instruct model by PPO on four composed rewards, and show what it has learnt.

    Args:
        output: A new folder for the config, the model, ``metrics.json``, ``samples.jsonl`` and ``curves.png``.
        config: A config to use in place of the one that is written to the folder, for instance an edited copy of it.
        console: Where to print; the terminal if None.

    Raises:
        ConfigError: The folder is not empty, or the config is refused.
        MissingModelError: The package with the starting model is not installed.
        MissingExtraError: The extra ``quickstart`` is not installed.
    """
    from rich.console import Console

    from rlaif_sdk.reporting.live_view import reporter, watch_run

    console = console or Console()
    report = reporter(console)
    if output.exists() and any(output.iterdir()):
        raise ConfigError(f"{output} is not empty", hint="name a new folder")
    if config is None:
        config = write_config(output, prepare_policy(progress=report))
        report(f"The config is {config}: read it, change it, and pass it with --config.")
        show_first_scores(load_run("ppo", config), console)
        report("\nTraining: the model now learns from these rewards.")
    run = load_run("ppo", config).with_output(output)
    if judges_itself(run.config):
        report("The judge is the model itself, rating its own answers: a weak judge, so its weight is small.")
    result: PolicyResult = watch_run(run, console)
    return result


def show_first_scores(run: ComposedRun, console: Console, *, answers: int = 8) -> Composition:
    """Score some of the model's answers, explain one of the totals, and combine the scores under other weights.

    Args:
        run: The loaded config.
        console: Where to print.
        answers: How many of the held-out prompts are answered, two at least.

    Returns:
        The composition of the answers, whose statistics are of these answers only.

    Raises:
        ConfigError: The config is refused, or the model cannot be loaded.
    """
    from rlaif_sdk.composer import what_if
    from rlaif_sdk.reporting.live_view import reporter
    from rlaif_sdk.reporting.tables import answers_table
    from rlaif_sdk.training.generation import answer_prompts, loaded_policy

    say = reporter(console)
    _, held_out = load_prompts(run.config.data, run.folder)
    held_out = held_out.select(range(min(answers, len(held_out))))
    say(f"\nFirst scores: the model answers {len(held_out)} questions.")
    with loaded_policy(run) as (model, tokenizer):
        said = answer_prompts(model, tokenizer, held_out, trainer_settings(run))
    with run.composer() as composer:
        composer.disarm()
        say(f"Scoring them with {', '.join(composer.weights)}.")
        composition = composer.compose(said.batch(Progress(0), training=True))
    console.print(answers_table(said.prompts, said.completions, composition))
    say("Why the first answer has its total (rlaif explain):")
    say(str(composition.explain(0)))
    heaviest = max(composer.weights, key=lambda name: composition.rewards[name].weight)
    settings = run.config.composition.model_dump(exclude_unset=True)
    settings["rewards"][heaviest]["weight"] = 0
    summary = what_if(composition, settings).summary()
    say(
        f"What if {heaviest} had no weight (rlaif what-if): {summary['flipped']} of {summary['compared']} advantages "
        "change their sign."
    )
    return composition


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
    settings = template.replace(MODEL_PLACEHOLDER, json.dumps(str(model_folder.resolve())))
    write_text(config, settings.replace(DTYPE_PLACEHOLDER, fast_dtype()))
    return config
