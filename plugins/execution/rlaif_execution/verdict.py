"""What the tests of a row found, and the score that follows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from rlaif_sdk import Score

_QUOTED = 200


@dataclass
class Failure:
    """Why a test failed.

    Attributes:
        kind: ``wrong``, ``error`` (an exception), ``load`` (the code could not be run at all), or the limit or crash
            that ended the program: ``time``, ``memory``, ``output``, ``threads``, ``syscall``, ``crash``, ``protocol``.
        message: In words.
        error: Class of the exception, or None.
        test: Which test, in words, or None where it is not one of them.
    """

    kind: str
    message: str
    error: str | None = None
    test: str | None = None

    def as_dict(self) -> dict[str, Any]:
        return {"test": self.test, "kind": self.kind, "error": self.error, "message": self.message}

    def __str__(self) -> str:
        what = f"{self.error}: {self.message}" if self.error else self.message
        return f"{self.test}: {what}" if self.test else what


@dataclass
class Verdict:
    """The tally of a row.

    Attributes:
        passed: Tests that passed.
        failed: Tests that did not, those included that were not reached.
        first: The first failure.
        void: A failure that leaves no share of passed tests: the code does not load, or the asserts did not end.
    """

    passed: int = 0
    failed: int = 0
    first: Failure | None = None
    void: bool = field(default=False)

    def fail(self, failure: Failure, *, count: int = 1) -> None:
        """Count tests that failed for one reason."""
        self.failed += count
        self.first = self.first or failure

    def score(self, scoring: Literal["share", "all"]) -> Score:
        """The score in [0, 1]: the share of tests that passed, or whether all did."""
        total = self.passed + self.failed
        if not total and self.first is None:
            return Score.failed("the tests assert nothing")
        value = 0.0 if self.void or not total else self.passed / total
        if scoring == "all":
            value = float(value == 1.0)
        reason = f"{self.passed} of {total} tests passed" if total else "no test passed"
        if self.first is not None:
            reason = f"{reason}; {self.first}"
        details = {
            "passed": self.passed,
            "failed": self.failed,
            "first_failure": self.first.as_dict() if self.first is not None else None,
        }
        return Score(value, reason=reason, details=details)


def shown(value: Any) -> str:
    """A value in few words."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits; lists in lists
        return f"a value of type {type(value).__name__}, too long to show"
    return text if len(text) <= _QUOTED else f"{text[: _QUOTED - 1]}\u2026"
