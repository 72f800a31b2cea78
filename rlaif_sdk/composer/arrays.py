"""The array types of the composer: B is a batch's rows, R its rewards, G its groups."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.float64]
Mask: TypeAlias = npt.NDArray[np.bool_]
Labels: TypeAlias = npt.NDArray[np.intp]


def encode_groups(group: Sequence[Hashable] | None) -> Labels | None:
    """(B,) integers from 0, equal where the group labels are equal."""
    if group is None:
        return None
    codes: dict[Hashable, int] = {}
    return np.array([codes.setdefault(label, len(codes)) for label in group], dtype=np.intp)
