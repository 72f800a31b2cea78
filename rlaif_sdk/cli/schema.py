"""``rlaif schema``: the JSON schema of a config file, for editors."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated

import typer


class Kind(StrEnum):
    """The kinds of config file."""

    composition = "composition"
    sft = "sft"
    ppo = "ppo"
    grpo = "grpo"
    rloo = "rloo"
    iterate = "iterate"
    reward_model = "reward-model"
    dpo = "dpo"
    label = "label"
    sweep = "sweep"
    distill = "distill"
    make_candidates = "make-candidates"
    make_contrastive = "make-contrastive"
    make_revisions = "make-revisions"
    make_pairs = "make-pairs"
    make_merge = "make-merge"


def schema(
    kind: Annotated[Kind, typer.Argument(help="Which kind of config file.")] = Kind.composition,
) -> None:
    """Print the JSON schema of a config file, with the parameters of every installed reward.

    Point an editor at it: `# yaml-language-server: $schema=rlaif.schema.json`.
    """
    from rlaif_sdk.plugins import Registry
    from rlaif_sdk.schema import (
        composition_schema,
        label_schema,
        make_schema,
        preference_run_schema,
        run_schema,
        sft_run_schema,
        sweep_schema,
    )

    if kind is Kind.composition:
        found = composition_schema(Registry.default())
    elif kind is Kind.sft:
        found = sft_run_schema()
    elif kind in {Kind.reward_model, Kind.dpo}:
        found = preference_run_schema("dpo" if kind is Kind.dpo else "reward_model")
    elif kind is Kind.sweep:
        found = sweep_schema()
    elif kind is Kind.label:
        found = label_schema()
    elif kind.value.startswith("make-"):
        found = make_schema(kind.value.removeprefix("make-"))
    else:
        found = run_schema(Registry.default(), kind.value)
    typer.echo(json.dumps(found, indent=2))
