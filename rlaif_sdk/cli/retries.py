"""How another attempt at a judge's server is told in a terminal."""

from __future__ import annotations

import ast
import logging
import sys
import time

_SECONDS_BETWEEN = 10.0
"""Many requests are in flight at once, and an outage makes all of them try again."""


class RetryNotes(logging.Handler):
    """Says why a request is made again, and after how long, at most once in ten seconds.

    stamina logs each attempt under a fixed message; what it is about stands in the record's further attributes.
    """

    def __init__(self) -> None:
        super().__init__()
        self._last = float("-inf")

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line to stderr, unless one was written just now."""
        now = time.monotonic()
        if now - self._last < _SECONDS_BETWEEN:
            return
        self._last = now
        told = vars(record)
        why = _message(str(told.get("stamina.caused_by", record.getMessage())))
        after = told.get("stamina.wait_for")
        sys.stderr.write(f"trying again{'' if after is None else f' in {after:g} s'}: {why}\n")


def tell_retries() -> None:
    """Let what stamina logs be told by `RetryNotes`."""
    logger = logging.getLogger("stamina")
    logger.addHandler(RetryNotes())
    logger.propagate = False


def _message(error: str) -> str:
    """What an error says, of its repr."""
    try:
        return str(ast.literal_eval(error.partition("(")[2].removesuffix(")")))
    except (ValueError, SyntaxError):
        return error
