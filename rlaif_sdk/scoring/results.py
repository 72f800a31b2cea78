"""What comes of calling a reward, and which errors may pass."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from traceback import walk_tb
from types import FrameType

import numpy as np

from rlaif_sdk.exceptions import (
    BatchError,
    BudgetExceededError,
    ConfigError,
    JudgeAuthError,
    JudgeQuotaError,
    LedgerError,
    MissingExtraError,
    PluginError,
    RewardError,
    RewardTimeoutError,
    RlaifError,
    StateError,
    exception_text,
)
from rlaif_sdk.rewards import ScoreLike, Scores
from rlaif_sdk.statistics.arrays import Mask

FATAL = (
    BatchError,
    BudgetExceededError,
    ConfigError,
    JudgeAuthError,
    JudgeQuotaError,
    LedgerError,
    MissingExtraError,
    PluginError,
    StateError,
)
"""Errors that no failure policy covers: every later call would fail in the same way."""


@dataclass(frozen=True, slots=True)
class CallResult:
    """What came of scoring a batch with one reward, unchecked.

    Attributes:
        seconds: How long scoring took, without setup and without waiting for an earlier batch.
        answer: What the reward returned; rows of a part that failed are `rlaif_sdk.Score.failed`. None if all failed.
        error: Why it failed, altogether or in the first part that did.
        cached: (B,) True where the reward was not asked, since a ledger knows the row or it equals another; None
            without a ledger.
    """

    seconds: float
    answer: Scores | None = None
    error: RewardError | None = None
    cached: Mask | None = None


def spread(result: CallResult, asked: Sequence[int], others: Sequence[ScoreLike]) -> CallResult:
    """The result for B rows, given that for those that the reward was asked about.

    Args:
        result: Of the rows that were asked about.
        asked: Which those are.
        others: (B,) what is said of each row that was not.
    """
    if result.answer is None:
        return result
    entries, cached = list(others), None
    for row, entry in zip(asked, result.answer, strict=True):
        entries[row] = entry
    if result.cached is not None:
        cached = np.zeros(len(others), dtype=bool)
        cached[asked] = result.cached
    return replace(result, answer=entries, cached=cached)


class CallError(Exception):
    """A plugin's code raised ``cause``.

    Whatever it was (``SystemExit``, ``CancelledError``, ``StopIteration``) it passes through an event loop as this, and
    so cannot be taken for the loop's own. To be made where the code ran, within its limit: to read the text of an
    exception may run code of the plugin's.

    Attributes:
        cause: What was raised.
        text: Its class and message.
    """

    def __init__(self, cause: BaseException) -> None:
        super().__init__(cause)
        self.cause = cause
        self.text = exception_text(cause)


class RemoteError(RewardError):
    """A reward raised in its worker process.

    Attributes:
        kinds: The names of the exception's class and of its bases.
    """

    def __init__(self, message: str, *, kinds: Collection[str] = (), reward: str | None = None) -> None:
        super().__init__(message, reward=reward)
        self.kinds = tuple(kinds)


def is_fatal(cause: BaseException) -> bool:
    """Whether an error must end the run."""
    return isinstance(cause, (*FATAL, KeyboardInterrupt))


PROGRAM_ERRORS = frozenset(
    {"AttributeError", "ImportError", "LookupError", "NameError", "NotImplementedError", "SyntaxError", "TypeError"}
)
"""Errors, by class, that a reward's program is to blame for, as long as it has not scored anything yet."""


def is_program_error(error: RewardError) -> bool:
    """Whether a reward failed as one does whose program is wrong."""
    return not isinstance(error.__cause__, RlaifError) and not PROGRAM_ERRORS.isdisjoint(
        _kinds(error.__cause__ or error)
    )


def raised_at(error: RewardError) -> str | None:
    """Where a reward's own file raised, as ``FILE:LINE``; None where no file of it was running in this process."""
    cause = error.__cause__ or error
    frames = [(frame.f_code.co_filename, line) for frame, line in walk_tb(cause.__traceback__) if _is_reward(frame)]
    if not frames:
        return None
    file = frames[0][0]
    return f"{file}:{[line for name, line in frames if name == file][-1]}"


def _is_reward(frame: FrameType) -> bool:
    """Whether a frame is neither the SDK's nor the standard library's."""
    package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
    return package != "rlaif_sdk" and package not in sys.stdlib_module_names


def described(error: RewardError) -> str:
    """Why a row failed, when its whole call did."""
    return f"{error.message} ({error.hint})" if error.hint else error.message


def is_retryable(cause: BaseException, errors: Collection[str]) -> bool:
    """Whether an error is one of those, by the name of its class or of a base, after which a call is made again.

    A call that passed its own limit counts only where ``RewardTimeoutError`` is named.
    """
    if is_fatal(cause):
        return False
    if isinstance(cause, RewardTimeoutError):
        return "RewardTimeoutError" in errors
    return any(kind in errors for kind in _kinds(cause))


def _kinds(cause: BaseException) -> Collection[str]:
    """The names of an error's class and of its bases, in the process where it was raised."""
    return cause.kinds if isinstance(cause, RemoteError) else [kind.__name__ for kind in type(cause).__mro__]


def attributed(raised: BaseException, reward: str, *, attempts: int = 1) -> RewardError:
    """The error as a `RewardError` that names the reward."""
    cause = raised.cause if isinstance(raised, CallError) else raised
    if isinstance(cause, RewardError):
        cause.reward = cause.reward or reward
        return cause
    times = f" (attempt {attempts})" if attempts > 1 else ""
    text = raised.text if isinstance(raised, CallError) else exception_text(cause)
    error = RewardError(f"raised {text}{times}", reward=reward)
    error.__cause__ = cause
    return error
