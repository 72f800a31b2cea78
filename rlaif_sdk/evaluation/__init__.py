"""Figures of what training and judging achieve: trade-offs, intervals."""

from rlaif_sdk.evaluation.intervals import mean_interval, student_t_quantile
from rlaif_sdk.evaluation.pareto import hypervolume, nondominated

__all__ = ["hypervolume", "mean_interval", "nondominated", "student_t_quantile"]
