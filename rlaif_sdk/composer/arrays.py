"""The array types of the composer: B is a batch's rows, R its rewards, G its groups."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from numbers import Real
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.float64]
Mask: TypeAlias = npt.NDArray[np.bool_]
Labels: TypeAlias = npt.NDArray[np.intp]


def is_finite_number(value: Any) -> bool:
    """Whether a value is a number that is no truth value, not NaN and not infinite."""
    return isinstance(value, Real) and not isinstance(value, (bool, np.bool_)) and math.isfinite(value)


def encode_groups(group: Sequence[Hashable] | None) -> Labels | None:
    """(B,) integers from 0, equal where the group labels are equal."""
    if group is None:
        return None
    codes: dict[Hashable, int] = {}
    return np.array([codes.setdefault(label, len(codes)) for label in group], dtype=np.intp)
