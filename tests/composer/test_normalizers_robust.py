from __future__ import annotations

import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif_sdk.composer.normalizers import (
    GroupCenter,
    GroupRobust,
    GroupRobustParams,
    Robust,
    RobustParams,
    ZScore,
    ZScoreParams,
)
from rlaif_sdk.exceptions import StateError
from rlaif_sdk.statistics.groups import group_medians

NAN = float("nan")
scores = st.integers(-20, 20).map(lambda value: value / 4) | st.just(NAN)
rows = st.lists(st.tuples(scores, st.integers(0, 3)), max_size=20)


def slow_robust(values: list[float], asked: list[float]) -> list[float]:
    """The definition, with the statistics of the standard library."""
    median = statistics.median(values)
    distances = [abs(value - median) for value in values]
    scale = 1.482602218505602 * statistics.median(distances)
    scale = scale or 1.2533141373155001 * statistics.mean(distances)
    return [min(max((value - median) / (scale + 1e-8), -10.0), 10.0) for value in asked]


@given(st.lists(st.lists(scores, max_size=8), max_size=5), st.integers(2, 10))
def test_robust_is_the_distance_from_the_median_of_the_latest_scores(run: list[list[float]], window: int) -> None:
    """Beside a slow reference over the last ``window`` scores, however they were cut into batches."""
    robust = Robust(RobustParams(window=window))
    for batch in run:
        robust.update(np.array(batch, dtype=float), None)
    known = [value for batch in run for value in batch if value == value][-window:]
    asked = np.array([-3.0, 0.0, 0.25, 7.0])
    expected = slow_robust(known, asked.tolist()) if known else [0.0] * 4
    np.testing.assert_allclose(robust.normalize(asked, None), expected, rtol=1e-9)
    assert len(robust.state_dict()["window"]) <= window


@given(rows, st.booleans())
def test_group_robust_is_the_same_within_each_group(batch: list[tuple[float, int]], grouped: bool) -> None:
    """Beside a slow reference, group by group; without groups the batch is one."""
    values_B = np.array([value for value, _ in batch], dtype=float)
    labels = [label if grouped else 0 for _, label in batch]
    found = GroupRobust().normalize(values_B, np.array(labels, dtype=np.intp) if grouped else None)
    for row, (value, label) in enumerate(zip(values_B, labels, strict=True)):
        if value != value:
            assert np.isnan(found[row])
            continue
        mates = [mate for mate, its in zip(values_B, labels, strict=True) if its == label and mate == mate]
        assert found[row] == pytest.approx(slow_robust(mates, [value])[0], abs=1e-9)


@given(rows)
def test_group_medians_equal_the_standard_library(batch: list[tuple[float, int]]) -> None:
    """0 where a group has no value."""
    values_B = np.array([value for value, _ in batch], dtype=float)
    labels_B = np.array([label for _, label in batch], dtype=np.intp)
    for label, median in enumerate(group_medians(values_B, labels_B)):
        mates = values_B[(labels_B == label) & ~np.isnan(values_B)]
        assert median == (statistics.median(mates) if mates.size else 0.0)


def test_one_outlier_does_not_shrink_everyone_else() -> None:
    """With mean and deviation it would."""
    values_B = np.array([1.0, 2.0, 3.0, 4.0, 1e6])
    robust, plain = Robust(RobustParams(clip=None)), ZScore(ZScoreParams(clip=None))
    for normalizer in (robust, plain):
        normalizer.update(values_B, None)
    assert np.ptp(robust.normalize(values_B, None)[:4]) > 1
    assert np.ptp(plain.normalize(values_B, None)[:4]) < 1e-4


def test_a_binary_reward_keeps_a_finite_scale() -> None:
    """More than half are equal, so the median deviation is 0 and the mean deviation stands in."""
    values_B = np.array([0.0, 0.0, 0.0, 1.0])
    expected = 1 / (1.2533141373155001 * 0.25)
    for normalizer in (GroupRobust(GroupRobustParams(clip=None)), Robust(RobustParams(clip=None))):
        normalizer.update(values_B, None)
        assert normalizer.normalize(values_B, None).tolist() == pytest.approx([0.0, 0.0, 0.0, expected])


def test_equal_scores_give_0() -> None:
    """No spread, no advantage."""
    values_B = np.full(4, 0.1)
    robust = Robust()
    robust.update(values_B, None)
    assert robust.normalize(values_B, None).tolist() == [0.0] * 4
    assert GroupRobust().normalize(values_B, None).tolist() == [0.0] * 4
    assert robust.normalize(np.array([]), None).tolist() == []


@given(rows)
def test_group_center_is_the_score_less_the_mean_of_its_group(batch: list[tuple[float, int]]) -> None:
    """Beside a slow reference; the scale stays the reward's own."""
    values_B = np.array([value for value, _ in batch], dtype=float)
    labels_B = np.array([label for _, label in batch], dtype=np.intp)
    found = GroupCenter().normalize(values_B, labels_B)
    for row, (value, label) in enumerate(batch):
        mates = [mate for mate, its in batch if its == label and mate == mate]
        expected = value - statistics.mean(mates) if mates else NAN
        assert found[row] == pytest.approx(expected, abs=1e-9, nan_ok=True)


def test_a_window_larger_than_the_normalizer_s_is_refused() -> None:
    """State of another window is of another statistic."""
    large, small = Robust(), Robust(RobustParams(window=2))
    large.update(np.arange(5.0), None)
    with pytest.raises(StateError, match="a window of 2 scores at most"):
        small.load_state_dict(large.state_dict())
