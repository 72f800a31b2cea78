"""Groups of rewards that are aggregated among themselves before they enter the whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from rlaif_sdk.composer.aggregate import Aggregator, WeightedSum
from rlaif_sdk.composer.arrays import Array
from rlaif_sdk.composer.weights import Weight, weight_bounds
from rlaif_sdk.exceptions import ConfigError


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Rewards, or other groups, that enter the whole as one.

    Attributes:
        members: Names of rewards and groups; each name is in one group at most.
        weight: How much the group matters among its neighbours.
        aggregator: How its members become one number.
    """

    members: Sequence[str]
    weight: Weight = 1.0
    aggregator: Aggregator = field(default_factory=WeightedSum)


class Nested:
    """Aggregates the groups from the inside out, and then the whole.

    Args:
        aggregator: How the groups, and the rewards that are in none, become the total.
        groups: The groups by name.
        weights: The rewards' weights by name, in the order of the rows of ``normalized_RB``.

    Raises:
        ConfigError: A group has no members, names nobody, or contains itself; a name is in two groups, or a reward's
            and a group's; an aggregator refuses its weights.
    """

    def __init__(self, aggregator: Aggregator, groups: Mapping[str, Group], weights: Mapping[str, Weight]) -> None:
        self.aggregator = aggregator
        self.groups = groups
        self._index = {name: index for index, name in enumerate(weights)}
        parents = self._parents()
        self._top = [name for name in (*weights, *groups) if name not in parents]
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
                    raise ConfigError(f"the group names {name!r}; there are {', '.join(known)}", key=key)
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

    def aggregate(self, normalized_RB: Array, weights: Mapping[str, float]) -> tuple[Array, Array]:
        """Combine.

        Args:
            normalized_RB: (R, B), higher being better; NaN where a reward has no value for a row.
            weights: The weight in force of every reward and group.

        Returns:
            As `Aggregator.aggregate`. Where a group's share in the whole is not its weight times its value, the
            difference is shared out evenly among its members.
        """
        if not self.groups:
            return self.aggregator.aggregate(normalized_RB, np.array([weights[name] for name in self._top]))
        shares_RB = np.full_like(normalized_RB, np.nan)
        totals_B = self._descend(self._top, self.aggregator, normalized_RB, weights, shares_RB)
        return totals_B, shares_RB

    def _descend(
        self,
        members: Sequence[str],
        aggregator: Aggregator,
        normalized_RB: Array,
        weights: Mapping[str, float],
        shares_RB: Array,
    ) -> Array:
        values_MB = np.stack(
            [
                normalized_RB[self._index[name]]
                if name in self._index
                else self._descend(
                    self.groups[name].members, self.groups[name].aggregator, normalized_RB, weights, shares_RB
                )
                for name in members
            ]
        )
        totals_B, shares_MB = aggregator.aggregate(values_MB, np.array([weights[name] for name in members]))
        for name, value_B, share_B in zip(members, values_MB, shares_MB, strict=True):
            if name in self._index:
                shares_RB[self._index[name]] = share_B
                continue
            rows = [self._index[leaf] for leaf in self._leaves(name)]
            present_LB = ~np.isnan(shares_RB[rows])
            rest_B = (share_B - weights[name] * value_B) / np.maximum(present_LB.sum(axis=0), 1)
            shares_RB[rows] = shares_RB[rows] * weights[name] + rest_B
        return totals_B

    def _leaves(self, group: str) -> list[str]:
        """The rewards in a group and in the groups within it."""
        members = self.groups[group].members
        return [leaf for name in members for leaf in ([name] if name in self._index else self._leaves(name))]
