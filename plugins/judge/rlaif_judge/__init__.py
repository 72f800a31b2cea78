"""The rewards ``judge``, a language model that rates each answer, and ``tournament``, one that compares them."""

from __future__ import annotations

from rlaif_judge.params import JudgeParams, TournamentParams
from rlaif_sdk import Reward, RewardSpec, hookimpl

__all__ = ["JudgeParams", "TournamentParams", "rlaif_rewards"]

rlaif_api_version = 1


def _judge(params: JudgeParams) -> Reward:
    from rlaif_sdk import load_judge

    return load_judge(**params.judge_settings(), **params.backend_settings())


def _tournament(params: TournamentParams) -> Reward:
    from rlaif_judge.tournament import Tournament

    return Tournament(params)


@hookimpl
def rlaif_rewards() -> list[RewardSpec]:
    """Offer both rewards."""
    return [
        RewardSpec(
            name="judge",
            factory=_judge,
            params=JudgeParams,
            description="A language model, local or behind a server, rates each answer; from -1 to 1.",
            range=(-1.0, 1.0),
            ends=("bad", "good"),
            example={
                "weight": 1.0,
                "params": {"model": "Qwen/Qwen2.5-7B-Instruct", "criteria": "helpfulness", "mode": "likelihood"},
            },
        ),
        RewardSpec(
            name="tournament",
            factory=_tournament,
            params=TournamentParams,
            description="A language model compares the completions to one prompt; each gets its place among them, from -1 to 1.",
            range=(-1.0, 1.0),
            ends=("worse than the others", "better than the others"),
            scope="group",
            example={
                "weight": 1.0,
                "params": {"model": "Qwen/Qwen2.5-7B-Instruct", "criteria": "helpfulness", "scheme": "swiss"},
            },
        ),
    ]
