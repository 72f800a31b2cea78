"""Options that several commands have, those that spread a command over Ray's workers included."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rlaif_sdk.scale import Workers


def overriding(example: str, what: str = "a key") -> Any:
    """The option ``--set``, whose help shows one of a command's own keys with a value."""
    return typer.Option("--set", help=f"Override {what}: --set {example}. Repeatable.")


AllowChanged = Annotated[
    bool,
    typer.Option(
        "--allow-changed",
        help="Resume what is there though config, data or the rewards' code have changed; train, iterate and distill "
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


class Engine(StrEnum):
    """Where the work is done."""

    local = "local"
    ray = "ray"


EngineOption = Annotated[Engine, typer.Option(help="Where the work is done: in this process, or by Ray's actors.")]
ActorsOption = Annotated[
    int | None, typer.Option(min=1, help="With Ray: how many actors; default: one for each core or share of a GPU.")
]
ActorGpusOption = Annotated[float, typer.Option(min=0.0, help="With Ray: the share of a GPU that each actor has.")]
RayAddressOption = Annotated[
    str | None, typer.Option(help="With Ray: the cluster's address; default: RAY_ADDRESS, or this machine.")
]


def workers(engine: Engine, actors: int | None, gpus: float, address: str | None) -> Workers | None:
    """The workers that the options ask for; None for the local engine.

    Raises:
        typer.BadParameter: Options of Ray are given to the local engine.
    """
    if engine is Engine.local:
        if actors is not None or gpus or address is not None:
            raise typer.BadParameter("--actors, --actor-gpus and --ray-address need --engine ray")
        return None
    from rlaif_sdk.scale import Workers

    return Workers(actors=actors, gpus=gpus, address=address)
