from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from rlaif_sdk import Composer, ConfigError, Registry, RewardBatch
from rlaif_sdk.composer.aggregators import (
    Aggregator,
    Minimum,
    Product,
    ProductParams,
    WeightedSum,
)
from rlaif_sdk.composer.panels import Cascade, Panel, PanelParams
from rlaif_sdk.composer.weights import Linear, Schedule
from rlaif_sdk.testing import FixedReward

NAN = math.nan
BY = ("mean", "median", "trimmed", "worst", "majority")
MAPPINGS = ("exp", "softplus", "sigmoid", "clamp")
MAPPED: dict[str, Callable[[float], float]] = {
    "exp": math.exp,
    "softplus": lambda value: math.log1p(math.exp(value)),
    "sigmoid": lambda value: 1 / (1 + math.exp(-value)),
    "clamp": lambda value: max(value, 1e-3),
}


def bound(aggregator: Aggregator, rewards: int) -> Aggregator:
    aggregator.bind({f"r{index}": (0.0, 2.0) for index in range(rewards)})
    return aggregator


def aggregators(rewards: int) -> list[Aggregator]:
    return [
        bound(aggregator, rewards)
        for aggregator in (
            WeightedSum(),
            Minimum(),
            *(Product(ProductParams(mapping=mapping)) for mapping in MAPPINGS),
            *(Panel(PanelParams(by=by, doubt=doubt)) for by in BY for doubt in (0.0, 1.5)),
            Cascade(),
        )
    ]


@st.composite
def problems(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    rewards, rows = draw(st.integers(1, 5)), draw(st.integers(0, 6))
    elements = st.floats(-5, 5) | st.just(NAN)
    values_RB = draw(npst.arrays(np.float64, (rewards, rows), elements=elements))
    weights = st.just(0.0) | st.floats(0.01, 2)
    return values_RB, draw(npst.arrays(np.float64, (rewards,), elements=weights))


def aggregate(aggregator: Aggregator, *values: float, weights: list[float] | None = None) -> float:
    values_RB = np.array(values)[:, None]
    totals_B, _ = bound(aggregator, len(values)).aggregate(values_RB, np.array(weights or [1.0] * len(values)))
    return float(totals_B[0])


def test_minimum_lets_the_worst_reward_decide() -> None:
    """However good the others are."""
    assert aggregate(Minimum(), 0.9, 0.2, 5.0) == 0.2
    assert aggregate(Minimum(), 0.9, 0.4, 5.0, weights=[0.2, 1.0, 1.0]) == pytest.approx(0.18)


def test_minimum_leaves_out_what_has_no_weight_or_no_value() -> None:
    """An observed reward does not bind, and an outage is no minimum."""
    assert aggregate(Minimum(), 0.1, 0.5, weights=[0.0, 1.0]) == 0.5
    assert aggregate(Minimum(), NAN, 0.5) == 0.5
    totals_B, shares_RB = bound(Minimum(), 2).aggregate(np.array([[3.0], [NAN]]), np.array([0.0, 1.0]))
    assert np.isnan(totals_B[0])
    assert shares_RB[0, 0] == 0.0


@pytest.mark.parametrize("mapping", MAPPINGS)
@given(values=st.lists(st.floats(-5, 5), min_size=1, max_size=4), data=st.data())
def test_product_is_the_product_of_the_mapped_values_to_the_power_of_their_weights(
    mapping: str, values: list[float], data: st.DataObject
) -> None:
    """Beside the formula, one factor at a time."""
    weights = data.draw(st.lists(st.floats(0.1, 2), min_size=len(values), max_size=len(values)))
    expected = math.prod(MAPPED[mapping](value) ** weight for value, weight in zip(values, weights, strict=True))
    total = aggregate(Product(ProductParams(mapping=mapping)), *values, weights=weights)
    assert total == pytest.approx(expected, rel=1e-9)


def test_product_with_an_outage_stays_on_the_scale_of_its_neighbours() -> None:
    """The exponents of the others are scaled up, so that a row of equal factors is as before."""
    product = Product(ProductParams(mapping="clamp"))
    assert aggregate(product, 0.5, 0.5, NAN) == pytest.approx(aggregate(product, 0.5, 0.5, 0.5))


def test_softplus_of_a_very_low_value_is_no_zero() -> None:
    """Far below 0 it is e^x, so that the order of bad rows is kept."""
    product = Product(ProductParams(mapping="softplus"))
    assert 0 < aggregate(product, -600.0) < aggregate(product, -599.0)


@given(problems())
def test_the_shares_of_a_row_sum_to_its_total(problem: tuple[np.ndarray, np.ndarray]) -> None:
    """The waterfall adds up whatever the aggregator, and says nothing of what was missing."""
    values_RB, weights_R = problem
    for aggregator in aggregators(len(weights_R)):
        totals_B, shares_RB = aggregator.aggregate(values_RB, weights_R)
        scored_B = ~np.isnan(totals_B)
        np.testing.assert_allclose(np.nansum(shares_RB, axis=0)[scored_B], totals_B[scored_B], rtol=1e-6, atol=1e-9)
        assert np.isnan(shares_RB[np.isnan(values_RB)]).all()


@given(problems())
def test_a_row_is_unscored_exactly_when_nothing_with_a_weight_is_present(
    problem: tuple[np.ndarray, np.ndarray],
) -> None:
    """Nothing stands in for nothing, with any aggregator."""
    values_RB, weights_R = problem
    expected_B = (np.isnan(values_RB) | (weights_R == 0)[:, None]).all(axis=0)
    for aggregator in aggregators(len(weights_R)):
        totals_B, _ = aggregator.aggregate(values_RB, weights_R)
        assert (np.isnan(totals_B) == expected_B).all(), type(aggregator).__name__


@given(problems())
def test_rows_do_not_see_each_other(problem: tuple[np.ndarray, np.ndarray]) -> None:
    """A row's total is the same alone and in any company."""
    values_RB, weights_R = problem
    for aggregator in aggregators(len(weights_R)):
        together_B, _ = aggregator.aggregate(values_RB, weights_R)
        for row in range(values_RB.shape[1]):
            alone_B, _ = aggregator.aggregate(values_RB[:, [row]], weights_R)
            np.testing.assert_allclose(together_B[row], alone_B[0], rtol=1e-12)


@given(problems(), st.data())
def test_a_better_value_never_gives_a_worse_total(problem: tuple[np.ndarray, np.ndarray], data: st.DataObject) -> None:
    """Every aggregator is monotonic in every reward, but for a panel that takes off doubt; see tests/composer/test_panels.py."""
    values_RB, weights_R = problem
    if not values_RB.size:
        return
    index = data.draw(st.integers(0, len(weights_R) - 1))
    better_RB = values_RB.copy()
    better_RB[index] += 0.5
    for aggregator in aggregators(len(weights_R)):
        if isinstance(aggregator, Panel) and aggregator.params.doubt:
            continue
        before_B, _ = aggregator.aggregate(values_RB, weights_R)
        after_B, _ = aggregator.aggregate(better_RB, weights_R)
        scored_B = ~np.isnan(before_B)
        assert (after_B[scored_B] >= before_B[scored_B] - 1e-6 * np.abs(before_B[scored_B]) - 1e-9).all()


@pytest.mark.parametrize(
    ("aggregator", "name"),
    [
        (Minimum(), "minimum"),
        (Product(ProductParams(mapping="exp")), "product"),
    ],
)
def test_a_weight_that_is_or_becomes_negative_is_refused_where_it_has_no_meaning(
    aggregator: Aggregator, name: str
) -> None:
    """A schedule counts with everything that it will ever be."""
    falling = Schedule(Linear(start_value=1.0, end_value=-1.0, end=10))
    for weight in (-1.0, falling):
        with pytest.raises(ConfigError, match=rf"rewards\.a\.weight: {name}: the weight of 'a' is or becomes -1"):
            Composer({"a": FixedReward([1.0])}, weights={"a": weight}, aggregator=aggregator)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("product", r"aggregate: product needs a 'mapping' that makes values positive"),
        ("{kind: product, mapping: square}", r"aggregate\.mapping: input should be 'exp', 'softplus', 'sigmoid'"),
        ("{kind: product, mapping: clamp, floor: 0}", r"aggregate\.floor: input should be greater than 0"),
        ("{kind: minimum, floor: 0}", r"aggregate\.floor: unknown key"),
        ("minimun", r"aggregate: no installed plugin offers the aggregator 'minimun' \(did you mean 'minimum'\?\)"),
    ],
)
def test_an_ill_formed_aggregator_is_refused_at_load_with_its_line(
    text: str, problem: str, write: Callable[[str, str], Path], registry: Registry
) -> None:
    """The message names the file, the line and what to write instead."""
    write("scores.py", "def score(prompts, completions): return [1.0] * len(prompts)")
    path = write(
        "c.yaml",
        f"""
        aggregate: {text}
        rewards:
          a: {{use: "./scores.py:score"}}
          b: {{use: "./scores.py:score"}}
        """,
    )
    with pytest.raises((ConfigError, LookupError), match=rf"c\.yaml:2: {problem}"):
        Composer.from_config(path, registry=registry)


def test_an_aggregator_is_chosen_in_the_config(write: Callable[[str, str], Path], registry: Registry) -> None:
    """By the name under which a plugin offers it, with its parameters."""
    write("scores.py", "def low(prompts, completions): return [0.25]\ndef high(prompts, completions): return [0.5]")
    path = write(
        "c.yaml",
        """
        aggregate: {kind: product, mapping: clamp}
        rewards:
          low: {use: "./scores.py:low"}
          high: {use: "./scores.py:high", weight: 2}
        """,
    )
    with Composer.from_config(path, registry=registry) as composer:
        composition = composer.compose(RewardBatch(["p"], ["c"]))
    assert composition.totals.tolist() == pytest.approx([0.25 * 0.5**2])
