"""Language models as judges: one protocol for local models and servers, and the judge that rates single answers."""

from __future__ import annotations

from rlaif_sdk.judges.loading import load_judge
from rlaif_sdk.judges.pointwise import PointwiseJudge
from rlaif_sdk.judges.prompts import JudgePrompt, Scale

__all__ = ["JudgePrompt", "PointwiseJudge", "Scale", "load_judge"]
