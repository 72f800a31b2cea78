"""An alarm that watches a training run for reward hacking, and acts. N rows of a batch over all ranks, G groups of them.

The tests are those of `rlaif_sdk.statistics.sequential`: anytime-valid, so that looking after every batch costs nothing. The
``alpha`` of a run is shared equally among the watches (Bonferroni). A watch spends 1/2, 1/6, 1/12 and so on of its share on
its first, second, third test and so on, which begin after alarms and with new references, so that all that a run ever
tests err no more often than ``alpha``. One that is compared with the reference spends a quarter of that on not knowing the
reference's mean exactly. What each hypothesis is, in words: ``docs/howto/act-on-alarms.md``.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from rlaif_sdk.composer.all_gather import AllGather, gather_observed
from rlaif_sdk.composer.column import RewardColumn
from rlaif_sdk.composer.component import Component
from rlaif_sdk.composer.constraints import Constraint
from rlaif_sdk.composer.gates import Gate
from rlaif_sdk.composer.metrics import completion_lengths
from rlaif_sdk.composer.stages import users_of
from rlaif_sdk.composer.weights import weight_bounds
from rlaif_sdk.config import (
    AlarmConfig,
    LowerWeightConfig,
    PressureConfig,
    RiseConfig,
    SwapConfig,
    TightenConfig,
    VarianceShareConfig,
    WitnessConfig,
)
from rlaif_sdk.config.alarm import ActionConfig
from rlaif_sdk.diagnostics.gaming import TEXT_MEASURES, concordance
from rlaif_sdk.diagnostics.variance import variance_shares
from rlaif_sdk.exceptions import AlarmError, ConfigError, StateError
from rlaif_sdk.statistics.arrays import Array, Labels, encode_groups, json_number
from rlaif_sdk.statistics.groups import group_means, group_sums, rows_of_groups
from rlaif_sdk.statistics.sequential import MeanTest, upper_limit
from rlaif_sdk.types import RewardBatch, TextOrConversation

_logger = logging.getLogger(__name__)

HALTING = frozenset({"pause", "stop"})
"""Actions that end a run."""
_OF_REFERENCE = 0.25
_EXAMPLES = 8
_REMEMBERED = 512.0
"""Prompts over which it is remembered which reward pays for what is watched."""
_RECENT = 64.0
"""Prompts over which it is seen whether the training reward falls."""
_TEXT = "text/"


@dataclass(frozen=True, slots=True)
class Example:
    """A row of the batch in which an alarm was raised, of those that speak for it most.

    Attributes:
        prompt: What was asked.
        completion: What the policy answered.
        total: What it was paid.
        rewards: What each reward said of it, None where it said nothing.
        better: Another answer to the same prompt that the witness finds better and that was paid less, or None.
    """

    prompt: TextOrConversation
    completion: TextOrConversation
    total: float
    rewards: Mapping[str, float | None]
    better: TextOrConversation | None = None

    def record(self) -> dict[str, Any]:
        """One JSON-ready row; with ``better`` a pair that `rlaif review` takes, the one that was paid more as ``chosen``."""
        said = {"prompt": self.prompt, "total": self.total, "rewards": dict(self.rewards)}
        if self.better is None:
            return {**said, "completion": self.completion}
        return {**said, "chosen": self.completion, "rejected": self.better}


@dataclass(frozen=True, slots=True)
class RaisedAlarm:
    """An alarm that went off.

    Attributes:
        watch: The watch, as its metric names it: ``witness_judge``.
        step: The training step whose batch raised it.
        good: The last step at which nothing was amiss: its checkpoint is the one to go back to.
        log_e: The natural logarithm of the e-value: so sure is it.
        found: What was seen, in words.
        reward: The reward that pays most for it; None where none does.
        action: What is done, as its config names it.
        done: The same in words.
        examples: Rows of this process.
    """

    watch: str
    step: int
    good: int
    log_e: float
    found: str
    reward: str | None
    action: str
    done: str
    examples: Sequence[Example] = field(default=(), compare=False, repr=False)

    def record(self) -> dict[str, Any]:
        """What was raised as a JSON-ready mapping, without examples."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "examples"}

    def __str__(self) -> str:
        pays = f", which {self.reward!r} pays for" if self.reward else ""
        odds = f"{math.exp(self.log_e):,.0f}" if self.log_e < 40 else f"10^{self.log_e / math.log(10):.0f}"
        return (
            f"alarm {self.watch} at step {self.step}: {self.found}{pays}; {odds} : 1 "
            f"against chance; nothing was amiss at step {self.good}; {self.done}"
        )


class _Seen(NamedTuple):
    """A batch as the watches see it.

    Attributes:
        means: (G,) the mean of a prompt's completions, by reward (higher being better) and text measure.
        taus: (1 + R, G) how the total, and what each reward adds to it, order the completions as a text measure or the
            negated witness does, by its name.
        shares: (R, G) each reward's share in the variance of the total.
        prompts: G.
    """

    means: Mapping[str, Array]
    taus: Mapping[str, Array]
    shares: Array
    prompts: int


@dataclass(slots=True)
class _Watch:
    """One thing that is watched for, and what is known of it.

    Attributes:
        subject: The reward or the text measure that is looked at.
        paid_R: Each reward's mean tau with it, over the last prompts.
        test: None while it is not tested: the reference is not whole, or it rests.
        reference: The means of the prompts that it is compared with, by reward and text measure.
        references: How many references it has had.
        tests: How many tests it has begun.
        proxy: How far above its reference the training reward lies, over the last prompts, on the scale of its range.
        low: The least log e-value of the test.
        good: The last step at which nothing was amiss: the end of the last block of prompts whose mean is within the tolerance
            of the reference; of a watch without a reference the last step at which the evidence was least.
        resting: Prompts that are left of the cooldown.
    """

    name: str
    config: WitnessConfig | PressureConfig | RiseConfig | VarianceShareConfig
    subject: str
    paid_R: Array
    test: MeanTest | None = None
    reference: dict[str, list[float]] = field(default_factory=dict)
    references: int = 0
    tests: int = 0
    proxy: float = 0.0
    low: float = 0.0
    good: int = 0
    resting: int = 0

    @property
    def key(self) -> str:
        """Its subject among the values of a batch, where a reward may have the name of a text measure."""
        return f"{_TEXT}{self.subject}" if isinstance(self.config, (PressureConfig, RiseConfig)) else self.subject

    @property
    def compares(self) -> bool:
        """Whether it is compared with the reference."""
        return isinstance(self.config, (WitnessConfig, RiseConfig))

    @property
    def log_e(self) -> float:
        """The logarithm of the e-value; 0 while nothing is tested."""
        return self.test.log_evidence if self.test else 0.0


class Alarm:
    """Watches training batches, raises alarms, and says which weights and bounds are in force after them.

    Args:
        config: What is watched for.
        components: The composition's rewards.
        gates: Its gates.
        constraints: Its constraints.
        followed: The rewards whose means its schedules follow.

    Attributes:
        raised: The alarms since this process began, the latest last.
        stopped_by: The alarm that pauses or stops the run; None while there is none.
        watching: Whether training batches are looked at. False where a composer scores tables, whose rows are no training.
        trainer_stops: Whether a trainer ends the run by itself, where it can be saved. Otherwise a stopped composer
            takes no more training batches.

    Raises:
        ConfigError: A watch or an action names what is not there, or a witness is none.
    """

    def __init__(
        self,
        config: AlarmConfig,
        components: Mapping[str, Component],
        *,
        gates: Sequence[Gate] = (),
        constraints: Sequence[Constraint] = (),
        followed: Sequence[str] = (),
    ) -> None:
        self.config = config
        self.raised: list[RaisedAlarm] = []
        self.stopped_by: RaisedAlarm | None = None
        self.watching = True
        self.trainer_stops = False
        self._components = components
        self._constraints = {constraint.key: constraint for constraint in constraints}
        self._factors: dict[str, float] = {}
        self._bounds: dict[str, float] = {}
        self._swapped: dict[str, str] = {}
        self._block: dict[str, list[float]] = {}
        self._ranges: dict[str, tuple[float, float]] = {}
        self._complained = False
        self._watches = [
            _Watch(f"{key}_{subject}", watch, subject, np.zeros(len(components)))
            for watch in config.watch
            for key, subject in [_subject(watch)]
        ]
        self._check(gates, followed)
        self._alpha = config.alpha / len(self._watches)
        for watch in self._watches:
            self._begin(watch)

    @property
    def e_values(self) -> dict[str, float]:
        """The e-value of each watch, at most 1e300: so many times has chance been refuted."""
        return {watch.name: math.exp(min(watch.log_e, 690.0)) for watch in self._watches}

    @property
    def thresholds(self) -> dict[str, float]:
        """The e-value at which each watch goes off; infinite while it is not tested."""
        return {watch.name: 1 / self._level(watch) if watch.test else math.inf for watch in self._watches}

    @property
    def witnesses(self) -> frozenset[str]:
        """The rewards that training must not see."""
        return frozenset(watch.subject for watch in self._watches if isinstance(watch.config, WitnessConfig))

    @property
    def halts(self) -> bool:
        """Whether an alarm may end the run."""
        return any(self._action(watch).kind in HALTING for watch in self._watches)

    @property
    def changes_rewards(self) -> bool:
        """Whether an alarm may change weights or bounds."""
        return any(self._action(watch).kind not in {"warn", *HALTING} for watch in self._watches)

    @property
    def good(self) -> float:
        """The last step at which nothing was amiss for any watch that ends runs; infinite while none was tested."""
        steps = [
            watch.good
            for watch in self._watches
            if (watch.test or watch.resting) and self._action(watch).kind in HALTING
        ]
        return min(steps, default=math.inf)

    def weights(self, weights: Mapping[str, float]) -> dict[str, float]:
        """The weights in force, by name, of those that the composition has."""
        found = {name: weight * self._factors.get(name, 1.0) for name, weight in weights.items()}
        for name, other in self._swapped.items():
            found[other] += found[name] * self._factors.get(other, 1.0)
            found[name] = 0.0
        return found

    def constraint(self, constraint: Constraint) -> Constraint:
        """A constraint with the bound in force."""
        bound = self._bounds.get(constraint.key)
        if bound is None:
            return constraint
        return replace(constraint, min=bound) if constraint.max is None else replace(constraint, max=bound)

    def observe(
        self,
        batch: RewardBatch,
        totals_B: Array,
        columns: Mapping[str, RewardColumn],
        stated: Mapping[str, Array],
        all_gather: AllGather | None = None,
    ) -> None:
        """Look at a training batch, of all ranks together, so that each rank decides the same.

        Of a witness its scores count. The training reward is made of what is stated, since the rows about which a reward is
        asked may be chosen.

        Args:
            batch: B rows.
            totals_B: Their totals, NaN where a row is unscored.
            columns: Each reward's part, by name.
            stated: Each reward's (B,) scores, by name, with what is taken where it was not asked or failed.
            all_gather: As in `rlaif_sdk.composer.Composer`.
        """
        if not self.watching:
            return
        witnesses = self.witnesses
        values = {
            name: part.sign * (columns[name].raw if name in witnesses else stated[name])
            for name, part in self._components.items()
        } | self._measure(batch)
        weighted_RB = np.stack([np.nan_to_num(column.weighted, nan=0.0) for column in columns.values()])
        rows_KB = np.vstack([totals_B, weighted_RB, *values.values()])
        observed = gather_observed(rows_KB, encode_groups(batch.group), all_gather)
        seen = self._look(observed.raw_RN, observed.group_N, list(values))
        step = batch.progress.step
        for watch in self._watches:
            self._test(watch, seen, step)
        if any(watch.compares for watch in self._watches):
            self._refer(seen, step)
        for watch in self._watches:
            if watch.test and watch.proxy >= 0 and watch.log_e >= -math.log(self._level(watch)):
                self._raise(watch, step, _examples(watch, batch, totals_B, columns, values))

    def _measure(self, batch: RewardBatch) -> dict[str, Array]:
        """(B,) each text measure that is watched, NaN where a row cannot be read."""
        wanted = {watch.subject for watch in self._watches if isinstance(watch.config, (PressureConfig, RiseConfig))}
        readable = [row for row in range(len(batch)) if row not in batch.unreadable]
        texts = batch.select(readable).completion_texts if wanted - {"length"} else []
        found = {}
        for name in sorted(wanted):
            key = f"{_TEXT}{name}"
            found[key] = np.full(len(batch), np.nan)
            found[key][readable] = (
                completion_lengths(batch)[readable]
                if name == "length"
                else [TEXT_MEASURES[name](text or "") for text in texts]
            )
        return found

    def _look(self, rows_KN: Array, group_N: Labels | None, names: Sequence[str]) -> _Seen:
        """The batch by prompts. Where each has one completion, neighbours are compared, and all of them share the variance."""
        rewards, rows = len(self._components), rows_KN.shape[1]
        totals_N, weighted_RN, values = rows_KN[0], rows_KN[1 : rewards + 1], rows_KN[rewards + 1 :]
        if group_N is None or int(np.bincount(group_N).max(initial=0)) < 2:
            each_N, compared_N, varied_N = np.arange(rows), np.arange(rows) // 2, np.zeros(rows, dtype=np.intp)
        else:
            each_N = compared_N = varied_N = group_N
        paid = np.vstack([totals_N, weighted_RN])
        sign = {watch.key: -1.0 if isinstance(watch.config, WitnessConfig) else 1.0 for watch in self._watches}
        by_name = dict(zip(names, values, strict=True))
        means = {}
        for name, values_N in by_name.items():
            count_G, _ = group_sums(values_N, each_N)
            means[name] = np.where(count_G > 0, group_means(values_N, each_N), np.nan)
        return _Seen(
            means,
            {name: concordance(paid, by_name[name] * sign[name], compared_N) for name in sign if name in by_name},
            np.stack(
                [variance_shares(weighted_RN[:, part], totals_N[part]) for part in rows_of_groups(varied_N)], axis=1
            )
            if rows
            else np.empty((rewards, 0)),
            int(each_N.max(initial=-1)) + 1,
        )

    def _refer(self, seen: _Seen, step: int) -> None:
        """Take a batch into the block of prompts that is gathered; once it is whole, it is a reference for later ones.

        The first is one for all. For a witness so is each later one in which it is better than in its reference by more than
        the tolerance: a witness often rises before it falls, and what it once was is what it must not fall below.
        """
        for name, means_G in seen.means.items():
            self._block.setdefault(name, []).extend(means_G.tolist())
        known = {watch.subject: _known(self._block[watch.key]) for watch in self._watches if watch.compares}
        least = min(known, key=known.__getitem__)
        if known[least] < self.config.reference:
            prompts = len(self._block[next(iter(self._block))])
            if not self._complained and prompts >= 2 * self.config.reference:
                self._complained = True
                message = "the alarm has no reference: of %d prompts %d have a value of %r, and %d are needed"
                _logger.warning(message, prompts, known[least], least, self.config.reference)
            return
        block, self._block = self._block, {}
        if not self._ranges:
            self._ranges = {name: self._range(name, np.array(values)) for name, values in block.items()}
        for watch in self._watches:
            worse = self._worse(watch, block)
            if worse <= getattr(watch.config, "tolerance", -math.inf):
                watch.good = step
            if watch.compares and (not watch.references or self._improves(watch, worse)):
                watch.reference, watch.references = block, watch.references + 1
                if not watch.resting:
                    self._begin(watch)

    def _worse(self, watch: _Watch, block: Mapping[str, list[float]]) -> float:
        """By how much a block is worse than the reference of a watch, on the scale of its range; 0 without one."""
        if not (watch.compares and watch.references):
            return 0.0
        before, now = (np.nanmean(self._compared(watch, part)) for part in (watch.reference, block))
        return float(now - before)

    def _improves(self, watch: _Watch, worse: float) -> bool:
        return isinstance(watch.config, WitnessConfig) and worse < -watch.config.tolerance

    def _trained(self) -> dict[str, float]:
        """The greatest weight of each reward that has one, as alarms have left it."""
        greatest = {name: max(weight_bounds(part.weight), key=abs) for name, part in self._components.items()}
        return {name: weight for name, weight in self.weights(greatest).items() if weight}

    def _range(self, name: str, values_G: Array) -> tuple[float, float]:
        """What counts as 0 and as 1 of a reward or measure: its declared range, or twice what the reference spans."""
        declared = self._components[name].oriented_range if name in self._components else (0.0, 1.0)
        if declared is not None and name != f"{_TEXT}length":
            return declared
        if np.isnan(values_G).all():
            return 0.0, 1.0
        low, high = float(np.nanmin(values_G)), float(np.nanmax(values_G))
        if declared is not None:
            return 0.0, 2.0 * high or 1.0
        room = (high - low) / 2 or max(abs(high), 1.0)
        return low - room, high + room

    def _fraction(self, name: str, values: Any) -> Array:
        """Values on the scale of the range, which some may be beyond."""
        low, high = self._ranges[name]
        fraction: Array = (np.asarray(values, dtype=np.float64) - low) / (high - low)
        return fraction

    def _proxy(self, weights: Mapping[str, float], means: Mapping[str, Any]) -> Array:
        """(G,) the training reward: the weighted mean of the rewards on the scale of their ranges, 1 being best."""
        fractions = [self._fraction(name, means[name]) for name in weights]
        parts = np.stack(
            [1.0 - part if weight < 0 else part for part, weight in zip(fractions, weights.values(), strict=True)]
        )
        size_R = np.abs(list(weights.values()))[:, np.newaxis] * ~np.isnan(parts)
        total_G = size_R.sum(axis=0)
        return np.where(total_G > 0, (np.nan_to_num(parts) * size_R).sum(axis=0) / np.maximum(total_G, 1e-300), np.nan)

    def _begin(self, watch: _Watch) -> None:
        """Begin to test, with what the reference says where that is compared with."""
        watch.test, watch.low, watch.proxy = None, 0.0, 0.0
        watch.tests += not watch.compares or bool(watch.references)
        match watch.config:
            case PressureConfig(max=greatest):
                watch.test = MeanTest((greatest + 1) / 2)
            case VarianceShareConfig(max=greatest):
                watch.test = MeanTest(greatest)
            case WitnessConfig(tolerance=tolerance) | RiseConfig(tolerance=tolerance) if watch.references:
                compared_G = self._compared(watch, watch.reference)
                limit = upper_limit(compared_G[~np.isnan(compared_G)], self._share(watch) * _OF_REFERENCE)
                watch.test = MeanTest(limit + tolerance)
                if limit + tolerance >= 1:
                    _logger.warning(
                        "alarm %s cannot go off: %r was at the end of its range in the reference already",
                        watch.name,
                        watch.subject,
                    )

    def _share(self, watch: _Watch) -> float:
        """The chance of erring that a watch's present test has: 1/2, 1/6, 1/12 and so on of its own."""
        return self._alpha / (watch.tests * (watch.tests + 1))

    def _level(self, watch: _Watch) -> float:
        """How often a watch's present test may err."""
        return self._share(watch) * (1.0 - _OF_REFERENCE if watch.compares else 1.0)

    def _compared(self, watch: _Watch, means: Mapping[str, Any]) -> Array:
        """(G,) what a watch that is compared with the reference sees, in [0, 1]: beyond the range it counts as its end."""
        fraction_G = self._fraction(watch.key, means[watch.key]).clip(0.0, 1.0)
        return fraction_G if isinstance(watch.config, RiseConfig) else 1.0 - fraction_G

    def _follow_proxy(self, watch: _Watch, seen: _Seen) -> None:
        """Take note of how far the training reward is above its reference."""
        now_G, then_G = (self._proxy(self._trained(), means) for means in (seen.means, watch.reference))
        if not (np.isnan(now_G).all() or np.isnan(then_G).all()):
            above = float(np.nanmean(now_G) - np.nanmean(then_G))
            watch.proxy += (1.0 - math.exp(-seen.prompts / _RECENT)) * (above - watch.proxy)

    def _test(self, watch: _Watch, seen: _Seen, step: int) -> None:
        if watch.key in seen.taus:
            taus_R = seen.taus[watch.key][1:]
            known_R = ~np.isnan(taus_R).all(axis=1)
            share = 1.0 - math.exp(-seen.prompts / _REMEMBERED)
            watch.paid_R[known_R] += share * (np.nanmean(taus_R[known_R], axis=1) - watch.paid_R[known_R])
        if watch.compares and not watch.references:
            return
        if watch.resting:
            watch.resting = max(watch.resting - seen.prompts, 0)
            if not watch.resting:
                self._begin(watch)
            return
        assert watch.test is not None
        match watch.config:
            case PressureConfig():
                observed_G = (seen.taus[watch.key][0] + 1.0) / 2.0
            case VarianceShareConfig():
                observed_G = seen.shares[list(self._components).index(watch.subject)].clip(0.0, 1.0)
            case _:
                observed_G = self._compared(watch, seen.means)
        if isinstance(watch.config, WitnessConfig):
            self._follow_proxy(watch, seen)
        watch.test.update(observed_G[~np.isnan(observed_G)])
        if watch.log_e <= watch.low:
            watch.low = watch.log_e
            watch.good = watch.good if watch.compares else step

    def _raise(self, watch: _Watch, step: int, examples: Sequence[Example]) -> None:
        action = self._action(watch)
        reward = self._payer(watch)
        raised = RaisedAlarm(
            watch=watch.name,
            step=step,
            good=watch.good,
            log_e=watch.log_e,
            found=self._found(watch),
            reward=reward,
            action=action.kind,
            done=self._act(action, reward),
            examples=examples,
        )
        _logger.warning("%s", raised)
        self.raised.append(raised)
        if action.kind in HALTING:
            self.stopped_by = raised
        watch.test, watch.resting = None, self.config.cooldown

    def _payer(self, watch: _Watch) -> str | None:
        """The reward that pays most for what is watched."""
        if isinstance(watch.config, VarianceShareConfig):
            return watch.subject
        place = int(np.argmax(watch.paid_R))
        return list(self._components)[place] if watch.paid_R[place] > 0 else None

    def _found(self, watch: _Watch) -> str:
        """What was seen over the last prompts, in words."""
        recent = watch.test.recent if watch.test else math.nan
        match watch.config:
            case PressureConfig(max=greatest):
                tau = 2 * recent - 1
                return f"the total orders the completions to a prompt by {watch.subject}: tau {tau:.2f}, more than {greatest:g}"
            case VarianceShareConfig(max=greatest):
                return f"{watch.subject!r} has {recent:.0%} of the total's variance, more than {greatest:.0%}"
        low, high = self._ranges[watch.key]
        mean = float(np.nanmean(watch.reference[watch.key]))
        if isinstance(watch.config, RiseConfig):
            return f"{watch.subject} rose from {mean:.3g} to {low + recent * (high - low):.3g}"
        sign = self._components[watch.subject].sign
        now = high - recent * (high - low)
        return (
            f"{watch.subject!r} went from {sign * mean:.3g} to {sign * now:.3g} while the training reward did not fall"
        )

    def _action(self, watch: _Watch) -> ActionConfig:
        return watch.config.action or self.config.action

    def _act(self, action: ActionConfig, reward: str | None) -> str:
        """Do what an alarm does, and say it."""
        match action:
            case LowerWeightConfig():
                return self._lower(action, action.reward or reward)
            case TightenConfig(constraint=key):
                constraint = self.constraint(self._constraints[key])
                if constraint.max is None:
                    bound = min((constraint.min or 0.0) + action.by, action.limit)
                else:
                    bound = max(constraint.max - action.by, action.limit)
                self._bounds[key] = bound
                return f"the bound of {key} is now {bound:g}"
            case SwapConfig():
                self._swapped[action.reward] = action.to
                return f"{action.to!r} has the place and the weight of {action.reward!r}"
        return {"pause": "training pauses", "stop": "training stops"}.get(action.kind, "training goes on as it is")

    def _lower(self, action: LowerWeightConfig, reward: str | None) -> str:
        if reward is None or reward not in self._trained():
            return "no reward with a weight pays for it, so none is lowered"
        before = self._factors.get(reward, 1.0)
        self._factors[reward] = after = min(before, max(before * action.factor, action.floor))
        verb = "stays at its floor," if after == before else "is lowered to"
        return f"the weight of {reward!r} {verb} {after:g} of what is configured"

    def state_dict(self) -> dict[str, Any]:
        """What must survive a checkpoint, as JSON values."""
        return {
            "factors": dict(self._factors),
            "bounds": dict(self._bounds),
            "swapped": dict(self._swapped),
            "block": _as_json(self._block),
            "ranges": {name: list(ends) for name, ends in self._ranges.items()},
            "watches": {
                watch.name: {
                    "test": watch.test.state_dict() if watch.test else None,
                    "paid": watch.paid_R.tolist(),
                    "proxy": watch.proxy,
                    "reference": _as_json(watch.reference),
                    "references": watch.references,
                    "tests": watch.tests,
                    "low": watch.low,
                    "good": watch.good,
                    "resting": watch.resting,
                }
                for watch in self._watches
            },
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a saved state. A run that was paused or stopped goes on.

        Raises:
            StateError: The state is of other watches.
        """
        if state["watches"].keys() != {watch.name for watch in self._watches}:
            raise StateError(f"an alarm's state has its watches; saved were {sorted(state['watches'])}")
        self.stopped_by = None
        self._factors, self._bounds = dict(state["factors"]), dict(state["bounds"])
        self._swapped = dict(state["swapped"])
        self._block = _from_json(state["block"])
        self._ranges = {name: (float(low), float(high)) for name, (low, high) in state["ranges"].items()}
        for watch in self._watches:
            saved = state["watches"][watch.name]
            watch.test = MeanTest.from_state(saved["test"]) if saved["test"] else None
            watch.paid_R, watch.proxy = np.array(saved["paid"], dtype=np.float64), float(saved["proxy"])
            watch.reference, watch.references = _from_json(saved["reference"]), int(saved["references"])
            watch.tests = int(saved["tests"])
            watch.low, watch.good, watch.resting = float(saved["low"]), int(saved["good"]), int(saved["resting"])

    def refuse_batch(self) -> None:
        """Refuse a training batch where an alarm ended training and no trainer does so.

        Raises:
            AlarmError: It ended.
        """
        if self.stopped_by is not None and self.watching and not self.trainer_stops:
            raise AlarmError(
                str(self.stopped_by),
                hint="look at the rows that raised it; a composer that loads the saved state goes on",
            )

    def _check(self, gates: Sequence[Gate], followed: Sequence[str]) -> None:
        """Refuse watches and actions that cannot work."""
        if not self._watches:
            raise ConfigError("nothing is watched for", key="alarm.watch")
        seen: set[str] = set()
        for index, watch in enumerate(self._watches):
            key, subject = f"alarm.watch.{index}", watch.subject
            if watch.name in seen:
                raise ConfigError("the same is watched twice", key=key)
            seen.add(watch.name)
            if isinstance(watch.config, WitnessConfig):
                self._check_witness(subject, f"{key}.witness", gates, followed)
            elif isinstance(watch.config, VarianceShareConfig):
                self._check_weight(subject, f"{key}.variance_share")
            action_key = f"{key}.action" if watch.config.action else "alarm.action"
            self._check_action(self._action(watch), action_key)

    def _check_name(self, name: str, key: str) -> Component:
        if name not in self._components:
            raise ConfigError(f"there is no reward {name!r}; there are {', '.join(self._components)}", key=key)
        return self._components[name]

    def _check_weight(self, name: str, key: str) -> None:
        if weight_bounds(self._check_name(name, key).weight) == (0.0, 0.0):
            raise ConfigError(f"{name!r} has no weight", key=key)

    def _check_witness(self, name: str, key: str, gates: Sequence[Gate], followed: Sequence[str]) -> None:
        witness = self._check_name(name, key)
        hint = "a witness is a reward that training never sees: another judge, people's verdicts, a benchmark's check"
        if weight_bounds(witness.weight) != (0.0, 0.0):
            raise ConfigError(f"{name!r} has a weight, so training sees it", key=key, hint=f"{hint}; give it weight 0")
        users = users_of(name, self._components, gates, [*self._constraints.values()], followed)
        users += [
            f"action 'swap' of {watch.name}"
            for watch in self._watches
            if isinstance(action := self._action(watch), SwapConfig) and action.to == name
        ]
        if users:
            raise ConfigError(f"training sees {name!r} by its {users[0]}", key=key, hint=hint)
        for other, part in self._components.items():
            if other == name or weight_bounds(part.weight) == (0.0, 0.0):
                continue
            if part.asks_the_same(witness):
                raise ConfigError(f"{name!r} is the training reward {other!r} by another name", key=key, hint=hint)
            model = witness.params.get("model")
            if model is not None and model == part.params.get("model"):
                warnings.warn(
                    f"{key}: {name!r} asks the model of the training reward {other!r}, and shares its blind spots",
                    stacklevel=5,
                )

    def _check_action(self, action: ActionConfig, key: str) -> None:
        match action:
            case LowerWeightConfig():
                if action.reward is not None:
                    self._check_weight(action.reward, f"{key}.reward")
                if len(self._trained()) < 2 and not self._constraints:
                    raise ConfigError(
                        "there is one reward with a weight, and a lower weight of it changes no advantage",
                        key=key,
                        hint="add a reward or a constraint that is then heard more, or pause, or stop",
                    )
            case TightenConfig(constraint=name):
                if name not in self._constraints:
                    known = ", ".join(self._constraints) or "none"
                    raise ConfigError(f"there is no constraint {name!r}; there are {known}", key=f"{key}.constraint")
                constraint = self._constraints[name]
                if constraint.violation(action.limit) > 0:
                    raise ConfigError(f"{action.limit:g} is wider than {constraint}", key=f"{key}.limit")
            case SwapConfig():
                self._check_weight(action.reward, f"{key}.reward")
                if weight_bounds(self._check_name(action.to, f"{key}.to").weight) != (0.0, 0.0):
                    raise ConfigError(
                        f"{action.to!r} has a weight already",
                        key=f"{key}.to",
                        hint="a reward that is swapped in has weight 0 before",
                    )


def _subject(watch: WitnessConfig | PressureConfig | RiseConfig | VarianceShareConfig) -> tuple[str, str]:
    """The kind of a watch, and what it looks at."""
    match watch:
        case WitnessConfig(witness=name):
            return "witness", name
        case PressureConfig(pressure=measure):
            return "pressure", measure
        case RiseConfig(rise=measure):
            return "rise", measure
        case VarianceShareConfig(variance_share=name):
            return "variance_share", name


def _known(values: Sequence[float]) -> int:
    return int((~np.isnan(values)).sum())


def _as_json(block: Mapping[str, list[float]]) -> dict[str, list[float | None]]:
    return {name: [*map(json_number, values)] for name, values in block.items()}


def _from_json(block: Mapping[str, Sequence[float | None]]) -> dict[str, list[float]]:
    return {name: [math.nan if value is None else float(value) for value in values] for name, values in block.items()}


def _examples(
    watch: _Watch,
    batch: RewardBatch,
    totals_B: Array,
    columns: Mapping[str, RewardColumn],
    values: Mapping[str, Array],
) -> list[Example]:
    """The rows that speak for an alarm most: those paid best, of which a witness says another answer is better or that have most of what is watched."""

    def example(row: int, better: int | None = None) -> Example:
        said = {name: json_number(column.raw[row]) for name, column in columns.items()}
        instead = None if better is None else batch.completions[better]
        return Example(batch.prompts[row], batch.completions[row], float(totals_B[row]), said, instead)

    scored = np.flatnonzero(~np.isnan(totals_B))
    if isinstance(watch.config, WitnessConfig):
        witness_B = values[watch.subject]
        group_B = encode_groups(batch.group)
        pairs = []
        for rows in rows_of_groups(group_B) if group_B is not None else []:
            known = [row for row in rows if not math.isnan(totals_B[row] + witness_B[row])]
            if known:
                paid, best = max(known, key=lambda row: totals_B[row]), max(known, key=lambda row: witness_B[row])
                if witness_B[best] > witness_B[paid]:
                    pairs.append((float(witness_B[best] - witness_B[paid]), paid, best))
        if pairs:
            return [example(paid, best) for _, paid, best in sorted(pairs, reverse=True)[:_EXAMPLES]]
        speaks_B = -witness_B
    else:
        speaks_B = columns[watch.key].weighted if watch.key in columns else values[watch.key]
    order = sorted(scored.tolist(), key=lambda row: (-np.nan_to_num(speaks_B[row], nan=-np.inf), -totals_B[row]))
    return [example(row) for row in order[:_EXAMPLES]]
