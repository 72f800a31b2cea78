"""Estimates of what training and judging achieve: agreement with people, win rates, rankings, trade-offs, intervals."""

from rlaif_sdk.evaluation.before_after import Measure, evaluate_answers
from rlaif_sdk.evaluation.benchmarks import BENCHMARKS, BenchmarkResult, find_benchmark, run_benchmark
from rlaif_sdk.evaluation.best_of import BestOfCurve, BestOfPoint, evaluate_best_of
from rlaif_sdk.evaluation.cascade import CascadeCurve, CascadePoint, calibrate_cascade
from rlaif_sdk.evaluation.default_fit import FittedDefault
from rlaif_sdk.evaluation.fit import (
    CompositionFit,
    FittedWeight,
    PeopleAgreement,
    fit_composition,
)
from rlaif_sdk.evaluation.gate_fit import FittedGate
from rlaif_sdk.evaluation.labels import Alignment, LabelEvaluation, LabelTable, evaluate_labels, read_labels
from rlaif_sdk.evaluation.length_control import length_controlled
from rlaif_sdk.evaluation.next_pairs import next_pairs, review_by_information
from rlaif_sdk.evaluation.policies import RankedPolicy, Ranking, WinRate, judge_policies, rank_policies, win_rate
from rlaif_sdk.evaluation.reward import (
    CategoryErrors,
    Contribution,
    LabelMetrics,
    Mistake,
    PairMetrics,
    RewardEvaluation,
    evaluate_reward,
)
from rlaif_sdk.evaluation.verdicts import VerdictColumns

__all__ = [
    "BENCHMARKS",
    "Alignment",
    "BenchmarkResult",
    "BestOfCurve",
    "BestOfPoint",
    "CascadeCurve",
    "CascadePoint",
    "CategoryErrors",
    "CompositionFit",
    "Contribution",
    "FittedDefault",
    "FittedGate",
    "FittedWeight",
    "LabelEvaluation",
    "LabelMetrics",
    "LabelTable",
    "Measure",
    "Mistake",
    "PairMetrics",
    "PeopleAgreement",
    "RankedPolicy",
    "Ranking",
    "RewardEvaluation",
    "VerdictColumns",
    "WinRate",
    "calibrate_cascade",
    "evaluate_answers",
    "evaluate_best_of",
    "evaluate_labels",
    "evaluate_reward",
    "find_benchmark",
    "fit_composition",
    "judge_policies",
    "length_controlled",
    "next_pairs",
    "rank_policies",
    "read_labels",
    "review_by_information",
    "run_benchmark",
    "win_rate",
]
