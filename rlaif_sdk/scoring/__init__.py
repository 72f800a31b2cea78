"""Runs all rewards of a composition at once, each within its own limits.

A plain synchronous reward of which no limit, retry, cache or isolation is asked is called in the caller's thread. Async
rewards run on one event loop, other synchronous ones each in a daemon thread, and those that may hang or crash in worker
processes. A call that passes its limit is given up: a coroutine is cancelled, a worker process killed; a thread can be
neither, so its reward is failed at once until the old call returns.
"""

from rlaif_sdk.scoring.checks import CheckedScores, check_entries
from rlaif_sdk.scoring.executors import is_plain
from rlaif_sdk.scoring.factory import Recipe
from rlaif_sdk.scoring.limits import Budget
from rlaif_sdk.scoring.results import FATAL, CallResult, described
from rlaif_sdk.scoring.runner import Runner, set_up_all, start, together, wait

__all__ = [
    "FATAL",
    "Budget",
    "CallResult",
    "CheckedScores",
    "Recipe",
    "Runner",
    "check_entries",
    "described",
    "is_plain",
    "set_up_all",
    "start",
    "together",
    "wait",
]
