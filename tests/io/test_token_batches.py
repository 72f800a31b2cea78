"""Rows of several lengths in batches for forward passes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rlaif_sdk.io.token_batches import token_batches


@given(
    st.lists(st.integers(0, 50), max_size=40),
    st.integers(1, 100),
    st.one_of(st.none(), st.integers(1, 5)),
    st.booleans(),
)
def test_batches_hold_every_row_once_within_their_bounds(
    lengths: list[int], max_tokens: int, max_rows: int | None, unpadded: bool
) -> None:
    """Padded to its longest row, a batch stays within the tokens unless it is a single row, and within the rows."""
    batches = list(token_batches(lengths, max_tokens, max_rows=max_rows, unpadded=unpadded))
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    for batch in batches:
        found = [lengths[row] for row in batch]
        assert len(batch) == 1 or len(batch) * max(found) <= max_tokens
        assert max_rows is None or len(batch) <= max_rows
        assert not unpadded or len(set(found)) == 1
    longest = [max(lengths[row] for row in batch) for batch in batches]
    assert longest == sorted(longest, reverse=True)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=40), st.integers(9, 60))
def test_a_batch_ends_only_where_the_next_row_does_not_fit(lengths: list[int], max_tokens: int) -> None:
    """As few batches as rows in order of length allow."""
    batches = list(token_batches(lengths, max_tokens))
    for batch in batches[:-1]:
        assert (len(batch) + 1) * lengths[batch[0]] > max_tokens
