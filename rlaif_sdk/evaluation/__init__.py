"""Estimates of what training and judging achieve: agreement with people, win rates, rankings, trade-offs, intervals."""

from rlaif_sdk.evaluation.labels import Alignment, LabelEvaluation, LabelTable, evaluate_labels, read_labels
from rlaif_sdk.evaluation.length_control import length_controlled
from rlaif_sdk.evaluation.policies import RankedPolicy, Ranking, WinRate, judge_policies, rank_policies, win_rate
from rlaif_sdk.evaluation.rewards import Measure, evaluate_rewards

__all__ = [
    "Alignment",
    "LabelEvaluation",
    "LabelTable",
    "Measure",
    "RankedPolicy",
    "Ranking",
    "WinRate",
    "evaluate_labels",
    "evaluate_rewards",
    "judge_policies",
    "length_controlled",
    "rank_policies",
    "read_labels",
    "win_rate",
]
