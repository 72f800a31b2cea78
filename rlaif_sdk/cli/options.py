"""Options that several commands have, those that spread a command over Ray's workers included."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from rlaif_sdk.exceptions import DataError
from rlaif_sdk.io.files import config_text, is_same_path

if TYPE_CHECKING:
    from rlaif_sdk.scale import Workers


COMPOSITION = "COMPOSITION"
"""What help calls a config that is a composition."""


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


WRITTEN = ("output", "report", "plot", "export")
"""The parameters that name a file to write."""


class ConfigCommand(TyperCommand):
    """A command that writes over nothing that it reads, and whose config, if it has one, may be the last argument.

    The last argument is the config where the command's other arguments leave it over, or where it ends in .yaml or .yml.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the arguments, and refuse a file to write that is one to read, as a slip of the hand names it."""
        rest = self._parse(ctx, args)
        for one in self.params:
            written = ctx.params.get(one.name) if one.name in WRITTEN else None
            others = [value for name, value in ctx.params.items() if name != one.name]
            named = [path for value in others for path in (value if isinstance(value, list) else [value])]
            if isinstance(written, Path) and any(is_same_path(written, path) for path in named if _is_file(path)):
                raise typer.BadParameter(
                    "the output would overwrite the input: name another file", ctx=ctx, param_hint=one.opts[0]
                )
        return rest

    def _parse(self, ctx: Any, args: list[str]) -> list[str]:
        if self._config() is None:
            return super().parse_args(ctx, args)
        words = [_Word(word) for word in args]
        options = [one for one in self.params if one.param_type_name == "option"]
        given, arguments, _ = TyperCommand(None, params=options).make_parser(ctx).parse_args([*words])
        if arguments and self._is_config(arguments):
            *_, config = arguments
            if "config" in given:
                problem = f"is given twice: --config {given['config']}, and {config} as the last argument"
                raise typer.BadParameter(problem, ctx=ctx, param=self._config())
            args = [f"--config={config}", *(word for word in words if word is not config)]
        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter as error:
            if error.param is self._config() and not error.message:  # it is missing
                begin = "rlaif init config writes a composition, and rlaif schema has the keys of every config"
                error.message = f"Name its file last, or after the option: {begin}"
            raise

    def _config(self) -> Any:
        return next((one for one in self.params if one.name == "config"), None)

    def _is_config(self, arguments: Sequence[str]) -> bool:
        own = [one.nargs for one in self.params if one.param_type_name == "argument"]
        return (len(arguments) > len(own) and -1 not in own) or Path(arguments[-1]).suffix in {".yaml", ".yml"}

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Show the config as the last argument too."""
        pieces, config = super().collect_usage_pieces(ctx), self._config()
        return pieces if config is None else [*pieces, "{config}" if config.required else "[config]"]


def _is_file(value: Any) -> bool:
    return isinstance(value, Path) and value.is_file()


class _Word(str):
    """A word of the command line, of an identity of its own: the parser hands on the words that it is given."""

    __slots__ = ()


def config_option(what: str, *, short: bool = True) -> Any:
    """The option ``--config`` of a file that is there; ``-c`` too, unless a command has another use for it."""
    return _config(what, _readable, short=short)


def composition_option(what: str) -> Any:
    """The option ``--config`` of a composition that is there."""
    return _config(what, _composition, metavar=COMPOSITION)


def _config(
    what: str, check: Callable[[Path | None], Path | None], *, short: bool = True, metavar: str | None = None
) -> Any:
    shown = f"{what}: a YAML or JSON file; or the last argument."
    return typer.Option("--config", *(["-c"] if short else []), help=shown, callback=check, metavar=metavar)


def table_argument(what: str) -> Any:
    """An argument that is a table, or several; one that is named as a file is there."""
    return typer.Argument(help=what, callback=_tables)


def table_option(what: str) -> Any:
    """An option that is a table, or several; likewise."""
    return typer.Option(help=what, callback=_tables)


def _readable(path: Path | None) -> Path | None:
    """Refuse a config that is not there, before anything is imported to make sense of it."""
    if path is not None:
        config_text(path)
    return path


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
        raise DataError("there is no such ledger or run", file=str(path), hint="rlaif runs list shows those below here")
    return path


CompositionOption = Annotated[Path, composition_option("The composition")]
JobOption = Annotated[Path, config_option("The job")]
LedgerArgument = Annotated[
    Path,
    typer.Argument(help="The folder of a run or a job, a table that rlaif score wrote, or a ledger.", callback=_ledger),
]
_RUN = "One run of the ledger, from 1; default: the last, with those that it resumed."
RunOption = Annotated[int | None, typer.Option("--run", help=_RUN)]
RunsOption = Annotated[list[int] | None, typer.Option("--run", help=f"{_RUN} Repeatable.")]
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
