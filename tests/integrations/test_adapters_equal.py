"""One config, one set of samples: every adapter gives the composer's own numbers, however its stack calls it."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from rlaif_sdk import RewardError
from tests.integrations.adapters import ADAPTERS, LOOPS
from tests.integrations.cases import CASES, Case, Row, build_composer, by_composer

pytest.importorskip("torch", reason="OpenRLHF and NeMo RL take tensors")

SINGLE = {"openrlhf", "openrlhf, a batch", "nemo rl", "nemo rl, parts"}
"""Those whose stack takes single-precision tensors."""


WAYS = {**LOOPS, **ADAPTERS}


@pytest.fixture(params=WAYS, ids=str)
def adapter(request: pytest.FixtureRequest) -> str:
    """Every adapter, and a loop without one."""
    return str(request.param)


def scored_by(adapter: str, cases: Sequence[Case]) -> list[Row]:
    with build_composer() as composer:
        return WAYS[adapter](composer, cases)


def assert_equal(adapter: str, rows: Sequence[Row], expected: Sequence[Row]) -> None:
    """The totals are the same, to the bit where the stack takes doubles, and so are each reward's scores."""
    tolerance = 1e-6 if adapter in SINGLE else 0.0
    assert [total is None for total, _ in rows] == [total is None for total, _ in expected]
    for (total, rewards), (true_total, true_rewards) in zip(rows, expected, strict=True):
        assert total == (true_total if true_total is None else pytest.approx(true_total, rel=tolerance, abs=0))
        for name, true in true_rewards.items() if rewards else ():
            assert rewards.get(name) == (true if true is None else pytest.approx(true, rel=tolerance, abs=0)), name


def test_the_suite_has_rows_of_every_kind():
    """Scored, gated, abstained, failed and unscored: else the suite would prove little."""
    totals = [total for total, _ in by_composer(CASES)]
    rewards = [row for _, row in by_composer(CASES)]
    assert len({total for total in totals if total is not None}) > 4
    assert min(total for total in totals if total is not None) == -1.0
    assert any(row["mentions"] is None for row in rewards)
    assert any(row["brevity"] is None for row in rewards)


def test_an_adapter_gives_the_composers_numbers(adapter):
    """All samples at once."""
    assert_equal(adapter, scored_by(adapter, CASES), by_composer(CASES))


def test_order_does_not_matter(adapter):
    """Shuffled samples get the numbers that they got in order."""
    order = random.Random(7).sample(range(len(CASES)), len(CASES))
    expected = by_composer(CASES)
    assert_equal(adapter, scored_by(adapter, [CASES[place] for place in order]), [expected[place] for place in order])


def test_one_at_a_time_is_the_same(adapter):
    """Each sample by itself gets the number that it got among others."""
    expected = by_composer(CASES)
    with build_composer() as composer:
        alone = [WAYS[adapter](composer, [case])[0] for case, (total, _) in zip(CASES, expected, strict=True)
                 if total is not None]  # fmt: skip
    assert_equal(adapter, alone, [row for row in expected if row[0] is not None])


def test_an_unscored_sample_gets_no_number_by_itself_either(adapter):
    """Alone it is unscored, or an error where the stack cannot leave it out: never the number of a judgement."""
    ((case, expected),) = [(case, row) for case, row in zip(CASES, by_composer(CASES), strict=True) if row[0] is None]
    with build_composer() as composer:
        try:
            rows = WAYS[adapter](composer, [case])
        except RewardError:
            return
    assert_equal(adapter, rows, [expected])
