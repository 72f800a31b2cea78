"""``rlaif init``: write the beginnings of something."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import typer

init_app = typer.Typer(help="Write the beginnings of a plugin.", no_args_is_help=True)


@init_app.callback()
def _group() -> None:
    """Keep ``plugin`` a sub-command while it is the only one."""


@init_app.command()
def plugin(
    name: Annotated[str, typer.Argument(help="The name in configs: lower-case letters, digits and '-'.")],
    kind: Annotated[str, typer.Option("--kind", help="reward, normalizer, aggregator or judge.")] = "reward",
    directory: Annotated[Path, typer.Option("--directory", "-d", help="Where the package's folder is made.")] = Path(),
) -> None:
    """Write a plugin: a package with an entry point and a contract test that passes at once.

    Nothing is ever overwritten.
    """
    from rlaif_sdk.plugins.scaffold import PluginKind, write_plugin

    folder = write_plugin(name, directory, kind=cast("PluginKind", kind))
    shown = f"rlaif rewards show {name}" if kind == "reward" else "rlaif doctor"
    typer.echo(f"wrote {folder}/\n\nnext:\n  pip install -e {folder}\n  pytest {folder}\n  {shown}")
