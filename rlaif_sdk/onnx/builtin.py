"""Offers the reward ``onnx`` through the hook that any plugin uses; imports nothing heavy."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from rlaif_sdk.plugins import RewardSpec, hookimpl
from rlaif_sdk.rewards import Params, Reward

rlaif_api_version = 1


class OnnxRewardParams(Params):
    """Parameters of the reward ``onnx``."""

    model: str = Field(min_length=1)
    """The folder that ``rlaif export`` wrote."""

    label: str | None = None
    """The label that is rewarded, by name; needed where the model has more than one."""

    output: Literal["logit", "probability", "log_odds"] = "logit"
    """``logit`` is the label's raw logit, as reward models are trained; ``probability`` lies between 0 and 1;
    ``log_odds`` is log(p / (1 - p))."""

    input: Literal["auto", "joined", "pair", "completion", "chat"] = "auto"
    """What the model reads: prompt and completion one after the other, as a pair, the completion alone, or both as
    messages in the model's chat template. ``auto`` takes ``chat`` for rows of messages if the model has a template, and
    what the export was told for others."""

    variant: str | None = None
    """Which of the folder's variants to run; by default the first."""

    backend: Literal["onnx", "auto"] = "onnx"
    """``auto`` measures once what is fastest on this machine: the folder's variants, PyTorch in bfloat16, OpenVINO."""

    device: str | None = None
    """``cpu``, ``cuda`` or ``cuda:1``; by default a CUDA device when one works."""

    max_length: int | None = Field(default=None, ge=1)
    """Longest input in tokens, if it is to be less than the export's."""

    tokens_per_batch: int | Literal["auto"] = "auto"
    """Most tokens, padding included, in one forward pass; ``auto`` measures it once for the machine."""

    @model_validator(mode="after")
    def _auto_chooses_the_variant(self) -> Self:
        if self.backend == "auto" and self.variant is not None:
            raise ValueError("backend: auto chooses the variant itself; leave out one of both")
        return self


def _build(params: OnnxRewardParams) -> Reward:
    from rlaif_sdk.onnx.reward import OnnxReward

    return OnnxReward(params)


@hookimpl
def rlaif_rewards() -> list[RewardSpec]:
    """Offer the reward ``onnx``."""
    return [
        RewardSpec(
            name="onnx",
            factory=_build,
            params=OnnxRewardParams,
            description="The score of a reward model or classifier that was exported to ONNX.",
            example={"weight": 1.0, "params": {"model": "exported/reward-model"}},
        )
    ]
