"""Which pairs to ask people about next: those whose verdicts teach most of a composition's weights.

N pairs, R rewards, 3 verdicts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from rlaif_sdk.composer import Composer
from rlaif_sdk.composer.build import ConfigSource, read_composition
from rlaif_sdk.evaluation.judged_scores import ScoredPairs, pair_spread, scored_pairs, weight_signs
from rlaif_sdk.evaluation.verdicts import VerdictColumns, pair_of_review, read_judged_pairs
from rlaif_sdk.exceptions import DataError
from rlaif_sdk.io.jsonl import Row
from rlaif_sdk.io.tables import Source, table_name
from rlaif_sdk.preferences.review import ReviewStore
from rlaif_sdk.statistics.arrays import Array
from rlaif_sdk.statistics.davidson import (
    DavidsonFit,
    fit_davidson,
    most_informative,
    weight_covariance,
)

_BETWEEN_FITS = 10
"""Verdicts of a review."""


def next_pairs(
    config: ConfigSource,
    tables: Sequence[Source],
    count: int,
    columns: VerdictColumns | None = None,
    *,
    signed: bool = False,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> list[Row]:
    """The rows of the pairs whose verdicts would teach most of the weights, the best first.

    A pair's worth is the expected information of its verdict under the posterior of the weights, given those chosen
    before it; see `rlaif_sdk.statistics.davidson.most_informative`. Before any verdict, weights are taken for normally
    distributed about 0, with a deviation of one log-odds for as much as pairs differ.

    Args:
        config: The composition, as for `fit_composition`.
        tables: The tables of pairs: those without a verdict are chosen from, those with one are what is known.
        count: How many, at most.
        columns: Where they say what people prefer.
        signed: As for `fit_composition`.
        progress: Called with the completions scored so far and all.

    Raises:
        ConfigError: The composition is no weighted sum.
        DataError: A table is refused, or no pair is without a verdict.
    """
    settings, document = read_composition(config)
    signs_R = weight_signs(settings, document, signed=signed)
    with Composer.from_config(document) as composer:
        judged = read_judged_pairs(composer, tables, columns or VerdictColumns())
        pairs = scored_pairs(composer, judged, progress)
    if not (~pairs.asked_N & pairs.whole_N).any():
        raise DataError(
            "every pair that all rewards score has a verdict",
            file=", ".join(map(table_name, tables)),
            hint="name a table of pairs without verdicts too: response_1 and response_2",
        )
    return [judged[place].record for place in _teaching(pairs, signs_R, count)[0]]


def review_by_information(
    store: ReviewStore,
    config: ConfigSource,
    *,
    signed: bool = False,
    progress: Callable[[int, int], None] = lambda *_: None,
    told: Callable[[int, Mapping[str, tuple[float, float]]], None] = lambda *_: None,
) -> None:
    """Let a review ask about the pairs that teach most of a composition's weights: judge, refit, next.

    Its pairs are scored once, now. After every ten verdicts the weights are fitted to all that were given, and the next pairs
    chosen as `next_pairs` does.

    Args:
        store: The review, with its pairs.
        config: The composition, as for `fit_composition`.
        signed: Likewise.
        progress: Called with the completions scored so far and all.
        told: Called after each fit with the number of pairs with verdicts, and each reward's weight with its standard
            deviation under the posterior.

    Raises:
        ConfigError: The composition is no weighted sum.
        DataError: The review has no pairs.
    """
    settings, document = read_composition(config)
    signs_R = weight_signs(settings, document, signed=signed)
    reviewed = [pair for pair, _ in store.results()]
    if not reviewed:
        raise DataError("has no pairs", file=str(store.path))
    with Composer.from_config(document) as composer:
        scored = scored_pairs(composer, [pair_of_review(pair) for pair in reviewed], progress)
    place_of = {pair.id: place for place, pair in enumerate(reviewed)}

    def choose(verdicts: Mapping[str, Sequence[str]]) -> list[str]:
        votes_N3 = np.zeros((len(reviewed), 3))
        for pair_id, said in verdicts.items():
            votes_N3[place_of[pair_id]] = [said.count(choice) for choice in ("1", "2", "tie")]
        chosen, fit, covariance_RR = _teaching(replace(scored, votes_N3=votes_N3), signs_R, _BETWEEN_FITS)
        deviations_R = np.sqrt(np.diag(covariance_RR))
        found = zip(fit.weights.tolist(), deviations_R.tolist(), strict=True)
        told(len(verdicts), dict(zip(scored.names, found, strict=True)))
        return [reviewed[place].id for place in chosen]

    store.choose_by(choose)


def _teaching(pairs: ScoredPairs, signs_R: Array, count: int) -> tuple[list[int], DavidsonFit, Array]:
    """The pairs without a verdict that would teach most, and the posterior of the weights by which they are chosen."""
    used, penalty_RR = pairs.among(pairs.asked_N & pairs.whole_N), np.diag(pair_spread(pairs.differences_NR) ** 2)
    fit = DavidsonFit(np.zeros(len(pairs.names)), -math.inf)
    covariance_RR = np.asarray(np.linalg.inv(penalty_RR), dtype=np.float64)
    if len(used.votes_N3):
        fit = fit_davidson(used.differences_NR, used.votes_N3, penalty_RR, signs_R=signs_R)
        covariance_RR = weight_covariance(fit, used.differences_NR, used.votes_N3, used.groups_N, penalty_RR)
    open_N = ~pairs.asked_N & pairs.whole_N
    return most_informative(pairs.differences_NR, fit, covariance_RR, count, allowed_N=open_N), fit, covariance_RR
