from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif_sdk import Composer, Composition, ConfigError, Registry, RewardBatch
from rlaif_sdk.composer import Component
from rlaif_sdk.composer.aggregators import Aggregator, Minimum, Product, ProductParams, RewardGroup, WeightedSum
from rlaif_sdk.composer.weights import Linear, Schedule
from rlaif_sdk.testing import FixedReward

values = st.floats(-5, 5)


def compose(
    scores: dict[str, list[float | None]],
    groups: dict[str, RewardGroup],
    weights: dict[str, float] | None = None,
    aggregator: Aggregator | None = None,
) -> Composition:
    weights = weights or {}
    rewards = {name: Component(FixedReward(column), weight=weights.get(name, 1.0)) for name, column in scores.items()}
    rows = len(next(iter(scores.values())))
    with Composer(rewards, groups=groups, aggregator=aggregator) as composer:
        return composer.compose(RewardBatch(["p"] * rows, ["c"] * rows))


def test_a_group_enters_the_whole_as_one() -> None:
    """By hand: 2 x 1 + 0.5 x min(3, 1 x 4)."""
    composition = compose(
        {"a": [1.0], "b": [3.0], "c": [4.0]}, {"style": RewardGroup(["b", "c"], 0.5, Minimum())}, {"a": 2.0}
    )
    assert composition.totals.tolist() == [3.5]
    assert composition.metrics()["group/style/weight"] == 0.5
    assert [float(column.weighted[0]) for column in composition.rewards.values()] == [2.0, 1.5, 0.0]


def test_groups_may_contain_groups() -> None:
    """By hand: min(5, 2 x (1 + 3 x min(2, 7)))."""
    groups = {"outer": RewardGroup(["b", "inner"], 2.0), "inner": RewardGroup(["c", "d"], 3.0, Minimum())}
    composition = compose({"a": [15.0], "b": [1.0], "c": [2.0], "d": [7.0]}, groups, aggregator=Minimum())
    assert composition.totals.tolist() == [14.0]


@given(st.lists(st.tuples(values, values, values), min_size=1, max_size=5), values)
def test_a_sum_within_a_sum_is_the_flat_sum(rows: list[tuple[float, float, float]], weight: float) -> None:
    """Weights multiply on the way down, in the totals and in the shares."""
    scores = {name: [row[index] for row in rows] for index, name in enumerate("abc")}
    nested = compose(scores, {"g": RewardGroup(["b", "c"], weight)}, {"b": 0.5})
    flat = compose(scores, {}, {"b": 0.5 * weight, "c": weight})
    np.testing.assert_allclose(nested.totals, flat.totals, atol=1e-9)
    for name in scores:
        np.testing.assert_allclose(nested.rewards[name].weighted, flat.rewards[name].weighted, atol=1e-9)


def test_a_group_without_any_score_leaves_its_weight_to_its_neighbours() -> None:
    """As a single reward with an outage would."""
    composition = compose({"a": [1.0, 1.0], "b": [None, 5.0], "c": [None, 3.0]}, {"g": RewardGroup(["b", "c"], 2.0)})
    assert composition.totals.tolist() == [3.0, 17.0]


@given(st.lists(st.tuples(*[values | st.none()] * 4), min_size=1, max_size=5))
def test_the_shares_of_nested_rewards_sum_to_the_total(rows: list[tuple[float | None, ...]]) -> None:
    """The waterfall adds up through every level and outage."""
    scores = {name: [row[index] for row in rows] for index, name in enumerate("abcd")}
    groups = {
        "outer": RewardGroup(["b", "inner"], 0.7),
        "inner": RewardGroup(["c", "d"], 1.3, Product(ProductParams(mapping="softplus"))),
    }
    for aggregator in (WeightedSum(), Minimum()):
        composition = compose(scores, groups, aggregator=aggregator)
        shares_B = np.nansum([column.weighted for column in composition.rewards.values()], axis=0)
        scored_B = ~np.isnan(composition.totals)
        np.testing.assert_allclose(shares_B[scored_B], composition.totals[scored_B], atol=1e-9)


def test_the_weight_of_a_group_may_be_a_schedule() -> None:
    """It is in the state and the log like any other."""
    groups = {"g": RewardGroup(["b"], Schedule(Linear(1.0, 0.0, end=4), by="episode"))}
    with Composer({"a": FixedReward([0.0]), "b": FixedReward([1.0])}, groups=groups) as composer:
        totals = [composer.compose(RewardBatch(["p"], ["c"])).totals[0] for _ in range(6)]
        assert totals == pytest.approx([1.0, 0.75, 0.5, 0.25, 0.0, 0.0])
        assert composer.state_dict()["weights"]["g"]["state"]["episodes"] == 6


CONFIG = """
    rewards:
      a: {{use: "./scores.py:score"}}
      b: {{use: "./scores.py:score"}}
    groups:
      style: {style}
      other: {other}
"""


@pytest.mark.parametrize(
    ("style", "other", "problem"),
    [
        (
            "{members: [a], gates: [{reward: a, min: 0, floor: -1}]}",
            "{members: [b]}",
            r"c\.yaml:6: groups\.style\.gates: a gate in a group would not gate the whole",
        ),
        ("{members: []}", "{members: [b]}", r"c\.yaml:6: groups\.style\.members: "),
        (
            "{members: [a, x]}",
            "{members: [b]}",
            r"c\.yaml:6: groups\.style: there is no member 'x' \(there are a, b, style",
        ),
        ("{members: [a]}", "{members: [a]}", r"c\.yaml:7: groups\.other: 'a' is in this group and in 'style'"),
        ("{members: [other]}", "{members: [style]}", r"groups\.style: the group contains itself"),
        (
            "{members: [a], weight: .inf}",
            "{members: [b]}",
            r"c\.yaml:6: groups\.style\.weight: input should be a finite",
        ),
        ("{members: [a], aggregate: minimun}", "{members: [b]}", r"c\.yaml:6: groups\.style\.aggregate: "),
        ("{members: [a], aggregate: product}", "{members: [b]}", r"c\.yaml:6: groups\.style\.aggregate: product needs"),
    ],
)
def test_an_ill_formed_group_is_refused_at_load_with_its_line(
    style: str, other: str, problem: str, write: Callable[[str, str], Path], registry: Registry
) -> None:
    """Above all a gate that would bound its group's share alone, while the other rewards make up for it."""
    write("scores.py", "def score(prompts, completions): return [1.0] * len(prompts)")
    with pytest.raises((ConfigError, LookupError), match=problem):
        Composer.from_config(write("c.yaml", CONFIG.format(style=style, other=other)), registry=registry)


def test_a_group_may_not_have_the_name_of_a_reward() -> None:
    """A name means one thing."""
    with pytest.raises(ConfigError, match=r"groups\.a: 'a' is the name of a reward too"):
        compose({"a": [1.0], "b": [1.0]}, {"a": RewardGroup(["b"])})


def test_a_group_in_a_config(write: Callable[[str, str], Path], registry: Registry) -> None:
    """Members, weight and aggregator, by name."""
    write("scores.py", "def one(prompts, completions): return [1.0]\ndef two(prompts, completions): return [2.0]")
    path = write(
        "c.yaml",
        """
        rewards:
          a: {use: "./scores.py:one"}
          b: {use: "./scores.py:two"}
          c: {use: "./scores.py:one"}
        groups:
          style: {members: [b, c], weight: 0.5, aggregate: minimum}
        """,
    )
    with Composer.from_config(path, registry=registry) as composer:
        assert composer.compose(RewardBatch(["p"], ["c"])).totals.tolist() == [1.5]
