"""Figures of what training and judging achieve: agreement with people, win rates, rankings, trade-offs, intervals."""

from rlaif_sdk.evaluation.alignment import Alignment, LabelEvaluation, evaluate_labels
from rlaif_sdk.evaluation.before_after import Measure, evaluate_rewards
from rlaif_sdk.evaluation.label_table import LabelTable, read_labels
from rlaif_sdk.evaluation.length_control import length_controlled
from rlaif_sdk.evaluation.matches import judge_policies
from rlaif_sdk.evaluation.standings import Ranking, Standing, rank_policies
from rlaif_sdk.evaluation.win_rate import WinRate, win_rate

__all__ = [
    "Alignment",
    "LabelEvaluation",
    "LabelTable",
    "Measure",
    "Ranking",
    "Standing",
    "WinRate",
    "evaluate_labels",
    "evaluate_rewards",
    "judge_policies",
    "length_controlled",
    "rank_policies",
    "read_labels",
    "win_rate",
]
