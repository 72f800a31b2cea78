"""The array types of the composer: B is a batch's rows, R its rewards, G its groups."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence
from itertools import count
from numbers import Real
from typing import Any, TypeAlias, overload

import numpy as np
import numpy.typing as npt

from rlaif_sdk.exceptions import BatchError

Array: TypeAlias = npt.NDArray[np.float64]
Mask: TypeAlias = npt.NDArray[np.bool_]
Labels: TypeAlias = npt.NDArray[np.intp]

MAX_SCORE = float(np.finfo(np.float32).max)
"""The greatest score, 3.4e38: trainers compute in 32-bit floats, where more is infinite."""


def is_finite_number(value: Any) -> bool:
    """Whether a value is a number that is no truth value, not NaN and not infinite."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Real):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def json_number(value: Any) -> float | None:
    """A number as JSON has it: None for NaN and infinities."""
    return float(value) if math.isfinite(value) else None


@overload
def encode_groups(group: None) -> None: ...
@overload
def encode_groups(group: Sequence[Hashable]) -> Labels: ...
@overload
def encode_groups(group: Sequence[Hashable] | None) -> Labels | None: ...
def encode_groups(group: Sequence[Hashable] | None) -> Labels | None:
    """(B,) integers from 0, equal where the group labels are equal; a row whose label is None is a group of its own.

    Raises:
        BatchError: A label is not hashable.
    """
    if group is None:
        return None
    new = count().__next__
    codes: defaultdict[Hashable, int] = defaultdict(new)
    coded = (
        (new() if label is None else codes[label] for label in group)
        if None in group
        else map(codes.__getitem__, group)
    )
    try:
        return np.fromiter(coded, dtype=np.intp, count=len(group))
    except TypeError as error:
        raise BatchError(f"a group label must be hashable: {error}", hint="use the prompt's number") from error
