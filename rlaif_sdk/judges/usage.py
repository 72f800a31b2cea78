"""What asking a judge takes: calls, tokens, money."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Usage:
    """What one request, or many together, took.

    Attributes:
        calls: Attempts, those that failed included.
        retries: Attempts after the first of each request.
        input_tokens: Tokens of the prompts, as the model or the server counted them.
        output_tokens: Tokens of the answers.
        cost: Money, in the currency of the prices; None where no prices are known.
    """

    calls: int = 0
    retries: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float | None = None

    @property
    def tokens(self) -> int:
        """Tokens of prompts and answers."""
        return self.input_tokens + self.output_tokens

    def __add__(self, other: Usage) -> Usage:
        costs = [cost for cost in (self.cost, other.cost) if cost is not None]
        return Usage(
            self.calls + other.calls,
            self.retries + other.retries,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            sum(costs) if costs else None,
        )

    def record(self) -> dict[str, Any]:
        """The counts as a JSON-ready mapping, with ``tokens`` for budgets; ``cost`` only where it is known."""
        counts = {
            "calls": self.calls,
            "retries": self.retries,
            "tokens": self.tokens,
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
        }
        return counts if self.cost is None else {**counts, "cost": self.cost}

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> Usage:
        """The usage that `record` made a mapping of."""
        names = ("calls", "retries", "input_tokens", "output_tokens", "cost")
        return cls(**{name: record[name] for name in names if name in record})


NO_USAGE = Usage()
"""No request at all."""


@dataclass(frozen=True, slots=True)
class Prices:
    """What a server charges, for a million tokens.

    Attributes:
        input: Of prompts.
        output: Of answers.
    """

    input: float
    output: float

    def cost(self, input_tokens: int, output_tokens: int) -> float:
        """The price of so many tokens."""
        return (input_tokens * self.input + output_tokens * self.output) / 1e6
