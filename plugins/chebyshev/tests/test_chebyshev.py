"""What the package ``rlaif-chebyshev`` promises: its aggregator beside the formula, and as a plugin."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from rlaif_chebyshev import Chebyshev, ChebyshevParams, rlaif_aggregators
from rlaif_sdk import Composer, ConfigError, Registry, RewardBatch
from rlaif_sdk.testing import FixedReward, check_aggregator_contract

NAN = math.nan
PARAMS = (ChebyshevParams(ideal=1.0), ChebyshevParams(ideal=2.0, augmentation=0.1))


def bound(params: ChebyshevParams, rewards: int) -> Chebyshev:
    aggregator = Chebyshev(params)
    aggregator.bind({f"r{index}": (0.0, 2.0) for index in range(rewards)})
    return aggregator


@st.composite
def problems(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    rewards, rows = draw(st.integers(1, 5)), draw(st.integers(0, 6))
    values_RB = draw(npst.arrays(np.float64, (rewards, rows), elements=st.floats(-5, 5) | st.just(NAN)))
    return values_RB, draw(npst.arrays(np.float64, (rewards,), elements=st.just(0.0) | st.floats(0.01, 2)))


def test_it_is_minus_the_greatest_weighted_shortfall() -> None:
    """By hand: shortfalls 1 x 0.5, 2 x 0.4; and a tenth of their sum with augmentation."""
    values_RB, weights_R = np.array([[0.5], [1.6]]), np.array([1.0, 2.0])
    for augmentation, expected in ((0.0, -0.8), (0.1, -0.8 - 0.13)):
        params = ChebyshevParams(ideal={"r0": 1.0, "r1": 2.0}, augmentation=augmentation)
        totals_B, _ = bound(params, 2).aggregate(values_RB, weights_R)
        assert totals_B.tolist() == pytest.approx([expected])


def test_it_finds_a_trade_off_that_no_weighted_sum_finds() -> None:
    """A balanced answer in a hollow of the Pareto front wins, where every weighted sum prefers an extreme."""
    values_RB = np.array([[1.0, 0.4, 0.0], [0.0, 0.4, 1.0]])
    for share in np.linspace(0, 1, 21):
        assert (np.array([share, 1 - share]) @ values_RB).argmax() != 1
    totals_B, _ = bound(ChebyshevParams(ideal=1.0), 2).aggregate(values_RB, np.ones(2))
    assert totals_B.argmax() == 1


@given(problems())
def test_the_shares_of_a_row_sum_to_its_total(problem: tuple[np.ndarray, np.ndarray]) -> None:
    """A row is unscored exactly when nothing with a weight is present; what is missing has no share."""
    values_RB, weights_R = problem
    for params in PARAMS:
        totals_B, shares_RB = bound(params, len(weights_R)).aggregate(values_RB, weights_R)
        unscored_B = (np.isnan(values_RB) | (weights_R == 0)[:, None]).all(axis=0)
        assert (np.isnan(totals_B) == unscored_B).all()
        np.testing.assert_allclose(np.nansum(shares_RB, axis=0)[~unscored_B], totals_B[~unscored_B], atol=1e-9)
        assert np.isnan(shares_RB[np.isnan(values_RB)]).all()


@given(problems(), st.data())
def test_a_better_value_never_gives_a_worse_total(problem: tuple[np.ndarray, np.ndarray], data: st.DataObject) -> None:
    """The aggregator is monotonic in every reward."""
    values_RB, weights_R = problem
    better_RB = values_RB.copy()
    better_RB[data.draw(st.integers(0, len(weights_R) - 1))] += 0.5
    for params in PARAMS:
        before_B, _ = bound(params, len(weights_R)).aggregate(values_RB, weights_R)
        after_B, _ = bound(params, len(weights_R)).aggregate(better_RB, weights_R)
        scored_B = ~np.isnan(before_B)
        assert (after_B[scored_B] >= before_B[scored_B] - 1e-9).all()


def test_a_negative_weight_is_refused() -> None:
    """More of a reward must not be worse."""
    with pytest.raises(ConfigError, match=r"rewards\.a\.weight: chebyshev: the weight of 'a' is or becomes -1"):
        Composer({"a": FixedReward([1.0])}, weights={"a": -1.0}, aggregator=Chebyshev(PARAMS[0]))


@pytest.mark.parametrize(
    ("aggregate", "problem"),
    [
        ("chebyshev", "aggregate: chebyshev needs 'ideal'"),
        ({"kind": "chebyshev", "ideal": {"a": 1}}, "aggregate: chebyshev: 'ideal' has no value for 'b'"),
        (
            {"kind": "chebyshev", "ideal": {"a": 1, "b": 1, "c": 1}},
            "aggregate: chebyshev: 'ideal' names 'c'; there are a, b",
        ),
        ({"kind": "chebyshev", "ideal": 1, "augmentation": -1}, "aggregate.augmentation: input should be greater"),
    ],
)
def test_an_ill_formed_config_is_refused_with_its_key(tmp_path: Path, aggregate: object, problem: str) -> None:
    """Before any reward is asked."""
    file = tmp_path / "scores.py"
    file.write_text("def score(prompts, completions): return [1.0] * len(prompts)")
    config = {"aggregate": aggregate, "rewards": {name: {"use": f"{file}:score"} for name in "ab"}}
    with pytest.raises(ConfigError, match=problem):
        Composer.from_config(config, registry=Registry.discover())


def test_a_config_finds_it_by_name_once_installed(tmp_path: Path) -> None:
    """With an ideal for each reward."""
    file = tmp_path / "scores.py"
    file.write_text("def low(prompts, completions): return [0.25]\ndef high(prompts, completions): return [0.5]")
    rewards = {name: {"use": f"{file}:{name}"} for name in ("low", "high")}
    config = {"rewards": rewards, "aggregate": {"kind": "chebyshev", "ideal": {"low": 1, "high": 2}}}
    with Composer.from_config(config, registry=Registry.discover()) as composer:
        assert composer.compose(RewardBatch(["p"], ["c"])).totals.tolist() == [-1.5]


def test_it_keeps_the_contract() -> None:
    """As any stranger's aggregator does."""
    (spec,) = rlaif_aggregators()
    check_aggregator_contract(spec, params={"ideal": 1.0, "augmentation": 0.01})
