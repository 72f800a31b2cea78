"""The JSON schemas of the config files, with the parameters of every installed reward."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from rlaif_sdk.config import CompositionConfig
from rlaif_sdk.plugins import Registry

if TYPE_CHECKING:
    from rlaif_sdk.training.preference_run import Kind

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def composition_schema(registry: Registry) -> dict[str, Any]:
    """The JSON schema (2020-12) of a composition's config.

    Where an entry under ``rewards`` has ``use: NAME``, or no ``use`` and the key NAME, its ``params`` are described by
    that reward's own model.
    """
    return _with_params(CompositionConfig, registry)


def run_schema(registry: Registry, method: str = "ppo") -> dict[str, Any]:
    """The JSON schema of the config of a run with composed rewards: ``ppo``, ``grpo``, ``rloo``, ``iterate`` or ``distill``."""
    from rlaif_sdk.training.config import PPORunConfig
    from rlaif_sdk.training.distill import DistillConfig
    from rlaif_sdk.training.iterate import IterateRunConfig
    from rlaif_sdk.training.online import GRPORunConfig, RLOORunConfig

    models: dict[str, type[BaseModel]] = {
        "ppo": PPORunConfig,
        "grpo": GRPORunConfig,
        "rloo": RLOORunConfig,
        "iterate": IterateRunConfig,
        "distill": DistillConfig,
    }
    return _with_params(models[method], registry)


def preference_run_schema(kind: Kind) -> dict[str, Any]:
    """The JSON schema of the config of a run on preference pairs."""
    from rlaif_sdk.training.preference_run import CONFIGS

    return {**CONFIGS[kind].model_json_schema(), "$schema": DIALECT}


def sft_run_schema() -> dict[str, Any]:
    """The JSON schema of the config of a run of supervised fine-tuning."""
    from rlaif_sdk.training.sft_run import SFTRunConfig

    return {**SFTRunConfig.model_json_schema(), "$schema": DIALECT}


def sweep_schema() -> dict[str, Any]:
    """The JSON schema of the config of a sweep."""
    from rlaif_sdk.training.sweep import SweepConfig

    return {**SweepConfig.model_json_schema(), "$schema": DIALECT}


def label_schema() -> dict[str, Any]:
    """The JSON schema of the config of a labelling job."""
    from rlaif_sdk.preferences import LabelConfig

    return {**LabelConfig.model_json_schema(), "$schema": DIALECT}


def make_schema(job: str) -> dict[str, Any]:
    """The JSON schema of a config of ``rlaif make``: candidates, contrastive, revisions, pairs or merge."""
    from rlaif_sdk.preferences.candidates import CandidatesConfig
    from rlaif_sdk.preferences.composed import ComposedPairsConfig
    from rlaif_sdk.preferences.contrastive import ContrastiveConfig
    from rlaif_sdk.preferences.merge import MergeConfig
    from rlaif_sdk.preferences.revisions import RevisionsConfig

    models: dict[str, type[BaseModel]] = {
        "candidates": CandidatesConfig,
        "contrastive": ContrastiveConfig,
        "revisions": RevisionsConfig,
        "pairs": ComposedPairsConfig,
        "merge": MergeConfig,
    }
    return {**models[job].model_json_schema(), "$schema": DIALECT}


def _with_params(model: type[BaseModel], registry: Registry) -> dict[str, Any]:
    schema = model.model_json_schema()
    schema["$schema"] = DIALECT
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
    return schema
