"""Labels a file of pairs with a judge: streamed, resumable, stopped when too much fails."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveInt, ValidationError

from rlaif_sdk.composer.check import Check
from rlaif_sdk.config import ConfigModel, NamedTable
from rlaif_sdk.config.documents import Document, from_validation_error, validate
from rlaif_sdk.config.overrides import overridden
from rlaif_sdk.conversations import Thinking, View
from rlaif_sdk.exceptions import ConfigError, DataError, JudgeError
from rlaif_sdk.io.digests import json_digest
from rlaif_sdk.io.files import write_json
from rlaif_sdk.io.jobs import FAILURES_FILE, SUMMARY_FILE
from rlaif_sdk.io.jsonl import Row
from rlaif_sdk.io.run_async import run_async
from rlaif_sdk.io.tables import STANDARD_INPUT, TableSource, check_writable, read_rows, write_rows, write_table
from rlaif_sdk.judges.loading import load_backend
from rlaif_sdk.judges.pairwise import Orders, Pair, PairMode, PairwiseLabeler
from rlaif_sdk.judges.probe import mass_warning, require_logprobs
from rlaif_sdk.judges.prompts import Detail, Exemplar, PairwisePrompt, Task
from rlaif_sdk.judges.screening import Overlong
from rlaif_sdk.judges.usage import NO_USAGE, Usage
from rlaif_sdk.preferences.card import Card, model_facts
from rlaif_sdk.preferences.constitution import Constitution, PrincipleLabeler
from rlaif_sdk.preferences.pipeline import MakeConfig, MakeJob
from rlaif_sdk.preferences.policy import PolicyConfig
from rlaif_sdk.preferences.resumable_job import (
    JobJournal,
    JobProgress,
    Note,
    open_job,
    run_concurrently,
)
from rlaif_sdk.preferences.tables import PairsConfig, PairTable, check_pairs, labelled_row, pair_rows, read_pairs

_ASKING = (
    *("mode", "chain_of_thought", "samples", "temperature", "orders", "tie_margin"),
    *("max_chars", "overlong", "max_new_tokens", "view", "thinking"),
)
"""Settings that the labeler takes by the same names."""

_SETTINGS_ON_CARD = (
    "mode",
    "chain_of_thought",
    "samples",
    "temperature",
    "orders",
    "tie_margin",
    "ties",
    "max_chars",
    "overlong",
)
_DOUBTFUL_FLIP_RATE = 1 / 3
"""A judge that tosses a coin flips half of the pairs."""
_LOCAL_PAIRS_READ, _LOCAL_PAIRS_WRITTEN = 64, 8
"""Pairs in one call of a local model; fewer where it writes, since a kill loses the call in hand."""


class PromptConfig(ConfigModel):
    """What the judge is asked."""

    task: Task = "helpfulness"
    """One of the prompts that come with the SDK: ``summarisation``, ``helpfulness`` or ``harmlessness``."""
    detail: Detail = "detailed"
    """``base`` asks which is better; ``detailed`` is like the instructions that people get."""
    file: str | None = None
    """A prompt of your own, in the place of ``task`` and ``detail``: a YAML file with ``preamble`` and, if you like,
    ``sample``, ``ending``, ``rationale`` and ``exemplars``."""
    exemplars: NamedTable | None = None
    """A table of pairs with their verdicts, shown before each pair: ``prompt``, ``response_1``,
    ``response_2``, ``preferred`` ("1" or "2") and, if you like, ``rationale``."""

    constitution: str | None = None
    """Tell the judge one principle, drawn for each pair: ``short``, or a YAML file of principles of your own."""
    seed: int = 0
    """Of the drawing of principles."""


class JudgeConfig(PolicyConfig):
    """The model that labels; whatever its backend takes stands beside ``model``."""


class LabelConfig(MakeConfig):
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
    """``both`` orders are asked and averaged; ``given`` asks only the given one."""
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
    rows_per_call: PositiveInt | None = None
    """Pairs in one call of the judge: by default 1 for a server, and for a local model 64, or 8 where it writes."""


@dataclass(frozen=True, slots=True)
class LabelJob(MakeJob[LabelConfig]):
    """A labelling job's config and the document it was read from, which knows the folder and the lines."""

    @property
    def pairs(self) -> TableSource:
        """The table of the pairs."""
        return self.config.pairs.source(self.folder)

    def labeler(self) -> PairwiseLabeler:
        """The labeler that the config describes; nothing is loaded yet.

        Raises:
            ConfigError: A setting is refused; the message has file, line and key.
        """
        config = self.config
        prompt = self._prompt()
        with self.errors_at("judge"):
            backend = load_backend(config.judge.backend, config.judge.options(), document=self.document, at=("judge",))
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
        return (
            prompt
            if asked.exemplars is None
            else prompt.with_exemplars(_exemplars(asked.exemplars.source(self.folder)))
        )


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


def _exemplars(path: TableSource) -> list[Exemplar]:
    found = []
    for row, record in enumerate(read_rows(path), start=1):
        try:
            found.append(Exemplar.model_validate(record))
        except ValidationError as error:
            problem = from_validation_error(error, Exemplar, Document(record))
            raise DataError(f"is no exemplar: {problem}", file=str(path), row=row) from None
    return found


@dataclass
class LabelSummary:
    """Counts over labels, taken in one at a time.

    Attributes:
        pairs: Pairs in the file.
        labelled: Pairs with a label.
        asked_twice: Labels whose two orders were asked.
        first_wins: Of these, how often the first place won in both orders.
        second_wins: How often the second place did.
        ties: Labels that prefer neither.
        hard: Labels that are verdicts and no probabilities.
        flagged: Labels that carry a flag.
        masses: Labels that were read from probabilities.
        mass: Of these, the sum of the probabilities that both labels had together.
        least_mass: The least of them.
        usage: What all requests took, those of failed pairs included.
        first_unlabelled: The first pair without a label, from 1, and why.
    """

    pairs: int = 0
    labelled: int = 0
    asked_twice: int = 0
    first_wins: int = 0
    second_wins: int = 0
    ties: int = 0
    hard: int = 0
    flagged: int = 0
    masses: int = 0
    mass: float = 0.0
    least_mass: float = 1.0
    usage: Usage = NO_USAGE
    first_unlabelled: tuple[int, str] | None = None

    def add(self, label: Mapping[str, Any] | None, error: str | None = None) -> None:
        """Take in the record of a label (`PairLabel.record`), or None for a pair without one, and why it has none."""
        self.pairs += 1
        if label is None:
            self.first_unlabelled = self.first_unlabelled or (self.pairs, error or "the judge was not asked")
            return
        self.labelled += 1
        self.asked_twice += label["flipped"] is not None
        self.first_wins += label["winning_place"] == "first"
        self.second_wins += label["winning_place"] == "second"
        self.ties += label["tie"]
        self.hard += label["label_kind"] == "hard"
        self.flagged += bool(label["flags"])
        if label["label_mass"] is not None:
            self.masses += 1
            self.mass += label["label_mass"]
            self.least_mass = min(self.least_mass, label["label_mass"])

    @property
    def failed(self) -> int:
        """Pairs without a label."""
        return self.pairs - self.labelled

    @property
    def flip_rate(self) -> float | None:
        """The share of pairs, of those asked in both orders, whose preferred response changes with the order.

        It is the position bias of Lee et al. 2023: with two places, another response wins exactly when the same place
        does. `first_wins` and `second_wins` say which. None where no pair was asked twice.
        """
        return (self.first_wins + self.second_wins) / self.asked_twice if self.asked_twice else None

    @property
    def mean_mass(self) -> float | None:
        """The mean probability that both labels had together before they were normalised; None where none was read."""
        return self.mass / self.masses if self.masses else None

    @property
    def warnings(self) -> tuple[str, ...]:
        """What should make one doubt the labels, in words."""
        found = []
        if self.flip_rate is not None and self.flip_rate >= _DOUBTFUL_FLIP_RATE:
            found.append(
                f"the preferred response changes with the order in {self.flip_rate:.0%} of {self.asked_twice} pairs (the "
                f"first place wins in {self.first_wins}, the second in {self.second_wins}): such labels follow the place, so "
                "use another judge or prompt, or chain_of_thought"
            )
        if warning := mass_warning(self.mean_mass):
            found.append(f"on average {warning}")
        return tuple(found)

    def record(self) -> dict[str, Any]:
        """The counts as a JSON-ready mapping."""
        twice = self.asked_twice
        return {
            "pairs": self.pairs,
            "labelled": self.labelled,
            "failed": self.failed,
            "flip_rate": self.flip_rate,
            "position_bias": {
                "first": self.first_wins / twice if twice else None,
                "second": self.second_wins / twice if twice else None,
            },
            "asked_in_both_orders": twice,
            "ties": self.ties,
            "hard": self.hard,
            "flagged": self.flagged,
            "label_mass": {"mean": self.mean_mass, "least": self.least_mass if self.masses else None},
            "warnings": list(self.warnings),
            "usage": self.usage.record(),
            "cost_per_label": self._cost_per_label(),
        }

    def _cost_per_label(self) -> float | None:
        cost = self.usage.cost
        return cost / self.labelled if cost is not None and self.labelled else None


def label_card(job: LabelJob, labeler: PairwiseLabeler, table: PairTable, summary: LabelSummary, labels: Path) -> Card:
    """Who labelled what, how it was asked, and how far to trust it."""
    config = job.config
    prompt = config.prompt.model_dump(exclude_none=True)
    usage = {name: value for name, value in summary.usage.record().items() if value}
    apart = {"usage", "warnings"}
    counts = {name: value for name, value in summary.record().items() if name not in apart and value is not None}
    return Card(
        title="Preferences labelled by a language model",
        method="A judge says which of two responses is better (Lee et al. 2023, arXiv 2309.00267). The flip rate is the "
        "share of pairs whose winner changes with the order in which the responses are shown.",
        files={labels.name: "prompt, chosen, rejected, chosen_prob, and how each label came about"},
        warnings=summary.warnings,
        counts={**counts, **usage},
        models={"judge": model_facts(labeler.backend, config.judge.options())},
        inputs={config.pairs.file: table.digest, "prompt of the judge": json_digest(labeler.settings["prompt"])},
        settings={
            **{f"prompt.{name}": value for name, value in prompt.items()},
            **{name: getattr(config, name) for name in _SETTINGS_ON_CARD},
            "judge": labeler.fingerprint,
        },
        licence=config.licence,
    )


@dataclass(frozen=True, slots=True)
class LabelResult:
    """What came of a labelling job.

    Attributes:
        summary: Counts, flip rate, position bias, usage.
        labels: The table of labelled pairs, which `rlaif train reward-model` and `rlaif train dpo` take as it is.
        failures: The file of the pairs that failed, or None.
        asked: Pairs that this run asked about; the others were labelled before.
        seconds: What this run took.
    """

    summary: LabelSummary
    labels: Path
    failures: Path | None
    asked: int
    seconds: float


def run_labeling(
    source: str | Path | Mapping[str, Any] | LabelJob,
    *,
    labeler: PairwiseLabeler | None = None,
    output: Path | None = None,
    progress: JobProgress = lambda *_: None,
    allow_changed: bool = False,
) -> LabelResult:
    """Label the pairs of a file, as a config says.

    The output folder keeps every label as soon as it is known, so a job that was killed resumes where it stopped, asking
    only about pairs without a label. Memory does not grow with the texts.

    Args:
        source: A YAML or JSON file, a mapping, or a loaded job; see `LabelConfig`.
        labeler: Who labels, in the place of the config's ``judge``, ``prompt`` and way of asking.
        output: Where the labels go, a table of any form by its suffix, or ``-`` for standard output; by default
            ``labels.jsonl`` in the job's folder, or what its ``format`` says. All else stays in that folder.
        progress: Called with the pairs labelled so far and all pairs.
        allow_changed: Begin anew where the output folder belongs to a job with other settings or pairs; what it holds is
            moved to ``__job__/earlier-1/``, or the next number that is free.

    Raises:
        ConfigError: The config is refused, or the output folder belongs to a job with other settings and that is not
            allowed.
        DataError: The pairs cannot be read, another process works in the folder, or the disk is full.
        MissingExtraError: Parquet is asked for and pyarrow is not installed.
        JudgeError: The judge gives no log-probabilities, refuses the key, is exhausted or out of reach, or more than
            the stated share of pairs fails. The job can be resumed.
    """
    job = source if isinstance(source, LabelJob) else load_label_job(source)
    started = time.monotonic()
    labels = _labels_file(job, output)
    check_writable(labels)
    table = check_pairs(job.pairs, job.config.pairs)
    asked_by = labeler or job.labeler()
    identity = _identity(job, asked_by, table)
    with open_job(job.output, identity, table.rows, kind="labelling job", allow_changed=allow_changed) as journal:
        before = journal.done
        try:
            run_async(_label_all(job, asked_by, journal, lambda: progress(journal.done, table.rows)))
        finally:
            if labeler is None:
                asked_by.backend.close()
        summary = LabelSummary(usage=journal.usage)
        _write_results(job, journal, summary, asked_by.fingerprint, labels)
        failures = job.output / FAILURES_FILE
        place = None if str(labels) == STANDARD_INPUT else os.path.relpath(labels, job.output)
        write_json(job.output / SUMMARY_FILE, {"labels": place, "judge": asked_by.fingerprint, **summary.record()})
        label_card(job, asked_by, table, summary, labels).write(job.output)
        return LabelResult(
            summary,
            labels,
            failures if failures.exists() else None,
            journal.done - before + summary.failed,
            time.monotonic() - started,
        )


def _labels_file(job: LabelJob, output: Path | None) -> Path:
    return output or job.output / f"labels.{job.config.format}"


def check_labeling(job: LabelJob, output: Path | None = None) -> Check:
    """Check what a labelling job reads, and have the judge label its first pair; nothing is written.

    Args:
        job: The job.
        output: See `run_labeling`.

    Returns:
        What was found; what is wrong is among its problems.
    """
    found = Check()
    with found.noting():
        check_writable(_labels_file(job, output))
    with found.noting():
        table = check_pairs(job.pairs, job.config.pairs)
        found.data["pairs"] = {"rows": table.rows, "digest": table.digest}
        judge_pair(found, "judge", job.labeler(), next(read_pairs(job.pairs, job.config.pairs)))
    return found


def judge_pair(found: Check, key: str, labeler: PairwiseLabeler, pair: Pair) -> None:
    """Have a judge label one pair, for a check; that it cannot is a problem.

    Args:
        found: Gets the label's record, or the problem.
        key: Of the judge in the config.
        labeler: The judge; its backend is closed.
        pair: The pair.
    """

    async def ask() -> Mapping[str, Any]:
        if labeler.needs_logprobs:
            await require_logprobs(labeler.backend)
        (label,) = await labeler.label([pair])
        return label.record()

    with found.noting():
        try:
            label = run_async(ask())
        finally:
            labeler.backend.close()
        if "error" in label:
            raise JudgeError(f"the judge fails on the first pair: {label['error']}")
        found.judged[key] = label


async def _label_all(
    job: LabelJob, labeler: PairwiseLabeler, journal: JobJournal, progress: Callable[[], None]
) -> None:
    """Ask about every pair without a label."""
    config = job.config
    offered = getattr(labeler.backend, "concurrency", None)
    local = _LOCAL_PAIRS_WRITTEN if labeler.writes else _LOCAL_PAIRS_READ
    missing = ((row, pair) for row, pair in enumerate(read_pairs(job.pairs, config.pairs)) if not journal.is_done(row))
    first = list(islice(missing, 1))
    if first and labeler.needs_logprobs:
        await require_logprobs(labeler.backend)

    async def ask(rows: list[tuple[int, Pair]], note: Note) -> None:
        labels = await labeler.label([pair for _, pair in rows])
        for (row, _), label in zip(rows, labels, strict=True):
            note(row, label.record())

    await run_concurrently(
        chain(first, missing), ask, journal, config.concurrency(offered, local), noun="pairs", progress=progress
    )


def _write_results(job: LabelJob, journal: JobJournal, summary: LabelSummary, judge: str, labels: Path) -> None:
    columns = job.config.pairs
    names = (columns.prompt, columns.response_1, columns.response_2)
    failures = job.output / FAILURES_FILE

    def rows(failed: Callable[[Row], None]) -> Iterator[Row]:
        for row, (record, label) in enumerate(
            zip(pair_rows(job.pairs, columns), journal.records(), strict=True), start=1
        ):
            known = label if label is not None and "prob_1" in label else None
            summary.add(known, (label or {}).get("error"))
            if known is None:
                failed({"row": row, **{name: (label or {}).get(name) for name in ("error", "kind")}, **record})
            elif job.config.ties == "keep" or not known["tie"]:
                prompt, first, second = (record.pop(name) for name in names)
                yield {**labelled_row(prompt, first, second, known, judge), **record}

    with write_rows(failures) as writer:
        write_table(rows(writer.write), labels)
    if not summary.failed:
        failures.unlink()


def _identity(job: LabelJob, labeler: PairwiseLabeler, table: PairTable) -> dict[str, str]:
    """What a label depends on, by name: digests, since a folder is often shared and a prompt is long."""
    columns = job.config.pairs
    parts: dict[str, Any] = {
        "pairs file": table.digest,
        "columns": [columns.prompt, columns.response_1, columns.response_2],
        **labeler.settings,
        **({} if columns.sample is None else {"sample": [columns.rows, columns.sample]}),
    }
    return {name: json_digest(value) for name, value in parts.items()}
