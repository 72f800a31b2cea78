"""Distilled RLAIF: a judge's labels train a reward model, and the reward model trains the policy."""

from rlaif_sdk.training.distill.config import DistillConfig, DistillRun, load_distill_run
from rlaif_sdk.training.distill.pipeline import DistillResult, run_distill

__all__ = ["DistillConfig", "DistillResult", "DistillRun", "load_distill_run", "run_distill"]
