"""The config file of a training run, and the run that it describes."""

from rlaif_sdk.training.config.composed import (
    POLICY,
    ComposedRun,
    PPORun,
    load_run_config,
    with_model,
    with_policy,
)
from rlaif_sdk.training.config.fields import (
    ComposedRunConfig,
    Composition,
    DataSettings,
    LoraSettings,
    ModelSettings,
    PPORunConfig,
    RunConfig,
    TableSettings,
)
from rlaif_sdk.training.config.run import SET_ELSEWHERE, Run

__all__ = [
    "POLICY",
    "SET_ELSEWHERE",
    "ComposedRun",
    "ComposedRunConfig",
    "Composition",
    "DataSettings",
    "LoraSettings",
    "ModelSettings",
    "PPORun",
    "PPORunConfig",
    "Run",
    "RunConfig",
    "TableSettings",
    "load_run_config",
    "with_model",
    "with_policy",
]
