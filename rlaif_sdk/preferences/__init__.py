"""Preferences between completions: made from scores, or by a judge that labels pairs."""

from rlaif_sdk.preferences.label_config import LabelConfig, LabelJob, load_label_job
from rlaif_sdk.preferences.label_job import LabelResult, run_labeling
from rlaif_sdk.preferences.label_summary import LabelSummary
from rlaif_sdk.preferences.pairs import make_pairs, preference_probability

__all__ = [
    "LabelConfig",
    "LabelJob",
    "LabelResult",
    "LabelSummary",
    "load_label_job",
    "make_pairs",
    "preference_probability",
    "run_labeling",
]
