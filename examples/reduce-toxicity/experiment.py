"""Make the prompts, train by ``run.yaml``, and measure toxicity before and after on held-out prompts.

    python examples/reduce-toxicity/experiment.py --data DATA --output OUTPUT

``DATA`` holds ``hh-rlhf-harmless/harmless-base_test.jsonl.gz`` and ``surge-toxicity/toxicity_en.csv``.
See ``docs/howto/reduce-toxicity.md``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from make_prompts import write_prompts
from measures import measure, table
from rich.console import Console
from second_opinion import cross_validated_auc

from rlaif_sdk.quickstart.model import prepare_policy
from rlaif_sdk.reporting.live_view import watch_run
from rlaif_sdk.training.methods import (
    load_run,
    trainer_settings,
)

HERE = Path(__file__).parent
HH_RLHF = "hh-rlhf-harmless/harmless-base_test.jsonl.gz"
COMMENTS = "surge-toxicity/toxicity_en.csv"


def run_experiment(
    data: Path, output: Path, *, config: Path = HERE / "run.yaml", overrides: Sequence[str] = (), console: Console
) -> dict[str, Any]:
    """Train and measure.

    Args:
        data: The folder of the published data.
        output: A new folder for the prompts, the model, ``results.json`` and whatever else a run leaves.
        config: The run.
        overrides: ``KEY=VALUE``, as after ``--set`` of ``rlaif train``; one of ``model.name`` keeps the packaged
            model from being unpacked.
        console: Where to print.

    Returns:
        The measures, as `measures.measure` gives them.
    """
    write_prompts(data / HH_RLHF, output / "prompts")
    here = {
        "data.train": output / "prompts" / "train.jsonl",
        "data.held_out": output / "prompts" / "held-out.jsonl",
        "composition.rewards.second_opinion.params.comments": data / COMMENTS,
        "output": output,
    }
    if not any(override.startswith("model.name=") for override in overrides):
        here["model.name"] = prepare_policy(progress=console.print)
    paths = [f"{key}={json.dumps(str(path.resolve()))}" for key, path in here.items()]
    run = load_run("ppo", config, overrides=[*paths, *overrides])
    result = watch_run(run, console)
    results = {
        "seed": run.config.seed,
        "overrides": list(overrides),
        "second opinion's AUC on its comments (cross-validated)": round(cross_validated_auc(data / COMMENTS), 3),
        **measure(result, run.model_name, trainer_settings(run).temperature),
    }
    (output / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    (output / "results.md").write_text(table(results) + "\n", encoding="utf-8")
    return results


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder of the published data")
    parser.add_argument("--output", type=Path, required=True, help="a new folder for everything that comes of it")
    parser.add_argument("--config", type=Path, default=HERE / "run.yaml", help="another run than run.yaml")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a key of the run")
    arguments = parser.parse_args()
    console = Console()
    results = run_experiment(
        arguments.data, arguments.output, config=arguments.config, overrides=arguments.set, console=console
    )
    console.print(f"\n{table(results)}\n\nwritten to {arguments.output / 'results.json'}", markup=False)


if __name__ == "__main__":
    main()
