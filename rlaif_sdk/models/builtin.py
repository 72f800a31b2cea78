"""The rewards of scoring models, offered by name through the hook that any plugin uses; imports nothing heavy."""

from __future__ import annotations

from rlaif_sdk.models.reward_params import OnnxRewardParams, RewardModelParams, TextClassificationParams
from rlaif_sdk.plugins.hookspecs import hookimpl
from rlaif_sdk.plugins.specs import RewardSpec
from rlaif_sdk.rewards import Reward

rlaif_api_version = 1


def _text_classification(params: TextClassificationParams) -> Reward:
    from rlaif_sdk.models.rewards import TextClassification

    return TextClassification(params)


def _reward_model(params: RewardModelParams) -> Reward:
    from rlaif_sdk.models.rewards import RewardModel

    return RewardModel(params)


def _onnx(params: OnnxRewardParams) -> Reward:
    from rlaif_sdk.models.rewards import OnnxReward

    return OnnxReward(params)


@hookimpl
def rlaif_rewards() -> list[RewardSpec]:
    """Offer the rewards of scoring models."""
    return [
        RewardSpec(
            name="text_classification",
            factory=_text_classification,
            params=TextClassificationParams,
            description="A label's score by any text classifier, as a Hugging Face pipeline gives it.",
            ends=("other labels", "the label"),
            example={"params": {"model": "lvwerra/distilbert-imdb", "label": "POSITIVE"}},
        ),
        RewardSpec(
            name="reward_model",
            factory=_reward_model,
            params=RewardModelParams,
            description="A reward model's score of prompt and completion, read as the model was trained to.",
            ends=("worse", "better"),
            example={"normalize": "zscore", "params": {"model": "reward/model"}},
        ),
        RewardSpec(
            name="onnx",
            factory=_onnx,
            params=OnnxRewardParams,
            description="The score of a reward model or classifier that was exported to ONNX.",
            ends=("worse", "better"),
            example={"weight": 1.0, "params": {"model": "exported/reward-model"}},
        ),
    ]
