"""Who is let in: the key, and how much is under way at once."""

from __future__ import annotations

import base64
import binascii
import hmac
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import HTTPException


def carries_key(authorization: str | None, key: str) -> bool:
    """Whether an ``Authorization`` header carries the key, as ``Bearer KEY`` or as the password of ``Basic``.

    Basic is what trainers send whose only setting is an address: ``http://any:KEY@host``. The comparison takes the
    same time wherever the key and the header differ.
    """
    scheme, _, credentials = (authorization or "").strip().partition(" ")
    given = b""
    if scheme.lower() == "bearer":
        given = credentials.strip().encode("utf-8", "surrogateescape")
    elif scheme.lower() == "basic":
        try:
            given = base64.b64decode(credentials.strip(), validate=True).partition(b":")[2]
        except (binascii.Error, ValueError):
            given = b""
    return hmac.compare_digest(given, key.encode())


class Queue:
    """Counts the rows and the requests that are under way, and refuses more than it holds.

    Used on one event loop.
    """

    def __init__(self, places: int) -> None:
        self._places = places
        self._requests = 0
        self._seconds = 0.0
        self.rows = 0

    @contextmanager
    def request(self) -> Iterator[None]:
        """Hold a place while a request is read and answered.

        Raises:
            HTTPException: 429, there is none.
        """
        if self._requests >= self._places or self.rows >= self._places:
            raise self._full()
        self._requests += 1
        since = time.monotonic()
        try:
            yield
        finally:
            self._requests -= 1
            self._seconds += 0.2 * (time.monotonic() - since - self._seconds)

    @contextmanager
    def holding(self, rows: int) -> Iterator[None]:
        """Hold places for the rows of a request while they are scored.

        Raises:
            HTTPException: 429, there are not enough.
        """
        if self.rows + rows > self._places:
            raise self._full()
        self.rows += rows
        try:
            yield
        finally:
            self.rows -= rows

    @property
    def retry_after(self) -> dict[str, str]:
        """The header that says when to come again: after about the time that a request takes now."""
        return {"Retry-After": str(min(30, max(1, math.ceil(self._seconds))))}

    def _full(self) -> HTTPException:
        detail = f"{self.rows} rows wait already, and the queue holds {self._places}"
        return HTTPException(429, detail, headers=self.retry_after)
