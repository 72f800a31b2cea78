"""The reward ``execution``: how many tests does the Python code in an answer pass, run in a sandbox?"""

from __future__ import annotations

from rlaif_execution.params import ExecutionParams
from rlaif_sdk import Reward, RewardSpec, hookimpl

__all__ = ["ExecutionParams", "rlaif_rewards"]

rlaif_api_version = 1


def _build(params: ExecutionParams) -> Reward:
    from rlaif_execution.reward import ExecutionReward

    return ExecutionReward(params)


@hookimpl
def rlaif_rewards() -> list[RewardSpec]:
    """Offer the reward ``execution``."""
    return [
        RewardSpec(
            name="execution",
            factory=_build,
            params=ExecutionParams,
            description="Share of a row's tests that the Python code in its answer passes, run in a sandbox.",
            range=(0.0, 1.0),
            ends=("tests fail", "tests pass"),
            example={"weight": 1.0, "params": {"column": "tests", "scoring": "share"}},
        )
    ]
