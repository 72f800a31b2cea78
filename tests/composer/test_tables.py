"""Scoring tables in chunks."""

import contextlib
import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif_sdk import Composer, DataError, RewardBatch, reward
from rlaif_sdk.cli.score import print_summary
from rlaif_sdk.composer import Component
from rlaif_sdk.composer.tables import Moments, Summary, TableLayout, chunks, score_records
from rlaif_sdk.testing import FixedReward


@given(st.lists(st.integers(0, 4)), st.integers(1, 5))
def test_a_group_is_never_cut_and_no_row_is_lost(labels, rows):
    """Whatever the chunk size, rows of one label stay in one chunk, and all rows come out in order."""
    records = [{"g": label, "i": index} for index, label in enumerate(sorted(labels))]
    found = list(chunks(records, TableLayout(group="g"), rows=rows))
    assert [record for chunk in found for record in chunk] == records
    for left, right in itertools.pairwise(found):
        assert left[-1]["g"] != right[0]["g"]
        assert len(left) >= rows


@given(st.lists(st.integers(0, 4)), st.integers(1, 5))
def test_however_groups_are_mixed_none_is_in_two_chunks(labels, rows):
    """Chunks are given out only until a group would be in a second one, and all of them where none is."""
    records = [{"g": label} for label in labels]
    found = []
    with contextlib.suppress(DataError):
        found += chunks(records, TableLayout(group="g"), rows=rows)
    groups = [{record["g"] for record in chunk} for chunk in found]
    assert sum(map(len, groups)) == len(set().union(*groups))


@pytest.mark.parametrize(
    ("labels", "row"),
    [
        ("abab", 3),
        ([["a"], ["b"], ["a"]], 3),
        ([1, "1", 1.0], 3),
        ([None, None, None], None),
        ([math.nan, math.nan], None),
        ("aabb", None),
    ],
    ids=["alternating", "messages", "numbers", "null", "NaN", "together"],
)
def test_alternating_groups_are_refused_by_the_row_that_comes_back(labels, row):
    """Rows of a group that would be normalised apart are never groups of their own in silence; null is no label."""
    records = [{"prompt": "p", "completion": "c", "g": label} for label in labels]
    composer = Composer({"fixed": FixedReward(1.0)})
    scored = score_records(composer.compose, records, TableLayout(group="g"), chunk=1, file="rows.jsonl")
    if row is None:
        assert sum(len(rows) for rows, _ in scored) == len(records)
    else:
        with pytest.raises(DataError, match=rf"rows\.jsonl:{row}"):
            list(scored)


@given(st.lists(st.one_of(st.just(math.nan), st.floats(-1e6, 1e6)), max_size=40))
def test_moments_equal_numpys_and_leave_nan_out(values):
    """Count, mean, spread and extremes are those of the values that are there."""
    moments = Moments()
    moments.add(values)
    present = np.array([value for value in values if not math.isnan(value)])
    assert moments.count == len(present)
    if len(present):
        assert moments.mean == pytest.approx(present.mean(), abs=1e-6)
        assert moments.std == pytest.approx(present.std(), rel=1e-6, abs=1e-4)
        assert (moments.low, moments.high) == (present.min(), present.max())


def test_the_row_of_an_error_is_counted_over_chunks():
    """A bad row in a later chunk is named by its number in the table."""
    records = [{"prompt": "a", "completion": "b"}] * 4 + [{"prompt": "a"}]
    composer = Composer({"fixed": FixedReward(1.0)})
    with pytest.raises(DataError, match="row 5"):
        list(score_records(composer.compose, records, TableLayout(), chunk=2))


def test_a_row_whose_rewards_all_scored_says_why_it_is_unscored() -> None:
    """In the words of its explanation."""
    rewards = {"a": Component(FixedReward(1e38), weight=1e300), "b": Component(FixedReward(1e38), weight=-1e300)}
    summary = Summary()
    with np.errstate(all="ignore"), Composer(rewards) as composer:
        composition = composer.compose(RewardBatch(["p"], ["q"]))
        summary.add(composition)
        assert composition.explain(0).note == "the sum overflows"
    assert summary.first_unscored == (1, "the sum overflows")


def test_the_summary_of_a_table_says_what_high_means(capsys: pytest.CaptureFixture[str]) -> None:
    """Below its numbers, for each reward that says it: a toxicity of 0.9 reads wrongly otherwise."""

    @reward(ends=("toxic", "harmless"))
    def toxicity(completion_texts: list[str]) -> list[float]:
        return [0.9] * len(completion_texts)

    summary = Summary()
    with Composer({"toxicity": toxicity, "fixed": FixedReward(1.0)}) as composer:
        summary.add(composer.compose(RewardBatch(["p"], ["q"])))
    print_summary(summary)
    assert capsys.readouterr().out.splitlines()[-1] == "toxicity: low is toxic, high is harmless"
    summary.ends = {}
    print_summary(summary)
    assert capsys.readouterr().out.splitlines()[-1].startswith("total")
