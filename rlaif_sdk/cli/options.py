"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def overriding(example: str, what: str = "a key") -> Any:
    """The option ``--set``, whose help shows one of a command's own keys with a value."""
    return typer.Option("--set", help=f"Override {what}: --set {example}. Repeatable.")


AllowChanged = Annotated[
    bool,
    typer.Option(
        "--allow-changed",
        help="Go on with what is there though config, data or the rewards' code have changed; train, iterate and distill "
        "need --resume too.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
CompositionOption = Annotated[Path, typer.Option("--config", "-c", help="The composition: a YAML or JSON file.")]
JobArgument = Annotated[Path, typer.Argument(help="The job: a YAML or JSON file.")]
JudgeOverrides = Annotated[list[str] | None, overriding("judge.model=NAME")]
SplitOption = Annotated[
    str | None,
    typer.Option(help="The split, where FILE is the name of a data set on the hub or a folder of several splits."),
]
SubsetOption = Annotated[str | None, typer.Option(help="The configuration of a data set on the hub.")]
