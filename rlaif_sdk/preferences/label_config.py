"""The config of a labelling job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from rlaif_sdk.config import ConfigModel
from rlaif_sdk.config.documents import Described, Document, from_validation_error, validate
from rlaif_sdk.config.overrides import overridden
from rlaif_sdk.conversations import Thinking, View
from rlaif_sdk.exceptions import ConfigError, DataError, UnknownPluginError
from rlaif_sdk.io.tables import read_rows
from rlaif_sdk.judges.loading import load_backend
from rlaif_sdk.judges.pairwise import Orders, PairMode, PairwiseLabeler
from rlaif_sdk.judges.pointwise import Overlong
from rlaif_sdk.judges.prompts import Detail, Exemplar, PairwisePrompt, Task
from rlaif_sdk.preferences.constitution import Constitution
from rlaif_sdk.preferences.principle_labels import PrincipleLabeler

_ASKING = (
    *("mode", "chain_of_thought", "samples", "temperature", "orders", "tie_margin"),
    *("max_chars", "overlong", "max_new_tokens", "view", "thinking"),
)
"""Settings that the labeler takes by the same names."""


class PairsConfig(ConfigModel):
    """The pairs to label, and which columns they are in; each text or messages."""

    file: str
    """A .jsonl or .parquet file, relative to the config."""
    prompt: str = "prompt"
    """The column of what both answer."""
    response_1: str = "response_1"
    """The column of the first responses."""
    response_2: str = "response_2"
    """The column of the second responses."""
    rows: PositiveInt | None = None
    """Label only so many rows, from the first on; null labels all."""


class PromptConfig(ConfigModel):
    """What the judge is asked."""

    task: Task = "helpfulness"
    """One of the prompts that come with the SDK: ``summarisation``, ``helpfulness`` or ``harmlessness``."""
    detail: Detail = "detailed"
    """``base`` asks which is better; ``detailed`` is like the instructions that people get."""
    file: str | None = None
    """A prompt of your own, in the place of ``task`` and ``detail``: a YAML file with ``preamble`` and, if you like,
    ``sample``, ``ending``, ``rationale`` and ``exemplars``."""
    exemplars: str | None = None
    """A .jsonl or .parquet file of pairs with their verdicts, shown before each pair: ``prompt``, ``response_1``,
    ``response_2``, ``preferred`` ("1" or "2") and, if you like, ``rationale``."""

    constitution: str | None = None
    """Tell the judge one principle, drawn for each pair: ``short``, or a YAML file of principles of your own."""
    seed: int = 0
    """Of the drawing of principles."""


class JudgeConfig(BaseModel):
    """The model that labels; whatever its backend takes stands beside ``model``."""

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True)

    model: str
    """A hub name or a local folder, or the model's name at the server."""
    backend: str | None = None
    """``transformers``, ``openai``, or one that a plugin offers; by default ``openai`` if there is a ``base_url``."""

    def options(self) -> dict[str, Any]:
        """The parameters of the backend."""
        return {"model": self.model, **(self.model_extra or {})}


class LabelConfig(ConfigModel):
    """Everything about a labelling job. Paths are relative to the file that they stand in."""

    pairs: PairsConfig
    """What to label."""
    judge: JudgeConfig
    """Who labels."""
    prompt: PromptConfig = PromptConfig()
    """What it is asked."""
    mode: PairMode = "likelihood"
    """``likelihood``: soft labels from the probabilities of 1 and 2. ``verdict``: hard labels from a verdict in words,
    for servers that give no log-probabilities."""
    chain_of_thought: bool = False
    """In likelihood mode, let the judge write a rationale before the label is read."""
    samples: PositiveInt = 1
    """Rationales, or verdicts in words, sampled for each order; their probabilities are averaged."""
    temperature: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """At which they are sampled."""
    orders: Orders = "both"
    """``both`` orders are asked and averaged; ``given`` asks the given one alone."""
    tie_margin: float = Field(default=0.0, ge=0, lt=0.5)
    """A probability this close to 0.5 is a tie."""
    ties: Literal["keep", "drop"] = "keep"
    """``keep`` writes ties with their probability; ``drop`` leaves them out of the labels."""
    max_chars: PositiveInt = 24_000
    """The most characters of a prompt, and of a response."""
    overlong: Overlong = "error"
    """What becomes of a longer one: unlabelled, or cut and flagged."""
    max_new_tokens: PositiveInt = 256
    """The longest rationale or verdict in words."""
    view: View = "assistant"
    """What of a response the judge sees: ``answer``, its last words; ``assistant``, all that the policy said;
    ``transcript``, everything, with the calls of tools and their results."""
    thinking: Thinking = "drop"
    """``keep`` shows the policy's thinking to the judge, ``drop`` leaves it out."""
    output: str = "labels"
    """The folder of the results."""
    licence: tuple[str, ...] = ()
    """Lines about the licence of pairs, judge and labels, for the dataset's card."""
    format: Literal["jsonl", "parquet"] = "jsonl"
    """The kind of file that the labels are written to."""
    max_failed_share: float = Field(default=0.1, ge=0, le=1)
    """The job stops when more than this share of the pairs fails; it can be resumed."""
    pairs_per_call: PositiveInt | None = None
    """Pairs in one call of the judge: by default 1 for a server, and for a local model 64, or 8 where it writes."""
    calls_at_once: PositiveInt | None = None
    """Calls in progress: by default as many as a server's ``concurrency``, 1 for a local model."""


@dataclass(frozen=True, slots=True)
class LabelJob(Described):
    """A labelling job's config and the document it was read from, which knows the folder and the lines."""

    config: LabelConfig
    document: Document

    @property
    def pairs_file(self) -> Path:
        """The file of the pairs."""
        return self.folder / self.config.pairs.file

    def labeler(self) -> PairwiseLabeler:
        """The labeler that the config describes; nothing is loaded yet.

        Raises:
            ConfigError: A setting is refused; the message has file, line and key.
        """
        config = self.config
        prompt = self._prompt()
        try:
            backend = load_backend(config.judge.backend, config.judge.options())
        except (ConfigError, UnknownPluginError) as error:
            raise self.document.error(error.message, ("judge",), error.hint) from error
        asking: dict[str, Any] = {name: getattr(config, name) for name in _ASKING}
        named = config.prompt.constitution
        constitution = None if named is None else Constitution.load(named, self.folder)
        try:
            if constitution is None:
                return PairwiseLabeler(backend, prompt, **asking)
            return PrincipleLabeler(backend, constitution, prompt, seed=config.prompt.seed, **asking)
        except ConfigError as error:  # settings that contradict each other
            raise self.document.error(error.message, (error.key,) if error.key else (), error.hint) from error

    def _prompt(self) -> PairwisePrompt:
        asked = self.config.prompt
        if asked.file is None:
            prompt = PairwisePrompt.named(asked.task, asked.detail)
        elif {"task", "detail"} & asked.model_fields_set:
            raise self.document.error("takes the place of task and detail: leave them out", ("prompt", "file"))
        else:
            prompt = PairwisePrompt.from_file(self.folder / asked.file)
        return prompt if asked.exemplars is None else prompt.with_exemplars(_exemplars(self.folder / asked.exemplars))


def load_label_job(source: str | Path | Mapping[str, Any], *, overrides: Sequence[str] = ()) -> LabelJob:
    """Read and check a labelling job's config.

    Args:
        source: A YAML or JSON file, or a mapping.
        overrides: ``key=value`` each, as after ``--set``.

    Raises:
        ConfigError: The config or an override is refused; the message has file, line and key.
    """
    document = overridden(source, overrides)
    return LabelJob(validate(LabelConfig, document), document)


def _exemplars(path: Path) -> list[Exemplar]:
    found = []
    for row, record in enumerate(read_rows(path), start=1):
        try:
            found.append(Exemplar.model_validate(record))
        except ValidationError as error:
            problem = from_validation_error(error, Exemplar, Document(record))
            raise DataError(f"is no exemplar: {problem}", file=str(path), row=row) from None
    return found
