"""What a reward's author writes: a `Reward`, or a plain function with `@reward`."""

from rlaif_sdk.rewards.coercion import as_reward, is_reward_class, stated_by, unwrapped
from rlaif_sdk.rewards.contract import Memory, Params, Reward, Scope, ScoreLike, Scores, ViewParams, require_columns
from rlaif_sdk.rewards.functions import FunctionReward, reward

__all__ = [
    "FunctionReward",
    "Memory",
    "Params",
    "Reward",
    "Scope",
    "ScoreLike",
    "Scores",
    "ViewParams",
    "as_reward",
    "is_reward_class",
    "require_columns",
    "reward",
    "stated_by",
    "unwrapped",
]
