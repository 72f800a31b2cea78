"""Pairs that people judged as the rewards of a composition see them: each reward's normalised scores, and its sign.

N pairs, R rewards.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from rlaif_sdk.composer import Composer
from rlaif_sdk.composer.component import Component
from rlaif_sdk.composer.gates import Gate
from rlaif_sdk.composer.normalizers import FixedZScore, FixedZScoreParams, Limited, Normalizer, Rank
from rlaif_sdk.config import CompositionConfig
from rlaif_sdk.config.documents import Document
from rlaif_sdk.conversations import view
from rlaif_sdk.evaluation.gate_fit import rounded
from rlaif_sdk.evaluation.scored import Candidate, ScoredCompletions
from rlaif_sdk.evaluation.verdicts import PairVerdicts
from rlaif_sdk.statistics.arrays import Array, Mask, encode_groups
from rlaif_sdk.statistics.estimates import (
    Indices,
)

MIN_PROMPTS = 10
"""With fewer there is nothing to check a fit by."""


@dataclass(frozen=True, slots=True)
class DefaultedScores:
    """Where a reward failed whose policy states a default.

    Attributes:
        value: The default, in the reward's units.
        sign: 1 where more of it is better, else -1.
        failed_N2: (N, 2) True where it failed.
        scores: What it said of the other completions, in its units.
    """

    value: float
    sign: float
    failed_N2: Mask
    scores: Array


@dataclass(frozen=True, slots=True)
class ScoredPairs:
    """What N pairs look like to R rewards."""

    names: Sequence[str]
    normalizers: Mapping[str, Normalizer]
    changed: Mapping[str, FixedZScoreParams]
    before_N: Array
    differences_NR: Array
    votes_N3: Array
    groups_N: Indices
    lengths_N2: Array
    categories: Sequence[str]
    missing_NR: Mask
    second_NR: Array
    gates: Sequence[Gate]
    raw: Mapping[str, Array]
    defaulted: Mapping[str, DefaultedScores]

    @property
    def asked_N(self) -> Mask:
        """(N,) of which somebody was asked."""
        return np.asarray(self.votes_N3.any(axis=1))

    @property
    def whole_N(self) -> Mask:
        """(N,) in which no reward scores one completion only."""
        return np.asarray(~self.missing_NR.any(axis=1))

    def among(self, rows_N: Mask) -> ScoredPairs:
        """Some of them, their groups numbered anew."""
        return replace(
            self,
            before_N=self.before_N[rows_N],
            differences_NR=self.differences_NR[rows_N],
            votes_N3=self.votes_N3[rows_N],
            groups_N=np.unique(self.groups_N[rows_N], return_inverse=True)[1],
            lengths_N2=self.lengths_N2[rows_N],
            categories=[each for each, wanted in zip(self.categories, rows_N, strict=True) if wanted],
            missing_NR=self.missing_NR[rows_N],
            second_NR=self.second_NR[rows_N],
            raw={name: raw_N2[rows_N] for name, raw_N2 in self.raw.items()},
            defaulted={name: replace(each, failed_N2=each.failed_N2[rows_N]) for name, each in self.defaulted.items()},
        )

    def with_default(self, reward: str, value: float) -> ScoredPairs:
        """What they look like if a reward's failure counts as another score, in its units."""
        each = self.defaulted[reward]
        differences_NR, second_NR, raw = self.differences_NR.copy(), self.second_NR.copy(), dict(self.raw)
        if reward in self.names:
            place = list(self.names).index(reward)
            normalized = self.normalizers[reward].normalize(np.array([each.sign * value]), None)[0]
            first_N = np.where(each.failed_N2[:, 0], normalized, second_NR[:, place] + differences_NR[:, place])
            second_NR[:, place] = np.where(each.failed_N2[:, 1], normalized, second_NR[:, place])
            differences_NR[:, place] = first_N - second_NR[:, place]
        if reward in raw:
            raw[reward] = np.where(each.failed_N2, value, raw[reward])
        return replace(self, differences_NR=differences_NR, second_NR=second_NR, raw=raw)

    def of_rewards(self, kept_R: Mask) -> ScoredPairs:
        """What they look like to some rewards; gates stay."""
        return replace(
            self,
            names=[name for name, kept in zip(self.names, kept_R, strict=True) if kept],
            differences_NR=self.differences_NR[:, kept_R],
            second_NR=self.second_NR[:, kept_R],
        )

    def totals_N2(self, weights_R: Array) -> Array:
        """The totals of both completions before gates."""
        second_N = self.second_NR @ weights_R
        return np.stack([second_N + self.differences_NR @ weights_R, second_N], axis=1)

    def passing(self, gates: Sequence[Gate]) -> ScoredPairs:
        """Those of which both completions pass; all where nothing would be left to learn from."""
        closed_N = np.zeros(len(self.votes_N3), dtype=bool)
        for gate in gates:
            closed_N |= gate.closed(self.raw[gate.reward]).any(axis=1)
        passing = self.among(~closed_N)
        return passing if passing.teaches else self

    def without_failures(self) -> ScoredPairs:
        """Those in which no reward failed that states a default; all where nothing would be left to learn from."""
        if not self.defaulted:
            return self
        failed_N = np.zeros(len(self.votes_N3), dtype=bool)
        for each in self.defaulted.values():
            failed_N |= each.failed_N2.any(axis=1)
        rest = self.among(~failed_N)
        return rest if rest.teaches else self

    @property
    def teaches(self) -> bool:
        """Whether weights can be learnt from them."""
        enough = len(self.votes_N3) and int(self.groups_N.max()) + 1 >= MIN_PROMPTS
        return bool(enough and self.votes_N3[:, :2].any())


def weight_signs(settings: CompositionConfig, document: Document, *, signed: bool) -> Array:
    """(R,) 1 and -1 for weights that must not be below and above 0, 0 for any.

    Raises:
        ConfigError: The composition is no weighted sum of rewards with constant weights.
    """
    if settings.aggregate.kind != "weighted_sum":
        problem = f"the weights of a weighted_sum are fitted, and not those of {settings.aggregate.kind}"
        raise document.error(problem, ("aggregate",), "leave 'aggregate' out, and choose one after the fit")
    if settings.groups:
        hint = "leave 'groups' out, and write them into what was fitted"
        raise document.error("the weights of a plain sum are fitted: each reward by itself", ("groups",), hint)
    if settings.gate_order != "independent":
        problem = "floors that keep the order of gates are not fitted"
        raise document.error(problem, ("gate_order",), "leave 'gate_order' out, and choose it after the fit")
    for place, gate in enumerate(settings.gates):
        if gate.min is not None and gate.max is not None:
            problem = "a gate with both bounds has no single threshold to fit"
            raise document.error(problem, ("gates", place), "write it as two gates")
    for name, reward in settings.rewards.items():
        if not isinstance(reward.weight, float):
            hint = "write the number that it should be compared with, or 1"
            raise document.error("is a schedule, and what is fitted is a number", ("rewards", name, "weight"), hint)
    before_R = constant_weights(settings)
    return np.zeros(len(before_R)) if signed else np.where(before_R < 0, -1.0, 1.0)


def constant_weights(settings: CompositionConfig) -> Array:
    """(R,) the weights of a composition that follow no schedule."""
    return np.array([reward.weight for reward in settings.rewards.values()], dtype=np.float64)


def scored_pairs(
    composer: Composer, judged: Sequence[PairVerdicts], progress: Callable[[int, int], None]
) -> ScoredPairs:
    """Score the pairs, and normalise each reward by what a score becomes whatever it is composed with."""
    groups = [pair.group for pair in judged]
    candidates = [
        Candidate(pair.prompt, answer, columns, group=group)
        for pair, group in zip(judged, groups, strict=True)
        for answer, columns in zip(pair.answers, pair.columns, strict=True)
    ]
    scored = ScoredCompletions(composer, candidates, progress=progress)
    normalizers, changed, columns_R2N = {}, {}, []
    for name, part in scored.components.items():
        values_2N = scored.values(name)
        normalizer = copy.deepcopy(part.normalizer)
        if not _is_fixed(normalizer):
            changed[name] = _standardization(part, values_2N)
            normalizer = FixedZScore(changed[name])
        normalizers[name] = normalizer
        columns_R2N.append(normalizer.normalize(values_2N, None))
    values_2NR = np.stack(columns_R2N, axis=1)
    differences_NR = values_2NR[::2] - values_2NR[1::2]
    missing_NR = np.isnan(values_2NR[::2]) != np.isnan(values_2NR[1::2])
    gated = {
        gate.reward: scored.components[gate.reward].sign * scored.values(gate.reward)
        for gate in composer.combiner.gates
    }
    for gate in composer.combiner.gates:
        if gate.on_missing == "unscored":
            missing_NR[:, list(normalizers).index(gate.reward)] |= (
                np.isnan(gated[gate.reward]).reshape(-1, 2).any(axis=1)
            )
    defaulted = {}
    for name, part in scored.components.items():
        failed_2N = scored.defaulted(name)
        said_2N = part.sign * scored.values(name)
        known_K = said_2N[~failed_2N & ~np.isnan(said_2N)]
        if part.failure.value is not None and failed_2N.any() and known_K.size:
            defaulted[name] = DefaultedScores(part.failure.value, part.sign, failed_2N.reshape(-1, 2), known_K)
    means_R = np.array([np.nanmean(values_2N) if (~np.isnan(values_2N)).any() else 0.0 for values_2N in columns_R2N])
    totals_2N = scored.totals()
    return ScoredPairs(
        names=list(scored.components),
        normalizers=normalizers,
        changed=changed,
        before_N=totals_2N[::2] - totals_2N[1::2],
        differences_NR=np.nan_to_num(differences_NR),
        votes_N3=np.array([pair.votes for pair in judged], dtype=np.float64).reshape(-1, 3),
        groups_N=encode_groups(groups),
        lengths_N2=np.array(
            [[len(view(answer, "assistant") or "") for answer in pair.answers] for pair in judged], float
        ),
        categories=[pair.category for pair in judged],
        missing_NR=missing_NR,
        second_NR=np.where(np.isnan(values_2NR[1::2]), means_R, values_2NR[1::2]),
        gates=composer.combiner.gates,
        raw={name: raw_2N.reshape(-1, 2) for name, raw_2N in gated.items()},
        defaulted=defaulted,
    )


def _is_fixed(normalizer: Normalizer) -> bool:
    """Whether what a score becomes depends on nothing but the score."""
    if isinstance(normalizer, Limited):
        return not normalizer.params.winsorize and _is_fixed(normalizer.inner)
    learns = type(normalizer).update is not Normalizer.update
    return not learns and not normalizer.within_groups and not isinstance(normalizer, Rank)


def _standardization(part: Component, values_N: Array) -> FixedZScoreParams:
    known_N = values_N[~np.isnan(values_N)]
    mean, std = (float(known_N.mean()), float(known_N.std())) if known_N.size else (0.0, 0.0)
    clip = getattr(part.normalizer.params, "clip", None)
    return FixedZScoreParams(mean=rounded(mean), std=rounded(std) or 1.0, **({"clip": clip} if clip else {}))


def pair_spread(differences_NR: Array) -> Array:
    """(R,) how far pairs differ in each reward; 1 where they do not."""
    spread_R = np.sqrt((differences_NR**2).mean(axis=0))
    return np.where(spread_R > 0, spread_R, 1.0)
