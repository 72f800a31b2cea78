"""The pydantic models of a composition's config file; the JSON schema for editors comes from here."""

from rlaif_sdk.config.base import ConfigModel, ExtensionConfig, Finite, NamedTable, TableConfig
from rlaif_sdk.config.composition import (
    AskConfig,
    ColumnConditionConfig,
    CompositionConfig,
    ConstraintConfig,
    FailureConfig,
    FallbackConfig,
    GateConfig,
    GroupConfig,
    LedgerConfig,
    RewardConditionConfig,
    RewardConfig,
)
from rlaif_sdk.config.execution import BreakerConfig, BudgetConfig, ExecutionConfig, LimitsConfig, RetryConfig
from rlaif_sdk.config.schedules import (
    CrossingConfig,
    PiecewiseConfig,
    RampConfig,
    ScheduleConfig,
    StepConfig,
    WeightConfig,
)

__all__ = [
    "AskConfig",
    "BreakerConfig",
    "BudgetConfig",
    "ColumnConditionConfig",
    "CompositionConfig",
    "ConfigModel",
    "ConstraintConfig",
    "CrossingConfig",
    "ExecutionConfig",
    "ExtensionConfig",
    "FailureConfig",
    "FallbackConfig",
    "Finite",
    "GateConfig",
    "GroupConfig",
    "LedgerConfig",
    "LimitsConfig",
    "NamedTable",
    "PiecewiseConfig",
    "RampConfig",
    "RetryConfig",
    "RewardConditionConfig",
    "RewardConfig",
    "ScheduleConfig",
    "StepConfig",
    "TableConfig",
    "WeightConfig",
]
