"""Language models as judges: one protocol for local models and servers, and the judges of single answers and pairs."""

from __future__ import annotations

from rlaif_sdk.judges.loading import load_judge
from rlaif_sdk.judges.pairwise import PairwiseLabeler
from rlaif_sdk.judges.pairwise_labels import Pair, PairLabel
from rlaif_sdk.judges.pairwise_loading import label_pairs, load_labeler
from rlaif_sdk.judges.pairwise_prompt import Exemplar, PairwisePrompt
from rlaif_sdk.judges.pointwise import PointwiseJudge
from rlaif_sdk.judges.probe import Probe, probe
from rlaif_sdk.judges.prompts import JudgePrompt, Scale
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
    "Probe",
    "Scale",
    "Usage",
    "label_pairs",
    "load_judge",
    "load_labeler",
    "probe",
]
