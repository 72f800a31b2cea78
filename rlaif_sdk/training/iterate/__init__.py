"""The closed loop: generate, compose, train, evaluate, and again with the policy that came of it."""

from rlaif_sdk.training.iterate.config import IterateRun, IterateRunConfig, load_iterate_run
from rlaif_sdk.training.iterate.loop import IterateResult, run_iterate

__all__ = ["IterateResult", "IterateRun", "IterateRunConfig", "load_iterate_run", "run_iterate"]
