"""Preferences of several sources in one table: labels of one pair merged, sources mixed in stated proportions."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveInt, model_validator

from rlaif_sdk.config import TableConfig
from rlaif_sdk.conversations import Turn, chat_messages, read
from rlaif_sdk.exceptions import DataError
from rlaif_sdk.io.digests import json_digest
from rlaif_sdk.io.files import write_json
from rlaif_sdk.io.jobs import SUMMARY_FILE, locked
from rlaif_sdk.io.jsonl import Row
from rlaif_sdk.io.tables import TableSource, read_rows, table_digest, write_table
from rlaif_sdk.preferences.card import Card
from rlaif_sdk.preferences.pipeline import JobSource, MakeJob, OutputConfig, as_make_job
from rlaif_sdk.preferences.tables import check_text

_PAIR = ("chosen", "rejected")


class SourceConfig(TableConfig):
    """A table of labelled pairs: ``prompt``, ``chosen``, ``rejected`` and, unless every label is sure, ``chosen_prob``."""

    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """How much a label counts where ``rule`` is ``mixture``."""
    share: float | None = Field(default=None, gt=0, le=1)
    """The share of the result's rows that comes from this source; either all sources have one or none."""


class MergeConfig(OutputConfig):
    """Tables of preferences to merge."""

    sources: dict[str, SourceConfig] = Field(min_length=1)
    """The tables by name, the most trusted first: people's labels before a model's."""
    rule: Literal["precedence", "mixture"] = "precedence"
    """What becomes of a pair that several sources label: the label of the first of them, or the mean of their
    probabilities by weight."""
    rows: PositiveInt | None = None
    """With shares, so many rows; null makes as many as the shares allow."""
    seed: int = 0
    """Of drawing rows for shares, and of their order."""
    output: str = "merged"
    """The folder of the results."""

    @model_validator(mode="after")
    def _shares_together(self) -> MergeConfig:
        shares = [source.share for source in self.sources.values() if source.share is not None]
        if shares and len(shares) < len(self.sources):
            raise ValueError("some sources have a share and some have none")
        if shares and not math.isclose(sum(shares), 1, abs_tol=1e-6):
            raise ValueError(f"the shares add up to {sum(shares):g}, not to 1")
        if self.rows is not None and not shares:
            raise ValueError("rows goes with shares")
        return self


@dataclass(slots=True)
class _Pair:
    """A pair and what each source says of it.

    Attributes:
        record: The row of the first source that has the pair.
        swapped: Whether that row's ``chosen`` is the second response in the pair's own order.
        probs: Of each source, the probabilities that the pair's first response is preferred.
    """

    record: Row
    swapped: bool
    probs: dict[str, list[float]] = field(default_factory=dict)

    def means(self) -> dict[str, float]:
        """The mean of each source's own labels."""
        return {name: sum(probs) / len(probs) for name, probs in self.probs.items()}


@dataclass(frozen=True, slots=True)
class MergeResult:
    """What came of merging.

    Attributes:
        pairs: The file of merged pairs.
        counts: Rows read and written, pairs that several sources label, conflicts, rows of each source.
        card: The dataset's card.
    """

    pairs: Path
    counts: Mapping[str, Any]
    card: Path


def merge_preferences(source: JobSource[MergeConfig]) -> MergeResult:
    """Merge tables of preferences; see `MergeConfig`.

    A pair is the same whatever the order of its responses. Labels that one source gives a pair more than once are
    averaged. Two sources conflict over a pair where one prefers the one response and one the other. Nothing is asked of
    a model: a run that was killed is simply started again, and leaves no half table.

    Raises:
        DataError: A source cannot be read, a row is no labelled pair, or a share asks for rows that are not there.
    """
    job = as_make_job(MergeConfig, source)
    config = job.config
    pairs: dict[str, _Pair] = {}
    counts: Counter[str] = Counter()
    for name, table in config.sources.items():
        for record in _labelled_rows(table.source(job.folder)):
            counts[f"rows_read/{name}"] += 1
            _take(pairs, name, record)
    weights = {name: table.weight for name, table in config.sources.items()}
    labelled_twice = [pair for pair in pairs.values() if len(pair.probs) > 1]
    counts["pairs_labelled_twice"] = len(labelled_twice)
    counts["conflicts_between_sources"] = sum(conflicting(list(pair.means().values())) for pair in labelled_twice)
    counts["conflicts_within_source"] = sum(
        conflicting(probs) for pair in pairs.values() for probs in pair.probs.values()
    )
    chosen = _in_proportion(list(pairs.values()), config)
    rows = [_merged(pair, weights if config.rule == "mixture" else None) for pair in chosen]
    counts["pairs"] = len(rows)
    for name in config.sources:
        counts[f"pairs/{name}"] = sum(next(iter(pair.probs)) == name for pair in chosen)
    merged = job.output / f"pairs.{config.format}"
    with locked(job.output):
        write_table(rows, merged)
        write_json(job.output / SUMMARY_FILE, counts)
        return MergeResult(merged, counts, _card(job, counts).write(job.output))


def conflicting(probs: Sequence[float]) -> bool:
    """Whether some of these probabilities prefer the one response and some the other; 0.5 prefers neither."""
    return min(probs) < 0.5 < max(probs)


def mixed_probability(probs: Mapping[str, float], weights: Mapping[str, float]) -> float:
    """The mean of probabilities by weight: the chance that a source, drawn by its weight, prefers the response.

    Args:
        probs: Of each source that labels the pair, the probability that one response is preferred.
        weights: Of each source, above 0.
    """
    total = math.fsum(weights[name] for name in probs)
    return min(1.0, math.fsum(weights[name] * prob for name, prob in probs.items()) / total)


def _take(pairs: dict[str, _Pair], source: str, record: Row) -> None:
    first, second = (json_digest(_plain(record[name])) for name in _PAIR)
    swapped = second < first
    key = json_digest([_plain(record["prompt"]), *sorted((first, second))])
    pair = pairs.setdefault(key, _Pair(record, swapped))
    prob = float(record.get("chosen_prob", 1.0))
    pair.probs.setdefault(source, []).append(1 - prob if swapped else prob)


def _merged(pair: _Pair, weights: Mapping[str, float] | None) -> Row:
    """The row of a pair: the likelier better response as ``chosen``, and who said what."""
    means = pair.means()
    prob_first = next(iter(means.values())) if weights is None else mixed_probability(means, weights)
    kept = 1 - prob_first if pair.swapped else prob_first
    flipped = kept < 0.5
    row = dict(pair.record)
    if flipped:
        row["chosen"], row["rejected"] = row["rejected"], row["chosen"]
        if row.get("margin") is not None:
            row["margin"] = -row["margin"]
        if row.get("chosen_response") in (1, 2):
            row["chosen_response"] = 3 - row["chosen_response"]
    probs = [prob if pair.swapped == flipped else 1 - prob for prob in means.values()]
    return {
        **row,
        "chosen_prob": max(kept, 1 - kept),
        "sources": list(means),
        "source_probs": probs,
        "conflict": conflicting(probs),
    }


def _in_proportion(pairs: list[_Pair], config: MergeConfig) -> list[_Pair]:
    """As many pairs of each source as its share wants; a pair belongs to the first source that labels it."""
    shares = {name: source.share for name, source in config.sources.items() if source.share is not None}
    if not shares:
        return pairs
    own: dict[str, list[_Pair]] = {name: [] for name in shares}
    for pair in pairs:
        own[next(iter(pair.probs))].append(pair)
    most = math.floor(min(len(own[name]) / share for name, share in shares.items()) + 1e-9)
    rows = config.rows or most
    wanted = _apportioned(rows, shares)
    draw = random.Random(config.seed)  # noqa: S311 - a draw, no secret
    chosen = []
    for name, count in wanted.items():
        if count > len(own[name]):
            raise DataError(
                f"{name!r} is to give {count} of {rows} rows and has {len(own[name])} pairs of its own",
                hint=f"the shares allow {most} rows: lower rows, or change the shares",
            )
        chosen += draw.sample(own[name], count)
    draw.shuffle(chosen)
    return chosen


def _apportioned(rows: int, shares: Mapping[str, float]) -> dict[str, int]:
    """Whole rows by share that add up to ``rows``: the largest remainders are rounded up."""
    counts = {name: math.floor(rows * share + 1e-9) for name, share in shares.items()}
    by_remainder = sorted(shares, key=lambda name: counts[name] - rows * shares[name])
    for name in by_remainder[: rows - sum(counts.values())]:
        counts[name] += 1
    return counts


def _labelled_rows(path: TableSource) -> Iterator[Row]:
    for row, record in enumerate(read_rows(path), start=1):
        for name in ("prompt", *_PAIR):
            check_text(record, name, path, row)
        prob = record.get("chosen_prob", 1.0)
        if isinstance(prob, bool) or not isinstance(prob, int | float) or not 0 <= prob <= 1:
            raise DataError(f"'chosen_prob' must be a probability, not {prob!r}", file=str(path), row=row)
        if _plain(record["chosen"]) == _plain(record["rejected"]):
            raise DataError("both responses are the same", file=str(path), row=row)
        yield record


def _plain(value: Any) -> Any:
    """A text, or messages in canonical form: a single response is the same as text and as a message."""
    if isinstance(value, str):
        return value
    turns = read(value)
    alone = len(turns) == 1 and turns[0] == Turn(turns[0].role, turns[0].content)
    return turns[0].content if alone else chat_messages(turns)


def _card(job: MakeJob[MergeConfig], counts: Mapping[str, Any]) -> Card:
    config = job.config
    rules = {
        "precedence": "a pair that several sources label keeps the label of the first of them",
        "mixture": "a pair that several sources label gets the mean of their probabilities by weight",
    }
    return Card(
        title="Merged preferences",
        method=f"Tables of preferences are merged: {rules[config.rule]}. See each source for how its labels were made.",
        files={f"pairs.{config.format}": "prompt, chosen, rejected, chosen_prob, sources and what each of them said"},
        counts=dict(counts),
        inputs={
            f"{name}: {source.file}": table_digest(source.source(job.folder)) for name, source in config.sources.items()
        },
        settings={
            "rule": config.rule,
            "weights": {name: source.weight for name, source in config.sources.items()},
            "shares": {name: source.share for name, source in config.sources.items()},
            "seed": config.seed,
        },
        licence=config.licence,
    )
