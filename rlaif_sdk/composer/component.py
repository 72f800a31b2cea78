"""A reward and how it takes part in a composition."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rlaif_sdk.composer.execution import Recipe
from rlaif_sdk.composer.failures import FailurePolicy
from rlaif_sdk.composer.normalize import Identity, Normalizer
from rlaif_sdk.composer.weights import Weight
from rlaif_sdk.config import ExecutionConfig


@dataclass(frozen=True, slots=True, eq=False)
class Component:
    """A reward and how it takes part in a composition.

    Attributes:
        reward: The reward, or anything that `rlaif_sdk.rewards.as_reward` takes.
        weight: How much it matters, a number or a `Schedule`; 0 only records it.
        normalizer: What makes its scale comparable.
        failure: What its failure does.
        timeout: Seconds that one call may take, or None.
        setup_timeout: Seconds that its setup may take, or None.
        columns: Dataset columns under the names that the reward knows: ``{"reference": "answer"}``.
        params: The parameters that it was made with, as JSON values, where they are known: saved state is refused
            when they differ.
        execution: How it is called: in a process, in chunks, with limits, retries, a budget.
        fallback: The name of the fallback whose scores stand in where it fails, or None.
        recipe: How a worker process makes it; needed with ``isolation: process``.
        cache: False if a ledger is neither asked for its scores nor keeps them.
    """

    reward: Any
    weight: Weight = 1.0
    normalizer: Normalizer = field(default_factory=Identity)
    failure: FailurePolicy = FailurePolicy()
    timeout: float | None = 300.0
    setup_timeout: float | None = 1800.0
    columns: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    execution: ExecutionConfig = field(default_factory=ExecutionConfig)
    fallback: str | None = None
    recipe: Recipe | None = None
    cache: bool = True

    @property
    def sign(self) -> float:
        """-1 for a cost, so that higher is better for whatever is normalised and weighed."""
        return 1.0 if self.reward.higher_is_better else -1.0

    @property
    def oriented_range(self) -> tuple[float, float] | None:
        """The declared range of the reward, turned where it is a cost."""
        if self.reward.range is None or self.sign > 0:
            declared: tuple[float, float] | None = self.reward.range
            return declared
        low, high = self.reward.range
        return -high, -low
