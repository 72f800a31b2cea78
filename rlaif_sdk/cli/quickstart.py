"""``rlaif quickstart``: the main job on defaults that need no model hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def quickstart(
    output: Annotated[Path, typer.Option("--output", "-o", help="The run's folder.")] = Path("quickstart-run"),
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="A changed copy of the run's quickstart.yaml.")
    ] = None,
) -> None:
    """Teach a small language model with four composed rewards, in a few minutes on two cores.

    Writes the config that it uses to OUTPUT/quickstart.yaml: change it and run again with --config, or name a hub
    model and a GPU in it for a real run.
    """
    from rlaif_sdk.quickstart.run import run_quickstart

    run_quickstart(output, config)
