"""How near a length is to the wanted one."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Band:
    """The lengths that get full marks, and how marks fall off around them.

    Attributes:
        low: Shortest length with full marks, in units; 0 when no answer is too short.
        high: Longest length with full marks, in units.
        log_half: Natural logarithm of the factor beyond the band at which the marks are halved.
    """

    low: float
    high: float
    log_half: float

    @classmethod
    def around(cls, target: float, *, tolerance: float, half_at: float, only_long: bool = False) -> Band:
        """The band ``target * (1 - tolerance)`` to ``target * (1 + tolerance)``."""
        low = 0.0 if only_long else target * (1 - tolerance)
        return cls(low=low, high=target * (1 + tolerance), log_half=math.log(half_at))

    def marks(self, length: float, new_length: float) -> float:
        """Marks in (0, 1] for a text of ``length`` units, ``new_length`` of them not repeated; both above 0.

        With ``x`` the factor by which ``length`` exceeds ``high`` or ``new_length`` falls short of ``low``, whichever
        is greater (a text that repeats itself may do both)::

            marks = 1 / (1 + (ln x / ln half_at) ** 2)

        This is 1 with slope 0 at the edge of the band and 1/2 at ``half_at``. It falls strictly and never reaches 0,
        so that of two answers far too long the shorter is still the better one.
        """
        excess = max(length / self.high, self.low / new_length)
        if excess <= 1.0:
            return 1.0
        distance = math.log(excess) / self.log_half
        return 1.0 / (1.0 + distance * distance)

    def __str__(self) -> str:
        high = f"{self.high:.4g}"
        return f"{self.low:.4g}-{high}" if self.low else f"at most {high}"
