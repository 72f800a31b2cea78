"""What a plugin author writes: a `Reward`, a plain function with `@reward`, and the `RewardSpec` that registers it."""

from rlaif_sdk.rewards.coercion import as_reward, is_reward_class, stated_by, unwrapped
from rlaif_sdk.rewards.contract import Params, Reward, ScoreLike, Scores, ViewParams, require_columns
from rlaif_sdk.rewards.functions import FunctionReward, reward
from rlaif_sdk.rewards.specs import (
    PLUGIN_API_VERSION,
    AggregatorSpec,
    JudgeBackendSpec,
    NormalizerSpec,
    RewardSpec,
    Spec,
)

__all__ = [
    "PLUGIN_API_VERSION",
    "AggregatorSpec",
    "FunctionReward",
    "JudgeBackendSpec",
    "NormalizerSpec",
    "Params",
    "Reward",
    "RewardSpec",
    "ScoreLike",
    "Scores",
    "Spec",
    "ViewParams",
    "as_reward",
    "is_reward_class",
    "require_columns",
    "reward",
    "stated_by",
    "unwrapped",
]
