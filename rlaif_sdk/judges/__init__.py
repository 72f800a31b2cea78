"""Language models as judges: one protocol for local models and servers, and the judges of single answers, pairs and rubrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlaif_sdk.io.lazy_names import lazy_names
from rlaif_sdk.judges.probe import ProbeResult, probe
from rlaif_sdk.judges.usage import Prices, Usage

if TYPE_CHECKING:
    from rlaif_sdk.judges.listwise import ListwiseJudge, ResponseList, ResponseRanking
    from rlaif_sdk.judges.loading import (
        label_pairs,
        load_judge,
        load_labeler,
        load_listwise_judge,
        load_rubric_judge,
        rank_responses,
    )
    from rlaif_sdk.judges.pairwise import Pair, PairLabel, PairwiseLabeler
    from rlaif_sdk.judges.pointwise import PointwiseJudge
    from rlaif_sdk.judges.prompts import Exemplar, JudgePrompt, ListwisePrompt, PairwisePrompt, Scale
    from rlaif_sdk.judges.rubric import Criterion, CriterionVerdict, RubricJudge, RubricVerdicts

__all__ = [
    "Criterion",
    "CriterionVerdict",
    "Exemplar",
    "JudgePrompt",
    "ListwiseJudge",
    "ListwisePrompt",
    "Pair",
    "PairLabel",
    "PairwiseLabeler",
    "PairwisePrompt",
    "PointwiseJudge",
    "Prices",
    "ProbeResult",
    "ResponseList",
    "ResponseRanking",
    "RubricJudge",
    "RubricVerdicts",
    "Scale",
    "Usage",
    "label_pairs",
    "load_judge",
    "load_labeler",
    "load_listwise_judge",
    "load_rubric_judge",
    "probe",
    "rank_responses",
]

if not TYPE_CHECKING:  # or a type checker would believe any name to be here
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "listwise": ("ListwiseJudge", "ResponseRanking", "ResponseList"),
            "loading": (
                "label_pairs",
                "load_judge",
                "load_labeler",
                "load_listwise_judge",
                "load_rubric_judge",
                "rank_responses",
            ),
            "pairwise": ("Pair", "PairLabel", "PairwiseLabeler"),
            "pointwise": ("PointwiseJudge",),
            "prompts": ("Exemplar", "JudgePrompt", "ListwisePrompt", "PairwisePrompt", "Scale"),
            "rubric": ("Criterion", "CriterionVerdict", "RubricJudge", "RubricVerdicts"),
        },
    )
