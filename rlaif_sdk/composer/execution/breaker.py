"""The circuit breaker: a reward that keeps failing is left alone for a while."""

from __future__ import annotations

from rlaif_sdk.exceptions import RewardError


class Breaker:
    """Refuses calls for ``cooldown`` seconds after ``failures`` failed ones in a row.

    After the cool-down one call is let through. If it succeeds, all are again; if it fails, or has not come back when
    another cool-down is over, the next trial is then. (Nygard, "Release It!", 2007.)
    """

    def __init__(self, failures: int, cooldown: float) -> None:
        self.failures = failures
        self.cooldown = cooldown
        self._in_a_row = 0
        self._open_until: float | None = None
        self._last = ""

    def check(self, now: float) -> None:
        """Refuse a call while the reward is being left alone.

        Raises:
            RewardError: It is.
        """
        if self._open_until is not None and now < self._open_until:
            raise RewardError(
                f"is left alone for another {self._open_until - now:.0f} s after {self._in_a_row} failures in a row, "
                f"the last: {self._last}"
            )

    def admit(self, now: float) -> None:
        """Let a call through, unless `check` refuses it; after the cool-down, one alone."""
        self.check(now)
        if self._open_until is not None:
            self._open_until = now + self.cooldown

    def succeeded(self) -> None:
        """A call came back with scores."""
        self._in_a_row = 0
        self._open_until = None

    def failed(self, problem: str, now: float) -> None:
        """A call failed."""
        self._in_a_row += 1
        self._last = problem
        if self._in_a_row >= self.failures:
            self._open_until = now + self.cooldown
