"""Criteria that code checks: any reward, by the name that a config would give it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rlaif_rubric.criteria import CriterionParams
from rlaif_sdk import Composer, ConfigError, CriterionVerdict, Registry, RewardBatch, RewardError


class Checks:
    """The rewards that check some of a rubric's criteria. A composer asks them, with its limits and its checks.

    Args:
        criteria: Those with a check, each with a name.

    Raises:
        ConfigError: A reward or its parameters are refused, it needs a whole group, or nothing says when it is met.
        PluginError: There is no such reward.
    """

    def __init__(self, criteria: Sequence[CriterionParams]) -> None:
        self._criteria = {criterion.name or "": criterion for criterion in criteria}
        config = {
            "rewards": {
                name: {"use": _reward_name(criterion.check or ""), "params": criterion.params}
                for name, criterion in self._criteria.items()
            }
        }
        self._composer = Composer.from_config(config) if self._criteria else None
        if self._composer:
            self._composer.observers = ()  # what plugins observe is the composition that the rubric is part of
        self.rewards = {
            name: component.reward for name, component in (self._composer.components if self._composer else {}).items()
        }
        for name, reward in self.rewards.items():
            if getattr(reward, "scope", "row") != "row":
                raise ConfigError(f"the check of the criterion {name!r} compares a group, and a rubric reads one row")
            if reward.range is None and self._criteria[name].threshold is None:
                raise ConfigError(
                    f"the check of the criterion {name!r} declares no range, so nothing says when it is met",
                    hint="give the criterion a threshold",
                )

    def setup(self) -> None:
        """Load what the rewards need."""
        if self._composer:
            self._composer.set_up()

    def close(self) -> None:
        """Release it."""
        if self._composer:
            self._composer.close()

    async def verdicts(self, batch: RewardBatch) -> list[dict[str, CriterionVerdict | None]]:
        """For each of B rows a verdict by the name of each criterion; None where there is nothing to check.

        Raises:
            RewardError: A check never answered; names its criterion.
        """
        if not self._composer:
            return [{} for _ in range(len(batch))]
        try:
            columns = (await self._composer.acompose(batch)).rewards
        except RewardError as error:
            raise RewardError(f"the check of a criterion failed: {error}") from error
        return [
            {
                name: CriterionVerdict(None, error=column.failures[row])
                if row in column.failures
                else None
                if math.isnan(column.raw[row])
                else self._verdict(name, float(column.raw[row]), column.reason(row))
                for name, column in columns.items()
            }
            for row in range(len(batch))
        ]

    def _verdict(self, name: str, raw: float, reason: str | None) -> CriterionVerdict:
        threshold, reward = self._criteria[name].threshold, self.rewards[name]
        if threshold is not None:
            value = float(raw >= threshold if reward.higher_is_better else raw <= threshold)
            told = f"{raw:.4g}, {'met' if value else 'not met'} by the threshold {threshold:g}"
            return CriterionVerdict(value, f"{told}: {reason}" if reason else told)
        assert reward.range is not None
        low, high = reward.range
        share = min(max((raw - low) / (high - low), 0.0), 1.0)
        return CriterionVerdict(share if reward.higher_is_better else 1.0 - share, reason)


def _reward_name(check: str) -> str:
    """What a config calls the reward; ``PLUGIN/REWARD`` says whose it must be."""
    plugin, slash, reward = check.partition("/")
    if not slash or ":" in check or check.endswith(".py"):
        return check
    registry = Registry.default()
    registry.reward(reward)
    source = registry.source("rlaif_rewards", reward)
    if plugin not in (source.plugin, source.distribution.partition(" ")[0]):
        raise ConfigError(f"the reward {reward!r} is of the plugin {source.plugin!r}, not of {plugin!r}", key="check")
    return reward
