"""How another attempt at a judge's server is told in a terminal."""

from __future__ import annotations

import logging
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stamina.instrumentation import RetryDetails

_SECONDS_BETWEEN = 10.0
"""Many requests are in flight at once, and an outage makes all of them try again."""


class RetryNotes:
    """Says why a request is made again, and after how long, at most once in ten seconds: a hook of stamina's."""

    def __init__(self) -> None:
        self._last = float("-inf")

    def __call__(self, details: RetryDetails) -> None:
        """Write one line to stderr, unless one was written just now."""
        now = time.monotonic()
        if now - self._last < _SECONDS_BETWEEN:
            return
        self._last = now
        error = details.caused_by
        sys.stderr.write(f"trying again in {details.wait_for:g} s: {str(error) or type(error).__name__}\n")


def tell_retries() -> None:
    """Let another attempt be told by `RetryNotes` too, beside the hooks that there are; without stamina there is none."""
    try:
        from stamina.instrumentation import get_on_retry_hooks, set_on_retry_hooks
    except ImportError:
        return
    set_on_retry_hooks([*get_on_retry_hooks(), RetryNotes()])
    logging.getLogger("stamina").addHandler(logging.NullHandler())  # else logging itself would print what stamina logs
