"""What people said of pairs of completions, from the tables in which they say it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from rlaif_sdk.composer import Composer
from rlaif_sdk.evaluation.labels import read_verdicts, vote_counts
from rlaif_sdk.evaluation.reward import check_column, read_pair
from rlaif_sdk.evaluation.scored import columns_reader
from rlaif_sdk.exceptions import ConfigError, DataError
from rlaif_sdk.io.digests import json_digest
from rlaif_sdk.io.jsonl import Row, plain
from rlaif_sdk.io.tables import Source, read_rows, table_name
from rlaif_sdk.preferences.review.export import EDITED, VERDICTS
from rlaif_sdk.preferences.review.pairs import ReviewPair
from rlaif_sdk.preferences.tables import LABEL_COLUMNS, PAIR_COLUMNS, check_text
from rlaif_sdk.statistics.arrays import is_finite_number
from rlaif_sdk.types import TextOrConversation

_RESPONSES = ("response_1", "response_2")
_CHOSEN = ("chosen", "rejected")
_HUMAN_PROB = "human_prob_1"
_SAID = {
    *PAIR_COLUMNS,
    *LABEL_COLUMNS,
    *(_HUMAN_PROB, VERDICTS, "ai_prob_1", "source", "reviewers", "comments"),
}
"""Columns of labels and reviews, which no reward should read here: a pair is the same whatever was said of it."""


@dataclass(frozen=True, slots=True)
class VerdictColumns:
    """Where a table says what people prefer.

    Attributes:
        human: A column of 1, 2, "tie", null, or a list of these, one an annotator. By default the verdicts of an export of
            `rlaif review`, ``chosen_prob``, or that the chosen one is better.
        measure: A column of a number a completion, such as what a downstream measure gave it; of two completions to a
            prompt the one with more is better.
        rank: A column of a completion's place among those to its prompt; of two the one with less is better.
        prompt: The column of prompts.
        completion: With ``measure`` or ``rank``, the column of completions.
        category: A column by which agreement is told apart.

    Raises:
        ConfigError: More than one says what is better.
    """

    human: str | None = None
    measure: str | None = None
    rank: str | None = None
    prompt: str = "prompt"
    completion: str = "completion"
    category: str | None = None

    def __post_init__(self) -> None:
        given = [name for name in ("human", "measure", "rank") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ConfigError(f"{' and '.join(given)} both say what is better", hint="give one of them")


@dataclass(slots=True)
class PairVerdicts:
    """Two completions, and what people said of them.

    Attributes:
        prompt: What both answer.
        answers: The two.
        columns: What else rewards may read, of each.
        votes: How many preferred the first, the second, neither; all 0 where nobody was asked.
        category: Empty without one.
        row: Of the table, from 1.
        record: The row as it was written.
    """

    prompt: TextOrConversation
    answers: Sequence[TextOrConversation]
    columns: Sequence[Row]
    votes: list[float]
    category: str
    row: int
    record: Row = field(default_factory=dict)

    def swapped(self) -> PairVerdicts:
        """The same pair with its completions the other way round."""
        for_1, for_2, ties = self.votes
        return replace(self, answers=self.answers[::-1], columns=self.columns[::-1], votes=[for_2, for_1, ties])

    @property
    def group(self) -> str:
        """Equal for pairs about one prompt; texts without one are about themselves."""
        about = [self.prompt] if self.prompt else self.answers
        return json_digest(list(about), default=plain)


def read_judged_pairs(composer: Composer, tables: Sequence[Source], columns: VerdictColumns) -> list[PairVerdicts]:
    """The pairs of several tables, each once with all that was said of it, in the order in which they first stand.

    Which completion is the first is decided by their content, and not by where the better one stands. Rows about the same
    pair are different annotators; twice the same completion is no pair.

    Args:
        composer: What reads other columns than the texts: rows that differ in those are different pairs.
        tables: The tables.
        columns: Where they say what people prefer.

    Raises:
        DataError: A row has no such column, or something else in it; names file and row. Or there is no pair.
    """
    read = _completions if columns.measure or columns.rank else _pairs
    found: dict[str, PairVerdicts] = {}
    columns_read = columns_reader(composer)
    for table in tables:
        for pair in read(table, columns):
            shown = map(columns_read, pair.columns)
            sides = [json_digest([answer, own], default=plain) for answer, own in zip(pair.answers, shown, strict=True)]
            if sides[0] == sides[1]:
                continue
            swapped = pair if sides[0] < sides[1] else pair.swapped()
            known = found.setdefault(json_digest([pair.prompt, *sorted(sides)], default=plain), swapped)
            if known is not swapped:
                known.votes = [before + more for before, more in zip(known.votes, swapped.votes, strict=True)]
    if not found:
        raise DataError("has no pair of different completions", file=", ".join(map(table_name, tables)))
    return list(found.values())


def pair_of_review(pair: ReviewPair) -> PairVerdicts:
    """A pair of a review, with nothing said of it yet."""
    row = {"prompt": pair.prompt, **dict(zip(_RESPONSES, (pair.response_1, pair.response_2), strict=True))}
    asked, answers = read_pair(row, "the review", 1, answers=_RESPONSES)
    others = {name: value for name, value in pair.record.items() if name not in _SAID}
    return PairVerdicts(asked, answers, (others, others), [0.0, 0.0, 0.0], "", 1, row)


def _pairs(table: Source, columns: VerdictColumns) -> Sequence[PairVerdicts]:
    file, pairs = table_name(table), []
    for number, row in enumerate(read_rows(table), start=1):
        names = _RESPONSES if "chosen" not in row and _RESPONSES[0] in row else _CHOSEN
        for column in filter(None, [columns.human, columns.category]):
            if not (column == columns.human and row.get("source") == EDITED):
                check_column(row, column, file, number)
        asked, answers = read_pair(row, file, number, prompt=columns.prompt, answers=names)
        others = {
            name: value for name, value in row.items() if name not in {columns.prompt, columns.human, *names, *_SAID}
        }
        votes = _votes(row, names, columns.human, file, number)
        category = "" if columns.category is None else str(row[columns.category])
        pairs.append(PairVerdicts(asked, answers, (others, others), votes, category, number, row))
    return pairs


def _votes(row: Row, names: tuple[str, str], human: str | None, file: str, number: int) -> list[float]:
    """For the first of the two columns, for the second, and for neither."""
    swapped = names == _CHOSEN and row.get("chosen_response") == 2
    if row.get("source") == EDITED:  # a person wrote the better one
        return [1.0, 0.0, 0.0]
    if human is not None:
        for_1, for_2, ties = vote_counts(read_verdicts(row[human], file, number))
        return [for_2, for_1, ties] if swapped else [for_1, for_2, ties]
    if row.get(VERDICTS):
        return vote_counts(read_verdicts(row[VERDICTS], file, number))
    if _HUMAN_PROB in row:
        prob = _prob(row, _HUMAN_PROB, file, number)
        return _soft(1 - prob if swapped and prob is not None else prob)
    if names == _RESPONSES:
        return _soft(None)
    prob = _prob(row, "chosen_prob", file, number)
    return _soft(1.0 if prob is None else prob)


def _soft(prob: float | None) -> list[float]:
    if prob is None:
        return [0.0, 0.0, 0.0]
    return [0.0, 0.0, 1.0] if prob == 0.5 else [prob, 1 - prob, 0.0]


def _prob(row: Row, name: str, file: str, number: int) -> float | None:
    value = row.get(name)
    if value is not None and not (is_finite_number(value) and 0 <= value <= 1):
        raise DataError(f"{name!r} must be a probability in [0, 1], not {value!r}", file=file, row=number)
    return value


def _completions(table: Source, columns: VerdictColumns) -> Sequence[PairVerdicts]:
    """Every two completions to a prompt, of which a number says which is better."""
    file = table_name(table)
    column, better = (columns.measure, 1) if columns.measure else (str(columns.rank), -1)
    of_prompt: dict[str, list[tuple[int, Row, float]]] = {}
    for number, row in enumerate(read_rows(table), start=1):
        for name in (columns.prompt, column, *filter(None, [columns.category])):
            check_column(row, name, file, number)
        check_text(row, columns.completion, file, number, named="with --completion-column")
        value = row[column]
        if value is not None and not is_finite_number(value):
            raise DataError(f"{column!r} must be a finite number or null, not {value!r}", file=file, row=number)
        given = math.nan if value is None else better * float(value)
        of_prompt.setdefault(json_digest(row[columns.prompt], default=plain), []).append((number, row, given))
    texts = {columns.prompt, columns.completion, column}
    pairs = []
    for rows in of_prompt.values():
        for (number, one, first), (_, other, second) in itertools.combinations(rows, 2):
            votes = [float(first > second), float(first < second), float(first == second)]
            others = [{name: value for name, value in row.items() if name not in texts} for row in (one, other)]
            category = "" if columns.category is None else str(one[columns.category])
            answers = [row[columns.completion] for row in (one, other)]
            record = {columns.prompt: one[columns.prompt], **dict(zip(_RESPONSES, answers, strict=True))}
            pairs.append(PairVerdicts(one[columns.prompt], answers, others, votes, category, number, record))
    if not pairs:
        raise DataError("no prompt has two completions, so none is better than another", file=file)
    return pairs
