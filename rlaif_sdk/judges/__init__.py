"""Language models as judges: one protocol for local models and servers, and the judges of single answers and pairs."""

from __future__ import annotations

from rlaif_sdk.judges.loading import label_pairs, load_judge, load_labeler
from rlaif_sdk.judges.pairwise import Pair, PairLabel, PairwiseLabeler
from rlaif_sdk.judges.pointwise import PointwiseJudge
from rlaif_sdk.judges.probe import ProbeResult, probe
from rlaif_sdk.judges.prompts import Exemplar, JudgePrompt, PairwisePrompt, Scale
from rlaif_sdk.judges.usage import Prices, Usage

__all__ = [
    "Exemplar",
    "JudgePrompt",
    "Pair",
    "PairLabel",
    "PairwiseLabeler",
    "PairwisePrompt",
    "PointwiseJudge",
    "Prices",
    "ProbeResult",
    "Scale",
    "Usage",
    "label_pairs",
    "load_judge",
    "load_labeler",
    "probe",
]
