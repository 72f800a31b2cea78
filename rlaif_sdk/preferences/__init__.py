"""Preferences between completions: made from scores, by contrasting prompts, by revision, or by a judge of pairs."""

from rlaif_sdk.preferences.candidates import CandidatesConfig, make_candidates
from rlaif_sdk.preferences.composed import BestConfig, ComposedPairsConfig, make_best, make_composed_pairs
from rlaif_sdk.preferences.constitution import Constitution, Principle, PrincipleLabeler
from rlaif_sdk.preferences.contrastive import (
    Contrast,
    ContrastingLogprobs,
    ContrastiveConfig,
    MarginConfig,
    make_contrastive,
    self_rewarding_margin,
)
from rlaif_sdk.preferences.label_job import (
    LabelConfig,
    LabelJob,
    LabelResult,
    LabelSummary,
    load_label_job,
    run_labeling,
)
from rlaif_sdk.preferences.merge import MergeConfig, MergeResult, merge_preferences
from rlaif_sdk.preferences.pairs import make_pairs, preference_probability
from rlaif_sdk.preferences.pipeline import MakeJob, MakeResult, load_make_job
from rlaif_sdk.preferences.revisions import RevisionsConfig, make_revisions
from rlaif_sdk.preferences.rubrics import RubricsConfig, make_rubrics

__all__ = [
    "BestConfig",
    "CandidatesConfig",
    "ComposedPairsConfig",
    "Constitution",
    "Contrast",
    "ContrastingLogprobs",
    "ContrastiveConfig",
    "LabelConfig",
    "LabelJob",
    "LabelResult",
    "LabelSummary",
    "MakeJob",
    "MakeResult",
    "MarginConfig",
    "MergeConfig",
    "MergeResult",
    "Principle",
    "PrincipleLabeler",
    "RevisionsConfig",
    "RubricsConfig",
    "load_label_job",
    "load_make_job",
    "make_best",
    "make_candidates",
    "make_composed_pairs",
    "make_contrastive",
    "make_pairs",
    "make_revisions",
    "make_rubrics",
    "merge_preferences",
    "preference_probability",
    "run_labeling",
    "self_rewarding_margin",
]
