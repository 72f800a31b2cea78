"""``rlaif rewards``: what is installed, and how each reward is configured."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlaif_sdk.cli.output import print_lines, print_table

if TYPE_CHECKING:
    from rlaif_sdk.plugins import RewardSpec

rewards_app = typer.Typer(help="List the installed rewards and show how each is configured.", no_args_is_help=True)


@rewards_app.command("list")
def list_rewards(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List the installed rewards, a line each, those of a package together. Broken plugins are named, with the cause.

    A line says what a reward's low and high end mean. The columns are those that a table must have, by the reward's
    default parameters.
    """
    from rlaif_sdk.plugins import Registry

    registry = Registry.default()
    rows = [(spec, registry.source("rlaif_rewards", name)) for name, spec in registry.rewards.items()]
    rows.sort(key=lambda row: (row[1].distribution, row[0].name))
    if as_json:
        listed = [
            {
                "name": spec.name,
                "description": spec.description,
                "range": spec.range,
                "ends": spec.ends,
                "columns": spec.default_columns,
                "scope": spec.scope,
                "plugin": source.distribution,
            }
            for spec, source in rows
        ]
        broken = [{"plugin": str(item.source), "error": str(item.error)} for item in registry.broken]
        typer.echo(json.dumps({"rewards": listed, "broken": broken}, indent=2))
        return
    if rows:
        print_lines(
            ("reward", "columns", "what its scores say"),
            [
                (
                    spec.name,
                    ", ".join(spec.default_columns) or "-",
                    f"{_scores(spec)}: {spec.description}" if spec.ends or spec.range else spec.description,
                )
                for spec, _ in rows
            ],
        )
    else:
        typer.echo("no reward is installed")
    for name, sources in registry.conflicts.items():
        typer.echo(f"warning: {name!r} is offered by {' and '.join(map(str, sources))}; neither is used", err=True)


def complete_reward(incomplete: str) -> list[str]:
    """The installed rewards that begin so, for the shell."""
    from rlaif_sdk.plugins import Registry

    return [name for name in Registry.default().rewards if name.startswith(incomplete)]


@rewards_app.command("show")
def show_reward(
    name: Annotated[
        str,
        typer.Argument(help="The reward's name, as `rlaif rewards list` prints it.", autocompletion=complete_reward),
    ],
) -> None:
    """Show a reward's parameters, range, columns and an example config."""
    import yaml
    from rich.console import Console

    from rlaif_sdk.plugins import Registry

    registry = Registry.default()
    spec = registry.reward(name)
    source = registry.source("rlaif_rewards", name)
    console = Console()
    console.print(f"[bold]{spec.name}[/bold]  {spec.description}")
    console.print(f"plugin   {source.distribution or source.plugin}", highlight=False)
    console.print(f"range    {_range(spec)}", highlight=False, markup=False)
    console.print(f"ends     {_ends(spec) or 'not said'}", highlight=False, markup=False)
    console.print(f"better   {'higher' if spec.higher_is_better else 'lower'}")
    console.print(f"columns  {', '.join(spec.default_columns) or 'none required'}")
    console.print(f"scope    {_SCOPES[spec.scope]}")
    rows = []
    schema = spec.params.model_json_schema()
    for field_name, info in spec.params.model_fields.items():
        default = "required" if info.is_required() else repr(info.get_default(call_default_factory=True))
        meaning = " ".join((info.description or "").split())
        rows.append((field_name, _type(schema["properties"][field_name]), default, meaning))
    console.print()
    if rows:
        print_table(("parameter", "type", "default", "meaning"), rows)
    else:
        console.print("no parameters")
    entry: dict[str, Any] = dict(spec.example) or {"weight": 1.0}
    console.print("\nexample")
    console.print(yaml.safe_dump({"rewards": {name: entry}}, sort_keys=False).rstrip(), highlight=False, markup=False)


_SCOPES = {"row": "each completion by itself", "group": "the completions to one prompt together"}


def _range(spec: RewardSpec) -> str:
    return "unbounded or set by parameters" if spec.range is None else _interval(spec.range)


def _scores(spec: RewardSpec) -> str:
    """The ends of a reward's scores in a few words: ``0 padded … 1 concise``, as far as they are known."""
    bounds = ("", "") if spec.range is None else tuple(f"{bound:g}" for bound in spec.range)
    return " … ".join(" ".join(filter(None, end)) for end in zip(bounds, spec.ends or ("", ""), strict=True))


def _interval(ends: tuple[float, float]) -> str:
    return f"[{ends[0]:g}, {ends[1]:g}]"


def _ends(spec: RewardSpec) -> str:
    return " … ".join(spec.ends or ())


def _type(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return " | ".join(map(repr, schema["enum"]))
    if "const" in schema:
        return repr(schema["const"])
    if "anyOf" in schema:
        return " | ".join(_type(option) for option in schema["anyOf"])
    return str(schema.get("type", "any"))
