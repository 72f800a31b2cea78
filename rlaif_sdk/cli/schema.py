"""``rlaif schema``: the JSON schema of a config file, for editors."""

from __future__ import annotations

import json
from enum import StrEnum
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rlaif_sdk.plugins import Registry

DIALECT = "https://json-schema.org/draft/2020-12/schema"


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


_MODELS = {
    Kind.composition: "rlaif_sdk.config:CompositionConfig",
    Kind.sft: "rlaif_sdk.training.sft:SFTRunConfig",
    Kind.ppo: "rlaif_sdk.training.config:PPORunConfig",
    Kind.grpo: "rlaif_sdk.training.online:GRPORunConfig",
    Kind.rloo: "rlaif_sdk.training.online:RLOORunConfig",
    Kind.iterate: "rlaif_sdk.training.iterate:IterateRunConfig",
    Kind.reward_model: "rlaif_sdk.training.preferences:RewardModelRunConfig",
    Kind.dpo: "rlaif_sdk.training.preferences:DPORunConfig",
    Kind.label: "rlaif_sdk.preferences:LabelConfig",
    Kind.sweep: "rlaif_sdk.training.sweep:SweepConfig",
    Kind.distill: "rlaif_sdk.training.distill:DistillConfig",
    Kind.make_candidates: "rlaif_sdk.preferences.candidates:CandidatesConfig",
    Kind.make_contrastive: "rlaif_sdk.preferences.contrastive:ContrastiveConfig",
    Kind.make_revisions: "rlaif_sdk.preferences.revisions:RevisionsConfig",
    Kind.make_pairs: "rlaif_sdk.preferences.composed:ComposedPairsConfig",
    Kind.make_merge: "rlaif_sdk.preferences.merge:MergeConfig",
}
_COMPOSED = {Kind.composition, Kind.ppo, Kind.grpo, Kind.rloo, Kind.iterate, Kind.distill}
"""Those with rewards, whose parameters the plugins describe."""


def schema(
    kind: Annotated[Kind, typer.Argument(help="Which kind of config file.")] = Kind.composition,
) -> None:
    """Print the JSON schema of a config file, with the parameters of every installed reward.

    Point an editor at it: `# yaml-language-server: $schema=rlaif.schema.json`.
    """
    from rlaif_sdk.plugins import Registry

    module, _, name = _MODELS[kind].partition(":")
    model = getattr(import_module(module), name)
    found = {**model.model_json_schema(), "$schema": DIALECT}
    if kind in _COMPOSED:
        _describe_params(found, Registry.default())
    typer.echo(json.dumps(found, indent=2))


def _describe_params(schema: dict[str, Any], registry: Registry) -> None:
    """Describe the parameters of each reward by its own model.

    Where an entry under ``rewards`` has ``use: NAME``, or no ``use`` and the key NAME, that is the reward NAME's.
    """
    definitions = schema.setdefault("$defs", {})
    reward = definitions["RewardConfig"]
    named: dict[str, Any] = {}
    for name, spec in registry.rewards.items():
        params = spec.params.model_json_schema(ref_template=f"#/$defs/{name}.{{model}}")
        definitions.update({f"{name}.{key}": value for key, value in params.pop("$defs", {}).items()})
        definitions[f"{name}.params"] = params
        refined = {"properties": {"params": {"$ref": f"#/$defs/{name}.params"}}}
        uses_it = {"properties": {"use": {"const": name}}, "required": ["use"]}
        reward.setdefault("allOf", []).append({"if": uses_it, "then": refined})
        named[name] = {"if": {"not": {"required": ["use"]}}, "then": refined}
    holder = definitions.get("CompositionConfig", schema)
    rewards = holder["properties"]["rewards"]
    rewards["properties"] = {name: {"allOf": [{"$ref": "#/$defs/RewardConfig"}, rule]} for name, rule in named.items()}
