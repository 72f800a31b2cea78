"""Figures of what training and judging achieve: agreement with people, win rates, rankings, trade-offs, intervals."""

from rlaif_sdk.evaluation.alignment import Alignment, LabelEvaluation, evaluate_labels
from rlaif_sdk.evaluation.before_after import Measure, evaluate_rewards
from rlaif_sdk.evaluation.intervals import mean_interval, student_t_quantile
from rlaif_sdk.evaluation.label_table import LabelTable, read_labels
from rlaif_sdk.evaluation.length_control import length_controlled
from rlaif_sdk.evaluation.matches import judge_policies
from rlaif_sdk.evaluation.pareto import hypervolume, nondominated
from rlaif_sdk.evaluation.ranking import bradley_terry, bradley_terry_intervals, elo, mean_elo
from rlaif_sdk.evaluation.standings import Ranking, Standing, rank_policies
from rlaif_sdk.evaluation.win_rate import WinRate, win_rate
from rlaif_sdk.figures import Figure, bootstrap_mean, cohens_kappa, wilson

__all__ = [
    "Alignment",
    "Figure",
    "LabelEvaluation",
    "LabelTable",
    "Measure",
    "Ranking",
    "Standing",
    "WinRate",
    "bootstrap_mean",
    "bradley_terry",
    "bradley_terry_intervals",
    "cohens_kappa",
    "elo",
    "evaluate_labels",
    "evaluate_rewards",
    "hypervolume",
    "judge_policies",
    "length_controlled",
    "mean_elo",
    "mean_interval",
    "nondominated",
    "rank_policies",
    "read_labels",
    "student_t_quantile",
    "wilson",
    "win_rate",
]
