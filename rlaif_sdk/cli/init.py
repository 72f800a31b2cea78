"""``rlaif init``: write the beginnings of something."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

init_app = typer.Typer(help="Write the beginnings of a plugin.", no_args_is_help=True)


@init_app.callback()
def _group() -> None:
    """Keep ``plugin`` a sub-command while it is the only one."""


@init_app.command()
def plugin(
    name: Annotated[str, typer.Argument(help="The reward's name: lower-case letters, digits and '-'.")],
    directory: Annotated[Path, typer.Option("--directory", "-d", help="Where the package's folder is made.")] = Path(),
) -> None:
    """Write a reward plugin: a package with an entry point and a contract test that passes at once.

    Nothing is ever overwritten.
    """
    from rlaif_sdk.scaffold import write_plugin

    folder = write_plugin(name, directory)
    typer.echo(f"wrote {folder}/\n\nnext:\n  pip install -e {folder}\n  pytest {folder}\n  rlaif rewards show {name}")
