"""A batch in parts that cut no group."""

from __future__ import annotations

import numpy as np

from rlaif_sdk.statistics.groups import parts_of_groups


def test_parts_hold_whole_groups_and_no_more_rows_than_they_may() -> None:
    """A group stays together wherever its rows stand, and a large one has a part of its own."""
    group = np.array([0, 1, 0, 2, 3, 3, 3, 3])
    assert list(parts_of_groups(group, 3)) == [[0, 2, 1], [3], [4, 5, 6, 7]]
    assert list(parts_of_groups(group, 8)) == [[0, 2, 1, 3, 4, 5, 6, 7]]
    assert list(parts_of_groups(group[:0], 3)) == []
