"""Requests and tokens a minute, counted over a sliding window."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rlaif_sdk.config import LimitsConfig

MINUTE = 60.0
CHARACTERS_A_TOKEN = 4.0
"""What a token is taken for until the reward has reported its usage."""


@dataclass(slots=True)
class Entry:
    """An amount taken from a window, and when."""

    time: float
    amount: float


class Window:
    """At most ``limit`` units in any 60 seconds, whatever their spacing.

    An amount above the limit is let through alone: it would otherwise wait for ever.
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._entries: deque[Entry] = deque()

    def delay(self, amount: float, now: float) -> float:
        """Seconds until the amount may be taken; 0 if it may be now."""
        while self._entries and self._entries[0].time <= now - MINUTE:
            self._entries.popleft()
        excess = sum(entry.amount for entry in self._entries) + amount - self.limit
        if excess <= 0:
            return 0.0
        wait = 0.0
        for entry in self._entries:
            wait = entry.time + MINUTE - now
            excess -= entry.amount
            if excess <= 0:
                break
        return wait

    def take(self, amount: float, now: float) -> Entry:
        """Take the amount; the entry's ``amount`` may be corrected when the true one is known."""
        entry = Entry(now, amount)
        self._entries.append(entry)
        return entry


class RateLimits:
    """The limits of one reward in one process."""

    def __init__(self, config: LimitsConfig) -> None:
        self._requests = Window(config.requests_per_minute) if config.requests_per_minute else None
        self._tokens = Window(config.tokens_per_minute) if config.tokens_per_minute else None
        self._seen_tokens = 0.0
        self._seen_characters = 0.0

    @property
    def counts_tokens(self) -> bool:
        """Whether a call's tokens matter."""
        return self._tokens is not None

    async def acquire(self, characters: int, turn: asyncio.Lock) -> Entry | None:
        """Wait, in the order of arrival, until a call with texts of that many characters may be made.

        Returns:
            The entry to `correct` when the call has reported its tokens, or None.
        """
        if self._requests is None and self._tokens is None:
            return None
        tokens = self._estimate(characters)
        async with turn:
            while (delay := self._delay(tokens)) > 0:  # noqa: ASYNC110 - it waits for the clock, not for an event
                await asyncio.sleep(delay)
            now = time.monotonic()
            if self._requests is not None:
                self._requests.take(1, now)
            return None if self._tokens is None else self._tokens.take(tokens, now)

    def _delay(self, tokens: float) -> float:
        now = time.monotonic()
        requests = 0.0 if self._requests is None else self._requests.delay(1, now)
        return max(requests, 0.0 if self._tokens is None else self._tokens.delay(tokens, now))

    def _estimate(self, characters: int) -> float:
        if self._seen_tokens and self._seen_characters:
            return characters * self._seen_tokens / self._seen_characters
        return characters / CHARACTERS_A_TOKEN

    def correct(self, entry: Entry | None, tokens: float, characters: int) -> None:
        """Put what a call really took in the place of the estimate, and learn from it."""
        if entry is not None:
            entry.amount = tokens
            self._seen_tokens += tokens
            self._seen_characters += characters
