from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif_sdk import Composer, Composition, ConfigError, Registry, RewardBatch
from rlaif_sdk.composer import Component, Gate
from rlaif_sdk.testing import FixedReward

GATES = [Gate("safe", min=0.5, floor=-10.0), Gate("true", min=0.5, floor=-5.0), Gate("short", min=0.5, floor=-1.0)]
outcomes = st.tuples(st.booleans(), st.booleans(), st.booleans(), st.floats(-20, 20))


def compose(rows: list[tuple], gates: list[Gate] = GATES) -> Composition:
    rewards = {
        name: Component(FixedReward([None if row[index] is None else float(row[index]) for row in rows]), weight=0.0)
        for index, name in enumerate(("safe", "true", "short"))
    }
    rewards["help"] = Component(FixedReward([row[3] for row in rows]))
    with Composer(rewards, gates=gates, gate_order="lexicographic") as composer:
        return composer.compose(RewardBatch(["p"] * len(rows), ["c"] * len(rows)))


def rank(row: tuple) -> int:
    """The first gate that a row fails; 3 when it passes all."""
    return next((index for index in range(3) if not row[index]), 3)


@given(st.lists(outcomes, min_size=2, max_size=12))
def test_a_row_that_fails_an_earlier_gate_ranks_below_every_row_that_fails_a_later_one(rows: list[tuple]) -> None:
    """Strictly among failing rows, and never above a row that passes, whatever the sums are."""
    totals = compose(rows).totals
    for one, total in zip(rows, totals, strict=True):
        for other, other_total in zip(rows, totals, strict=True):
            if rank(one) < rank(other):
                assert total < other_total if rank(other) < 3 else total <= other_total


@given(st.lists(outcomes, min_size=2, max_size=12))
def test_rows_that_fail_at_the_same_gate_keep_the_order_of_their_sums(rows: list[tuple]) -> None:
    """Within a rank a better sum is never a worse total, and no failing row is above its floor."""
    totals = compose(rows).totals
    for one, total in zip(rows, totals, strict=True):
        for other, other_total in zip(rows, totals, strict=True):
            if rank(one) == rank(other) and one[3] <= other[3]:
                assert total <= other_total
        if rank(one) < 3:
            assert total <= GATES[rank(one)].floor


def test_failing_a_gate_never_helps_a_row() -> None:
    """A passing row is not below the last floor, where failing could lift it."""
    assert compose([(1, 1, 1, -7.0), (1, 1, 0, -7.0), (1, 1, 1, 2.0)]).totals.tolist() == [-1.0, -3.0, 2.0]


def test_a_gate_without_a_score_leaves_the_row_unscored_even_behind_a_failed_one() -> None:
    """What is not known is not ranked; ``on_missing`` says otherwise where that is wanted."""
    assert compose([(0, None, 1, 1.0), (0, 1, 1, 1.0)]).to_list() == [None, -10.0]
    lenient = [Gate("safe", min=0.5, floor=-10.0, on_missing="floor"), Gate("true", min=0.5, floor=-5.0)]
    assert compose([(None, 1, 1, 1.0), (1, 0, 1, 1.0)], lenient).totals.tolist() == [-10.0, -5.0]


def test_one_gate_or_none_is_no_order() -> None:
    """The edges of the arithmetic."""
    assert compose([(1, 1, 1, 3.0)], []).totals.tolist() == [3.0]
    assert compose([(0, 1, 1, -50.0), (1, 1, 1, 3.0)], GATES[:1]).totals.tolist() == [-50.0, 3.0]
    assert np.isnan(compose([(1, 1, 1, None)]).totals[0])


@pytest.mark.parametrize("floors", [(-1.0, -2.0), (-1.0, -1.0)])
def test_floors_out_of_order_are_refused_at_load(
    floors: tuple[float, float], write: Callable[[str, str], Path], registry: Registry
) -> None:
    """The first gate matters most, so its floor is the lowest; the message points at the floor that is not above."""
    write("scores.py", "def score(prompts, completions): return [1.0] * len(prompts)")
    path = write(
        "c.yaml",
        f"""
        rewards:
          a: {{use: "./scores.py:score"}}
        gate_order: lexicographic
        gates:
          - {{reward: a, min: 0, floor: {floors[0]}}}
          - {{reward: a, min: 1, floor: {floors[1]}}}
        """,
    )
    with pytest.raises(
        ConfigError, match=r"c\.yaml:7: gates\.1\.floor: the floor .* is not above -1, that of the gate"
    ):
        Composer.from_config(path, registry=registry)


def test_the_order_of_gates_is_chosen_in_the_config(write: Callable[[str, str], Path], registry: Registry) -> None:
    """And nothing else is taken for one."""
    write("scores.py", "def score(prompts, completions): return [0.5] * len(prompts)")
    text = """
        rewards:
          a: {{use: "./scores.py:score"}}
        gate_order: {order}
        gates: [{{reward: a, min: 1, floor: -3}}, {{reward: a, min: 2, floor: -1}}]
        """
    for order in ("lexicographic", "independent"):
        with Composer.from_config(write("c.yaml", text.format(order=order)), registry=registry) as composer:
            assert composer.compose(RewardBatch(["p"], ["c"])).totals.tolist() == [-3.0]
    with pytest.raises(ConfigError, match=r"c\.yaml:4: gate_order: input should be 'independent' or 'lexicographic'"):
        Composer.from_config(write("c.yaml", text.format(order="strict")), registry=registry)
    with pytest.raises(ConfigError, match="gate_order is one of"):
        Composer({"a": FixedReward([1.0])}, gate_order="strict")
