"""What the scores of a batch, and of a run, say about the rewards themselves."""

from rlaif_sdk.composer.diagnostics.batch import composition_diagnostics
from rlaif_sdk.composer.diagnostics.correlation import correlation_interval, pearson, ranks, spearman
from rlaif_sdk.composer.diagnostics.drift import Change, Drift, drift_in_history, find_drift, find_drifts
from rlaif_sdk.composer.diagnostics.saturation import Saturation, flat_groups, group_spread, saturation
from rlaif_sdk.composer.diagnostics.variance import variance_shares

__all__ = [
    "Change",
    "Drift",
    "Saturation",
    "composition_diagnostics",
    "correlation_interval",
    "drift_in_history",
    "find_drift",
    "find_drifts",
    "flat_groups",
    "group_spread",
    "pearson",
    "ranks",
    "saturation",
    "spearman",
    "variance_shares",
]
