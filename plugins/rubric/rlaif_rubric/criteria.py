"""Rubrics as the field writes them: in a config, in a file, in a column of the data."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import Field, StringConstraints, ValidationError, model_validator

from rlaif_sdk import ConfigError, Params

if TYPE_CHECKING:
    from rlaif_sdk import Criterion

CATEGORIES: Mapping[str, float] = {"essential": 1.0, "important": 0.7, "optional": 0.3, "pitfall": 0.9}
"""What the categories of Rubrics as Rewards weigh (Gunjal et al. 2025, arXiv 2507.17746, section 4.4: RaR-Explicit). A pitfall
says what a good answer avoids, so that it is met where it is avoided; in the published data sets it states the fault instead,
and its weight is a number below 0."""

_ALSO = {"name": ("title",), "text": ("criterion", "criterion_text", "description"), "weight": ("points",)}
"""A field's names in the rubrics of HealthBench and of Rubrics as Rewards."""
TAG = "tag/"
"""How the subscore of a tag is called, before the tag."""
_LISTS = ("criteria", "rubrics", "rubric")
"""Under what a file, or a column, may have its list."""


class CriterionParams(Params):
    """One criterion: a text for the judge, or a reward that checks it.

    ``criterion``, ``criterion_text`` and ``description`` are ``text`` by other names, ``title`` is ``name``, ``points`` is ``weight``; a text
    alone is a criterion of weight 1.
    """

    name: str | None = Field(default=None, min_length=1)
    """What it is called in metrics and explanations; by default ``#1``, ``#2`` and so on."""
    text: str | None = Field(default=None, min_length=1)
    """What is to be true of the answer, as the judge reads it."""
    weight: float = 1.0
    """What it weighs: a number, below 0 for a fault whose points are lost where it is found, or ``Essential`` (1),
    ``Important`` (0.7), ``Optional`` (0.3) or ``Pitfall`` (0.9, met where it is avoided)."""
    choices: tuple[str, ...] = ("no", "yes")
    """What the judge chooses from, from the worst, which counts 0, to the best, which counts 1."""
    tags: tuple[Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)], ...] = ()
    """What it belongs to; each tag gets a score of its own, of its criteria."""
    check: str | None = Field(default=None, min_length=1)
    """A reward that checks it in the judge's place: a plugin's name for it (``json_schema``, or ``verifiable/json_schema``
    to say whose), or a reference."""
    params: dict[str, Any] = Field(default_factory=dict)
    """The parameters of that reward."""
    threshold: float | None = None
    """It is met where that reward gives at least so much (a cost: at most). Without it the reward's range is 0 to 1."""

    @model_validator(mode="before")
    @classmethod
    def _as_the_field_writes_it(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"text": value}
        if not isinstance(value, Mapping):
            return value
        given = {key: item for key, item in value.items() if item is not None}  # tables fill rows up with nulls
        for field, others in _ALSO.items():
            names = [name for name in (field, *others) if name in given]
            if len(names) > 1:
                raise ValueError(f"{' and '.join(names)} say the same: give one of them")
            if names:
                given[field] = given.pop(names[0])
        weight = given.get("weight")
        if isinstance(weight, bool):
            raise ValueError(f"the weight is {weight}, which is no number")  # noqa: TRY004 - pydantic tells of ValueErrors
        if isinstance(weight, str) and weight.strip().casefold() in CATEGORIES:
            given["weight"] = CATEGORIES[weight.strip().casefold()]
        return given

    @model_validator(mode="after")
    def _judged_or_checked(self) -> Self:
        if self.text is None and self.check is None:
            raise ValueError("give a text for the judge, or a check")
        if self.check is None and (self.params or self.threshold is not None):
            raise ValueError("params and threshold go with a check")
        if self.check is not None and "choices" in self.model_fields_set:
            raise ValueError("a check makes its own verdict: drop choices, or the check")
        if (self.name or "").startswith(TAG):
            raise ValueError(f"a name must not begin with {TAG!r}: so begin the scores of tags")
        self.criterion()  # refuses what is none
        return self

    def criterion(self) -> Criterion:
        """It as the judge takes it; one that code checks has its text, or its name, for people."""
        from rlaif_sdk import Criterion

        name = self.name or "#1"
        return Criterion(name, self.text or name, self.weight, self.choices, self.tags)


def numbered(criteria: Sequence[CriterionParams], first: int = 1) -> list[CriterionParams]:
    """The criteria, each with a name: those without one have the number of their place.

    Raises:
        ConfigError: Two have the same name.
    """
    named = [
        criterion if criterion.name else criterion.model_copy(update={"name": f"#{number}"})
        for number, criterion in enumerate(criteria, start=first)
    ]
    check_names(named)
    return named


def check_names(criteria: Iterable[CriterionParams]) -> None:
    """Refuse a rubric with two criteria of one name.

    Raises:
        ConfigError: It has; says which.
    """
    seen: set[str | None] = set()
    for criterion in criteria:
        if criterion.name in seen:
            raise ConfigError(f"two criteria are called {criterion.name!r}", hint="give each a name of its own")
        seen.add(criterion.name)


def read_file(path: str) -> list[CriterionParams]:
    """The criteria of a YAML, TOML or JSON file: a list, or a mapping with one under ``criteria`` or ``rubrics``.

    Raises:
        ConfigError: The file cannot be read, or a criterion is refused; says which.
    """
    from rlaif_sdk import load_document

    data = _toml(path) if Path(path).suffix == ".toml" else load_document(path).data
    try:
        criteria = read_rubric(data)
    except ConfigError as error:
        raise ConfigError(error.message, file=path, hint=error.hint) from None
    if not criteria:
        raise ConfigError("has no criteria", file=path, hint="list them under 'criteria'")
    return criteria


def _toml(path: str) -> Any:
    import tomllib

    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"cannot be read: {error}", file=path) from None


def read_rubric(value: Any) -> list[CriterionParams]:
    """The criteria of a list, a mapping with a list, or the JSON text of either; none of an empty value.

    Raises:
        ConfigError: It is none of these, or a criterion is refused; says which.
    """
    if isinstance(value, str) and value.strip():
        try:
            value = _json(value)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"a rubric in text is JSON, and this is none: {error}") from None
    if hasattr(value, "tolist"):  # an array of numpy's, as pandas has it
        value = value.tolist()
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return []
    if isinstance(value, Mapping):
        lists = [name for name in _LISTS if name in value]
        if len(lists) != 1 or len(value) != 1:
            found = ", ".join(map(str, value)) or "nothing"
            raise ConfigError(f"a rubric has its list under one of {', '.join(_LISTS)}; this has {found}")
        value = value[lists[0]]
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise ConfigError(f"a rubric is a list of criteria, not {type(value).__name__}")
    return [_criterion(item, number) for number, item in enumerate(value, start=1)]


def _criterion(item: Any, number: int) -> CriterionParams:
    try:
        return CriterionParams.model_validate(item)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, problem["loc"]))
        said = f"{where}: {problem['msg']}" if where else problem["msg"]
        raise ConfigError(f"criterion {number} is refused: {said.removeprefix('Value error, ')}") from None


def _json(text: str) -> Any:
    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)
