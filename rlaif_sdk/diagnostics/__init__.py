"""What the scores of a batch, and of a run, say about the rewards themselves."""

from rlaif_sdk.diagnostics.drift import Change, Drift, drift_in_history, find_drift, find_drifts
from rlaif_sdk.diagnostics.saturation import Saturation, flat_groups, group_spread, saturation
from rlaif_sdk.diagnostics.variance import variance_shares

__all__ = [
    "Change",
    "Drift",
    "Saturation",
    "drift_in_history",
    "find_drift",
    "find_drifts",
    "flat_groups",
    "group_spread",
    "saturation",
    "variance_shares",
]
