"""What every config model shares: strict numbers, refused unknown keys, short forms."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StrictInt, StrictStr, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from rlaif_sdk.io.tables import TableSource

Finite = Annotated[float, Field(strict=True, allow_inf_nan=False)]
"""A number that is no text, no truth value, not NaN and not infinite."""


Scalar: TypeAlias = StrictStr | StrictBool | StrictInt | Finite | None
"""A value that a cell of a table may have."""


class ConfigModel(BaseModel):
    """Base of every config: unknown keys are refused, and fields are documented by the docstring beneath them."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


def named(key: str, model: type[BaseModel]) -> BeforeValidator:
    """Let ``normalize: zscore`` stand for ``normalize: {kind: zscore}``, in the JSON schema too."""
    return BeforeValidator(
        lambda value: {key: value} if isinstance(value, str) else value, json_schema_input_type=str | model
    )


def one_or_more(item: Any) -> BeforeValidator:
    """Let one mapping stand for a list of it, in the JSON schema too."""
    return BeforeValidator(
        lambda value: [value] if isinstance(value, Mapping) else value,
        json_schema_input_type=item | tuple[item, ...],
    )


class TableConfig(ConfigModel):
    """A table that a job reads."""

    file: str
    """A file or a folder of parts, relative to the config; or the name of a data set on the hub, with its split."""
    split: str | None = None
    """The split of a data set on the hub, or of a folder that has several."""
    subset: str | None = None
    """The configuration of a data set on the hub."""

    def source(self, folder: Path) -> TableSource:
        """The table, where the config is in the folder."""
        return TableSource.within(folder, self.file, self.subset, self.split)


NamedTable = Annotated[TableConfig, named("file", TableConfig)]
"""A table, or its file alone."""


def refused(problem: str, *location: str | int) -> ValidationError:
    """A refusal of one part, found while the whole is checked; raised, pydantic takes it over with its location."""
    error = PydanticCustomError("value_error", "{problem}", {"problem": problem})
    return ValidationError.from_exception_data("config", [InitErrorDetails(type=error, loc=location, input=None)])


class ExtensionConfig(BaseModel):
    """A normalizer or aggregator by name, with its own parameters beside the name."""

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True)

    kind: str
    """The name under which a plugin offers it."""

    @property
    def params(self) -> dict[str, Any]:
        """The parameters beside ``kind``."""
        return dict(self.model_extra or {})
