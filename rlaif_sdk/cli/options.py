"""Options that several commands have, those that spread a command over Ray's workers included."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from rlaif_sdk.exceptions import DataError
from rlaif_sdk.io.files import config_text

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


class ConfigCommand(TyperCommand):
    """A command; where its only argument is its config, ``--config FILE`` and ``-c FILE`` name that too."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take the option's name away: its value is then the argument."""
        if [one.name for one in self.params if one.param_type_name == "argument"] == ["config"]:
            args = [*self._without_name(args)]
        return super().parse_args(ctx, args)

    def _without_name(self, args: list[str]) -> Iterator[str]:
        take_a_value = {name for option in self.params if not getattr(option, "is_flag", True) for name in option.opts}
        rest = iter(args)
        for one in rest:
            if one in take_a_value:
                yield from (one, *islice(rest, 1))
            elif one == "--":
                yield from (one, *rest)
            elif one not in {"--config", "-c"}:
                yield one.removeprefix("--config=")


def config_option(what: str) -> Any:
    """The option ``--config`` of a file that is there."""
    return typer.Option("--config", "-c", help=f"{what}: a YAML or JSON file.", callback=_readable)


def config_argument(what: str) -> Any:
    """An argument that is a config file that is there."""
    return typer.Argument(help=f"{what}: a YAML or JSON file; also after --config.", callback=_readable)


def table_argument(what: str) -> Any:
    """An argument that is a table, or several; one that is named as a file is there."""
    return typer.Argument(help=what, callback=_tables)


def _readable(path: Path | None) -> Path | None:
    """Refuse a config that is not there, before anything is imported to make sense of it."""
    if path is not None:
        config_text(path)
    return path


def composition_option(what: str) -> Any:
    """The option ``--config`` of a composition that is there."""
    return typer.Option("--config", "-c", help=f"{what}: a YAML or JSON file.", callback=_composition)


def _composition(path: Path | None) -> Path | None:
    """Refuse a composition by its keys, before the composer is imported."""
    if path is None:
        return None
    _readable(path)
    from rlaif_sdk.config import CompositionConfig
    from rlaif_sdk.config.documents import load_document, validate

    validate(CompositionConfig, load_document(path))
    return path


def _tables(paths: Path | list[Path] | None) -> Path | list[Path] | None:
    from rlaif_sdk.io.tables import check_file, is_table_file

    for path in paths if isinstance(paths, list) else [paths]:
        if path is not None and is_table_file(path) and not path.is_dir():
            check_file(path)
    return paths


def _ledger(path: Path) -> Path:
    if not path.exists():
        raise DataError("there is no such ledger", file=str(path), hint="give the file of a ledger")
    return path


CompositionOption = Annotated[Path, composition_option("The composition")]
CompositionArgument = Annotated[
    Path, typer.Argument(help="The composition: a YAML or JSON file; also after --config.", callback=_composition)
]
JobArgument = Annotated[Path, config_argument("The job")]
LedgerArgument = Annotated[
    Path,
    typer.Argument(help="The folder of a run or a job, a table that rlaif score wrote, or a ledger.", callback=_ledger),
]
JudgeOverrides = Annotated[list[str] | None, overriding("judge.model=NAME")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]
SplitOption = Annotated[
    str | None,
    typer.Option(help="The split, where a table is the name of a data set on the hub or a folder of several splits."),
]
SubsetOption = Annotated[str | None, typer.Option(help="The configuration of a data set on the hub.")]


def table_config(path: Path, subset: str | None, split: str | None) -> dict[str, str | None]:
    """A table of the command line as a job's config has it, whichever folder the config is in."""
    from rlaif_sdk.io.tables import TableSource

    source = TableSource.within(Path.cwd(), str(path), subset, split)
    return {"file": str(source.path), "subset": subset, "split": split}


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
