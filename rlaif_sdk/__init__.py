"""Compose reward plugins for reinforcement learning from AI feedback, and train language models on them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlaif_sdk.composer import Composer, Composition
    from rlaif_sdk.exceptions import (
        BatchError,
        ConfigError,
        DataError,
        JudgeError,
        MissingExtraError,
        PluginError,
        RewardError,
        RlaifError,
    )
    from rlaif_sdk.hookspecs import hookimpl
    from rlaif_sdk.judges import JudgePrompt, PointwiseJudge, load_judge
    from rlaif_sdk.models import (
        Classifier,
        OnnxScorer,
        export_classifier,
        label_index,
        label_log_odds,
        label_probabilities,
        load_classifier,
    )
    from rlaif_sdk.plugins import Registry
    from rlaif_sdk.rewards import Params, Reward, RewardSpec, reward
    from rlaif_sdk.types import Message, Progress, RewardBatch, Score

_HOMES = {
    "rlaif_sdk.models": (
        "Classifier",
        "OnnxScorer",
        "export_classifier",
        "label_index",
        "label_log_odds",
        "label_probabilities",
        "load_classifier",
    ),
    "rlaif_sdk.composer": ("Composer", "Composition"),
    "rlaif_sdk.exceptions": (
        "BatchError",
        "ConfigError",
        "DataError",
        "JudgeError",
        "MissingExtraError",
        "PluginError",
        "RewardError",
        "RlaifError",
    ),
    "rlaif_sdk.hookspecs": ("hookimpl",),
    "rlaif_sdk.judges": ("JudgePrompt", "PointwiseJudge", "load_judge"),
    "rlaif_sdk.plugins": ("Registry",),
    "rlaif_sdk.rewards": ("Params", "Reward", "RewardSpec", "reward"),
    "rlaif_sdk.types": ("Message", "Progress", "RewardBatch", "Score"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__version__ = "0.1.0"
__all__ = [
    "BatchError",
    "Classifier",
    "Composer",
    "Composition",
    "ConfigError",
    "DataError",
    "JudgeError",
    "JudgePrompt",
    "Message",
    "MissingExtraError",
    "OnnxScorer",
    "Params",
    "PluginError",
    "PointwiseJudge",
    "Progress",
    "Registry",
    "Reward",
    "RewardBatch",
    "RewardError",
    "RewardSpec",
    "RlaifError",
    "Score",
    "export_classifier",
    "hookimpl",
    "label_index",
    "label_log_odds",
    "label_probabilities",
    "load_classifier",
    "load_judge",
    "reward",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
