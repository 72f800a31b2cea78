"""A sweep over the weights of a composition, and the frontier of what its rewards reach together."""

from rlaif_sdk.training.sweep.config import SweepConfig, load_sweep
from rlaif_sdk.training.sweep.result import PointResult, SweepResult
from rlaif_sdk.training.sweep.run import run_sweep

__all__ = ["PointResult", "SweepConfig", "SweepResult", "load_sweep", "run_sweep"]
