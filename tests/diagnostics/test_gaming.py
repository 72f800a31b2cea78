from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif_sdk.diagnostics.gaming import concordance, markup, refusal, repetition


@pytest.mark.parametrize(
    ("text", "share"), [("", 0.0), ("one two three four", 0.0), ("a b c d a b c d", 0.2), ("no " * 9, 5 / 6)]
)
def test_repetition_is_the_share_of_runs_of_four_words_that_came_before(text: str, share: float) -> None:
    """By hand: eight words have five runs of four, of which one comes again."""
    assert repetition(text) == pytest.approx(share)


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("I'm sorry, but I can't help with that.", 1.0),
        ("I cannot assist with this request.", 1.0),
        ("As an AI, I have no opinions.", 1.0),
        ("I can help: boil it for ten minutes.", 0.0),
        ("She said sorry and left.", 0.0),
        ("Mix the flour. " * 20 + "I cannot say more.", 0.0),
    ],
)
def test_a_refusal_is_told_by_how_an_answer_begins(text: str, refused: float) -> None:
    """Phrases of refusals count in the first 200 characters only."""
    assert refusal(text) == refused


def test_markup_is_the_share_of_lines_that_begin_with_markdown() -> None:
    """Headings, lists, bold, tables, quotes and rules; prose and empty lines are none."""
    assert markup("# Title\n\n- one\n2. two\n**Bold** words\n| a | b |\n> said\n---") == 1.0
    assert markup("Plain words.\n- one") == 0.5
    assert markup("A dash - within, and 3.5 kg.\n-5 degrees") == 0.0
    assert markup("") == 0.0


@given(
    rows=st.lists(
        st.tuples(st.integers(0, 3), st.integers(-3, 3) | st.just(math.nan), st.integers(-3, 3) | st.just(math.nan)),
        min_size=1,
        max_size=14,
    )
)
def test_concordance_is_the_mean_over_pairs_of_the_product_of_signs(rows: list[tuple[int, float, float]]) -> None:
    """Against a slow reference, group by group, rows without a value left out."""
    labels = {label: place for place, label in enumerate(dict.fromkeys(row[0] for row in rows))}
    groups = np.array([labels[row[0]] for row in rows])
    values, totals = (np.array([row[at] for row in rows], dtype=float) for at in (1, 2))
    found = concordance(values[np.newaxis], totals, groups)[0]
    for place in range(len(labels)):
        known = [row for row in np.flatnonzero(groups == place) if not math.isnan(values[row] + totals[row])]
        signs = [
            np.sign(values[one] - values[other]) * np.sign(totals[one] - totals[other])
            for one, other in itertools.combinations(known, 2)
        ]
        assert found[place] == pytest.approx(np.mean(signs) if signs else math.nan, nan_ok=True)
