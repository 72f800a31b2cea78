"""The reward ``tool_calls``: whether a completion calls the tools that it ought to."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from rlaif_sdk import Params, Reward, RewardBatch, Score, read
from rlaif_verifiable.checks import is_missing, nothing_to_check, without_doubles


class ToolCallsParams(Params):
    """Where the expected calls are, and how strictly they are compared."""

    column: str = Field(default="tool_calls", min_length=1)
    """The batch column with a row's expected calls: a list of objects with ``name`` and ``arguments`` (an object, or its
    JSON), or of OpenAI's objects with ``function``; or the list as JSON. An empty list asks for no call; a row with
    none abstains."""

    arguments: Literal["equal", "contain", "ignore"] = "equal"
    """``equal``: the same arguments; ``contain``: those that are expected, others may be there too; ``ignore``: the name
    alone."""

    order: bool = False
    """Whether the calls must come in the expected order."""

    scoring: Literal["all", "f1"] = "all"
    """``all``: 1 where every expected call is made and no other, else 0; ``f1``: the harmonic mean of the shares of
    expected calls that are made and of made calls that are expected."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call with its arguments as a value; None where they are no JSON object."""

    name: str
    arguments: Mapping[str, Any] | None


class ToolCallsReward(Reward):
    """How many of the calls that a completion makes are the expected ones, each matched once.

    Numbers are equal by value (``1`` and ``1.0``), truth values are no numbers. Arguments that are no JSON object, or have a
    name twice, match nothing unless they are ignored.
    """

    name = "tool_calls"
    version = "1"
    range = (0.0, 1.0)
    ends = ("other calls", "the calls")

    def __init__(self, params: ToolCallsParams) -> None:
        self.params = params
        self.columns = (params.column,)
        self.inputs = (params.column,)

    def score(self, batch: RewardBatch) -> list[Score]:
        """Score a batch of B rows."""
        return [
            self._row(completion, value)
            for completion, value in zip(batch.completions, batch.column(self.params.column), strict=True)
        ]

    def _row(self, completion: Any, value: Any) -> Score:
        column = self.params.column
        if is_missing(value):
            return nothing_to_check(column)
        try:
            expected = expected_calls(value)
        except (TypeError, ValueError, RecursionError) as error:
            return Score.failed(f"the column {column!r} holds no list of calls: {error}")
        made = [
            Call(call.name, _object(call.arguments))
            for turn in read(completion)
            if turn.role == "assistant"
            for call in turn.calls
        ]
        matched = self._matched(made, expected)
        reason = f"{matched} of {len(expected)} expected calls among {len(made)}"
        if self.params.scoring == "all":
            return Score(float(matched == len(expected) == len(made)), reason=reason)
        total = len(made) + len(expected)
        return Score(2 * matched / total if total else 1.0, reason=reason)

    def _matched(self, made: Sequence[Call], expected: Sequence[Call]) -> int:
        """How many calls match: the longest common run in order, or the largest pairing."""
        fits = [[self._same(call, wanted) for wanted in expected] for call in made]
        if not self.params.order:
            return _largest_pairing(fits, len(expected))
        best = [[0] * (len(expected) + 1) for _ in range(len(made) + 1)]
        for row, found in enumerate(fits):
            for column, same in enumerate(found):
                best[row + 1][column + 1] = max(best[row][column + 1], best[row + 1][column], best[row][column] + same)
        return best[-1][-1]

    def _same(self, call: Call, wanted: Call) -> bool:
        if call.name != wanted.name:
            return False
        if self.params.arguments == "ignore":
            return True
        if call.arguments is None or wanted.arguments is None:
            return False
        if self.params.arguments == "contain":
            return all(
                name in call.arguments and same_value(call.arguments[name], value)
                for name, value in wanted.arguments.items()
            )
        return same_value(call.arguments, wanted.arguments)


def expected_calls(value: Any) -> list[Call]:
    """The calls that a column asks for.

    Raises:
        ValueError, TypeError: It holds something else.
    """
    if isinstance(value, str):
        value = json.loads(value)
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise TypeError(f"a {type(value).__name__} is no list")
    calls = []
    for entry in value:
        if not isinstance(entry, Mapping):
            raise TypeError(f"a call is an object with 'name' and 'arguments', not {type(entry).__name__}")
        call = entry.get("function") or entry
        if not isinstance(call, Mapping) or not isinstance(call.get("name"), str):
            raise TypeError("a call has no 'name'")
        calls.append(Call(call["name"], _object(call.get("arguments"))))
        if calls[-1].arguments is None:
            raise ValueError(f"the arguments of {call['name']!r} are no JSON object")
    return calls


def same_value(left: Any, right: Any) -> bool:
    """Whether two JSON values are equal; a truth value equals no number."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(same_value(left[name], right[name]) for name in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same_value, left, right))
    return bool(left == right)


def _object(arguments: Any) -> Mapping[str, Any] | None:
    """Arguments as an object, an empty one for an empty text or null, as some servers say that there are none."""
    if isinstance(arguments, str) and arguments:
        try:
            arguments = json.loads(arguments, object_pairs_hook=without_doubles)
        except (ValueError, RecursionError):
            return None
    if arguments is None or arguments == "":
        return {}
    return arguments if isinstance(arguments, Mapping) else None


def _largest_pairing(fits: Sequence[Sequence[bool]], columns: int) -> int:
    """The size of the largest matching of rows to columns (Kuhn's augmenting paths)."""
    owner: list[int | None] = [None] * columns

    def place(row: int, seen: set[int]) -> bool:
        for column, same in enumerate(fits[row]):
            if same and column not in seen:
                seen.add(column)
                held = owner[column]
                if held is None or place(held, seen):
                    owner[column] = row
                    return True
        return False

    return sum(place(row, set()) for row in range(len(fits)))
