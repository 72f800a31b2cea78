"""``rlaif schema``: the JSON schema of a config file, for editors."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated

import typer


class Kind(StrEnum):
    """The kinds of config file."""

    composition = "composition"
    ppo = "ppo"


def schema(
    kind: Annotated[Kind, typer.Argument(help="Which kind of config file.")] = Kind.composition,
) -> None:
    """Print the JSON schema of a config file, with the parameters of every installed reward.

    Point an editor at it: `# yaml-language-server: $schema=rlaif.schema.json`.
    """
    from rlaif_sdk.plugins import Registry
    from rlaif_sdk.schema import composition_schema, run_schema

    make = composition_schema if kind is Kind.composition else run_schema
    typer.echo(json.dumps(make(Registry.default()), indent=2))
