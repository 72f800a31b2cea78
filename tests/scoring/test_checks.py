from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif_sdk import Composer, Credit, CreditSpan, RewardBatch, RewardError, Score
from rlaif_sdk.composer import Component, FailurePolicy, Ledger
from rlaif_sdk.exceptions import RewardOutputError
from rlaif_sdk.scoring.checks import check_entries, plain_scores
from rlaif_sdk.scoring.wire import decode_reply, encode_scores
from rlaif_sdk.testing import FailingReward, FixedReward
from tests.patient import patient

BATCH = RewardBatch(prompts=["a"] * 3, completions=["b"] * 3)


class Tensor:
    """A stand-in for a framework's tensor: it has a length and tolist, and is no Sequence."""

    def __len__(self):
        return 3

    def tolist(self):
        return [1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (None, "returned NoneType where a list of 3 scores is wanted"),
        (1.0, "returned float"),
        ("abc", "returned str"),
        (b"abc", "returned bytes"),
        ({0: 1.0, 1: 1.0, 2: 1.0}, "returned dict"),
        ({1.0, 2.0, 3.0}, "returned set"),
        (iter([1.0, 2.0, 3.0]), "returned list_iterator"),
        ([1.0, 2.0], "returned 2 scores for 3 rows"),
        ([1.0] * 4, "returned 4 scores for 3 rows"),
        ([[1.0, 2.0, 3.0]], "returned 1 scores for 3 rows"),
        (Tensor(), r"returned Tensor .*scores.tolist\(\)"),
        (np.zeros((3, 1)), r"returned ndarray .*scores.tolist\(\)"),
        (np.array(["a", "b", "c"]), "returned ndarray"),
        (np.ma.array([1.0, 2.0, 3.0], mask=[0, 1, 0]), r"returned MaskedArray .*scores.tolist\(\)"),
    ],
)
def test_an_answer_of_the_wrong_shape_fails_altogether(answer: object, problem: str) -> None:
    """Nothing is broadcast, cut, or guessed at."""
    with pytest.raises(RewardOutputError, match=problem):
        plain_scores(answer, 3)


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        (math.nan, "returned nan"),
        (math.inf, "returned inf"),
        (-math.inf, "returned -inf"),
        (np.float32("nan"), "returned nan"),
        (10**400, "returned inf"),
        (True, "returned bool"),
        (np.True_, "returned bool"),
        ("1.0", "returned str"),
        ([1.0], "returned list"),
        (Tensor(), "returned Tensor"),
        (1j, "returned complex"),
        (Decimal(1), "returned Decimal"),
        (Score(math.nan), "returned nan"),
        (Score(True), "returned bool"),
        (Score("high"), "returned str"),  # type: ignore[arg-type]
        (Score.failed("rate limit"), "rate limit"),
        (Score(1.0, error="half an answer"), "half an answer"),
        (Score(1.0, credit=Credit([0.5, math.nan])), "credit that is not all finite"),
        (Score(1.0, credit=Credit(["a"])), "credit that is not all finite"),  # type: ignore[list-item]
        (Score(1.0, credit=[1.0]), "gave list for credit, where a Credit is wanted"),  # type: ignore[arg-type]
        (Score(1.0, credit=Credit(turns=1.0)), "turns or spans are no sequence"),  # type: ignore[arg-type]
        (Score(1.0, credit=Credit(spans=None)), "turns or spans are no sequence"),  # type: ignore[arg-type]
        (Score(1.0, credit=Credit(spans=(CreditSpan(0.5, 2, 1.0),))), "no CreditSpan with whole numbers"),  # type: ignore[arg-type]
        (Score(1.0, credit=Credit(spans=((0, 2, 1.0),))), "no CreditSpan with whole numbers"),  # type: ignore[arg-type]
        (Score(1.0, credit=Credit(rest=1.0, view="all")), "the view 'all'"),  # type: ignore[arg-type]
        (Score(1.0, credit=Credit(turns=[0.5, 0.2])), "credit that sums to 0.7, and the score 1"),
        (-0.1, r"returned -0.1, outside its declared range \[0, 1000\]"),
        (1001, "outside its declared range"),
        (Score(-5.0), "outside its declared range"),
    ],
)
def test_an_entry_that_is_no_score_fails_its_row_alone(entry: object, problem: str) -> None:
    """Its neighbours keep their scores; the failed row is unscored, never 0."""
    answer = check_entries(plain_scores([1.0, entry, 2], 3), (0, 1000))
    assert list(answer.failures) == [1]
    assert problem.replace("\\", "") in answer.failures[1]
    np.testing.assert_array_equal(answer.raw, [1.0, math.nan, 2.0])


@pytest.mark.parametrize(
    ("entry", "value"),
    [(2, 2.0), (np.float32(0.5), 0.5), (np.int64(3), 3.0), (Fraction(1, 4), 0.25), (Score(0.5, reason="x"), 0.5)],
)
def test_every_real_number_is_a_score(entry: object, value: float) -> None:
    """Plain, NumPy and exact numbers, bare or in a Score."""
    assert check_entries(plain_scores([entry, 0.0], 2), (0, 1000)).raw[0] == value


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.int32, np.float16])
def test_a_flat_numpy_array_is_a_list_of_scores(kind: type) -> None:
    """The usual result of vectorised rewards needs no conversion."""
    assert check_entries(plain_scores(np.array([0, 1, 2], dtype=kind), 3), None).raw.tolist() == [0, 1, 2]


DETAILS: dict[str, tuple[object, object]] = {
    "long integer": (16**5000, "0x1" + "0" * 5000),
    "long key": ({-(16**5000): [1]}, {"-0x1" + "0" * 5000: [1]}),
    "long double": (np.longdouble(1), repr(np.longdouble(1))),
    "array of objects": (np.array([Decimal(1), None], dtype=object), ["Decimal('1')", None]),
    "nested": ([np.array([1, 2]), (np.float32(0.5), {3})], [[1, 2], [0.5, "{3}"]]),
}


@pytest.mark.parametrize("what", DETAILS)
def test_a_detail_of_any_kind_is_kept_and_costs_no_score(tmp_path: Path, what: str) -> None:
    """With a ledger, and without one: as JSON can hold it."""

    def detailed(completions, **_):
        return [Score(1.0, details={"it": DETAILS[what][0]})] * len(completions)

    with Ledger(tmp_path / "ledger.db") as ledger:
        for kept in (None, ledger):
            with Composer({"detailed": detailed}, ledger=kept) as composer:
                score = composer.compose(BATCH).rewards["detailed"].score(0)
            assert score is not None
            assert score.details == {"it": DETAILS[what][1]}
            assert decode_reply(encode_scores([score])) == [score]


def test_token_values_beyond_every_float_fail_their_row_in_a_process_too() -> None:
    """JSON has no text for them."""
    entries = plain_scores([Score(1.0, credit=Credit([10**5000, None])), 0.5], 2)
    for arrived in (entries, decode_reply(encode_scores(entries))):
        assert check_entries(arrived, None).failures == {0: "gave credit that is not all finite numbers"}


@pytest.mark.parametrize("bound", [1.0, 1000.0, 1e6])
def test_rounding_in_32_bits_does_not_leave_the_declared_range(bound: float) -> None:
    """A sigmoid of 1.0000001 is 1; the slack grows with the bound."""
    above = float(np.nextafter(np.float32(bound), np.float32(2 * bound)))
    assert not check_entries(plain_scores([above, -above], 2), (-bound, bound)).failures
    assert check_entries(plain_scores([bound * 1.001], 1), (-bound, bound)).failures


def test_a_range_may_be_open_on_one_side() -> None:
    """Costs such as latencies have no greatest value."""
    answer = check_entries(plain_scores([1e38, -1.0], 2), (0.0, math.inf))
    assert list(answer.failures) == [1]


anything = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3), st.binary(max_size=3), st.complex_numbers(),
    st.lists(st.floats(), max_size=2), st.builds(Score, value=st.none() | st.floats() | st.booleans()),
)  # fmt: skip


@given(st.one_of(anything, st.lists(anything, min_size=3, max_size=3), st.dictionaries(st.integers(), anything)))
def test_whatever_a_reward_answers_no_infinity_or_unnamed_gap_reaches_a_total(answer: object) -> None:
    """Every row has a finite total, or is unscored with its status said."""
    rewards = {"wild": patient(FailingReward(lambda batch: answer)), "tame": FixedReward([1.0, None, 3.0])}
    with Composer(rewards) as composer:
        composition = composer.compose(BATCH)
    wild = composition.rewards["wild"]
    for row, total in enumerate(composition.to_list()):
        assert total is None or math.isfinite(total)
        assert (wild.status(row) == "scored") == math.isfinite(wild.raw[row])
        if row in wild.failures:
            assert wild.reason(row)
    if isinstance(answer, list):
        assert composition.to_list()[2] is not None


def test_a_sum_that_overflows_leaves_the_row_unscored() -> None:
    """An infinite total would silently give every advantage of its group 0."""
    rewards = {
        "a": Component(FixedReward([3e38, 1.0]), weight=1e300),
        "b": Component(FixedReward([1.0, 1.0]), weight=1e300),
    }
    with Composer(rewards) as composer, np.errstate(over="ignore", invalid="ignore"):
        composition = composer.compose(BATCH.select([0, 1]))
    assert composition.to_list() == [None, 2e300]
    assert composition.explain(0).note == "the sum overflows"


def test_a_run_that_stops_shows_the_plugin_s_own_traceback() -> None:
    """With policy `raise` the cause is chained, not only described."""
    component = Component(FailingReward(ZeroDivisionError("in my code")), failure=FailurePolicy("raise"))
    with (
        Composer({"mine": component}) as composer,
        pytest.raises(RewardError, match="reward 'mine': failed on 3 of 3") as caught,
    ):
        composer.compose(BATCH)
    causes = []
    error: BaseException | None = caught.value
    while error is not None:
        causes.append(type(error))
        error = error.__cause__
    assert ZeroDivisionError in causes
