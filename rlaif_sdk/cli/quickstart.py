"""``rlaif quickstart``: the main job on defaults that need no model hub."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Annotated

import typer

from rlaif_sdk.cli.options import config_option


def quickstart(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A new folder; default: quickstart-run, -2, -3 …")
    ] = None,
    config: Annotated[Path | None, config_option("A changed copy of the run's quickstart.yaml")] = None,
) -> None:
    """Teach a small language model with four composed rewards, in under ten minutes on two cores that do nothing else.

    Writes the config that it uses to OUTPUT/quickstart.yaml: change it and run again with --config, or name a hub
    model and a GPU in it for a real run.
    """
    from rlaif_sdk.quickstart.run import run_quickstart

    run_quickstart(output or _free("quickstart-run"), config)


def _free(name: str) -> Path:
    """The first of ``name``, ``name-2``, ``name-3`` … that does not exist."""
    numbered = (Path(name if number == 1 else f"{name}-{number}") for number in itertools.count(1))
    return next(path for path in numbered if not path.exists())
