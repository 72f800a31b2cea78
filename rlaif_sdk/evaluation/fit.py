"""A composition learnt from what people prefer: weights and gates that predict their verdicts, and how far to trust them.

N pairs, R rewards, 3 verdicts: the first completion is better, the second, neither.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rlaif_sdk.composer import Composer
from rlaif_sdk.composer.build import ConfigSource, read_composition
from rlaif_sdk.config import CompositionConfig
from rlaif_sdk.config.documents import Document
from rlaif_sdk.evaluation.default_fit import FittedDefault, fit_defaults, with_defaults
from rlaif_sdk.evaluation.gate_fit import FittedGate, bound_of, fit_gates, gated_margins, rounded
from rlaif_sdk.evaluation.judged_scores import (
    MIN_PROMPTS,
    ScoredPairs,
    constant_weights,
    pair_spread,
    scored_pairs,
    weight_signs,
)
from rlaif_sdk.evaluation.length_control import length_controlled, length_difference
from rlaif_sdk.evaluation.reward import WEAK_LENGTH_PENALTY, prefers_first
from rlaif_sdk.evaluation.verdicts import VerdictColumns, read_judged_pairs
from rlaif_sdk.exceptions import DataError
from rlaif_sdk.io.files import write_text
from rlaif_sdk.io.tables import Source, TableName, TableSource, table_digest, table_name
from rlaif_sdk.io.text import listed
from rlaif_sdk.preferences.card import Card
from rlaif_sdk.statistics.agreement import fleiss_kappa
from rlaif_sdk.statistics.arrays import Array, Mask, json_number
from rlaif_sdk.statistics.davidson import (
    WEAK,
    DavidsonFit,
    Penalty,
    best_penalty,
    fit_davidson,
    fold_of_groups,
    held_out_losses,
    separates,
    standard_errors,
)
from rlaif_sdk.statistics.estimates import (
    Estimate,
    at_least_wilson,
    bootstrap_means,
    effective_size,
    normal_quantile,
)

_FOLDS = 5
_TURNS = 3
"""Of fitting weights and gates: the first finds about where a threshold is, the others exactly."""
_COLLINEAR = 0.95
_NOTHING = 1e-6
"""A weight that moves no pair by more log-odds than this is 0."""

BEFORE, EQUAL, FITTED, LENGTH = "as it was", "equal weights", "fitted", "length alone"
"""What agrees with people, besides each reward alone."""


@dataclass(frozen=True, slots=True)
class FittedWeight:
    """What people's verdicts say of one reward.

    Attributes:
        weight: Its weight in the fitted composition: by how much the log-odds rise that a completion is preferred, with
            each unit of the normalised score.
        before: Its weight in the composition as it was.
        estimate: The weight with its interval, which is that of the verdicts themselves: of a fit that nothing draws but a
            negligible penalty, which holds it finite, given which weights their signs hold at 0. An end is infinite where
            the verdicts leave it open.
        unbounded: The weight of that fit, of either sign, with its interval.
        gain: How much better the composition predicts verdicts on prompts that it was not fitted to than one fitted
            without this reward, in nats a pair. A reward whose gain is not above 0 says nothing that the others do not.
        constant: Whether no pair differs in it; then these pairs say nothing of its weight.
    """

    weight: float
    before: float
    estimate: Estimate
    unbounded: Estimate
    gain: Estimate
    constant: bool

    def record(self) -> dict[str, Any]:
        """As a JSON-ready mapping; an open end is null."""
        return {
            "weight": self.weight,
            "before": self.before,
            "estimate": self.estimate.record(),
            "unbounded": self.unbounded.record(),
            "gain": self.gain.record(),
            "constant": self.constant,
        }


@dataclass(frozen=True, slots=True)
class PeopleAgreement:
    """How often something prefers what people prefer.

    Attributes:
        accuracy: Of the verdicts that prefer a completion, the share that prefers the one with the higher total, equal
            totals half; each pair counts once. The interval of
            `rlaif_sdk.statistics.estimates.share_over_groups` over prompts.
        at_equal_length: The same by `rlaif_sdk.evaluation.length_controlled`.
        by_category: The accuracy within each category.
    """

    accuracy: Estimate
    at_equal_length: Estimate
    by_category: Mapping[str, Estimate]

    def record(self) -> dict[str, Any]:
        """As a JSON-ready mapping."""
        return {
            "accuracy": self.accuracy.record(),
            "accuracy_at_equal_length": self.at_equal_length.record(),
            "by_category": {name: each.record() for name, each in self.by_category.items()},
        }


@dataclass(frozen=True, slots=True)
class CompositionFit:
    """A composition fitted to people's verdicts.

    Attributes:
        document: The fitted composition, as its file has it.
        weights: Of each reward, what the verdicts say.
        gates: Of each gate likewise; weights are fitted to pairs of which both completions pass.
        defaults: Likewise of each reward that failed on some completion and states a default.
        agreement: With people, of the composition ``as it was``, with ``equal weights`` (each reward in units of how far
            pairs differ in it), ``fitted``, by ``length alone``, and of each reward alone by name. What is fitted is asked
            only about prompts that it was not fitted to.
        change: By how much ``fitted`` agrees more than ``as it was``, paired; bootstrap over prompts.
        loss: Of ``fitted``, the negative log-likelihood of a pair's verdicts in nats, on such prompts.
        tie_share: How often people prefer neither where totals are equal, by the fitted model.
        penalty: What draws the weights towards those of the composition as it was; see
            `rlaif_sdk.statistics.davidson.Penalty`.
        pairs: How many pairs with verdicts it is fitted to.
        prompts: About so many prompts.
        votes: How many verdicts for either completion, and for neither.
        skipped: Pairs with verdicts in which one completion has no score, by reward; they count nowhere.
        unjudged: Pairs that nobody was asked about.
        annotators: Fleiss's kappa among people, where pairs have several verdicts; else None.
        changed_normalizers: What was put in the place of normalizers that learn or look at groups, by reward.
        warnings: What should make one doubt the fit, in sentences.
        inputs: A digest of each table that is a file, by its name.
    """

    document: Mapping[str, Any]
    weights: Mapping[str, FittedWeight]
    gates: Sequence[FittedGate]
    defaults: Sequence[FittedDefault]
    agreement: Mapping[str, PeopleAgreement]
    change: Estimate
    loss: Estimate
    tie_share: float
    penalty: float
    pairs: int
    prompts: int
    votes: tuple[float, float]
    skipped: Mapping[str, int]
    unjudged: int
    annotators: Estimate | None
    changed_normalizers: Mapping[str, str]
    warnings: Sequence[str]
    inputs: Mapping[str, str]

    def record(self) -> dict[str, Any]:
        """As a JSON-ready mapping."""
        return {
            "composition": self.document,
            "weights": {name: each.record() for name, each in self.weights.items()},
            "gates": [each.record() for each in self.gates],
            "defaults": [each.record() for each in self.defaults],
            "agreement": {name: each.record() for name, each in self.agreement.items()},
            "change": self.change.record(),
            "loss": self.loss.record(),
            "tie_share": json_number(self.tie_share),
            "penalty": self.penalty,
            "pairs": self.pairs,
            "prompts": self.prompts,
            "votes": {"decided": self.votes[0], "ties": self.votes[1]},
            "skipped": dict(self.skipped),
            "unjudged": self.unjudged,
            "annotators_kappa": self.annotators.record() if self.annotators else None,
            "changed_normalizers": dict(self.changed_normalizers),
            "warnings": list(self.warnings),
        }

    def yaml(self) -> str:
        """The fitted composition as a file's text."""
        import yaml

        head = (
            f"# Weights fitted by rlaif fit to {self.pairs} pairs about {self.prompts} prompts that people judged.\n"
            "# A difference of totals is the log-odds that people prefer the completion with more.\n"
        )
        text: str = yaml.safe_dump(dict(self.document), sort_keys=False, allow_unicode=True)
        return head + text

    def card(self, name: str) -> Card:
        """How the composition of that file name came about."""
        return Card(
            title="A composition fitted to what people prefer",
            method="The weights are those of a penalised Bradley-Terry model with Davidson's ties on the rewards' recorded "
            "scores. The penalty draws them towards multiples of the weights that the composition had; its strength is "
            "that of the least loss over folds of whole prompts, and agreement is measured on prompts that neither the "
            "weights nor the penalty were fitted to.",
            files={name: "the composition", f"{Path(name).stem}.card.md": "this card"},
            counts={
                "pairs": self.pairs,
                "prompts": self.prompts,
                "verdicts that prefer a completion": self.votes[0],
                "verdicts that prefer neither": self.votes[1],
                **{f"left out, without a score of {reward}": count for reward, count in self.skipped.items()},
            },
            inputs=self.inputs,
            settings={
                **{f"weight of {reward}": each.estimate.text() for reward, each in self.weights.items()},
                **{f"gate on {each.gate.reward}": each.threshold.text() for each in self.gates},
                **{f"default of {each.reward}": each.value.text() for each in self.defaults},
                **{f"agreement, {what}": each.accuracy.text() for what, each in self.agreement.items()},
                "agreement, change": self.change.text(signed=True),
                "penalty": self.penalty,
                **{f"normalizer of {reward}": what for reward, what in self.changed_normalizers.items()},
            },
            warnings=self.warnings,
        )

    def write(self, path: str | Path) -> Path:
        """Write the composition, and its card beside it; returns the card's path."""
        path = Path(path)
        write_text(path, self.yaml())
        return self.card(path.name).write(path.parent, f"{path.stem}.card.md")


def fit_composition(
    config: ConfigSource,
    tables: Sequence[Source],
    columns: VerdictColumns | None = None,
    *,
    signed: bool = False,
    confidence: float = 0.95,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> CompositionFit:
    """Learn the weights, gates and failure defaults of a composition from pairs that people judged.

    P(first) : P(second) : P(neither) = exp(m / 2) : exp(-m / 2) : constant, where m is the difference of the totals
    (Davidson 1970). Each completion is scored once; with a ledger, none that it knows is scored. Where both completions of
    a pair are without a score of a reward, it says nothing of them; where one is, the pair is left out.

    Example:
        >>> from rlaif_sdk.evaluation import fit_composition
        >>> found = fit_composition("rewards.yaml", ["pairs.jsonl"])  # doctest: +SKIP
        >>> found.write("fitted.yaml")  # doctest: +SKIP

    Args:
        config: The composition: a weighted sum, whose weights are numbers, with gates of one bound each, or none. A reward
            of weight 0 is a candidate.
        tables: The tables of pairs; a pair that stands in several has the verdicts of all.
        columns: Where they say what people prefer.
        signed: Whether a weight may have another sign than it had; by default it is then 0.
        confidence: Of the intervals.
        seed: Of the folds.
        progress: Called with the completions scored so far and all.

    Raises:
        ConfigError: The composition is no such sum.
        DataError: A table is refused; there are too few pairs, or nothing but ties; or no reward explains them.
    """
    settings, document = read_composition(config)
    signs = weight_signs(settings, document, signed=signed)
    with Composer.from_config(document) as composer:
        judged = read_judged_pairs(composer, tables, columns or VerdictColumns())
        pairs = scored_pairs(composer, judged, progress)
    asked_N = pairs.asked_N
    used = pairs.among(asked_N & pairs.whole_N)
    file = ", ".join(map(table_name, tables))
    skipped = {
        name: int((missing_N & asked_N).sum())
        for name, missing_N in zip(pairs.names, pairs.missing_NR.T, strict=True)
        if (missing_N & asked_N).any()
    }
    _check_verdicts(used, asked_N, skipped, file)
    return _fitted(
        used,
        settings,
        document,
        signs,
        confidence=confidence,
        seed=seed,
        skipped=skipped,
        unjudged=int((~asked_N).sum()),
        inputs={
            TableSource.of(table).path.name: table_digest(table) for table in tables if isinstance(table, TableName)
        },
        file=file,
    )


def _check_verdicts(used: ScoredPairs, asked_N: Mask, skipped: Mapping[str, int], file: str) -> None:
    prompts = len(np.unique(used.groups_N))
    if not asked_N.any():
        raise DataError(
            f"nobody was asked about any of the {len(asked_N)} pairs",
            file=file,
            hint="name the column of what people prefer (--human), or judge some with `rlaif review`",
        )
    if prompts < MIN_PROMPTS:
        lost = f"; {sum(skipped.values())} more lack a score of {listed(skipped)} on one side" if skipped else ""
        raise DataError(
            f"has {len(used.votes_N3)} judged pairs about {prompts} prompts, and weights that can be checked take pairs about "
            f"{MIN_PROMPTS}{lost}",
            file=file,
            hint="let people judge more: --next 20 chooses pairs that teach most",
        )
    if not used.votes_N3[:, :2].any():
        raise DataError(
            "every verdict is a tie: nothing says which completion is better",
            file=file,
            hint="let people judge pairs that differ more",
        )


# --- the fit


def _fitted(
    used: ScoredPairs,
    settings: CompositionConfig,
    document: Document,
    signs_R: Array,
    *,
    confidence: float,
    seed: int,
    skipped: Mapping[str, int],
    unjudged: int,
    inputs: Mapping[str, str],
    file: str,
) -> CompositionFit:
    before_R = constant_weights(settings)
    scale_R = pair_spread(used.differences_NR)
    penalty = Penalty.towards(before_R, scale_R)
    strength = _best_penalty(used, penalty, signs_R, seed)
    model = _learn(used, penalty.of(strength), signs_R)
    fit = model.fit
    passing = with_defaults(used, model.defaults).passing([each.gate for each in model.gates])
    weights_R = np.array(
        [rounded(weight) for weight in np.where(np.abs(fit.weights * scale_R) < _NOTHING, 0.0, fit.weights)]
    )
    constant_R = np.asarray(~passing.differences_NR.any(axis=0))
    weights_R[constant_R] = 0.0
    crossed = _cross_fit(used, penalty, signs_R, seed)
    unbounded = _unbounded(passing, penalty.floor, confidence)
    bounded = _bounded(passing, penalty.floor, signs_R, unbounded, confidence)
    margins = _margins(used, before_R, scale_R, crossed.margins_N)
    right = {what: _right(used, margin_N) for what, margin_N in margins.items()}
    means = {
        "loss": crossed.losses_N,
        "change": right[FITTED] - right[BEFORE],
        **{f"gain {name}": losses_N for name, losses_N in _gains(used, penalty, signs_R, seed, crossed).items()},
    }
    found = bootstrap_means(np.stack([*means.values()]), used.groups_N, confidence=confidence)
    estimates = dict(zip(means, found, strict=True))
    weights = {
        name: FittedWeight(
            weight=float(weights_R[place]),
            before=float(before_R[place]),
            estimate=_within_sign(bounded[place], float(weights_R[place]), float(signs_R[place])),
            unbounded=unbounded[place],
            gain=estimates[f"gain {name}"],
            constant=bool(constant_R[place]),
        )
        for place, name in enumerate(used.names)
    }
    if not weights_R.any():
        raise DataError(
            f"no reward explains what people prefer: every weight would be 0 ({_unbounded_words(weights)})",
            file=file,
            hint="--signed lets weights change their sign; or measure each reward with `rlaif eval reward`",
        )
    asked_N = used.votes_N3.sum(axis=1)
    several_N = asked_N > 1
    ties = math.exp(fit.log_ties) if fit.log_ties > -math.inf else 0.0
    fitted = CompositionFit(
        document=_document(document, settings, used, weights_R, model),
        weights=weights,
        gates=model.gates,
        defaults=model.defaults,
        agreement=_agreement(used, right, confidence),
        change=estimates["change"],
        loss=estimates["loss"],
        tie_share=ties / (2 + ties),
        penalty=strength,
        pairs=len(used.votes_N3),
        prompts=int(used.groups_N.max()) + 1,
        votes=(float(used.votes_N3[:, :2].sum()), float(used.votes_N3[:, 2].sum())),
        skipped=skipped,
        unjudged=unjudged,
        annotators=fleiss_kappa(used.votes_N3[several_N], confidence) if several_N.any() else None,
        changed_normalizers={
            name: f"fixed_zscore by a mean of {params.mean:g} and a deviation of {params.std:g}, in the place of "
            f"{settings.rewards[name].normalize.kind}"
            for name, params in used.changed.items()
        },
        warnings=(),
        inputs=inputs,
    )
    return replace(fitted, warnings=_warnings(fitted, used, passing, crossed.margins_N, confidence))


@dataclass(frozen=True, slots=True)
class _Model:
    """Weights, gates and defaults."""

    fit: DavidsonFit
    gates: Sequence[FittedGate]
    defaults: Sequence[FittedDefault]

    def margins(self, pairs: ScoredPairs) -> Array:
        """(N,) by how much the first completion of each pair is ahead."""
        pairs = with_defaults(pairs, self.defaults)
        if not self.gates:
            return pairs.differences_NR @ self.fit.weights
        return gated_margins(pairs.totals_N2(self.fit.weights), [each.gate for each in self.gates], pairs.raw)


def _learn(pairs: ScoredPairs, penalty_RR: Array, signs_R: Array, like: _Model | None = None) -> _Model:
    """Fit weights to the pairs that pass the gates, and gates and defaults, unless another model has them, to all, in turns.

    The first weights are those of pairs in which nothing failed: with a wrong default a reward may seem worth nothing, and
    then no other default seems better.
    """
    if like is not None:
        gates, defaults = like.gates, like.defaults
    else:
        none = Estimate(math.nan, math.nan, math.nan, 0)
        gates = [FittedGate(gate, float(getattr(gate, bound_of(gate))), none) for gate in pairs.gates]
        defaults = [
            FittedDefault(name, each.value, replace(none, value=each.value)) for name, each in pairs.defaulted.items()
        ]
    for turn in range(_TURNS if (gates or defaults) and like is None else 1):
        seen = with_defaults(pairs, defaults)
        passing = (seen.without_failures() if like is None and not turn else seen).passing(
            [each.gate for each in gates]
        )
        fit = fit_davidson(passing.differences_NR, passing.votes_N3, penalty_RR, signs_R=signs_R)
        if like is None:
            gates = fit_gates(seen.totals_N2(fit.weights), gates, seen.raw, seen.votes_N3, fit.log_ties)
            defaults = fit_defaults(pairs, defaults, fit.weights, [each.gate for each in gates], fit.log_ties)
    return _Model(fit, gates, defaults)


def _best_penalty(pairs: ScoredPairs, penalty: Penalty, signs_R: Array, seed: int) -> float:
    passing = pairs.without_failures().passing(pairs.gates)
    found = (passing.differences_NR, passing.votes_N3, passing.groups_N)
    return best_penalty(*found, penalty, signs_R=signs_R, seed=seed)


@dataclass(frozen=True, slots=True)
class _CrossFit:
    """Of each pair, what a model says that was fitted to other prompts."""

    margins_N: Array
    losses_N: Array
    strengths: Sequence[float]
    models: Sequence[_Model]


def _cross_fit(
    used: ScoredPairs,
    penalty: Penalty,
    signs_R: Array,
    seed: int,
    kept_R: Mask | None = None,
    like: _CrossFit | None = None,
) -> _CrossFit:
    """Fit in the outer folds, whose penalties are chosen in inner ones; of some rewards with the penalties, gates and defaults of all."""
    kept_R = np.ones(len(used.names), dtype=bool) if kept_R is None else kept_R
    used, signs_R = used.of_rewards(kept_R), signs_R[kept_R]
    part = Penalty(penalty.matrix[np.ix_(kept_R, kept_R)], penalty.floor[np.ix_(kept_R, kept_R)])
    fold_N = fold_of_groups(used.groups_N, _FOLDS, seed + 1)
    margins_N, losses_N = np.zeros(len(used.votes_N3)), np.zeros(len(used.votes_N3))
    strengths, models = [], []
    for fold in range(int(fold_N.max()) + 1):
        held_N = fold_N == fold
        rest, held = used.among(~held_N), used.among(held_N)
        strengths.append(like.strengths[fold] if like else _best_penalty(rest, part, signs_R, seed))
        model = _learn(rest, part.of(strengths[-1]), signs_R, like.models[fold] if like else None)
        models.append(model)
        margins_N[held_N] = model.margins(held)
        losses_N[held_N] = held_out_losses(margins_N[held_N], model.fit.log_ties, held.votes_N3)
    return _CrossFit(margins_N, losses_N, strengths, models)


def _gains(used: ScoredPairs, penalty: Penalty, signs_R: Array, seed: int, crossed: _CrossFit) -> dict[str, Array]:
    """For each reward, (N,) by how much more a pair is a loss to a model fitted without it."""
    gains = {}
    for place, name in enumerate(used.names):
        gains[name] = np.zeros(len(used.votes_N3))
        if used.differences_NR[:, place].any():
            kept_R = np.arange(len(used.names)) != place
            without = _cross_fit(used, penalty, signs_R, seed, kept_R, crossed)
            gains[name] = without.losses_N - crossed.losses_N
    return gains


def _unbounded(used: ScoredPairs, weak_RR: Array, confidence: float) -> list[Estimate]:
    """The weights of either sign that verdicts say by themselves, with their intervals."""
    fit = fit_davidson(used.differences_NR, used.votes_N3, weak_RR)
    error_R = standard_errors(fit, used.differences_NR, used.votes_N3, used.groups_N, weak_RR)
    all_apart = separates(used.differences_NR @ fit.weights, used.votes_N3)
    found = []
    for place, (weight, error) in enumerate(zip(fit.weights.tolist(), error_R.tolist(), strict=True)):
        half = normal_quantile(confidence) * error
        low, high = weight - half, weight + half
        if not used.differences_NR[:, place].any() or all_apart:
            low, high = -math.inf, math.inf
        if separates(used.differences_NR[:, place], used.votes_N3):
            high = math.inf
        if separates(-used.differences_NR[:, place], used.votes_N3):
            low = -math.inf
        found.append(Estimate(weight, low, high, len(used.votes_N3)))
    return found


def _bounded(
    used: ScoredPairs, weak_RR: Array, signs_R: Array, unbounded: Sequence[Estimate], confidence: float
) -> list[Estimate]:
    """The same given which weights are held at 0 by their sign; those that are, as they would be without it."""
    fit = fit_davidson(used.differences_NR, used.votes_N3, weak_RR, signs_R=signs_R)
    free_R = np.abs(fit.weights) * pair_spread(used.differences_NR) >= _NOTHING
    if free_R.all() or not free_R.any():
        return list(unbounded)
    part = used.of_rewards(free_R)
    found = iter(_unbounded(part, weak_RR[np.ix_(free_R, free_R)], confidence))
    return [next(found) if is_free else given for is_free, given in zip(free_R, unbounded, strict=True)]


def _within_sign(unbounded: Estimate, weight: float, sign: float) -> Estimate:
    """The interval of a weight that must not have the other sign; it has the weight in it."""
    low, high = min(unbounded.low, weight), max(unbounded.high, weight)
    low, high = (max(low, 0.0) if sign > 0 else low), (min(high, 0.0) if sign < 0 else high)
    return Estimate(weight, low, high, unbounded.n)


# --- agreement


def _margins(used: ScoredPairs, before_R: Array, scale_R: Array, fitted_N: Array) -> dict[str, Array]:
    signs_R = np.where(before_R < 0, -1.0, 1.0)
    alone = {
        name: sign * column_N for name, sign, column_N in zip(used.names, signs_R, used.differences_NR.T, strict=True)
    }
    return {
        BEFORE: used.before_N,
        EQUAL: used.differences_NR @ (signs_R / scale_R),
        FITTED: fitted_N,
        LENGTH: used.lengths_N2[:, 0] - used.lengths_N2[:, 1],
        **alone,
    }


def _right(used: ScoredPairs, margins_N: Array) -> Array:
    """(N,) the share of the verdicts for a completion that are for the one ahead; NaN without verdict or margin."""
    first_N, second_N = used.votes_N3[:, 0], used.votes_N3[:, 1]
    ahead_N = prefers_first(margins_N)
    with np.errstate(invalid="ignore"):
        right_N: Array = (first_N * ahead_N + second_N * (1 - ahead_N)) / (first_N + second_N)
    return right_N


def _agreement(used: ScoredPairs, right: Mapping[str, Array], confidence: float) -> dict[str, PeopleAgreement]:
    """Of shares of verdicts for the completion ahead, by what is ahead."""
    category_N = np.array(used.categories, dtype=object)
    categories = sorted(set(used.categories) - {""})
    parts = {
        (what, name): np.where((category_N == name) | (name == ""), right_N, np.nan)
        for what, right_N in right.items()
        for name in ("", *categories)
    }
    found = bootstrap_means(np.stack([*parts.values()]), used.groups_N, confidence=confidence)
    shares = {}
    for (key, share_N), estimate in zip(parts.items(), found, strict=True):
        prompts_G = np.bincount(used.groups_N[~np.isnan(share_N)]).astype(np.float64)
        shares[key] = at_least_wilson(estimate, effective_size(prompts_G), confidence)
    first_N = used.votes_N3[:, 0] >= used.votes_N3[:, 1]
    lengths_N2 = np.where(first_N[:, None], used.lengths_N2, used.lengths_N2[:, ::-1])
    agreement = {}
    for what, right_N in right.items():
        known_N = ~np.isnan(right_N)
        at_equal_length = length_controlled(
            right_N[known_N],
            lengths_N2[known_N],
            used.groups_N[known_N],
            strength=WEAK_LENGTH_PENALTY,
            confidence=confidence,
        )
        by_category = {name: shares[what, name] for name in categories if shares[what, name].n}
        agreement[what] = PeopleAgreement(shares[what, ""], at_equal_length, by_category)
    return agreement


# --- what it says


def _document(
    document: Document, settings: CompositionConfig, used: ScoredPairs, weights_R: Array, model: _Model
) -> dict[str, Any]:
    """The composition's own document with other weights, and normalizers that learn nothing."""
    data: dict[str, Any] = copy.deepcopy(dict(document.data))
    data["rewards"] = {name: dict(data["rewards"][name] or {}) for name in settings.rewards}
    for name, weight in zip(used.names, weights_R.tolist(), strict=True):
        data["rewards"][name]["weight"] = weight
        if name in used.changed:
            data["rewards"][name]["normalize"] = {
                "kind": "fixed_zscore",
                **used.changed[name].model_dump(exclude={"epsilon"}),
            }
    for default in model.defaults:
        own = data["rewards"][default.reward]
        own["on_failure"] = {**own["on_failure"], "value": default.value.value}
    for own, fitted in zip(data.get("gates") or (), model.gates, strict=True):
        own |= {bound_of(fitted.gate): fitted.threshold.value, "floor": fitted.gate.floor}
    return data


def _warnings(
    found: CompositionFit, used: ScoredPairs, passing: ScoredPairs, fitted_N: Array, confidence: float
) -> list[str]:
    said = []
    apart = {
        name: np.count_nonzero(column_N)
        for name, column_N in zip(passing.names, passing.differences_NR.T, strict=True)
        if separates(column_N, passing.votes_N3) or separates(-column_N, passing.votes_N3)
    }
    said += [
        f"{name} differs in {count} pairs and contradicts none of the verdicts on them: its weight has no end on one side, and "
        "how large it is was decided by the penalty; judge pairs that are harder"
        for name, count in apart.items()
    ]
    if not apart and all(math.isinf(each.unbounded.high) for each in found.weights.values()):
        said.append(
            "together the rewards contradict no verdict: weights have no upper ends, and how large they are was decided by "
            "the penalty; judge pairs that are harder"
        )
    for name, each in found.weights.items():
        if each.constant:
            said.append(
                f"{name} is the same on both sides of every pair, so they say nothing of its weight, and it is 0: give it one "
                "of your own, or judge pairs that differ in it"
            )
        elif each.weight == 0 and each.unbounded.high < 0:
            said.append(
                f"people prefer less of {name}: its weight would be {each.unbounded.value:.3g} and is 0, since it must not "
                "change its sign (--signed)"
            )
    said += [
        f"{one} and {other} say the same of these pairs (correlation {correlation:.3f}): the verdicts tell the sum of their "
        "weights, and the composition as it was how it is shared out"
        for one, other, correlation in _collinear(passing)
    ]
    if found.change.low <= 0:
        said.append(
            "on prompts that it was not fitted to, the fitted composition agrees with people no more than it did before, "
            f"as far as {found.pairs} pairs tell: {found.change.value:+.3f} [{found.change.low:+.3f}, {found.change.high:+.3f}]"
        )
    if _only_length(used, fitted_N, confidence):
        said.append(
            "length alone explains what people prefer here: at a given difference of length, the fitted total says no more "
            "of it. A policy trained on these weights learns to write longer, or shorter"
        )
    if found.annotators is not None and found.annotators.low <= 0:
        said.append(
            f"annotators agree no more than by chance (Fleiss's kappa {found.annotators.value:.2f}): no composition can agree "
            "with all of them"
        )
    if found.skipped:
        shown = ", ".join(f"{name} {count}" for name, count in found.skipped.items())
        said.append(f"pairs with a score on one side only are left out ({shown})")
    return said


def _unbounded_words(weights: Mapping[str, FittedWeight]) -> str:
    return ", ".join(f"{name} {each.unbounded.value:+.3g}" for name, each in weights.items())


def _collinear(used: ScoredPairs) -> list[tuple[str, str, float]]:
    """Rewards whose differences are nearly multiples of each other."""
    scaled_NR = used.differences_NR / pair_spread(used.differences_NR)
    products_RR = scaled_NR.T @ scaled_NR / len(scaled_NR)
    return [
        (used.names[one], used.names[other], float(products_RR[one, other]))
        for one in range(len(products_RR))
        for other in range(one + 1, len(products_RR))
        if abs(products_RR[one, other]) > _COLLINEAR
    ]


def _only_length(used: ScoredPairs, fitted_N: Array, confidence: float) -> bool:
    """Whether length tells what people prefer, and the fitted total nothing beyond it."""
    both_N2 = np.column_stack([length_difference(used.lengths_N2), fitted_N])
    if not both_N2.any(axis=0).all():
        return False
    scale_2 = pair_spread(both_N2)
    weak_22 = WEAK * np.diag(scale_2**2)
    fit = fit_davidson(both_N2, used.votes_N3, weak_22)
    error_2 = standard_errors(fit, both_N2, used.votes_N3, used.groups_N, weak_22)
    z = normal_quantile(confidence)
    return bool(abs(fit.weights[0]) > z * error_2[0] and fit.weights[1] - z * error_2[1] <= 0)
