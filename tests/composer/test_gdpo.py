from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from rlaif_sdk import BatchError, Composer, ConfigError, RewardBatch
from rlaif_sdk.composer import Component, Composition, Gate
from rlaif_sdk.composer.advantages import gdpo_advantages
from rlaif_sdk.testing import FixedReward

EPSILON = 1e-4


def slow_std(values: list[float]) -> float:
    mean = sum(values) / len(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))


def slow_reference(rewards_RB: np.ndarray, weights: list[float], group: list[int]) -> list[float]:
    """The definition, one number at a time."""
    rows = len(group)
    sums: list[float | None] = [None] * rows
    for row in range(rows):
        for rewards, weight in zip(rewards_RB, weights, strict=True):
            if math.isnan(rewards[row]):
                continue
            sums[row] = sums[row] or 0.0
            mates = [rewards[other] for other in range(rows) if group[other] == group[row]]
            mates = [value for value in mates if not math.isnan(value)]
            if len(mates) > 1:
                sums[row] += weight * (rewards[row] - sum(mates) / len(mates)) / (slow_std(mates) + EPSILON)
    scored = [value for value in sums if value is not None]
    if len(scored) < 2:
        return [0.0] * rows
    mean, std = sum(scored) / len(scored), slow_std(scored)
    return [0.0 if value is None else (value - mean) / (std + EPSILON) for value in sums]


@st.composite
def problems(draw: st.DrawFn, generations: int | None = None) -> tuple[np.ndarray, list[float], list[int]]:
    rewards, groups = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    sizes = [generations or draw(st.integers(1, 4)) for _ in range(groups)]
    group = [label for label, size in enumerate(sizes) for _ in range(size)]
    elements = st.integers(-20, 20).map(lambda value: value / 4) | st.just(math.nan)
    rewards_RB = draw(npst.arrays(np.float64, (rewards, len(group)), elements=elements))
    return rewards_RB, draw(st.lists(st.floats(-2, 2), min_size=rewards, max_size=rewards)), group


@given(problems(), st.randoms(use_true_random=False))
def test_advantages_equal_the_definition(problem: tuple[np.ndarray, list[float], list[int]], random: object) -> None:
    """Beside a slow reference, with groups of any size in any order and missing rewards."""
    rewards_RB, weights, group = problem
    order = list(range(len(group)))
    random.shuffle(order)
    rewards_RB, group = rewards_RB[:, order], [group[row] for row in order]
    found = gdpo_advantages(rewards_RB, np.array(weights), np.array(group, dtype=np.intp))
    np.testing.assert_allclose(found, slow_reference(rewards_RB, weights, group), rtol=1e-6, atol=1e-6)


@given(problems(generations=3))
def test_advantages_equal_the_arithmetic_of_trl(problem: tuple[np.ndarray, list[float], list[int]]) -> None:
    """With TRL's own nanstd, in 64 bits, step by step as its ``normalize_then_sum`` has them."""
    torch = pytest.importorskip("torch")
    nanstd = pytest.importorskip("trl.trainer.utils").nanstd
    rewards_RB, weights, group = problem
    rewards = torch.tensor(rewards_RB.T)
    grouped = rewards.view(-1, 3, rewards.shape[1])
    standardised = (grouped - torch.nanmean(grouped, dim=1, keepdim=True)) / (
        nanstd(grouped, dim=1, keepdim=True) + EPSILON
    )
    weighted = standardised.view(-1, rewards.shape[1]) * torch.tensor(weights, dtype=torch.float64)
    sums = weighted.nansum(dim=1)
    sums[torch.isnan(rewards).all(dim=1)] = torch.nan
    expected = torch.nan_to_num((sums - torch.nanmean(sums)) / (nanstd(sums) + EPSILON), nan=0.0)
    found = gdpo_advantages(rewards_RB, np.array(weights), np.array(group, dtype=np.intp))
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-6, atol=1e-6)


def compose(gates: list[Gate] | None = None, group: list | None = None) -> Composition:
    rewards = {
        "a": FixedReward([1.0, 2.0, 3.0, None]),
        "cost": Component(FixedReward([0.0, 1.0, None, None], higher_is_better=False), weight=0.5),
        "seen": Component(FixedReward([9.0] * 4), weight=0.0),
    }
    with Composer(rewards, gates=gates or []) as composer:
        return composer.compose(RewardBatch(["p"] * 4, ["c"] * 4, group=group))


def test_the_columns_for_gdpo_are_the_rewards_one_by_one() -> None:
    """Higher is better, None where missing, and what is only observed is left out."""
    assert compose().columns_for_gdpo() == {"a": [1.0, 2.0, 3.0, None], "cost": [-0.0, -1.0, None, None]}


def test_a_composition_gives_its_own_gdpo_advantages() -> None:
    """With the weights in force and the batch's groups."""
    rewards_RB = np.array([[1.0, 2.0, 3.0, np.nan], [0.0, -1.0, np.nan, np.nan]])
    expected = slow_reference(rewards_RB, [1.0, 0.5], [0, 0, 1, 1])
    np.testing.assert_allclose(compose(group=["x", "x", "y", "y"]).gdpo_advantages(), expected, atol=1e-6)


def test_what_cannot_hold_over_single_rewards_is_refused() -> None:
    """A gate over rewards that are standardised apart would gate nothing."""
    with pytest.raises(ConfigError, match="gates would not hold"):
        compose([Gate("a", min=0.0, floor=-1.0)]).columns_for_gdpo()
    with pytest.raises(BatchError, match="no 'group'"):
        compose().gdpo_advantages()
