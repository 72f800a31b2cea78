"""What a type of instruction is: its id, its arguments, and the check that says what a response misses."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError, create_model

from rlaif_verifiable.checks import plain
from rlaif_verifiable.instruction.params import Verdicts
from rlaif_verifiable.instruction.text import Text

Verdict = str | None
"""What a response misses, in words; None where it follows the instruction."""

Check = Callable[..., Verdict]
"""``check(text, **arguments)``: the arguments are named and typed as the data set has them. It raises `ArgumentError` where
no response could follow them."""

Relation = Literal["less than", "at least"]


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


Count = Annotated[int, BeforeValidator(_whole), Field(ge=0)]
"""A whole number; 3.0 is one, since tables make floats of whole numbers where one is missing."""

Place = Annotated[int, BeforeValidator(_whole), Field(ge=1)]
"""Which one, counted from 1."""

Phrase = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
"""A text without the white space around it."""

Phrases = Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]


class ArgumentError(ValueError):
    """Arguments that are missing, unknown, of the wrong type, or contradict each other."""


@dataclass(frozen=True)
class Instruction:
    """A type of instruction.

    Attributes:
        id: As the data sets write it: ``punctuation:no_comma``.
        check: The published check.
        corrected: Without a known fault of the published one, or None where none is known.
    """

    id: str
    check: Check
    corrected: Check | None = None

    @cached_property
    def _arguments(self) -> type[BaseModel]:
        hints = typing.get_type_hints(self.check, include_extras=True)
        names = list(inspect.signature(self.check).parameters)[1:]
        fields: dict[str, Any] = {name: (hints[name], ...) for name in names}
        return create_model("Arguments", __config__=ConfigDict(strict=True, extra="forbid"), **fields)

    def arguments(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of a row; one that is null counts as not given, as tables have it.

        Raises:
            ArgumentError: One is missing, of the wrong type, or unknown. The message names it.
        """
        try:
            read = self._arguments.model_validate(
                {name: plain(value) for name, value in given.items() if value is not None}
            )
        except ValidationError as error:
            raise ArgumentError("; ".join(map(_problem, error.errors(include_url=False)))) from None
        return {name: getattr(read, name) for name in type(read).model_fields}

    def missed(self, text: Text, arguments: Mapping[str, Any], verdicts: Verdicts = "published") -> Verdict:
        """What a text misses of it. A text without a word or mark follows nothing."""
        if not text.value.strip():
            return "the response is empty"
        check = self.corrected if verdicts == "corrected" and self.corrected is not None else self.check
        return check(text, **arguments)


class Instructions(dict[str, Instruction]):
    """Types of instructions by id."""

    def type(self, id: str) -> Callable[[Check], Check]:  # noqa: A002 - the data sets' word
        """Make a check the one of a type."""

        def register(check: Check) -> Check:
            self[id] = Instruction(id, check)
            return check

        return register

    def correction(self, id: str) -> Callable[[Check], Check]:  # noqa: A002 - the data sets' word
        """Make a check the corrected one of a type that is there; its docstring says what was wrong."""

        def register(check: Check) -> Check:
            self[id] = Instruction(id, self[id].check, check)
            return check

        return register


def compared(number: int, relation: Relation, limit: int, noun: str) -> Verdict:
    """Whether a number is less than, or at least, the limit."""
    held = number < limit if relation == "less than" else number >= limit
    return None if held else f"{number} {noun}, not {relation} {limit}"


def unless(followed: object, problem: str) -> Verdict:
    """The problem, unless the instruction is followed."""
    return None if followed else problem


def _problem(error: Any) -> str:
    name = ".".join(map(str, error["loc"]))
    if error["type"] == "missing":
        return f"the argument {name!r} is missing"
    if error["type"] == "extra_forbidden":
        return f"it takes no argument {name!r}"
    return f"the argument {name!r} is {error['input']!r:.60}: {error['msg'][0].lower()}{error['msg'][1:]}"
