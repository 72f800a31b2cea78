"""What may close an overpayment: gates, constraints, penalties, normalizers and weights, with bounds read from real answers.

They are proposals; whether one closes anything is measured by composing the scores once more. N real answers, each with its
edited form.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import yaml

from rlaif_sdk.composer import Composer
from rlaif_sdk.composer.component import Component
from rlaif_sdk.composer.constraints import Constraint
from rlaif_sdk.composer.gates import Gate
from rlaif_sdk.composer.normalizers import Limited, LimitParams, Normalizer, Quantile, Rank, ZScore
from rlaif_sdk.evaluation.scored import ScoredPool
from rlaif_sdk.exceptions import UnknownPluginError
from rlaif_sdk.plugins import Registry
from rlaif_sdk.statistics.arrays import Array, Labels, json_number
from rlaif_sdk.statistics.estimates import Estimate

_PASS = 0.95
"""The share of real answers that a gate lets through."""
_ENOUGH = 1.1
"""How much of the gain a penalty takes away: a little more than all of it."""
_WINSORIZED = 0.05
_KINDS = ("gate", "normalizer", "penalty", "constraint", "weight")
"""The order of changes that are as good as each other: what changes least of the composition's arithmetic first."""
_MASS = 0.5
"""A gate is proposed where it stops this share of the edited answers."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A change of a composition.

    Attributes:
        kind: ``gate``, ``constraint``, ``penalty``, ``normalizer`` or ``weight``.
        config: What it is in the config: a mapping that goes over the composition's, lists at the end of its lists.
        changed: The same as `ScoredPool.combine` takes it.
        stopped: The share of real answers that a gate stops; 0 for what is no gate.
    """

    kind: str
    config: Mapping[str, Any]
    changed: Mapping[str, Any]
    stopped: float = 0.0


@dataclass(frozen=True, slots=True)
class Remedy:
    """A change of a composition, and what it does to an overpayment, measured on the same answers.

    Attributes:
        kind: See `Proposal`.
        config: See there.
        total: The gain of the total under it, as in `rlaif_sdk.attacks.EditResult`.
        gap: Likewise the gap.
        closes: The edit is no finding under it, the mean of the total's gain, or of the gap, is not above 0, and the totals of
            the real answers still differ.
        kept: Spearman's rank correlation of the real answers' totals with those before: 1 where it changes no order.
        stopped: The share of real answers that a gate stops; 0 for what is no gate.
    """

    kind: str
    config: Mapping[str, Any]
    total: Estimate
    gap: Estimate
    closes: bool
    kept: float
    stopped: float

    @property
    def order(self) -> tuple[bool, float, int, float]:
        """Sorts remedies: those that close first, then by how well they keep the real answers' order, to two digits."""
        kept = -1.0 if math.isnan(self.kept) else round(self.kept, 2)
        return not self.closes, -kept, _KINDS.index(self.kind), self.stopped

    @property
    def yaml(self) -> str:
        """The change, to write into the composition's file."""
        text: str = yaml.safe_dump(dict(self.config), sort_keys=False, allow_unicode=True)
        return text

    def record(self) -> dict[str, Any]:
        """As a JSON-ready mapping."""
        return {
            "kind": self.kind,
            "config": self.config,
            "total": self.total.record(),
            "gap": self.gap.record(),
            "closes": self.closes,
            "kept": json_number(self.kept),
            "stopped": self.stopped,
        }


class Remedies:
    """Proposes changes of a composition against an edit that it pays for.

    Besides the composition's own rewards it looks at two that come with `rlaif-verifiable`, where that is installed:
    ``length`` and ``repetition``.

    Args:
        pool: The scored answers.
        witness: The reward that the total must not come to depend on, or None.
        lengths_N: The real answers' lengths in characters.
    """

    def __init__(self, pool: ScoredPool, witness: str | None, lengths_N: Array) -> None:
        self._pool = pool
        self._witness = witness
        self._lengths_N = lengths_N

    def close(self) -> None:
        """Close the rewards that were made for it."""
        if "_detectors" in self.__dict__ and self._detectors is not None:
            self._detectors[1].close()

    def proposals(
        self, real_N: Labels, edited_N: Labels, totals_N: Array, group_N: Labels, *, gain: float, payer: str
    ) -> Iterator[Proposal]:
        """All that is tried.

        Args:
            real_N: The real answers' places in the pool.
            edited_N: Those of the same answers after the edit.
            totals_N: The real answers' totals.
            group_N: Equal for answers to one prompt.
            gain: The mean gain of the total.
            payer: The reward, or what else, that adds most to it.
        """
        floor = _rounded(float(np.quantile(totals_N, 1 - _PASS)))
        for name in self._pool.parts:
            if name != self._witness:
                yield from self._bounds(name, self._pool, real_N, edited_N, floor, gain)
        if (made := self._detectors) is not None:
            others, _ = made
            real, edited = (others.add(self._pool.candidates(places)) for places in (real_N, edited_N))
            for name, part in others.parts.items():
                config = self._detector_config[name]
                for found in self._bounds(name, others, real, edited, floor, gain):
                    changed = {**found.changed, "others": others}
                    yield replace(
                        found, config={"rewards": {name: {**config, "weight": 0}}, **found.config}, changed=changed
                    )
                yield from _penalty(name, part, others, config, real, edited, gain)
        if payer in self._pool.parts:
            yield from self._other_part(payer, real_N, group_N)

    def _bounds(
        self, name: str, pool: ScoredPool, real_N: Labels, edited_N: Labels, floor: float, gain: float
    ) -> Iterator[Proposal]:
        """A gate on what a reward says, and a constraint on its mean."""
        real, edited = pool.raw(name)[real_N], pool.raw(name)[edited_N]
        both_N = ~np.isnan(real + edited)
        real, edited = real[both_N], edited[both_N]
        moved = edited - real
        if not moved.size or not np.median(moved):  # it says nothing of what the edit does to most answers
            return
        rises = float(np.median(moved)) > 0
        side = "max" if rises else "min"
        bound = -_between(-edited, -real) if rises else _between(edited, real)
        stops, stopped = ((values > bound if rises else values < bound).mean() for values in (edited, real))
        if stops >= _MASS:
            gate = {"reward": name, side: bound, "floor": floor}
            yield Proposal("gate", {"gates": [gate]}, {"gates": [Gate(**gate)]}, float(stopped))  # type: ignore[arg-type]
        part = pool.parts[name]
        against = part.weight != 0 and rises == part.reward.higher_is_better  # it would undo what the weight is for
        if moved.mean() * (1 if rises else -1) > 0 and not against:
            multiplier = _rounded(_ENOUGH * gain / abs(float(moved.mean())))
            held = {"reward": name, side: _rounded(float(real.mean())), "initial": multiplier}
            yield Proposal("constraint", {"constraints": [held]}, {"constraints": [Constraint(**held)]})  # type: ignore[arg-type]

    def _other_part(self, name: str, real_N: Labels, group_N: Labels) -> Iterator[Proposal]:
        """The reward that pays under another normalizer, its influence kept, and with less weight or none."""
        part = self._pool.parts[name]
        if part.weight == 0:
            return
        values_N = part.sign * self._pool.raw(name)[real_N]
        was = float(np.nanstd(part.normalizer.normalize(values_N, group_N)))
        winsorized = Limited(ZScore(), LimitParams(winsorize=(_WINSORIZED, 1 - _WINSORIZED)))
        known: dict[str, tuple[Normalizer, dict[str, Any]]] = {
            "winsorized": (winsorized, {"kind": "zscore", "winsorize": _WINSORIZED}),
            "quantile": (Quantile(), {"kind": "quantile"}),
        }
        if len(np.unique(group_N)) < len(group_N):
            known["rank"] = (Rank(), {"kind": "rank"})
        for normalizer, normalize in known.values():
            normalizer.bind(part.oriented_range)
            normalizer.update(values_N, group_N)
            now = float(np.nanstd(normalizer.normalize(values_N, group_N)))
            if now > 0 and was > 0:
                weight = _rounded(float(part.weight) * was / now)  # type: ignore[arg-type]
                yield self._changed("normalizer", name, {"normalize": normalize, "weight": weight}, normalizer)
        if any(other.weight != 0 for each, other in self._pool.parts.items() if each != name):
            for share in (0.25, 0.0):
                weight = _rounded(float(part.weight) * share)  # type: ignore[arg-type]
                yield self._changed("weight", name, {"weight": weight}, part.normalizer)

    def _changed(self, kind: str, name: str, config: Mapping[str, Any], normalizer: Normalizer) -> Proposal:
        part = replace(self._pool.parts[name], weight=config["weight"], normalizer=copy.deepcopy(normalizer))
        return Proposal(kind, {"rewards": {name: config}}, {"parts": {**self._pool.parts, name: part}})

    @cached_property
    def _detector_config(self) -> dict[str, dict[str, Any]]:
        """The rewards that may be added, by a name that is free, as a config has them."""
        middle = max(int(np.median(self._lengths_N)), 1)
        length = {"shape": "target", "unit": "characters", "target": middle, "width": middle, "clamp": False}
        found = {}
        for use, params in (("length", length), ("repetition", {})):
            try:
                Registry.default().reward(use)
            except UnknownPluginError:
                continue
            name = use
            while name in self._pool.parts:
                name += "_check"
            found[name] = {**({} if name == use else {"use": use}), **({"params": params} if params else {})}
        return found

    @cached_property
    def _detectors(self) -> tuple[ScoredPool, Composer] | None:
        if not self._detector_config:
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            unlimited = {name: {**config, "timeout": None} for name, config in self._detector_config.items()}
            composer = Composer.from_config({"rewards": unlimited})
        pool = ScoredPool(composer)
        pool.parts = {name: replace(part, weight=0.0) for name, part in pool.parts.items()}
        return pool, composer


def _penalty(
    name: str,
    part: Component,
    others: ScoredPool,
    config: Mapping[str, Any],
    real_N: Labels,
    edited_N: Labels,
    gain: float,
) -> Iterator[Proposal]:
    """A reward that is added with the weight at which what it says of the edited answers outweighs the gain."""
    lost_N = part.sign * (others.raw(name)[real_N] - others.raw(name)[edited_N])
    lost_N = lost_N[~np.isnan(lost_N)]
    if lost_N.size and np.median(lost_N) > 0 and lost_N.mean() > 0:
        weight = _rounded(_ENOUGH * gain / float(lost_N.mean()))
        changed = copy.copy(others)
        changed.parts = {**others.parts, name: replace(part, weight=weight)}
        kept = {"rewards": {name: {**config, "weight": weight}}}
        yield Proposal("penalty", kept, {"others": changed})


def _between(edited: Array, real: Array) -> float:
    """A lower bound that real values pass and edited ones do not: halfway where nothing overlaps, else so that most real pass."""
    if edited.max() < real.min():
        return _rounded(float(edited.max() + real.min()) / 2)
    return _rounded(float(np.quantile(real, 1 - _PASS)))


def _rounded(value: float) -> float:
    """As many digits as a person reads."""
    return float(f"{value:.4g}")
