"""What the configs of all makers of preference data share."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Generic, Literal, TypeAlias, TypeVar

from pydantic import Field, PositiveInt

from rlaif_sdk.config import ConfigModel
from rlaif_sdk.documents import Document, load_document, validate
from rlaif_sdk.exceptions import ConfigError, DataError, UnknownPluginError
from rlaif_sdk.judges.backends import JudgeBackend
from rlaif_sdk.overrides import with_overrides
from rlaif_sdk.preferences.policy import PolicyConfig, load_policy
from rlaif_sdk.records import Record, read_records


class PromptsConfig(ConfigModel):
    """The prompts to answer, each text or messages."""

    file: str
    """A .jsonl or .parquet file, relative to the config."""
    prompt: str = "prompt"
    """The column of the prompts."""
    rows: PositiveInt | None = None
    """Use only so many rows, from the first on; null uses all."""


class OutputConfig(ConfigModel):
    """Where results go. Paths are relative to the file that they stand in."""

    output: str = "made"
    """The folder of the results."""
    format: Literal["jsonl", "parquet"] = "jsonl"
    """The kind of file that tables are written to."""
    licence: tuple[str, ...] = ()
    """Lines about the licence of what went in and of the results, for the dataset's card."""


class MakeConfig(OutputConfig):
    """What every job that asks models for data has."""

    max_failed_share: float = Field(default=0.1, ge=0, le=1)
    """The job stops when more than this share of the steps fails; it can be resumed."""
    rows_per_call: PositiveInt | None = None
    """Rows in one call of a model: by default 1 for a server, 16 for a local model."""
    calls_at_once: PositiveInt | None = None
    """Calls in progress: by default as many as a server's ``concurrency``, 1 for a local model."""


class SamplingConfig(MakeConfig):
    """A job whose models answer prompts."""

    prompts: PromptsConfig
    """What is answered."""
    temperature: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    """At which answers are sampled; 0 is greedy."""
    max_new_tokens: PositiveInt = 256
    """The longest answer."""
    seed: int = 0
    """Of everything that is drawn. A local model samples by it; a job that was stopped on the way makes other batches,
    and so other samples, than one that was not. Servers sample as they like."""


ConfigT = TypeVar("ConfigT", bound=OutputConfig)


@dataclass(frozen=True, slots=True)
class MakeJob(Generic[ConfigT]):
    """A job's config and the document it was read from, which knows the folder and the lines."""

    config: ConfigT
    document: Document

    @property
    def folder(self) -> Path:
        """What relative paths are relative to."""
        return Path(self.document.file).parent if self.document.file else Path()

    @property
    def output(self) -> Path:
        """The folder of the results."""
        return self.folder / self.config.output

    def policy(self, config: PolicyConfig, *location: str | int) -> JudgeBackend:
        """The model that a part of the config describes.

        Raises:
            ConfigError: It is refused; the message has file, line and key.
        """
        try:
            return load_policy(config)
        except (ConfigError, UnknownPluginError) as error:
            raise self.document.error(error.message, location, error.hint) from error

    def prompt_rows(self, prompts: PromptsConfig) -> Iterator[Record]:
        """The rows of the prompts' file.

        Raises:
            DataError: A row has no prompt that is text or messages; names it.
        """
        path = self.folder / prompts.file
        for row, record in enumerate(islice(read_records(path), prompts.rows), start=1):
            check_text(record, prompts.prompt, path, row)
            yield record


JobSource: TypeAlias = str | Path | Mapping[str, Any] | MakeJob[ConfigT]
"""Where a job comes from: a YAML or JSON file, a mapping, or a loaded job."""


def load_make_job(
    model: type[ConfigT], source: str | Path | Mapping[str, Any], *, overrides: Sequence[str] = ()
) -> MakeJob[ConfigT]:
    """Read and check the config of a job that makes data.

    Args:
        model: The kind of config.
        source: A YAML or JSON file, or a mapping.
        overrides: ``key=value`` each, as after ``--set``.

    Raises:
        ConfigError: The config or an override is refused; the message has file, line and key.
    """
    document = Document(dict(source)) if isinstance(source, Mapping) else load_document(source)
    document = with_overrides(document, overrides)
    return MakeJob(validate(model, document), document)


def as_make_job(model: type[ConfigT], source: JobSource[ConfigT]) -> MakeJob[ConfigT]:
    """The job that a file, a mapping or a loaded job describes; see `load_make_job`."""
    return source if isinstance(source, MakeJob) else load_make_job(model, source)


def check_text(record: Record, name: str, path: Path, row: int) -> None:
    """Check that a column is there and is text or messages.

    Raises:
        DataError: It is not; names file and row.
    """
    if name not in record:
        hint = f"columns: {', '.join(record) or 'none'}; name yours in the config"
        raise DataError(f"has no column {name!r}", file=str(path), row=row, hint=hint)
    value = record[name]
    is_messages = isinstance(value, list) and value and all(isinstance(t, dict) and "role" in t for t in value)
    if not isinstance(value, str) and not is_messages:
        raise DataError(f"{name!r} must be text or messages with role and content", file=str(path), row=row)


def file_digest(path: Path) -> str:
    """The SHA-256 of a file.

    Raises:
        DataError: There is no such file.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", file=str(path)) from error
