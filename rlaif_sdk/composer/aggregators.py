"""Aggregators: how the normalised rewards of a row, and groups of rewards, become one number."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from pydantic import Field

from rlaif_sdk.composer.weights import Weight, weight_bounds
from rlaif_sdk.exceptions import ConfigError
from rlaif_sdk.rewards import Params
from rlaif_sdk.statistics.arrays import Array, Mask


class Aggregator(ABC):
    """Combines R normalised rewards of B rows by their weights."""

    weighs_certainty = False
    """Whether it is to be called by `aggregate_unsure`, with what the rewards say of their certainty."""

    def bind(self, weights: Mapping[str, tuple[float, float]]) -> None:
        """Learn the rewards, in the order of the rows of ``normalized_RB``, before the first batch.

        Args:
            weights: The least and the greatest weight that each reward ever has.

        Raises:
            ConfigError: This aggregator cannot work with them.
        """

    @abstractmethod
    def aggregate(self, normalized_RB: Array, weights_R: Array) -> tuple[Array, Array]:
        """Combine.

        Args:
            normalized_RB: (R, B), higher being better; NaN where a reward has no value for a row.
            weights_R: (R,), finite.

        Returns:
            The (B,) totals, NaN where nothing with a weight was present, and the (R, B) share of each reward in its
            row's total, NaN where it was missing. The shares of a row sum to its total.
        """

    def aggregate_unsure(self, normalized_RB: Array, weights_R: Array, std_RB: Array) -> tuple[Array, Array]:
        """The same with how sure the rewards are of each value; it makes no difference by default.

        Args:
            normalized_RB: See `aggregate`.
            weights_R: See there.
            std_RB: (R, B) the standard deviation of each value, at least 0; NaN where the reward does not say it.
        """
        del std_RB
        return self.aggregate(normalized_RB, weights_R)


class WeightedSum(Aggregator):
    """``weighted_sum``: the sum of weight times value.

    Where rewards are missing from a row, the weights of the others are scaled up so that their absolute values sum
    to what all weights sum to: a row with an outage stays on the scale of its neighbours.
    """

    def aggregate(self, normalized_RB: Array, weights_R: Array) -> tuple[Array, Array]:
        size_R = np.abs(weights_R)
        present_RB = ~np.isnan(normalized_RB)
        if present_RB.all() and size_R.any():
            weighted_RB = normalized_RB * weights_R[:, None]
            return weighted_RB.sum(axis=0), weighted_RB
        present_B = np.broadcast_to(size_R[:, None], present_RB.shape).sum(axis=0, where=present_RB)
        with np.errstate(divide="ignore", invalid="ignore"):
            scale_B = np.where(present_B > 0, size_R.sum() / present_B, np.nan)
        weighted_RB = normalized_RB * weights_R[:, None]
        weighted_RB *= scale_B
        totals_B = weighted_RB.sum(axis=0, where=present_RB)
        return np.where(present_B > 0, totals_B, np.nan), weighted_RB


class Minimum(Aggregator):
    """``minimum``: the least of weight times value; no strong reward makes up for a weak one.

    Rewards of weight 0, and those missing from a row, take no part. The total is the share of the least reward;
    those that tie for it share it evenly.
    """

    def bind(self, weights: Mapping[str, tuple[float, float]]) -> None:
        refuse_negative(weights, "minimum")

    def aggregate(self, normalized_RB: Array, weights_R: Array) -> tuple[Array, Array]:
        present_RB, active_RB = presence(normalized_RB, weights_R)
        weighted_RB = np.where(active_RB, normalized_RB * weights_R[:, None], np.inf)
        least_B = weighted_RB.min(axis=0)
        shares_RB = shared_evenly(least_B, active_RB & (weighted_RB == least_B))
        return np.where(active_RB.any(axis=0), least_B, np.nan), np.where(present_RB, shares_RB, np.nan)


class ProductParams(Params):
    """Parameters of `Product`."""

    mapping: Literal["exp", "softplus", "sigmoid", "clamp"] | None = None
    """What makes a normalised value positive: ``exp``, ``softplus``, ``sigmoid``, or ``clamp``, which takes it as it is
    and raises what is below ``floor``. It must be stated: a product of values of either sign has no order."""
    floor: float = Field(default=1e-3, gt=0)
    """The least factor that ``clamp`` gives."""


class Product(Aggregator):
    """``product``: the product of the positively mapped values, each to the power of its weight.

    Where rewards are missing from a row, the exponents of the others are scaled up so that they sum to what all sum
    to. Of a row's total, 1 is shared out evenly and the rest by the logarithms of the factors (the additive
    logarithmic mean decomposition of Ang, 2005), so that the shares sum to it.

    Raises:
        ConfigError: No mapping is stated.
    """

    def __init__(self, params: ProductParams) -> None:
        if params.mapping is None:
            raise ConfigError(
                "product needs a 'mapping' that makes values positive: exp, softplus, sigmoid or clamp",
                hint="clamp suits values within [0, 1], exp and softplus those without bounds",
            )
        self.mapping = params.mapping
        self.floor = params.floor

    def bind(self, weights: Mapping[str, tuple[float, float]]) -> None:
        refuse_negative(weights, "product")

    def aggregate(self, normalized_RB: Array, weights_R: Array) -> tuple[Array, Array]:
        present_RB, active_RB = presence(normalized_RB, weights_R)
        exponent_B = weights_R @ present_RB
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            scale_B = weights_R.sum() / exponent_B
            logs_RB = np.where(active_RB, self._log(normalized_RB) * weights_R[:, None] * scale_B, 0.0)
            log_B = logs_RB.sum(axis=0)
            totals_B = np.exp(log_B)
            slope_B = np.where(log_B == 0, 1.0, np.expm1(log_B) / log_B)
            shares_RB = active_RB / np.maximum(active_RB.sum(axis=0), 1) + logs_RB * slope_B
        return np.where(exponent_B > 0, totals_B, np.nan), np.where(present_RB, shares_RB, np.nan)

    def _log(self, values_RB: Array) -> Array:
        """The logarithm of the mapped values."""
        match self.mapping:
            case "exp":
                return values_RB
            case "sigmoid":
                return -np.logaddexp(0.0, -values_RB)
            case "softplus":
                return _log_softplus(values_RB)
            case "clamp":
                return np.log(np.maximum(values_RB, self.floor))


def presence(normalized_RB: Array, weights_R: Array) -> tuple[Mask, Mask]:
    """Which rewards have a value for a row, and which of those have a weight too."""
    present_RB = ~np.isnan(normalized_RB)
    return present_RB, present_RB & (weights_R != 0)[:, None]


def shared_evenly(values_B: Array, among_RB: Mask) -> Array:
    """Each row's value, shared evenly among some of its rewards."""
    shares_RB: Array = np.where(among_RB, values_B, 0.0) / np.maximum(among_RB.sum(axis=0), 1)
    return shares_RB


def _log_softplus(values: Array) -> Array:
    """log(log(1 + e^x)), which is x far below 0."""
    return np.where(values < -30.0, values, np.log(np.logaddexp(0.0, values)))


def refuse_negative(weights: Mapping[str, tuple[float, float]], kind: str) -> None:
    """Refuse weights below 0 for an aggregator to which a sign would mean nothing."""
    for name, (least, _) in weights.items():
        if least < 0:
            raise ConfigError(
                f"{kind}: the weight of {name!r} is or becomes {least:g}, and must not be negative",
                key=f"rewards.{name}.weight",
                hint="turn a cost with higher_is_better instead",
            )


@dataclass(frozen=True, slots=True, eq=False)
class RewardGroup:
    """Rewards, or other groups, that enter the whole as one.

    Attributes:
        members: Names of rewards and groups; each name is in one group at most.
        weight: How much the group matters among its neighbours.
        aggregator: How its members become one number.
    """

    members: Sequence[str]
    weight: Weight = 1.0
    aggregator: Aggregator = field(default_factory=WeightedSum)


@dataclass(frozen=True, slots=True)
class AggregationTree:
    """Which groups the rewards of a composition are in, and how each is aggregated; nothing that computes.

    Attributes:
        kind: The name of the class that makes the total.
        members: The rewards and groups that are in no group.
        kinds: The name of the class of each group's aggregator, by group.
        groups: The members of each group, by group.
    """

    kind: str = WeightedSum.__name__
    members: Sequence[str] = ()
    kinds: Mapping[str, str] = field(default_factory=dict)
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def is_linear(self) -> bool:
        """Whether the total is a weighted sum, of weighted sums where there are groups."""
        return {self.kind, *self.kinds.values()} == {WeightedSum.__name__}

    def leaves(self, group: str) -> list[str]:
        """The rewards in a group and in the groups within it."""
        members = self.groups[group]
        return [leaf for name in members for leaf in (self.leaves(name) if name in self.groups else [name])]

    def effective_weights(self, weights: Mapping[str, float], present: Collection[str]) -> dict[str, float]:
        """What each reward that took part in a row is multiplied by; none where the total is no weighted sum.

        Args:
            weights: The weight in force of every reward and group.
            present: The rewards that have a value for the row.
        """
        found: dict[str, float] = {}
        if self.is_linear:
            self._weigh(self.members, 1.0, weights, present, found)
        return found

    def _weigh(
        self,
        members: Sequence[str],
        factor: float,
        weights: Mapping[str, float],
        present: Collection[str],
        found: dict[str, float],
    ) -> None:
        taking = [name for name in members if self._takes_part(name, weights, present)]
        everything = sum(abs(weights[name]) for name in members)
        there = sum(abs(weights[name]) for name in taking)
        for name in taking:
            effective = factor * weights[name] * (everything / there if there else 1.0)
            if name in self.groups:
                self._weigh(self.groups[name], effective, weights, present, found)
            else:
                found[name] = effective

    def _takes_part(self, name: str, weights: Mapping[str, float], present: Collection[str]) -> bool:
        if name not in self.groups:
            return name in present
        return any(weights[part] != 0 and self._takes_part(part, weights, present) for part in self.groups[name])


class NestedAggregation:
    """Aggregates the groups from the inside out, and then the whole.

    Args:
        aggregator: How the groups, and the rewards that are in none, become the total.
        groups: The groups by name.
        weights: The rewards' weights by name, in the order of the rows of ``normalized_RB``.

    Raises:
        ConfigError: A group has no members, names no reward, or contains itself; a name is in two groups, or a reward's
            and a group's; an aggregator refuses its weights.
    """

    def __init__(
        self, aggregator: Aggregator, groups: Mapping[str, RewardGroup], weights: Mapping[str, Weight]
    ) -> None:
        self.aggregator = aggregator
        self.groups = groups
        self._index = {name: index for index, name in enumerate(weights)}
        parents = self._parents()
        self._top = [name for name in (*weights, *groups) if name not in parents]
        kinds = {name: type(group.aggregator).__name__ for name, group in groups.items()}
        members = {name: list(group.members) for name, group in groups.items()}
        self.tree = AggregationTree(type(aggregator).__name__, self._top, kinds, members)
        """What it does, for people."""
        bounds = {}
        for name, weight in (*weights.items(), *((name, group.weight) for name, group in groups.items())):
            kind = "rewards" if name in self._index else "groups"
            try:
                bounds[name] = weight_bounds(weight)
            except ConfigError as error:
                raise ConfigError(error.message, key=f"{kind}.{name}.weight", hint=error.hint) from None
        aggregator.bind({name: bounds[name] for name in self._top})
        for group in groups.values():
            group.aggregator.bind({name: bounds[name] for name in group.members})

    @property
    def weighs_certainty(self) -> bool:
        """Whether any aggregator makes a difference by how sure the rewards are."""
        every = (self.aggregator, *(group.aggregator for group in self.groups.values()))
        return any(one.weighs_certainty for one in every)

    @property
    def is_linear(self) -> bool:
        """Whether the total is a weighted sum, of weighted sums where there are groups."""
        inner = (group.aggregator for group in self.groups.values())
        return all(isinstance(aggregator, WeightedSum) for aggregator in (self.aggregator, *inner))

    def _parents(self) -> dict[str, str]:
        """The group that each name is in."""
        parents: dict[str, str] = {}
        known = (*self._index, *self.groups)
        for group, spec in self.groups.items():
            key = f"groups.{group}"
            if group in self._index:
                raise ConfigError(f"{group!r} is the name of a reward too", key=key)
            if not spec.members:
                raise ConfigError("a group needs at least one member", key=key)
            for name in spec.members:
                if name not in known:
                    raise ConfigError(f"there is no member {name!r}", key=key, hint=f"there are {', '.join(known)}")
                if name in parents:
                    raise ConfigError(f"{name!r} is in this group and in {parents[name]!r}", key=key)
                parents[name] = group
        for group in self.groups:
            above = parents.get(group)
            while above is not None:
                if above == group:
                    raise ConfigError("the group contains itself", key=f"groups.{group}")
                above = parents.get(above)
        return parents

    def aggregate(
        self, normalized_RB: Array, weights: Mapping[str, float], std_RB: Array | None = None
    ) -> tuple[Array, Array]:
        """Combine.

        Args:
            normalized_RB: (R, B), higher being better; NaN where a reward has no value for a row.
            weights: The weight in force of every reward and group.
            std_RB: See `Aggregator.aggregate_unsure`; None where no reward says it.

        Returns:
            As `Aggregator.aggregate`. Where a group's share in the whole is not its weight (in a weighted sum, scaled up
            where others are missing) times its value, the difference is shared out evenly among its members.
        """
        if not self.groups:
            weights_R = np.array([weights[name] for name in self._top])
            return _aggregate(self.aggregator, normalized_RB, weights_R, std_RB)
        shares_RB = np.full_like(normalized_RB, np.nan)
        totals_B = self._descend(self._top, self.aggregator, normalized_RB, weights, std_RB, shares_RB)
        return totals_B, shares_RB

    def _descend(
        self,
        members: Sequence[str],
        aggregator: Aggregator,
        normalized_RB: Array,
        weights: Mapping[str, float],
        std_RB: Array | None,
        shares_RB: Array,
    ) -> Array:
        values_MB = np.stack(
            [
                normalized_RB[self._index[name]]
                if name in self._index
                else self._descend(
                    self.groups[name].members, self.groups[name].aggregator, normalized_RB, weights, std_RB, shares_RB
                )
                for name in members
            ]
        )
        weights_M = np.array([weights[name] for name in members])
        std_MB = None
        if std_RB is not None:
            unsaid_B = np.full(std_RB.shape[1], np.nan)
            std_MB = np.stack([std_RB[self._index[name]] if name in self._index else unsaid_B for name in members])
        totals_B, shares_MB = _aggregate(aggregator, values_MB, weights_M, std_MB)
        factors_MB = np.broadcast_to(weights_M[:, None], values_MB.shape)
        if isinstance(aggregator, WeightedSum):  # the weights are scaled up where members are missing
            factors_MB = aggregator.aggregate(np.where(np.isnan(values_MB), np.nan, 1.0), weights_M)[1]
        for name, value_B, share_B, factor_B in zip(members, values_MB, shares_MB, factors_MB, strict=True):
            if name in self._index:
                shares_RB[self._index[name]] = share_B
                continue
            rows = [self._index[leaf] for leaf in self.tree.leaves(name)]
            present_LB = ~np.isnan(shares_RB[rows])
            rest_B = (share_B - factor_B * value_B) / np.maximum(present_LB.sum(axis=0), 1)
            shares_RB[rows] = shares_RB[rows] * factor_B + rest_B
        return totals_B


def _aggregate(aggregator: Aggregator, values_MB: Array, weights_M: Array, std_MB: Array | None) -> tuple[Array, Array]:
    if std_MB is not None and aggregator.weighs_certainty:
        return aggregator.aggregate_unsure(values_MB, weights_M, std_MB)
    return aggregator.aggregate(values_MB, weights_M)
