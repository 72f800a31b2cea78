"""Runs all rewards of a composition at once, each within its own limits.

Async rewards run on one event loop, blocking ones each in a daemon thread, and those that may hang or crash in worker
processes. A call that passes its limit is given up: a coroutine is cancelled, a worker process killed; a thread can be
neither, so its reward is failed at once until the old call returns.
"""

from rlaif_sdk.composer.execution.budget import Budget
from rlaif_sdk.composer.execution.outcome import FATAL, Outcome, described
from rlaif_sdk.composer.execution.processes import Recipe
from rlaif_sdk.composer.execution.runner import Runner
from rlaif_sdk.composer.execution.together import Outcomes, run_all, set_up_all, start_all, wait_all

__all__ = [
    "FATAL",
    "Budget",
    "Outcome",
    "Outcomes",
    "Recipe",
    "Runner",
    "described",
    "run_all",
    "set_up_all",
    "start_all",
    "wait_all",
]
