"""A reward and how it takes part in a composition."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from rlaif_sdk.composer.asking import Ask
from rlaif_sdk.composer.conditions import Condition
from rlaif_sdk.composer.failures import FailurePolicy
from rlaif_sdk.composer.normalizers import Normalizer, Passthrough
from rlaif_sdk.composer.weights import Weight, weight_bounds
from rlaif_sdk.config import ExecutionConfig
from rlaif_sdk.exceptions import ConfigError
from rlaif_sdk.io.text import is_safe_text
from rlaif_sdk.scoring.factory import Recipe


@dataclass(frozen=True, slots=True, eq=False)
class Component:
    """A reward and how it takes part in a composition.

    Attributes:
        reward: The reward, or anything that `rlaif_sdk.rewards.as_reward` takes.
        weight: How much it matters, a number or a `Schedule`; 0 only records it.
        normalizer: What makes its scale comparable.
        failure: What its failure does.
        timeout: Seconds that one call may take, or None for no limit. ``auto`` is 300 s, and no limit for a plain
            synchronous reward, one without a setup of its own, which is called in the caller's thread.
        setup_timeout: Seconds that its setup may take, or None.
        columns: Dataset columns under the names that the reward knows: ``{"reference": "answer"}``.
        params: The parameters that it was made with, as JSON values, where they are known: saved state is refused
            when they differ.
        execution: How it is called: in a process, in chunks, with limits, retries, a budget.
        fallback: The name of the fallback that is asked where it fails, or None.
        recipe: How a worker process makes it; needed with ``isolation: process``.
        cache: False if a ledger is neither asked for its scores nor keeps them.
        when: What must hold of a row for the reward to be asked about it: every one of these. See
            `rlaif_sdk.composer.conditions`.
        otherwise: The score of a row that it is not asked about, in its own units, or ``abstain``; to be stated where a
            condition looks at a reward. None abstains.
        ask: Of the rows that it may be asked about, it is asked only where its answer matters; None asks about all.
        place: Where it stands in its config, as ``FILE:LINE``, for errors; empty where it has none.
    """

    reward: Any
    weight: Weight = 1.0
    normalizer: Normalizer = field(default_factory=Passthrough)
    failure: FailurePolicy = FailurePolicy()
    timeout: float | Literal["auto"] | None = "auto"
    setup_timeout: float | None = 1800.0
    columns: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    execution: ExecutionConfig = field(default_factory=ExecutionConfig)
    fallback: str | None = None
    recipe: Recipe | None = None
    cache: bool = True
    when: Sequence[Condition] = ()
    otherwise: float | Literal["abstain"] | None = None
    ask: Ask | None = None
    place: str = ""

    @property
    def sign(self) -> float:
        """-1 for a cost, so that higher is better for whatever is normalised and weighed."""
        return 1.0 if self.reward.higher_is_better else -1.0

    def asks_the_same(self, other: Component) -> bool:
        """Whether two components ask the same reward, whatever each does with what it says."""
        if self.recipe is not None and other.recipe is not None:
            return (self.recipe.use, self.recipe.params) == (other.recipe.use, other.recipe.params)
        own, its = (getattr(part.reward, "function", part.reward) for part in (self, other))
        return own is its and self.params == other.params

    @property
    def otherwise_value(self) -> float | None:
        """The score of a row that it is not asked about; None where it abstains."""
        return None if isinstance(self.otherwise, str) else self.otherwise

    @property
    def condition(self) -> str:
        """What must hold of a row for it to be asked, in words; empty where nothing must."""
        return " and ".join(map(str, self.when))

    @property
    def oriented_range(self) -> tuple[float, float] | None:
        """The declared range of the reward, negated where it is a cost."""
        if self.reward.range is None or self.sign > 0:
            declared: tuple[float, float] | None = self.reward.range
            return declared
        low, high = self.reward.range
        return -high, -low


def warn_of_inverted_costs(components: Mapping[str, Component]) -> None:
    """Warn of a cost with a negative weight: inverted twice, what is bad about a completion would be rewarded."""
    for name, component in components.items():
        if not component.reward.higher_is_better and weight_bounds(component.weight)[0] < 0:
            warnings.warn(
                f"rewards.{name}.weight is or becomes negative, and {name!r} is a cost (higher_is_better is False) whose "
                "sign the composer inverts by itself: inverted twice, high scores are rewarded; give it a positive weight",
                stacklevel=3,
            )


def warn_of_inverted_rewards(components: Mapping[str, Component]) -> None:
    """Warn of a reward with a negative weight in a config, where a minus is easily meant for something else."""
    for name, component in components.items():
        if component.reward.higher_is_better and weight_bounds(component.weight)[0] < 0:
            warnings.warn(
                f"rewards.{name}.weight is or becomes negative: high scores of {name!r} lower the total; a reward that "
                "measures something bad declares higher_is_better = False, and then takes a positive weight",
                stacklevel=4,
            )


def check_names(kind: str, names: Iterable[object]) -> None:
    """Refuse names that ledgers, tables and metrics could not hold, or not tell apart.

    Args:
        kind: The key of a config under which they stand, such as ``rewards``.
        names: The names.

    Raises:
        ConfigError: One is no text, empty, has half a character (a lone surrogate), or is ``total``, which metrics and
            reports call the sum.
    """
    for name in names:
        if not isinstance(name, str) or not name.strip():
            raise ConfigError(f"the name {name!r} is no text", key=kind, hint="name it in words")
        if not is_safe_text(name):
            hint = "a lone surrogate is no character: write the whole one"
            raise ConfigError(f"the name {name!r} has half a character", key=f"{kind}.{name}", hint=hint)
        if name == "total":
            hint = "give it another name"
            raise ConfigError("metrics and reports call the sum of all rewards so", key=f"{kind}.{name}", hint=hint)
