"""How long to wait before a call is made again."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


def backoff(attempt: int, delay: float, max_delay: float) -> float:
    """Seconds to wait after the failed attempt ``attempt`` (1 is the first).

    Uniform between 0 and ``min(max_delay, delay * 2 ** (attempt - 1))``: exponential back-off with full jitter, so that
    calls that failed together do not return together (Brooker, "Exponential Backoff and Jitter", AWS Architecture
    Blog, 2015).
    """
    ceiling = min(max_delay, delay * 2.0 ** min(attempt - 1, 60))
    return random.uniform(0.0, ceiling)  # noqa: S311 - jitter, not cryptography


def retry_after(value: str) -> float | None:
    """Seconds that a ``Retry-After`` header asks to wait, as a number or a date (RFC 9110, 10.2.3); None for nonsense."""
    value = value.strip()
    if value.isascii() and value.replace(".", "", 1).isdigit():
        return float(value)
    try:
        return max((parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds(), 0.0)
    except (ValueError, TypeError):
        return None
