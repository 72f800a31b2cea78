"""What the configs of all makers of preference data share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Generic, Literal, TypeAlias, TypeVar

from pydantic import Field, PositiveInt

from rlaif_sdk.config import ConfigModel
from rlaif_sdk.documents import Described, Document, validate
from rlaif_sdk.exceptions import ConfigError, UnknownPluginError
from rlaif_sdk.io.jsonl import Row
from rlaif_sdk.io.tables import read_rows
from rlaif_sdk.judges.backends import JudgeBackend
from rlaif_sdk.overrides import overridden
from rlaif_sdk.preferences.inputs import check_text
from rlaif_sdk.preferences.policy import PolicyConfig, load_policy


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
class MakeJob(Described, Generic[ConfigT]):
    """A job's config and the document it was read from, which knows the folder and the lines."""

    config: ConfigT
    document: Document

    def policy(self, config: PolicyConfig, *location: str | int) -> JudgeBackend:
        """The model that a part of the config describes.

        Raises:
            ConfigError: It is refused; the message has file, line and key.
        """
        try:
            return load_policy(config)
        except (ConfigError, UnknownPluginError) as error:
            raise self.document.error(error.message, location, error.hint) from error

    def prompt_rows(self, prompts: PromptsConfig) -> Iterator[Row]:
        """The rows of the prompts' file.

        Raises:
            DataError: A row has no prompt that is text or messages; names it.
        """
        path = self.folder / prompts.file
        for row, record in enumerate(islice(read_rows(path), prompts.rows), start=1):
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
    document = overridden(source, overrides)
    return MakeJob(validate(model, document), document)


def as_make_job(model: type[ConfigT], source: JobSource[ConfigT]) -> MakeJob[ConfigT]:
    """The job that a file, a mapping or a loaded job describes; see `load_make_job`."""
    return source if isinstance(source, MakeJob) else load_make_job(model, source)
