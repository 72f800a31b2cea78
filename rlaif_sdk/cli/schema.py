"""``rlaif schema``: the JSON schema of a config file, for editors."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlaif_sdk.training.methods import METHODS, get_method, resolve

if TYPE_CHECKING:
    from rlaif_sdk.plugins import Registry

DIALECT = "https://json-schema.org/draft/2020-12/schema"


_MODELS = {
    "composition": "rlaif_sdk.config:CompositionConfig",
    "iterate": "rlaif_sdk.training.iterate:IterateRunConfig",
    "label": "rlaif_sdk.preferences:LabelConfig",
    "sweep": "rlaif_sdk.training.sweep:SweepConfig",
    "distill": "rlaif_sdk.training.distill:DistillConfig",
    "make-candidates": "rlaif_sdk.preferences.candidates:CandidatesConfig",
    "make-contrastive": "rlaif_sdk.preferences.contrastive:ContrastiveConfig",
    "make-revisions": "rlaif_sdk.preferences.revisions:RevisionsConfig",
    "make-rubrics": "rlaif_sdk.preferences.rubrics:RubricsConfig",
    "make-pairs": "rlaif_sdk.preferences.composed:ComposedPairsConfig",
    "make-best": "rlaif_sdk.preferences.composed:BestConfig",
    "make-merge": "rlaif_sdk.preferences.merge:MergeConfig",
}
_METHODS = {name.replace("_", "-"): name for name, entry in METHODS.items() if not entry.overrides}
_KINDS = ", ".join([*_MODELS, *_METHODS])


def _known(kind: str) -> str:
    if kind not in _MODELS and kind not in _METHODS:
        raise typer.BadParameter(f"{kind!r} is not one of {_KINDS}")
    return kind


def schema(
    kind: Annotated[str, typer.Argument(help=f"Which kind of config file: {_KINDS}.", callback=_known)] = "composition",
) -> None:
    """Print the JSON schema of a config file, with the parameters of every installed reward.

    Point an editor at it: `# yaml-language-server: $schema=rlaif.schema.json`.
    """
    typer.echo(json.dumps(config_schema(kind), indent=2))


def config_schema(kind: str) -> dict[str, Any]:
    """The JSON schema of a kind of config file."""
    from rlaif_sdk.plugins import Registry

    model = get_method(_METHODS[kind]).config if kind in _METHODS else resolve(_MODELS[kind])
    found = {**model.model_json_schema(), "$schema": DIALECT}
    if "RewardConfig" in found.get("$defs", {}):  # the plugins describe the parameters of rewards
        _describe_params(found, Registry.default())
    if kind in _METHODS:
        _close_settings(found, _METHODS[kind])
    return found


def _close_settings(schema: dict[str, Any], name: str) -> None:
    """Name every setting of a method's trainer, so that an editor refuses all others; none where they are not known."""
    from rlaif_sdk.training.arguments import declared_fields

    if names := declared_fields(get_method(name).settings):
        settings = schema["properties"][name]
        settings["properties"] = {setting: {} for setting in sorted(names) if not setting.startswith("_")}
        settings["additionalProperties"] = False


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
