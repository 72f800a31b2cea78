"""A costly reward that is asked only where its answer can still change an advantage."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import tracemalloc
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlaif_sdk import Composer, Composition, Gate, Reward, RewardBatch, Score
from rlaif_sdk.composer import Ask, Component, Constraint, FailurePolicy, Ledger, RewardCondition, Schedule, what_if
from rlaif_sdk.composer.aggregators import Minimum
from rlaif_sdk.composer.asking import (
    LEAST_GROUPS,
    MOST_GROUPS,
    OpenGroups,
    Prediction,
    ScoreModel,
    drawn_groups,
    training_data,
)
from rlaif_sdk.composer.normalizers import FixedZScore, FixedZScoreParams, GroupZScore, MinMax, Rank, ZScore
from rlaif_sdk.composer.weights import Crossing, Linear
from rlaif_sdk.evaluation.scored import Candidate, ScoredCompletions
from rlaif_sdk.exceptions import ConfigError, StateError
from tests.composer.test_ranks import Ranks

SIZE = 8


class Given(Reward):
    """Gives what stands in its column."""

    version = "1"
    inputs = ()

    def __init__(self, column: str, value_range: tuple[float, float] | None = (0.0, 1.0)) -> None:
        self.columns = (column,)
        self.inputs = (column,)
        self.range = value_range

    def score(self, batch: RewardBatch) -> list[Score | float | None]:
        return list(batch.column(self.columns[0]))


class Costly(Given):
    """The same, later; it keeps the rows of each call."""

    def __init__(self, value_range: tuple[float, float] | None = (0.0, 1.0)) -> None:
        super().__init__("costly", value_range)
        self.calls: list[list[int]] = []

    async def score(self, batch: RewardBatch) -> list[Score | float | None]:  # type: ignore[override]
        self.calls.append(list(batch.column("row")))
        await asyncio.sleep(0)
        return super().score(batch)

    @property
    def rows(self) -> list[int]:
        return [row for call in self.calls for row in call]


class CostlyGroup(Costly):
    """One that compares."""

    scope = "group"


def batch_of(
    cheap: Sequence[float | None], costly: Sequence[Any], *, size: int = SIZE, first: int = 0, **fields: Any
) -> RewardBatch:
    """Groups of equal size; their texts are told apart by ``first``."""
    rows = len(cheap)
    return RewardBatch(
        **{
            "prompts": [f"p{first + row // size}" for row in range(rows)],
            "completions": [f"c{first + row // size}.{row % size}" for row in range(rows)],
            "columns": {"cheap": cheap, "costly": costly, "row": [*range(rows)]},
            "group": [row // size for row in range(rows)],
            **fields,
        }
    )


def noisy(groups: int, seed: int, *, noise: float = 0.1, common: float = 0.1, size: int = SIZE) -> RewardBatch:
    """The costly score is half of the cheap one and a quarter, with noise of each group and of each row."""
    draw = np.random.default_rng(seed)
    cheap_Gn = draw.random((groups, size))
    costly_Gn = (
        0.5 * cheap_Gn + 0.25 + common * draw.normal(size=(groups, 1)) + noise * draw.normal(size=(groups, size))
    )
    return batch_of(cheap_Gn.ravel().tolist(), np.clip(costly_Gn, 0, 1).ravel().tolist(), size=size, first=1000 * seed)


def parts(costly: Reward, ask: Ask | None, weight: float = 1.0, **settings: Any) -> dict[str, Component]:
    judge = Component(costly, weight=weight, ask=ask, failure=FailurePolicy(fail_fast=False), **settings)
    return {"judge": judge, "cheap": Component(Given("cheap"), weight=1.0)}


def trained(costly: Costly, ask: Ask | None, weight: float = 1.0, **settings: Any) -> Composer:
    """A composer that has seen enough groups to leave some open."""
    composer = Composer(parts(costly, ask, weight, **settings))
    composer.compose(noisy(64, seed=99))
    costly.calls.clear()
    return composer


def advantages(totals: np.ndarray, size: int = SIZE) -> np.ndarray:
    of_groups = totals.reshape(-1, size)
    return (of_groups - of_groups.mean(axis=1, keepdims=True)).ravel()


def test_only_those_are_asked_about_whose_answer_can_turn_an_advantage() -> None:
    """A row far above its group's mean is not asked about; its score is imputed, marked, and adds up in its explanation."""
    costly = Costly()
    cheap, answers = [1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.51, 0.49], [0.8, 0.7, 0.75, 0.2, 0.3, 0.25, 0.5, 0.5]
    with trained(costly, Ask(tolerance=0.03, random_share=1e-9), weight=0.5) as composer:
        composition = composer.compose(batch_of(cheap, answers))
    judge = composition.rewards["judge"]
    statuses = [judge.status(row) for row in range(SIZE)]
    assert set(statuses[:6]) == {"imputed"}
    assert statuses[6:] == ["scored", "scored"]
    assert costly.rows == [6, 7]
    imputed = judge.imputed[0]
    assert abs(imputed.value - 0.75) < imputed.half_width < 0.5
    assert math.isnan(judge.raw[0])
    assert judge.weighted[0] == 0.5 * imputed.value
    explanation = composition.explain(0)
    step = explanation.steps[0]
    assert step.cells()[1] == "imputed"
    assert step.note.startswith(
        f"imputed; {imputed.value:.4g} ± {imputed.half_width:.2g}, not asked: cannot change an adv"
    )
    assert math.fsum(value for _, value in explanation.additions()) == pytest.approx(explanation.total)
    assert composition.to_records()[0]["rewards"]["judge"]["status"] == "imputed"
    metrics = composition.metrics()
    assert metrics["reward/judge/asked_share"] == 0.25
    assert metrics["reward/judge/imputed_share"] == 0.75
    assert metrics["reward/judge/abstained"] == 0
    assert "flipped_share" not in "".join(key for key in metrics if "cheap" in key)


@pytest.mark.parametrize("noise", [0.1, 0.4])
def test_a_half_width_is_that_of_the_confidence_cut_at_the_declared_range(noise: float) -> None:
    """Of an answer by itself, of a group that has none yet: noise and what groups have in common."""
    confidence = 0.95
    with Composer(parts(Costly(), Ask(confidence=confidence, random_share=1e-9), weight=1e-6)) as composer:
        composer.compose(noisy(64, seed=99, noise=noise))
        prediction = composer.combiner._model.prediction
        judge = composer.compose(noisy(4, seed=1)).rewards["judge"]
    half = prediction.width(confidence) * math.sqrt(prediction.noise**2 + prediction.common)
    assert len(judge.imputed) == 4 * SIZE
    for one in judge.imputed.values():
        assert one.half_width == pytest.approx(max(min(half, one.value), min(half, 1 - one.value)))
    assert (half > 0.5) == (noise == 0.4)


def test_a_row_that_a_gate_stops_is_not_asked_about() -> None:
    """Its total is the floor whatever the answer, also where the rest of its group is asked about."""
    costly = Costly()
    ask = Ask(confidence=0.99, waves=2, random_share=1e-9)
    gate = Gate("cheap", max=0.3, floor=0.55)
    with Composer(parts(costly, ask), gates=[gate]) as composer:
        composer.compose(noisy(64, seed=99))
        costly.calls.clear()
        composer.compose(batch_of([0.8, 0.9, 0.8, 0.9, 0.2, 0.2, 0.2, 0.2], [0.35] * SIZE))
    assert sorted(costly.rows) == [4, 5, 6, 7]


def test_everything_is_asked_until_the_intervals_can_be_measured() -> None:
    """The first groups are asked about in full, and some of the later ones are not."""
    costly = Costly()
    with Composer(parts(costly, Ask())) as composer:
        shares = []
        for seed in range(12):
            composer.compose(noisy(4, seed))
            shares.append(len(costly.rows) / 32)
            costly.calls.clear()
    least = -(-LEAST_GROUPS // 4)
    assert shares[:least] == [1.0] * least
    assert min(shares[least:]) < 0.9


@pytest.mark.parametrize(
    ("fields", "size"),
    [({"training": False}, SIZE), ({"group": None}, SIZE), ({}, 1)],
    ids=["evaluation", "no groups", "alone"],
)
def test_where_no_advantage_is_known_every_row_is_asked_about(fields: dict[str, Any], size: int) -> None:
    """An evaluation wants scores; without groups, or alone in one, a row has nothing to be compared with."""
    costly = Costly()
    batch = replace(noisy(4, seed=1), **fields) if fields else noisy(8, seed=1, size=size)
    with trained(costly, Ask(confidence=0.75)) as composer, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        composition = composer.compose(batch)
    assert any("every row is asked about" in str(one.message) for one in told) == batch.training
    assert sorted(costly.rows) == [*range(len(batch))]
    assert not composition.rewards["judge"].imputed


@st.composite
def ranged_batches(draw: st.DrawFn) -> RewardBatch:
    size = draw(st.integers(2, 5))
    groups = draw(st.integers(1, 3))
    values = st.integers(0, 20).map(lambda twentieths: twentieths / 20)
    rows = size * groups
    return batch_of(
        draw(st.lists(values | st.none(), min_size=rows, max_size=rows)),
        draw(st.lists(values, min_size=rows, max_size=rows)),
        size=size,
        first=draw(st.integers(0, 10**6)),
    )


@pytest.mark.parametrize("policy", ["advantage", "order"])
@given(
    batch=ranged_batches(),
    weight=st.sampled_from([-0.5, 0.1, 0.3, 1.0]),
    tolerance=st.sampled_from([0.0, 0.05]),
    gated=st.booleans(),
    normalizer=st.sampled_from([MinMax, lambda: FixedZScore(FixedZScoreParams(mean=0.5, std=0.2, clip=1.5))]),
    waves=st.integers(1, 3),
)
@settings(max_examples=80, deadline=None)
def test_with_confidence_1_nothing_turns_that_always_asking_would_have_told(
    policy: str, batch: RewardBatch, weight: float, tolerance: float, gated: bool, normalizer: Any, waves: int
) -> None:
    """The declared range alone bounds an open answer: signs (and orders) are those of asking always, whatever is said."""
    gates = [Gate("cheap", min=0.3, floor=0.1, on_missing="pass")] if gated else []
    ask = Ask(policy=policy, confidence=1.0, tolerance=tolerance, random_share=1e-9, waves=max(waves, 2))
    costly = Costly()
    with Composer(parts(costly, ask, weight, normalizer=normalizer()), gates=gates) as composer:
        composer.compose(noisy(40, seed=5))
        saved = composer.compose(batch)
    with Composer(parts(Costly(), None, weight, normalizer=normalizer()), gates=gates) as always:
        full = always.compose(batch)
    for rows in batch.groups():
        then, now = full.totals[rows], saved.totals[rows]
        gaps = [(then - then.mean(), now - now.mean())]
        if policy == "order":
            gaps.append(((then[:, None] - then).ravel(), (now[:, None] - now).ravel()))
        for true, found in gaps:
            turned = (np.abs(true) > tolerance + 1e-9) & (np.sign(true) * np.where(np.abs(found) > 1e-9, found, 0) < 0)
            assert not turned.any(), (then, now)


def covariance(size: int, open_n: np.ndarray, answers: int, noise: float, common: float) -> np.ndarray:
    """Of the answers of a group, once some rows that are not open have answered: written out, by conditioning."""
    total = size + answers
    full = common * np.ones((total, total)) + noise**2 * np.eye(total)
    known = np.arange(size, total)
    here = np.arange(size)
    found = full[np.ix_(here, here)]
    if answers:
        across = full[np.ix_(here, known)]
        found = found - across @ np.linalg.inv(full[np.ix_(known, known)]) @ across.T
    return np.where(open_n[:, None] & open_n, found, 0.0)


@given(
    totals=st.lists(st.floats(-3, 3), min_size=2, max_size=5),
    open_bits=st.lists(st.booleans(), min_size=5, max_size=5),
    slopes=st.lists(st.floats(0.1, 2), min_size=5, max_size=5),
    answers=st.integers(0, 3),
    noise=st.floats(0.05, 1),
    common=st.floats(0, 1),
    width=st.sampled_from([0.5, 1.6, math.inf]),
    tolerance=st.sampled_from([0.0, 0.2]),
    policy=st.sampled_from(["advantage", "order"]),
)
@settings(max_examples=200, deadline=None)
def test_certainty_equals_a_slow_reference(
    totals: list[float],
    open_bits: list[bool],
    slopes: list[float],
    answers: int,
    noise: float,
    common: float,
    width: float,
    tolerance: float,
    policy: str,
) -> None:
    """Variances are those of the covariance matrix conditioned on the answers; range bounds those of the worst corner."""
    size = len(totals)
    total_n, open_n, slope_n = np.array(totals), np.array(open_bits[:size]), np.array(slopes[:size])
    low_n, high_n = (
        np.where(open_n, total_n - 0.3 * slope_n, total_n),
        np.where(open_n, total_n + 0.7 * slope_n, total_n),
    )
    prediction = Prediction(np.zeros(2), np.zeros(1), noise, common, np.empty(0), 9)
    one = lambda column_n: column_n[None]  # noqa: E731 - one group of one size
    groups = OpenGroups(
        np.arange(size)[None], *map(one, (total_n, slope_n, low_n, high_n, open_n)), np.array([float(answers)])
    )
    found_n = groups.certainty(Ask(policy=policy, tolerance=tolerance), prediction, width)[0]
    spread_nn = slope_n[:, None] * slope_n * covariance(size, open_n, answers, noise, common)
    corners = np.array([*itertools.product(*zip(low_n, high_n, strict=True))])

    def certainty(direction_n: np.ndarray) -> float:
        distance = float(direction_n @ total_n)
        reached = corners @ direction_n
        fall, rise = distance - reached.min(), reached.max() - distance
        reach = fall if distance > 0 else rise if distance < 0 else max(fall, rise)
        if math.isfinite(width):
            reach = min(reach, width * math.sqrt(max(direction_n @ spread_nn @ direction_n, 0.0)))
        return (abs(distance) + tolerance) / reach if reach > 1e-12 else math.inf

    unit = np.eye(size)
    for row in range(size):
        expected = certainty(unit[row] - 1 / size)
        if policy == "order":
            expected = min(expected, *(certainty(unit[row] - unit[other]) for other in range(size) if other != row))
        assert min(found_n[row], 1e9) == pytest.approx(min(expected, 1e9), rel=1e-6)


@pytest.mark.parametrize("confidence", [0.7, 0.9])
def test_intervals_hold_as_often_as_they_say(confidence: float) -> None:
    """Of answers less their group's mean as many are within the width as the confidence says, on groups never learnt from."""
    model = ScoreModel(1)
    draw = np.random.default_rng(3)

    def group_of(groups: int) -> tuple[np.ndarray, np.ndarray]:
        cheap = draw.random(groups * SIZE)
        heavy = draw.standard_t(3, groups * SIZE) * 0.05
        common = np.repeat(draw.normal(size=groups) * 0.2, SIZE)
        return np.stack([cheap, 0.3 * cheap + common + heavy], axis=1), np.repeat(np.arange(groups), SIZE)

    values_NK, group_N = group_of(120)
    use_N = 1.0 + group_N % 2
    model.learn(values_NK, group_N, use_N, np.ones(len(group_N)), np.full(len(group_N), np.nan))
    prediction = model.prediction
    assert prediction.slopes[0] == pytest.approx(0.3, abs=0.02)
    assert math.sqrt(prediction.common) == pytest.approx(0.2, rel=0.25)
    fresh_NK, _ = group_of(400)
    residual_Gn = (fresh_NK[:, 1] - prediction.of(fresh_NK[:, :1])).reshape(-1, SIZE)
    centred = np.abs(residual_Gn - residual_Gn.mean(axis=1, keepdims=True))
    within = centred <= prediction.width(confidence) * prediction.noise * math.sqrt(1 - 1 / SIZE)
    assert within.mean() == pytest.approx(confidence, abs=0.04)


def test_intervals_are_measured_on_the_last_groups_as_written_out() -> None:
    """Noise, what groups have in common, and residuals against loops; of groups of unequal sizes, the last 64."""
    model, draw = ScoreModel(1), np.random.default_rng(7)
    groups = [draw.random((size, 2)) + draw.normal() for size in draw.integers(2, 6, MOST_GROUPS + 9)]
    group_N = np.repeat(np.arange(len(groups)), [len(values) for values in groups])
    ones, none = np.ones(len(group_N)), np.full(len(group_N), np.nan)
    model.learn(np.concatenate(groups), group_N, 2.0 * ones, ones, none)
    within, means, sizes = [], [], []
    for values_nK in groups[-MOST_GROUPS:]:
        residual_n = values_nK[:, 1]  # nothing was taught, so 0 is expected of each
        within.append(residual_n - residual_n.mean())
        means.append(residual_n.mean())
        sizes.append(len(residual_n))
    variance = sum((part**2).sum() for part in within) / (sum(sizes) - MOST_GROUPS)
    common = np.mean([mean**2 - variance / size for mean, size in zip(means, sizes, strict=True)])
    scaled = [abs(part) / math.sqrt(variance * (size - 1) / size) for part, size in zip(within, sizes, strict=True)]
    prediction = model.prediction
    assert prediction.groups == MOST_GROUPS
    assert prediction.noise == pytest.approx(math.sqrt(variance))
    assert prediction.common == pytest.approx(common)
    np.testing.assert_allclose(prediction.residuals, np.sort(np.concatenate(scaled)))


def test_too_few_residuals_for_a_confidence_leave_the_range_alone() -> None:
    """The quantile of n residuals is none of a confidence above n / (n + 1)."""
    prediction = Prediction(np.zeros(2), np.zeros(1), 1.0, 0.0, np.arange(1.0, 10.0), 9)
    assert prediction.width(0.9) == 9.0
    assert prediction.width(0.91) == math.inf


def test_a_weight_counts_like_as_many_equal_rows() -> None:
    """A row that stands for others bends the line as they would have."""
    draw = np.random.default_rng(0)
    values_nK, weight_n = draw.random((6, 3)), np.array([1.0, 3.0, 1.0, 2.0, 1.0, 1.0])
    weighted, repeated = ScoreModel(2), ScoreModel(2)
    copies = np.repeat(np.arange(6), weight_n.astype(int))
    for model, rows, weights in ((weighted, np.arange(6), weight_n), (repeated, copies, np.ones(9))):
        zeros, none = np.zeros(len(rows), dtype=np.intp), np.full(len(rows), np.nan)
        model.learn(values_nK[rows], zeros, np.zeros(len(rows)), weights, none)
    np.testing.assert_allclose(weighted.prediction.slopes, repeated.prediction.slopes)
    np.testing.assert_allclose(weighted.prediction.mean, repeated.prediction.mean)


def test_a_missing_score_of_another_reward_teaches_nothing_of_it() -> None:
    """It counts as the mean of its group, from the first group on, however far from 0 and from each other groups are."""
    draw = np.random.default_rng(0)
    level_N = np.repeat(1000.0 + 300.0 * np.arange(20), SIZE)
    cheap_N = level_N + draw.normal(size=len(level_N))
    values_NK = np.stack([cheap_N, 0.3 * (cheap_N - level_N)], axis=1)
    values_NK[::SIZE, 0] = np.nan
    model, nothing = ScoreModel(1), np.zeros(len(level_N))
    model.learn(values_NK, np.repeat(np.arange(20), SIZE), nothing, nothing + 1, nothing * np.nan)
    assert model.prediction.slopes[0] == pytest.approx(0.3, abs=0.02)


def test_rows_of_the_random_share_stand_for_those_that_are_left_out() -> None:
    """Of a group asked about in full, rows that the policy would have left out weigh by the inverse of their chance to teach.

    Half of the random share teaches, and half measures: at 0.2 a row that is left out elsewhere teaches with a chance of
    0.1, and one that is asked about anywhere with 0.9.
    """
    costly, share = Costly(), 0.2
    batch = noisy(60, seed=1)
    with trained(costly, Ask(random_share=share)) as composer, trained(Costly(), Ask(random_share=1e-9)) as left:
        model = composer.combiner._model
        left.combiner._model.load_state_dict(model.state_dict())
        others_BF, raw_B = (np.array(batch.column(name)) for name in ("cheap", "costly"))
        everyone_B = np.ones(len(batch), dtype=bool)
        use_B, weight_B, _ = training_data(
            Ask(random_share=share),
            model,
            batch,
            (0.0, 1.0),
            others_BF[:, None],
            raw_B,
            everyone_B,
            lambda: lambda raw: (others_BF + raw,) * 2,
        )
        imputed = left.compose(batch).rewards["judge"].imputed
    drawn = np.flatnonzero(use_B).tolist()
    assert {row for row in drawn if weight_B[row] > 1} == set(imputed) & set(drawn)
    assert sorted({*weight_B[drawn].tolist()}) == pytest.approx([1.0, (1 - share / 2) / (share / 2)])
    assert {*weight_B[use_B == 0].tolist()} == {1.0}


def test_a_sign_that_turns_within_the_tolerance_is_no_flip_and_a_group_with_a_failure_measures_nothing() -> None:
    """Both are left out of the share of flips, and the second of the intervals."""
    batch = noisy(60, seed=1)
    others_BF, raw_B = (np.array(batch.column(name)) for name in ("cheap", "costly"))
    raw_B[3] = np.nan

    def tried(tolerance: float) -> np.ndarray:
        with trained(Costly(), Ask()) as composer:
            return training_data(
                Ask(confidence=0.6, tolerance=tolerance, random_share=1.0),
                composer.combiner._model,
                batch,
                (0.0, 1.0),
                others_BF[:, None],
                raw_B,
                np.ones(len(batch), dtype=bool),
                lambda: lambda raw: (others_BF + raw,) * 2,
            )

    use_B, weight_B, flipped_B = tried(0.0)
    assert {*weight_B[~np.isnan(raw_B)].tolist()} == {1.0}, "everyone is asked, so nobody stands for others"
    assert np.nansum(flipped_B) > 0
    assert np.nansum(tried(3.0)[2]) == 0
    assert (use_B[:SIZE] == 0).all()
    assert np.isnan(flipped_B[:SIZE]).all()
    assert (use_B[SIZE:] > 0).all()


@pytest.mark.parametrize(("budget", "most"), [(2, 2), (0.5, 4), (0.3, 3), (100, SIZE)])
def test_a_budget_bounds_the_calls_about_a_group(budget: float, most: int) -> None:
    """No group that is not drawn has more calls, the least certain go first, and the reason says that they are spent."""
    costly = Costly()
    batch = noisy(10, seed=3)
    ask = Ask(confidence=0.995, budget=budget, random_share=1e-9)
    with trained(costly, ask) as composer:
        composition = composer.compose(batch)
    per_group = np.bincount(np.array(costly.rows) // SIZE, minlength=10)
    assert per_group.max() == most
    if most < SIZE:
        reasons = [composition.rewards["judge"].reason(row) for row in composition.rewards["judge"].imputed]
        assert any(f"{most} calls a group are spent" in reason for reason in reasons)


@pytest.mark.parametrize("waves", [1, 2, 3])
def test_no_batch_takes_more_calls_one_after_another_than_its_waves(waves: int) -> None:
    """Each wave is one call of the reward, and nobody is asked twice."""
    costly = Costly()
    reasons = []
    with trained(costly, Ask(waves=waves)) as composer:
        for seed in range(10):
            costly.calls.clear()
            judge = composer.compose(noisy(8, seed)).rewards["judge"]
            reasons += [one.reason for one in judge.imputed.values()]
            assert len(costly.calls) <= waves
            assert len(set(costly.rows)) == len(costly.rows)
    left_undecided = any("there is no other wave" in reason for reason in reasons)
    assert left_undecided == (waves == 1)  # the last of several asks about all of an undecided group


@pytest.mark.parametrize("budget", [3, 5, 6])
def test_the_last_wave_keeps_to_the_budget_too(budget: int) -> None:
    """Where a group is undecided after it, no more of it is asked about than may be."""
    costly = Costly()
    with trained(costly, Ask(budget=budget, waves=2, random_share=1e-9)) as composer:
        composer.compose(noisy(60, seed=3))
    assert np.bincount(np.array(costly.rows) // SIZE).max() <= budget


def test_a_higher_confidence_asks_more() -> None:
    """And 1 asks about nearly all where the costly reward weighs as much as the other."""
    counts = []
    for confidence in (0.75, 0.9, 0.97, 1.0):
        costly = Costly()
        with trained(costly, Ask(confidence=confidence, random_share=1e-9)) as composer:
            composer.compose(noisy(30, seed=2))
        counts.append(len(costly.rows))
    assert counts == sorted(counts)
    assert counts[0] < 0.6 * counts[-1]


def test_what_the_group_said_so_far_moves_what_is_expected_of_the_rest() -> None:
    """Where the answers of a group have much in common, one answer far above what was expected lifts the imputed ones."""
    costly = Costly()
    ask = Ask(budget=1, random_share=1e-9)
    cheap = [0.9, 0.9, 0.9, 0.1, 0.1, 0.1, 0.5, 0.5]
    found = []
    for level in (0.2, 0.8):
        with Composer(parts(costly, ask)) as composer:
            composer.compose(noisy(64, seed=99, noise=0.02, common=0.2))
            composition = composer.compose(batch_of(cheap, [level] * SIZE))
        found.append(np.array([one.value for one in composition.rewards["judge"].imputed.values()]))
    assert len(found[0]) == len(found[1]) == SIZE - 1
    assert (found[1] > found[0] + 0.4).all()


def test_rows_that_conditions_keep_from_it_are_not_imputed() -> None:
    """They get what ``otherwise`` says; of those that meet the condition only some are asked about."""
    costly = Costly()
    settings = {"when": [RewardCondition("cheap", min=0.5)], "otherwise": 0.0}
    with trained(costly, Ask(confidence=0.85, random_share=1e-9), weight=0.3, **settings) as composer:
        batch = noisy(10, seed=4)
        composition = composer.compose(batch)
    judge = composition.rewards["judge"]
    low = [row for row, value in enumerate(batch.column("cheap")) if value < 0.5]
    assert [judge.status(row) for row in low] == ["not asked"] * len(low)
    assert not set(low) & set(judge.imputed)
    assert 0 < len(costly.rows) < len(batch) - len(low)
    np.testing.assert_array_equal(judge.normalized[low], 0.0)


def test_failures_and_abstentions_among_those_asked_stay_what_they_are() -> None:
    """A failure is a failure and leaves its group without the reward; nothing is taught by it."""
    costly = Costly()
    with trained(costly, Ask(random_share=1e-9)) as composer:
        state = composer.combiner._model.count
        batch = batch_of([0.5] * SIZE, [Score.failed("outage"), None, *[0.5] * 6])
        composition = composer.compose(batch)
        judge = composition.rewards["judge"]
        assert composer.combiner._model.count == pytest.approx(state * 0.5 ** (6 / 1024) + 6)
    assert judge.status(0) == "failed"
    assert judge.status(1) == "abstained"
    assert judge.masked[2:].all()


def test_every_answer_teaches_and_what_is_imputed_does_not() -> None:
    """No normalizer, mean or regression learns from a number that the reward did not give."""
    costly = Costly()
    with trained(costly, Ask(confidence=0.75, random_share=1e-9)) as composer:
        before = composer.combiner._model.count
        composer.compose(noisy(8, seed=1))
        asked = len(costly.rows)
        after = composer.combiner._model.count
    assert 0 < asked < 64
    assert before < after <= before + asked


def test_state_resumes_the_same_decisions() -> None:
    """After a checkpoint, through JSON, the same rows are asked about as without the interruption."""
    one, other = Costly(), Costly()
    with trained(one, Ask()) as composer, Composer(parts(other, Ask())) as resumed:
        gap = noisy(20, seed=8)
        composer.compose(replace(gap, columns={**gap.columns, "cheap": [None, *gap.columns["cheap"][1:]]}))
        one.calls.clear()
        resumed.load_state_dict(json.loads(json.dumps(composer.state_dict(), allow_nan=False)))
        for seed in range(4):
            here, there = composer.compose(noisy(6, seed)), resumed.compose(noisy(6, seed))
            np.testing.assert_array_equal(here.totals, there.totals)
        assert one.calls == other.calls
        assert json.dumps(composer.state_dict()) == json.dumps(resumed.state_dict())


def test_state_of_another_policy_is_refused() -> None:
    """What was learnt belongs to how it was asked; a composition without ``ask`` is another one too."""
    with trained(Costly(), Ask()) as composer:
        state = composer.state_dict()
    for ask in (Ask(confidence=0.8), None):
        with Composer(parts(Costly(), ask)) as other, pytest.raises(StateError, match="saved with ask"):
            other.load_state_dict(state)


def test_ranks_learn_and_ask_as_one() -> None:
    """Two ranks with half of the groups each end with one state, that of one process, and ask about the same rows."""
    batches = [noisy(16, seed=0), noisy(16, seed=1), noisy(6, seed=2), noisy(6, seed=3)]
    alone = Costly()
    with Composer(parts(alone, Ask())) as composer:
        expected = [composer.compose(batch).totals for batch in batches]
        state = composer.state_dict()
    exchange = Ranks(2)
    costly = [Costly(), Costly()]

    def work(rank: int) -> tuple[list[np.ndarray], dict[str, Any]]:
        with Composer(parts(costly[rank], Ask()), all_gather=exchange.all_gather(rank)) as composer:
            halves = [range(len(batch) // 2 * rank, len(batch) // 2 * (rank + 1)) for batch in batches]
            totals = [composer.compose(b.select(half)).totals for b, half in zip(batches, halves, strict=True)]
            return totals, composer.state_dict()

    with ThreadPoolExecutor(2) as pool:
        found = [*pool.map(work, range(2))]
    for index, totals in enumerate(expected):
        np.testing.assert_allclose(np.concatenate([totals_of[index] for totals_of, _ in found]), totals, rtol=1e-12)
    assert json.dumps(found[0][1]) == json.dumps(found[1][1]) == json.dumps(state)
    assert sorted(costly[0].rows + costly[1].rows) == sorted(alone.rows)


def test_submitting_gives_what_composing_does() -> None:
    """Waves run in the background too."""
    batch = noisy(8, seed=1)
    with trained(Costly(), Ask()) as one, trained(Costly(), Ask()) as other:
        np.testing.assert_array_equal(one.compose(batch).totals, other.submit(batch).result().totals)


def test_the_random_share_is_drawn_by_texts() -> None:
    """About as many groups as asked for, the same ones however the batch is cut, half of them to teach."""
    batch = noisy(2000, seed=0, size=2)
    group_B = np.array(batch.group)
    use_B = drawn_groups(batch, group_B, 0.1, ready=True)
    assert (use_B > 0).mean() == pytest.approx(0.1, abs=0.02)
    assert (use_B[use_B > 0] == 1).mean() == pytest.approx(0.5, abs=0.1)
    rows = [*range(1000, 1600)]
    np.testing.assert_array_equal(drawn_groups(batch.select(rows), group_B[rows], 0.1, ready=True), use_B[rows])


def test_groups_asked_about_in_full_tell_what_the_policy_would_have_turned() -> None:
    """The share of signs in the metrics is that of the policy tried on the groups that were drawn: about what really turned."""
    turned = rows = 0
    with trained(Costly(), Ask(confidence=0.65, random_share=0.5)) as composer:
        for seed in range(40):
            batch = noisy(8, seed)
            composition = composer.compose(batch)
            true = advantages(np.array(batch.column("cheap")) + np.array(batch.column("costly")))
            saved = (
                np.array([row in composition.rewards["judge"].imputed for row in range(64)]).reshape(8, 8).any(axis=1)
            )
            open_rows = np.repeat(saved, 8)
            turned += int((true * advantages(composition.totals) < 0)[open_rows].sum())
            rows += int(open_rows.sum())
    said = composition.metrics()["reward/judge/flipped_share"]
    assert 0.5 * turned / rows < said < 2 * turned / rows


def test_the_ledger_keeps_no_imputed_score(tmp_path: Path) -> None:
    """The cache has the answers alone, the record says what was imputed, and explains it as it was explained."""
    costly = Costly()
    ledger = Ledger(tmp_path / "ledger.sqlite")
    with Composer(parts(costly, Ask(random_share=1e-9), weight=0.3), ledger=ledger) as composer:
        composer.compose(noisy(64, seed=99))
        composition = composer.compose(noisy(4, seed=1))
    imputed = composition.rewards["judge"].imputed
    with Ledger(tmp_path / "ledger.sqlite", create=False) as read:
        run = read.run()
        entry = [*read.batches(run)][-1]
        again = entry.composition(run.rewards)
        rows = [*read.rows()][-32:]
    assert imputed
    assert again.rewards["judge"].imputed == imputed
    assert [str(again.explain(row)) for row in range(32)] == [str(composition.explain(row)) for row in range(32)]
    assert all((rows[row]["rewards"]["judge"]["raw"] is None) == (row in imputed) for row in range(32))
    assert {row for row in range(32) if "imputed" in rows[row]["rewards"]["judge"]} == set(imputed)


def config(ask: Any, **judge: Any) -> dict[str, Any]:
    module = "tests.composer.test_asking"
    return {
        "rewards": {
            "cheap": {"use": f"{module}:cheap_reward"},
            "judge": {"use": f"{module}:costly_reward", "ask": ask, **judge},
        }
    }


cheap_reward = Given("cheap")
costly_reward = Costly()


def test_what_if_keeps_what_was_imputed_and_invents_nothing(tmp_path: Path) -> None:
    """With an ``ask`` the totals of the record come out again; without one the missing answers are unknown."""
    composition = _recorded(tmp_path)
    imputed = len(composition.rewards["judge"].imputed)
    same = what_if(composition, config("advantage"))
    np.testing.assert_allclose(same.new_totals, same.totals)
    with pytest.warns(UserWarning, match=f"would be asked about {imputed} rows"):
        full = what_if(composition, config(None))
    assert full.unrecorded == {"judge": imputed}


def _recorded(folder: Path) -> Composition:
    with Composer(parts(Costly(), Ask(random_share=1e-9))) as composer:
        composer.compose(noisy(64, seed=99))
        return composer.compose(noisy(4, seed=1))


def test_a_config_says_the_same_as_python() -> None:
    """``ask: advantage`` alone has every default."""
    for given_, expected in (
        ("advantage", Ask()),
        ({"policy": "order", "confidence": 0.8, "tolerance": 0.1, "budget": 0.5}, Ask("order", 0.8, 0.1, 0.5)),
    ):
        with Composer.from_config(config(given_)) as composer:
            assert composer.components["judge"].ask == expected
            assert "judge is asked where its answer matters" in composer._repr_html_()


@pytest.mark.parametrize("budget", [0, 0.0, -1, 2.5])
def test_a_budget_of_nothing_is_refused_by_name(budget: float) -> None:
    """In a config and in Python."""
    with pytest.raises(ConfigError, match=r"rewards\.judge\.ask\.budget.*budget of nothing"):
        Composer.from_config(config({"budget": budget}))
    with pytest.raises(ConfigError, match="budget"):
        Ask(budget=budget)


@pytest.mark.parametrize(
    "settings",
    [
        {"policy": "sign"},
        {"confidence": 0.5},
        {"confidence": 1.5},
        {"tolerance": -0.1},
        {"random_share": 0},
        {"random_share": 1.1},
        {"waves": 0},
    ],
)
def test_settings_out_of_bounds_are_refused(settings: dict[str, Any]) -> None:
    """Each by its name."""
    (name,) = settings
    with pytest.raises(ConfigError, match=name):
        Ask(**settings)
    with pytest.raises(ConfigError, match=rf"rewards\.judge\.ask\.{name}"):
        Composer.from_config(config(settings))


def _with_another(components: dict[str, Component], name: str, part: Component) -> dict[str, Component]:
    return {**components, name: part}


@pytest.mark.parametrize(
    ("components", "settings", "problem"),
    [
        (parts(Costly(None), Ask()), {}, "nothing can be saved safely"),
        (parts(Costly((0.0, math.inf)), Ask()), {}, "nothing can be saved safely"),
        (parts(CostlyGroup(), Ask()), {}, "compares the completions"),
        *(
            (parts(Costly(), Ask(), normalizer=normalizer), {}, "makes of a score what the others make of it")
            for normalizer in (ZScore(), GroupZScore(), Rank())
        ),
        (parts(Costly(), Ask(), weight=0), {}, "no answer matters"),
        ({"judge": parts(Costly(), Ask())["judge"]}, {}, "there is no other reward"),
        (parts(Costly(), Ask()), {"aggregator": Minimum()}, "no weighted sum"),
        (parts(Costly(), Ask()), {"gates": [Gate("judge", min=0.5, floor=0.0)]}, "a gate must know"),
        (parts(Costly(), Ask()), {"constraints": [Constraint("judge", max=0.5)]}, "follows its mean"),
        (
            {
                "judge": parts(Costly(), Ask())["judge"],
                "cheap": Component(
                    Given("cheap"), weight=Schedule(Linear(0, 1, end=5), trigger=Crossing("judge", above=0.5))
                ),
            },
            {},
            "follows its mean",
        ),
        (
            _with_another(
                parts(Costly(), Ask()),
                "late",
                Component(Given("cheap"), when=[RewardCondition("judge", min=0.5)], otherwise=0.0),
            ),
            {},
            "the condition of another reward",
        ),
        (
            _with_another(parts(Costly(), Ask()), "second", parts(Costly(), Ask())["judge"]),
            {},
            "judge and second have one",
        ),
    ],
)
def test_what_cannot_be_right_is_refused(
    components: dict[str, Component], settings: dict[str, Any], problem: str
) -> None:
    """Before anything is scored, with the reason and the next step."""
    with pytest.raises(ConfigError, match=problem) as caught:
        Composer(components, **settings)
    assert caught.value.hint


def test_separate_rewards_of_gdpo_are_refused() -> None:
    """Who was asked follows from the advantage of the total, and GDPO has another."""
    with trained(Costly(), Ask()) as composer:
        with pytest.raises(ConfigError, match="who is asked follows from the total"):
            composer.for_trl(separate=True)
        with pytest.raises(ConfigError, match="ask"):
            composer.compose(noisy(4, seed=0)).columns_for_gdpo()


def test_other_rewards_may_learn_and_fail(tmp_path: Path) -> None:
    """A cheap reward's running statistics are taken as they will be after the batch, and its gaps as its mean."""
    costly = Costly()
    components = {**parts(costly, Ask(confidence=0.8)), "cheap": Component(Given("cheap"), normalizer=ZScore())}
    with Composer(components) as composer:
        for seed in range(8):
            batch = noisy(8, seed)
            cheap = [None if row % 11 == 0 else value for row, value in enumerate(batch.column("cheap"))]
            composition = composer.compose(replace(batch, columns={**batch.columns, "cheap": cheap}))
            assert not np.isnan(composition.totals).any()
    assert composition.rewards["judge"].imputed


def test_an_evaluation_scores_every_completion_and_may_leave_either_reward_out() -> None:
    """What a composition is measured by are answers; without the others the costly reward is an ordinary one."""
    costly = Costly()
    batch = noisy(6, seed=1)
    candidates = [
        Candidate(
            prompt, completion, {name: values[row] for name, values in batch.columns.items()}, group=batch.group[row]
        )
        for row, (prompt, completion) in enumerate(zip(batch.prompts, batch.completions, strict=True))
    ]
    with trained(costly, Ask(confidence=0.75), weight=0.5) as composer:
        scored = ScoredCompletions(composer, candidates)
    assert sorted(costly.rows) == [*range(48)]
    np.testing.assert_allclose(scored.totals(["judge"]), 0.5 * np.array(batch.column("costly")))
    np.testing.assert_allclose(scored.totals(["cheap"]), batch.column("cheap"))


class Revised(Costly):
    """The costly reward, later than when it was recorded."""

    version = "2"


def recorded_run(file: Path, *batches: RewardBatch, ask: Ask | None = None) -> Path:
    """The ledger of a run that composed these batches."""
    with Ledger(file) as ledger, Composer(parts(Costly(), ask), ledger=ledger) as composer:
        for batch in batches:
            composer.compose(batch)
    return file


def test_what_an_earlier_run_answered_saves_calls_from_the_first_batch_on(tmp_path: Path) -> None:
    """As in a run that learned the same groups itself: half of them teach, half of them measure the intervals."""
    costly, own = Costly(), Costly()
    past = recorded_run(tmp_path / "ledger.sqlite", noisy(64, seed=99))
    batch = noisy(10, seed=1)
    with Composer(parts(costly, Ask(past=past))) as warm, trained(own, Ask()) as taught:
        learned = warm.combiner._model.state_dict()
        assert learned == taught.combiner._model.state_dict()
        warm.compose(batch)
        taught.compose(batch)
    assert costly.calls == own.calls
    assert 0 < len(costly.rows) < len(batch)


def test_only_groups_drawn_for_it_measure_the_intervals_of_a_run_that_left_rows_out(tmp_path: Path) -> None:
    """The others were asked about because they were undecided, and would make the intervals those of such groups."""
    first, later = noisy(64, seed=99), noisy(200, seed=5)
    past = recorded_run(tmp_path / "ledger.sqlite", first, later, ask=Ask(random_share=0.2))
    with Composer(parts(Costly(), Ask(random_share=0.2, past=past))) as composer:
        measured = composer.combiner._model.measured
    answers = {tuple(values[:, -1].tolist()) for values in measured}
    use_B = drawn_groups(later, np.array(later.group), 0.2, ready=True)
    drawn = {tuple(later.column("costly")[row : row + SIZE]) for row in np.flatnonzero(use_B == 2)[::SIZE].tolist()}
    of_later = {tuple(later.column("costly")[row : row + SIZE]) for row in range(0, len(later), SIZE)}
    assert answers & of_later == drawn & answers
    assert answers & drawn
    with pytest.raises(ConfigError, match=r"fewer groups in full .*rewards\.judge\.ask\.past|ask\.past.*fewer groups"):
        Composer(parts(Costly(), Ask(random_share=0.9, past=past)))


@pytest.mark.parametrize(
    ("batch", "costly", "problem"),
    [
        (noisy(64, seed=99), Revised(), "judge is .*version='2'.*and in run 1.*version='1'"),
        (noisy(4, seed=99), Costly(), "too few groups"),
        (batch_of([0.5] * 8, [0.5] * 8, group=None), Costly(), "too few groups"),
    ],
    ids=["another version", "few groups", "no groups"],
)
def test_a_past_that_teaches_nothing_of_this_run_is_refused(
    tmp_path: Path, batch: RewardBatch, costly: Costly, problem: str
) -> None:
    """Before anything is scored, with the key of the setting."""
    past = recorded_run(tmp_path / "ledger.sqlite", batch)
    with pytest.raises(ConfigError, match=problem) as caught:
        Composer(parts(costly, Ask(past=past)))
    assert caught.value.key == "rewards.judge.ask.past"


def test_a_past_is_named_relative_to_the_config(tmp_path: Path) -> None:
    """And one that is not there is refused in its place in the file."""
    (tmp_path / "rewards.py").write_text(
        "from rlaif_sdk import reward\n\n\ndef cheap(completion_texts):\n    return [len(text) / 99 for text in completion_texts]\n\n\n"
        "@reward(range=(0, 1), version='1')\nasync def judge(completion_texts):\n    return [min(1.0, len(text) / 99) for text in completion_texts]\n"
    )
    config = (
        "rewards:\n  cheap: {use: './rewards.py:cheap'}\n"
        "  judge: {use: './rewards.py:judge', ask: {policy: advantage, past: earlier.sqlite}}\n"
    )
    (tmp_path / "rewards.yaml").write_text(config)
    with pytest.raises(ConfigError, match=r"rewards\.yaml.*judge\.ask\.past.*earlier\.sqlite"):
        Composer.from_config(tmp_path / "rewards.yaml")
    (tmp_path / "before.yaml").write_text(config.replace(", past: earlier.sqlite", "") + "ledger: earlier.sqlite\n")
    with Composer.from_config(tmp_path / "before.yaml") as composer:
        composer.compose(noisy(64, seed=99))
    with Composer.from_config(tmp_path / "rewards.yaml") as composer:
        assert composer.compose(noisy(10, seed=1)).rewards["judge"].imputed


def test_many_large_groups_are_chosen_from_like_each_alone_and_in_little_memory() -> None:
    """The differences of all totals after each number of calls would take half a gigabyte here."""
    draw = np.random.default_rng(0)
    groups, size = 64, 48
    totals = draw.normal(size=(groups, size))
    rows, ones = np.arange(totals.size).reshape(totals.shape), np.ones(totals.shape)
    several = OpenGroups(rows, totals, ones, totals - 3, totals + 3, ones > 0, np.zeros(groups))
    prediction = Prediction(np.zeros(2), np.zeros(1), 0.02, 0.0, np.ones(1), 64)
    most = draw.integers(0, size + 1, size=groups)
    tracemalloc.start()
    chosen = several.choose(Ask(policy="order"), prediction, 1.6, most)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 200 << 20
    assert 0 < chosen.sum() < totals.size
    for group in range(0, groups, 9):
        alone = several.among(np.array([group])).choose(Ask(policy="order"), prediction, 1.6, most[group : group + 1])
        assert alone.tolist() == chosen[group : group + 1].tolist()
