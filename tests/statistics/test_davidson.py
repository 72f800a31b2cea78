"""Preferences with ties, linear in features: against slow references and simulated people."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import minimize

from rlaif_sdk.statistics.arrays import Array
from rlaif_sdk.statistics.davidson import (
    DavidsonFit,
    Penalty,
    best_penalty,
    expected_information,
    fit_davidson,
    fold_of_groups,
    held_out_losses,
    most_informative,
    separates,
    standard_errors,
    verdict_probs,
)


def simulated(pairs: int, weights_R: Array, log_ties: float, seed: int = 0) -> tuple[Array, Array]:
    draw = np.random.default_rng(seed)
    differences_NR = draw.normal(size=(pairs, len(weights_R)))
    probs_N3 = verdict_probs(differences_NR @ weights_R, log_ties)
    said_N = (draw.random(pairs)[:, None] > probs_N3.cumsum(axis=1)).sum(axis=1).clip(max=2)
    return differences_NR, np.eye(3)[said_N]


def slow_loss(theta: Array, differences_NR: Array, votes_N3: Array, penalty_RR: Array) -> float:
    weights, log_ties = theta[:-1], theta[-1]
    loss = 0.0
    for difference, votes in zip(differences_NR, votes_N3, strict=True):
        margin = float(difference @ weights)
        shares = [math.exp(margin / 2), math.exp(-margin / 2), math.exp(log_ties)]
        loss -= sum(count * math.log(share / sum(shares)) for count, share in zip(votes, shares, strict=True) if count)
    return loss + float(weights @ penalty_RR @ weights) / 2 + 0.01 * log_ties**2 / 2


@pytest.mark.parametrize("signs", [None, (1.0, 1.0, -1.0)])
def test_the_fit_is_the_minimum_of_the_loss(signs: tuple[float, ...] | None) -> None:
    """Whatever finds it: here a general optimiser, on a loss that is written pair by pair."""
    differences_NR, votes_N3 = simulated(60, np.array([1.0, -0.6, 0.3]), -0.5)
    votes_N3[::7] += [0.4, 0.6, 0.0]  # several annotators, and soft ones
    penalty_RR = Penalty.towards(np.array([1.0, 1.0, 2.0]), np.array([1.0, 2.0, 0.5])).of(3.0)
    fit = fit_davidson(differences_NR, votes_N3, penalty_RR, signs_R=None if signs is None else np.array(signs))
    bounds = [(None, None) if signs is None else (0, None) if sign > 0 else (None, 0) for sign in signs or (1, 1, 1)]
    best = minimize(
        slow_loss, np.zeros(4), (differences_NR, votes_N3, penalty_RR), bounds=[*bounds, (None, None)], tol=1e-12
    )
    np.testing.assert_allclose([*fit.weights, fit.log_ties], best.x, atol=1e-4)


def test_without_ties_it_is_bradley_and_terrys() -> None:
    """Log-odds of a win are differences of weights times features."""
    probs_N3 = verdict_probs(np.array([0.0, 2.0, -700.0, 700.0]), -math.inf)
    np.testing.assert_allclose(probs_N3[:, 0], [0.5, 1 / (1 + math.exp(-2)), 0.0, 1.0], atol=1e-12)
    assert not probs_N3[:, 2].any()


def test_a_penalty_leaves_multiples_of_its_aim_alone() -> None:
    """However strong it is, the scale is the verdicts' own."""
    weights_R = np.array([2.0, 1.0])
    differences_NR, votes_N3 = simulated(2000, weights_R, -math.inf)
    strong_RR = Penalty.towards(np.array([4.0, 2.0]), np.ones(2)).of(1e6)
    np.testing.assert_allclose(fit_davidson(differences_NR, votes_N3, strong_RR).weights, weights_R, rtol=0.15)


def test_standard_errors_are_the_spread_of_fits() -> None:
    """Over forty simulations; those of verdicts that stand ten times each are wider by the root of ten if clustered."""
    weights_R = np.array([1.0, 0.5, 0.0])
    weak_RR = 0.01 * np.eye(3)
    found = []
    for seed in range(40):
        differences_NR, votes_N3 = simulated(300, weights_R, 0.0, seed)
        fit = fit_davidson(differences_NR, votes_N3, weak_RR)
        found.append([fit.weights, standard_errors(fit, differences_NR, votes_N3, np.arange(300), weak_RR)])
    fits_S, errors_S = np.array(found).transpose(1, 0, 2)
    np.testing.assert_allclose(errors_S.mean(axis=0), fits_S.std(axis=0), rtol=0.35)
    tenfold = [np.repeat(each, 10, axis=0) for each in (differences_NR, votes_N3, np.arange(300))]
    fit = fit_davidson(tenfold[0], tenfold[1], weak_RR)
    np.testing.assert_allclose(standard_errors(fit, *tenfold, weak_RR), errors_S[-1], rtol=0.1)


def test_few_groups_widen_what_is_clustered() -> None:
    """By the root of G / (G - 1), as the sandwich of few clusters is corrected; here groups contradict each other."""
    differences_NR, votes_N3 = simulated(400, np.array([1.0]), -math.inf)
    groups_N = np.arange(400) // 100
    votes_N3[groups_N == 3] = votes_N3[groups_N == 3][:, [1, 0, 2]]
    weak_11 = 0.01 * np.eye(1)
    fit = fit_davidson(differences_NR, votes_N3, weak_11)
    probs_N3 = verdict_probs(differences_NR @ fit.weights, -math.inf)
    slopes_G = np.bincount(groups_N, (probs_N3[:, 0] - votes_N3[:, 0]) * differences_NR[:, 0])
    curvature = 0.01 + float(differences_NR[:, 0] ** 2 @ (probs_N3[:, 0] * probs_N3[:, 1]))
    expected = math.sqrt(slopes_G @ slopes_G * 4 / 3) / curvature
    assert expected > 2 / math.sqrt(curvature)
    assert standard_errors(fit, differences_NR, votes_N3, groups_N, weak_11) == pytest.approx(expected, rel=1e-6)


def test_a_tie_that_a_model_knows_nothing_of_is_half_a_verdict_for_each() -> None:
    """Its loss is finite, and least where neither is ahead."""
    tie_13 = np.array([[0.0, 0.0, 1.0]])
    level, apart = (held_out_losses(np.array([margin]), -math.inf, tie_13)[0] for margin in (0.0, 2.0))
    assert level == pytest.approx(math.log(2))
    assert apart == pytest.approx((math.log(1 + math.exp(-2)) + math.log(1 + math.exp(2))) / 2)


def test_folds_tear_no_group_apart() -> None:
    """And are of one size in groups."""
    groups_N = np.repeat(np.arange(50), 3)
    fold_N = fold_of_groups(groups_N, 5, seed=1)
    assert all(len(set(fold_N[groups_N == group])) == 1 for group in range(50))
    assert np.bincount(fold_N).tolist() == [30] * 5


def test_few_verdicts_are_drawn_to_the_aim_and_many_are_not() -> None:
    """Where the aim is wrong, more verdicts choose a weaker penalty."""
    penalty = Penalty.towards(np.ones(3), np.ones(3))
    strengths = []
    for pairs in (40, 4000):
        differences_NR, votes_N3 = simulated(pairs, np.array([1.5, 0.2, 0.0]), -math.inf)
        strengths.append(best_penalty(differences_NR, votes_N3, np.arange(pairs), penalty))
    assert strengths[1] <= min(strengths[0], 10)


def test_what_contradicts_no_verdict_separates() -> None:
    """A tie or a pair with verdicts for both must have a margin of 0; margins of 0 alone separate nothing."""
    first, second, tie, both = np.eye(3)[0], np.eye(3)[1], np.eye(3)[2], np.array([1.0, 1.0, 0.0])
    votes_N3 = np.array([first, second, tie, both])
    assert separates(np.array([1.0, -2.0, 0.0, 0.0]), votes_N3)
    assert separates(np.array([1.0, 0.0, 0.0, 0.0]), votes_N3)
    for margins in ([1.0, 2.0, 0.0, 0.0], [1.0, -2.0, 0.1, 0.0], [1.0, -2.0, 0.0, 0.1], [0.0] * 4):
        assert not separates(np.array(margins), votes_N3)


def test_information_is_the_curvature_of_the_loss() -> None:
    """Without doubt of the margin, that of Fisher: the second derivative of the expected loss."""
    for log_ties in (-math.inf, 0.3):
        probs_3 = verdict_probs(np.array([0.8]), log_ties)[0]

        def loss(margin: float, probs_3: Array = probs_3, log_ties: float = log_ties) -> float:
            at_3 = verdict_probs(np.array([margin]), log_ties)[0]
            return -float(sum(p * math.log(q) for p, q in zip(probs_3, at_3, strict=True) if p))

        step = 1e-4
        curvature = (loss(0.8 + step) - 2 * loss(0.8) + loss(0.8 - step)) / step**2
        assert expected_information(np.array([0.8]), np.zeros(1), log_ties)[0] == pytest.approx(curvature, rel=1e-4)


def test_pairs_are_chosen_as_if_all_gains_were_computed_anew() -> None:
    """What may be skipped changes nothing; a pair that repeats another waits, and no pair is chosen twice."""
    draw = np.random.default_rng(0)
    differences_NR = np.concatenate([draw.normal(size=(80, 4)), np.full((2, 4), 3.0)])
    fit, covariance_RR = DavidsonFit(np.array([1.0, 0.5, 0.0, 0.0]), 0.0), np.diag([1.0, 0.2, 0.5, 0.1])
    information_N = expected_information(
        differences_NR @ fit.weights, np.sum(differences_NR @ covariance_RR * differences_NR, axis=1), fit.log_ties
    )
    slow: list[int] = []
    precision_RR = np.linalg.inv(covariance_RR)
    for _ in range(12):
        left = [pair for pair in range(82) if pair not in slow]
        gains = [
            np.linalg.slogdet(
                precision_RR + information_N[pair] * np.outer(differences_NR[pair], differences_NR[pair])
            )[1]
            for pair in left
        ]
        slow.append(left[int(np.argmax(gains))])
        precision_RR += information_N[slow[-1]] * np.outer(differences_NR[slow[-1]], differences_NR[slow[-1]])
    assert most_informative(differences_NR, fit, covariance_RR, 12) == slow
    allowed_N = np.zeros(82, dtype=bool)
    allowed_N[:3] = True
    assert set(most_informative(differences_NR, fit, covariance_RR, 12, allowed_N=allowed_N)) == {0, 1, 2}
