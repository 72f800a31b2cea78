"""``rlaif init``: write the beginnings of something."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, cast

import typer

from rlaif_sdk.cli.rewards import complete_reward

init_app = typer.Typer(
    help="Write the beginnings of a composition, a reward or a plugin. Nothing is ever overwritten.",
    no_args_is_help=True,
)

DirectoryOption = typer.Option("--directory", "-d", help="Where it is written.")


@init_app.command()
def config(
    rewards: Annotated[
        list[str] | None,
        typer.Argument(
            help="Rewards: names as `rlaif rewards list` prints them, or functions of yours: ./brevity.py:brevity.",
            autocompletion=complete_reward,
        ),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The YAML file.")] = Path("rewards.yaml"),
) -> None:
    """Write a commented composition of rewards, ready to run: `rlaif init config conciseness toxicity`."""
    from rlaif_sdk.plugins.scaffold import write_composition

    file = shlex.quote(str(write_composition(rewards or (), output)))
    shown = f'rlaif explain {file} --prompt "What is the capital of France?" --completion "It is Paris."'
    _say(f"wrote {file}", shown, f"rlaif score rows.jsonl {file}")


@init_app.command()
def reward(
    name: Annotated[str, typer.Argument(help="The function's name: lower-case letters, digits and '_'.")],
    directory: Annotated[Path, DirectoryOption] = Path(),
) -> None:
    """Write a reward, one function in a file, and a test of it with text and chat prompts, which passes at once."""
    from rlaif_sdk.plugins.scaffold import write_reward

    file, test = write_reward(name, directory)
    reference = f"{file if file.is_absolute() else f'./{file}'}:{name}"
    _say(f"wrote {file} and {test}", f"pytest {shlex.quote(str(test))}", f"rlaif init config {shlex.quote(reference)}")


@init_app.command()
def plugin(
    name: Annotated[str, typer.Argument(help="The name in configs: lower-case letters, digits and '-'.")],
    kind: Annotated[str, typer.Option("--kind", help="reward, normalizer, aggregator or judge.")] = "reward",
    directory: Annotated[Path, DirectoryOption] = Path(),
) -> None:
    """Write a plugin: a package with an entry point and a contract test that passes at once."""
    from rlaif_sdk.plugins.scaffold import PluginKind, write_plugin

    folder = write_plugin(name, directory, kind=cast("PluginKind", kind))
    shown = f"rlaif rewards show {name}" if kind == "reward" else "rlaif doctor"
    _say(f"wrote {folder}/", f"pip install -e {folder}", f"pytest {folder}", shown)


def _say(written: str, *commands: str) -> None:
    typer.echo("\n".join((f"{written}\n\nnext:", *(f"  {command}" for command in commands))))
