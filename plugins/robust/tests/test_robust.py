"""What the package ``rlaif-robust`` promises: its normalizers beside slow references, and as a plugin."""

from __future__ import annotations

import statistics
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif_robust import GroupRobust, GroupRobustParams, Robust, RobustParams, group_medians, rlaif_normalizers
from rlaif_sdk import Composer, ConfigError, NormalizerSpec, Registry, RewardBatch, StateError
from rlaif_sdk.testing import check_normalizer_contract

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
    """With mean and standard deviation it would."""
    values_B = np.array([1.0, 2.0, 3.0, 4.0, 1e6])
    robust = Robust(RobustParams(clip=None))
    robust.update(values_B, None)
    assert np.ptp(robust.normalize(values_B, None)[:4]) > 1
    assert np.ptp(values_B[:4]) / values_B.std() < 1e-4


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


def test_a_window_larger_than_the_normalizer_s_is_refused() -> None:
    """State of another window is of another statistic."""
    large, small = Robust(), Robust(RobustParams(window=2))
    large.update(np.arange(5.0), None)
    with pytest.raises(StateError, match="a window of 2 scores at most"):
        small.load_state_dict(large.state_dict())


@pytest.mark.parametrize("spec", rlaif_normalizers(), ids=lambda spec: spec.name)
def test_they_keep_the_contract(spec: NormalizerSpec) -> None:
    """As any stranger's normalizer does."""
    check_normalizer_contract(spec)


@pytest.fixture
def scores(tmp_path: Path) -> str:
    """A reward with one absurd score in a hundred, as a config names it."""
    file = tmp_path / "scores.py"
    file.write_text("def scores(prompts, completions):\n    return [0.0] * 50 + [1.0] * 49 + [1e6]\n")
    return f"{file}:scores"


@pytest.mark.filterwarnings("ignore:.*compares completions to the same prompt")
@pytest.mark.parametrize("kind", ["robust", "group_robust"])
def test_a_config_finds_them_by_name_once_installed(scores: str, kind: str) -> None:
    """With the limits that go with every normalizer."""
    config = {"rewards": {"a": {"use": scores, "normalize": {"kind": kind, "winsorize": [0, 0.98]}}}}
    with Composer.from_config(config, registry=Registry.discover()) as composer:
        normalized = composer.compose(RewardBatch(["p"] * 100, ["c"] * 100)).rewards["a"].normalized
    assert normalized[99] == normalized[60] > normalized[0]


def test_a_parameter_that_cannot_be_is_refused_with_its_key(scores: str) -> None:
    """A window of one score has no scale."""
    config = {"rewards": {"a": {"use": scores, "normalize": {"kind": "robust", "window": 1}}}}
    with pytest.raises(ConfigError, match=r"rewards\.a\.normalize\.window: input should be greater than or equal to 2"):
        Composer.from_config(config, registry=Registry.discover())


def test_an_explanation_has_the_numbers_of_its_moment_and_the_limit() -> None:
    """Asked after more was learned, and of a group; what the formula gives is the value."""
    robust = Robust(RobustParams(clip=1.0))
    first = np.array([0.0, 1.0, 2.0, 10.0])
    robust.update(first, None)
    said = robust.working(first, None)
    robust.update(np.array([100.0] * 9), None)
    assert (
        said(3) == "(10 - 1.5) / 1.4826, at most 1 from 0 (median and robust deviation of the latest 4 training scores)"
    )
    group = GroupRobust().working(np.array([0.0, 2.0, 7.0]), np.array([0, 0, 1], dtype=np.intp))
    assert group(1) == "(2 - 1) / 1.4826, at most 10 from 0 (median and robust deviation of its group)"
    assert group(2) == "0, since there is no spread to measure by"
