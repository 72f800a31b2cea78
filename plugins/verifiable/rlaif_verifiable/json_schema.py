"""The reward ``json_schema``: whether an answer is JSON that fits a schema."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import regex
from pydantic import Field

from rlaif_sdk import MissingExtraError, Reward, RewardBatch, RewardError, Score, ViewParams
from rlaif_verifiable.checks import is_missing, missed, nothing_to_check, passed, without_doubles
from rlaif_verifiable.extraction import PATTERN_SECONDS

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError
    from jsonschema.protocols import Validator

_BLOCK = regex.compile(r"```(?:json)?[ \t]*\n(.*?)\n?```", regex.DOTALL)


class JsonSchemaParams(ViewParams):
    """Where JSON and schema are."""

    view: Literal["answer", "assistant", "transcript"] = "answer"
    """What of a completion is checked: ``answer``, the policy's last words; ``assistant``, all that it said."""

    json_schema: dict[str, Any] | None = None
    """The schema of every row (JSON Schema, draft 2020-12 unless its ``$schema`` says another)."""

    column: str = Field(default="schema", min_length=1)
    """Without `json_schema`: the batch column with the schema of each row, or its JSON text. A row with none abstains."""

    place: Literal["whole", "block"] = "block"
    """``whole``: the answer is JSON and nothing else; ``block``: it is that, or has just one fenced block."""


class JsonSchemaReward(Reward):
    """1 where the answer is JSON that fits the schema, else 0; the reason names what does not, and where.

    JSON is strict: one value, no name twice in an object, no NaN. Schemas that refer to other documents fail the row:
    nothing is fetched. So does a row whose check takes more than a second: a pattern that its answer makes slow, or a schema
    that refers to itself without end.
    """

    name = "json_schema"
    version = "2"
    range = (0.0, 1.0)
    ends = ("does not fit", "fits")

    def __init__(self, params: JsonSchemaParams) -> None:
        self.params = params
        self.columns = () if params.json_schema is not None else (params.column,)
        self.inputs = self.columns
        self._known: dict[str, Validator] = {}
        self._ends = 0.0

    def setup(self) -> None:
        """Check the schema of the config.

        Raises:
            RewardError: It is no schema.
            MissingExtraError: jsonschema is not installed.
        """
        if self.params.json_schema is not None:
            self._validator(self.params.json_schema)

    def score(self, batch: RewardBatch) -> list[Score]:
        """Score a batch of B rows."""
        params = self.params
        schemas = [params.json_schema] * len(batch) if params.json_schema is not None else batch.column(params.column)
        return [self._row(text, schema) for text, schema in zip(params.texts(batch), schemas, strict=True)]

    def _row(self, text: str | None, schema: Any) -> Score:
        if is_missing(schema):
            return nothing_to_check(self.params.column)
        try:
            validator = self._validator(json.loads(schema) if isinstance(schema, str) else schema)
        except (RewardError, ValueError, RecursionError) as error:
            return Score.failed(f"the column {self.params.column!r} holds no schema: {error}")
        if text is None:
            return Score.no_words()
        try:
            value = self._read(text)
        except (ValueError, RecursionError) as error:
            return missed(f"no JSON: {error}")
        return self._validate(validator, value)

    def _validate(self, validator: Validator, value: Any) -> Score:
        from referencing.exceptions import Unresolvable

        self._ends = time.monotonic() + PATTERN_SECONDS
        try:
            problem = min(validator.iter_errors(value), key=lambda error: error.json_path, default=None)
        except Unresolvable as error:
            return Score.failed(f"the schema refers to what is not in it: {error}")
        except TimeoutError:
            return Score.failed(f"to check the schema takes more than {PATTERN_SECONDS:g} s on this text")
        except (RecursionError, regex.error, OverflowError) as error:
            return Score.failed(f"the schema cannot be checked: {str(error) or type(error).__name__}")
        if problem is None:
            return passed("fits the schema")
        return missed(f"{problem.json_path}: {problem.message[:200]}")

    def _read(self, text: str) -> Any:
        blocks = _BLOCK.findall(text) if self.params.place == "block" else []
        if len(blocks) > 1:
            raise ValueError(f"{len(blocks)} blocks, of which none is the answer")
        return json.loads(
            blocks[0] if blocks else text,
            object_pairs_hook=without_doubles,
            parse_constant=_no_constant,
            parse_float=_finite,
        )

    def _validator(self, schema: Any) -> Validator:
        try:
            from jsonschema.exceptions import SchemaError
            from jsonschema.validators import Draft202012Validator, validator_for
            from referencing import Registry
        except ImportError:
            raise MissingExtraError("jsonschema", extra="json", package="rlaif-verifiable") from None
        key = json.dumps(schema, sort_keys=True, default=str)
        if key not in self._known:
            if not isinstance(schema, dict):
                raise RewardError(f"a JSON schema is an object, not {type(schema).__name__}")
            kind: type[Validator] = validator_for(schema, default=Draft202012Validator)
            try:
                kind.check_schema(schema)
            except SchemaError as error:
                raise RewardError(f"{error.json_path}: {error.message[:200]}") from None
            self._known[key] = _Timed(kind, self._seconds_left).validator()(schema, registry=Registry())
        return self._known[key]

    def _seconds_left(self) -> float:
        """What is left of the row's time.

        Raises:
            TimeoutError: Nothing.
        """
        left = self._ends - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


@dataclass(frozen=True, slots=True)
class _Timed:
    """The keywords that may run on without end, each with its arguments as jsonschema gives them: patterns and references.

    Args:
        kind: The validator whose keywords they are.
        seconds_left: Raises a TimeoutError where there are none.
    """

    kind: type[Validator]
    seconds_left: Callable[[], float]

    def validator(self) -> type[Validator]:
        """The same kind of validator, on time."""
        from jsonschema.validators import extend

        own = {
            "pattern": self.pattern,
            "patternProperties": self.pattern_properties,
            "additionalProperties": self.additional_properties,
            "$ref": self.ref,
        }
        known = {name: own[name] for name in own if name in self.kind.VALIDATORS}
        timed: type[Validator] = extend(self.kind, known)  # type: ignore[no-untyped-call]
        return timed

    def found(self, pattern: str, text: str) -> bool:
        return regex.search(pattern, text, timeout=self.seconds_left()) is not None

    def pattern(self, _: Validator, pattern: str, value: Any, __: Any) -> Iterator[ValidationError]:
        from jsonschema.exceptions import ValidationError

        if isinstance(value, str) and not self.found(pattern, value):
            yield ValidationError(f"{value!r} does not match {pattern!r}")

    def pattern_properties(
        self, validator: Any, patterns: dict[str, Any], value: Any, _: Any
    ) -> Iterator[ValidationError]:
        members = value.items() if isinstance(value, dict) else ()
        for pattern, schema in patterns.items():
            for name, member in members:
                if self.found(pattern, name):
                    yield from validator.descend(member, schema, path=name, schema_path=pattern)

    def additional_properties(self, validator: Any, allowed: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
        patterns = schema.get("patternProperties", ())
        if isinstance(value, dict) and patterns:
            extra = [name for name in value if not any(self.found(pattern, name) for pattern in patterns)]
            value = {name: value[name] for name in extra}
            schema = {name: part for name, part in schema.items() if name != "patternProperties"}
        yield from self.kind.VALIDATORS["additionalProperties"](validator, allowed, value, schema) or ()

    def ref(self, validator: Any, reference: str, value: Any, schema: Any) -> Iterator[ValidationError]:
        self.seconds_left()
        yield from self.kind.VALIDATORS["$ref"](validator, reference, value, schema) or ()


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is no JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:40]} is too large")
    return value
