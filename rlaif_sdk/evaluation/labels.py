"""Labels as arrays, and how good they are: agreement with people, position bias, calibration, cost."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rlaif_sdk.conversations import view
from rlaif_sdk.exceptions import DataError
from rlaif_sdk.io.jsonl import Row
from rlaif_sdk.io.tables import TableName, read_rows
from rlaif_sdk.io.text import listed
from rlaif_sdk.judges.usage import NO_USAGE, Usage
from rlaif_sdk.preferences.review.export import EDITED
from rlaif_sdk.preferences.tables import PAIR_COLUMNS, check_text
from rlaif_sdk.statistics.agreement import cohens_kappa, fleiss_kappa, symmetric_kappa
from rlaif_sdk.statistics.arrays import Array, is_finite_number, json_number
from rlaif_sdk.statistics.calibration import Calibration, calibrate_probs
from rlaif_sdk.statistics.classification import auc_over_groups, brier
from rlaif_sdk.statistics.estimates import Estimate, Indices, bootstrap_mean, wilson

_LABEL_COLUMNS = ("prob_1", "tie", "label_kind")
_AI = "ai_prob_1"
"""The column of an export that holds the mean of the judges' labels; null where none labelled the pair."""
DIFFICULTY = "instruction_difficulty"
"""AlpacaEval's column of how hard an instruction is, for `rlaif_sdk.evaluation.length_controlled`."""
_VERDICT = "human_prob_1"
"""The column of an export that holds the mean of people's verdicts; null where nobody looked."""

_HUMAN: Mapping[Any, float] = {1: 1.0, 2: 0.0, "1": 1.0, "2": 0.0, "tie": 0.5}


@dataclass(frozen=True, slots=True)
class LabelTable:
    """N labelled pairs.

    Attributes:
        prob_1_N: Probability that response 1 is better, by the judge; of a review of several judges' labels, their
            mean. NaN for a pair that only people labelled.
        when_first_N: The same when it stood in the first place, by the judge of the row; NaN where that was not asked.
        when_second_N: When it stood in the second.
        tie_N: The judge says that neither is better.
        hard_N: The judge's label is a verdict and no probability.
        decided_prob_1_N: The label after review, in which people usually take precedence; the judge's elsewhere.
        human_N: What people said in the review: 1, 0, 0.5 for a tie; NaN where nobody looked.
        lengths_N2: The responses' lengths in characters.
        difficulty_N: How hard each instruction is, by the column ``instruction_difficulty``; None where a row has none.
        prompts_N: Which of the prompts 0 to G - 1 each pair is about.
        rows_N: Which row of the file each is, from 1; edits are rows too.
        columns: Other columns that were asked for.
        usage: What all the labels took.
    """

    prob_1_N: Array
    when_first_N: Array
    when_second_N: Array
    tie_N: npt.NDArray[np.bool_]
    hard_N: npt.NDArray[np.bool_]
    decided_prob_1_N: Array
    human_N: Array
    lengths_N2: Array
    difficulty_N: Array | None
    prompts_N: Indices
    rows_N: Indices
    columns: Mapping[str, Sequence[Any]]
    usage: Usage

    def __len__(self) -> int:
        return len(self.prob_1_N)

    @property
    def judged_N(self) -> Array:
        """By the judge: 1 where response 1 is preferred, 0 where response 2 is, 0.5 for ties; NaN without a label."""
        judged_N: Array = np.where(self.tie_N, 0.5, 0.5 * (1 + np.sign(self.prob_1_N - 0.5)))
        return judged_N

    @property
    def outcomes_N(self) -> Array:
        """The same after review: people's decision where they gave one, the judge's elsewhere."""
        tie_N = self.tie_N & np.isnan(self.human_N)
        outcomes_N: Array = np.where(tie_N, 0.5, 0.5 * (1 + np.sign(self.decided_prob_1_N - 0.5)))
        return outcomes_N


def read_labels(path: TableName, *, columns: Sequence[str] = ()) -> LabelTable:
    """Read a table of labels.

    Pairs that an edit in a review made are skipped: a person wrote one of their responses.

    Args:
        path: The ``labels.jsonl`` or ``labels.parquet`` of `rlaif label`, or what `rlaif review` exported of it.
        columns: Other columns to keep.

    Raises:
        DataError: A row is no label, or lacks one of the columns; names the row.
    """
    rows = []
    kept: dict[str, list[Any]] = {name: [] for name in columns}
    numbers: dict[str, int] = {}
    usage = NO_USAGE
    for row, record in enumerate(read_rows(path), start=1):
        if record.get("source") == EDITED:
            continue
        _check_row(record, columns, path, row)
        prompt = json.dumps(record["prompt"], sort_keys=True)
        rows.append((*_row_numbers(record), numbers.setdefault(prompt, len(numbers)), row))
        usage += Usage.of_record(record.get("usage") or {})
        for name in columns:
            kept[name].append(record[name])
    if not rows:
        raise DataError("has no labels", file=str(path))
    table_NC = np.array(rows, dtype=np.float64)
    return LabelTable(
        prob_1_N=table_NC[:, 0],
        when_first_N=table_NC[:, 1],
        when_second_N=table_NC[:, 2],
        tie_N=table_NC[:, 3] == 1,
        hard_N=table_NC[:, 4] == 1,
        decided_prob_1_N=table_NC[:, 5],
        human_N=table_NC[:, 6],
        lengths_N2=table_NC[:, 7:9],
        difficulty_N=None if np.isnan(table_NC[:, 9]).any() else table_NC[:, 9],
        prompts_N=table_NC[:, 10].astype(np.int64),
        rows_N=table_NC[:, 11].astype(np.int64),
        columns=kept,
        usage=usage,
    )


def _row_numbers(record: Row) -> tuple[float, ...]:
    prob_1, tie = _judged(record)
    probs = (prob_1, record.get("prob_1_when_first"), record.get("prob_1_when_second"))
    first_chosen = record["chosen_response"] == 1
    lengths = [len(view(record[name], "assistant") or "") for name in ("chosen", "rejected")]
    human = record.get(_VERDICT)
    return (
        *(math.nan if value is None else value for value in probs),
        tie,
        record.get("label_kind") == "hard",
        record["chosen_prob"] if first_chosen else 1 - record["chosen_prob"],
        math.nan if human is None else 0.5 * (1 + np.sign(human - 0.5)),
        *(lengths if first_chosen else lengths[::-1]),
        math.nan if record.get(DIFFICULTY) is None else record[DIFFICULTY],
    )


def _judged(record: Row) -> tuple[float | None, bool]:
    """What the judges say together, and whether it is a tie: the row's own label, unless others were averaged with it."""
    own, mean = record.get("prob_1"), record.get(_AI)
    if mean is None or mean == own:
        return own, bool(record.get("tie"))
    return mean, mean == 0.5


def _check_row(record: Row, columns: Sequence[str], path: TableName, row: int) -> None:
    reviewed = any(record.get(name) is not None for name in (_AI, _VERDICT))
    needed = PAIR_COLUMNS if reviewed else (*PAIR_COLUMNS, *_LABEL_COLUMNS)
    if missing := [name for name in needed if name not in record]:
        hint = "give the labels.jsonl or labels.parquet that rlaif label writes, or an export of rlaif review"
        raise DataError(f"is no label: there is no {missing[0]!r}", file=str(path), row=row, hint=hint)
    if missing := [name for name in columns if name not in record]:
        hint = f"columns: {listed(record)}"
        raise DataError(f"has no column {missing[0]!r}", file=str(path), row=row, hint=hint)
    for name in ("prompt", "chosen", "rejected"):
        check_text(record, name, path, row)
    if record["chosen_response"] not in (1, 2) or isinstance(record["chosen_response"], bool):
        problem = f"chosen_response must be 1 or 2, not {record['chosen_response']!r}"
        raise DataError(problem, file=str(path), row=row)
    if not isinstance(record.get("usage") or {}, dict):
        raise DataError(f"usage must be an object, not {record['usage']!r}", file=str(path), row=row)
    difficulty = record.get(DIFFICULTY)
    if difficulty is not None and not is_finite_number(difficulty):
        raise DataError(f"{DIFFICULTY} must be a number, not {difficulty!r}", file=str(path), row=row)
    for name in ("prob_1", "chosen_prob", "prob_1_when_first", "prob_1_when_second", _AI, _VERDICT):
        value = record.get(name)
        if value is None and name not in needed:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise DataError(f"{name} must be a probability, not {value!r}", file=str(path), row=row)


@dataclass(frozen=True, slots=True)
class Alignment:
    """How labels agree with those of people.

    Attributes:
        accuracy: AI labeler alignment (Lee et al. 2023): of the pairs for which people prefer a response, the share
            for which the label's argmax is the same; a tie of the AI counts half. Wilson's interval.
        three_class: Of all pairs that people saw, the share for which the AI says the same of 1, 2 and tie.
        strict: JudgeBench's rule (Tan et al. 2024): of the pairs for which people prefer a response, the share for
            which the verdicts of both orders together prefer it. A tie, and verdicts that contradict each other, are
            not right.
        when_first: The same from only the given order, None where it was not asked.
        when_second: From the swapped order only, likewise.
        kappa: Cohen's kappa of the categories 1, 2 and tie, the human ties included: 0 for a judge that always says
            one of them.
        symmetric_kappa: The same as if half the pairs had their responses the other way round: what agreement is
            worth where people's choice is always number 1, and kappa is 0 whatever the judge says.
        auc: The area under the ROC curve of the soft labels, over the pairs for which people prefer a response.
        brier: Mean squared distance of the soft labels from what people prefer, over the same pairs.
        annotators: Fleiss's kappa among people, where pairs have several annotators; None where none has.
        counts: How often the AI said the row's and people the column's of 1, 2 and tie.
        human_ties: Pairs for which people prefer neither; they count only in kappa.
        without_human: Pairs without a human label.
        calibration: How far soft labels can be taken for probabilities; None without a soft one.
    """

    accuracy: Estimate
    three_class: Estimate
    strict: Estimate
    when_first: Estimate | None
    when_second: Estimate | None
    kappa: Estimate
    symmetric_kappa: Estimate
    auc: Estimate
    brier: float
    annotators: Estimate | None
    counts: Sequence[Sequence[int]]
    human_ties: int
    without_human: int
    calibration: Calibration | None

    def record(self) -> dict[str, Any]:
        """The estimates as a JSON-ready mapping."""
        return {
            "accuracy": self.accuracy.record(),
            "three_class_accuracy": self.three_class.record(),
            "strict_accuracy": self.strict.record(),
            "accuracy_when_first": self.when_first.record() if self.when_first else None,
            "accuracy_when_second": self.when_second.record() if self.when_second else None,
            "kappa": self.kappa.record(),
            "symmetric_kappa": self.symmetric_kappa.record(),
            "auc": self.auc.record(),
            "brier": json_number(self.brier),
            "annotators_kappa": self.annotators.record() if self.annotators else None,
            "counts": {"categories": ["1", "2", "tie"], "ai_by_human": [list(row) for row in self.counts]},
            "human_ties": self.human_ties,
            "without_human": self.without_human,
            "calibration": _calibration_record(self.calibration) if self.calibration else None,
        }


@dataclass(frozen=True, slots=True)
class LabelEvaluation:
    """What is known of a table of labels.

    Attributes:
        labels: How many.
        ties: Labels that prefer neither.
        hard: Verdicts that are no probabilities.
        flip_rate: Of the pairs asked in both orders, the share whose winner changes with the order: the position bias
            of Lee et al. 2023. None where no pair was.
        first_wins: The share for which the first place won both times.
        second_wins: The share for which the second did.
        place_effect: By how much a response's probability rises when it stands first, on average.
        usage: What the labels took.
        alignment: The comparison with people, None without their labels.
    """

    labels: int
    ties: int
    hard: int
    flip_rate: Estimate | None
    first_wins: Estimate | None
    second_wins: Estimate | None
    place_effect: Estimate | None
    usage: Usage
    alignment: Alignment | None

    @property
    def cost_per_label(self) -> float | None:
        """Money for a label, None where the prices are not known."""
        return None if self.usage.cost is None else self.usage.cost / self.labels

    def record(self) -> dict[str, Any]:
        """The estimates as a JSON-ready mapping."""
        shares = {name: getattr(self, name) for name in ("flip_rate", "first_wins", "second_wins", "place_effect")}
        return {
            "labels": self.labels,
            "ties": self.ties,
            "hard": self.hard,
            **{name: share.record() if share else None for name, share in shares.items()},
            "usage": self.usage.record(),
            "tokens_per_label": self.usage.tokens / self.labels,
            "cost_per_label": self.cost_per_label,
            "alignment": self.alignment.record() if self.alignment else None,
        }


def evaluate_labels(path: TableName, *, human: str | None = None) -> LabelEvaluation:
    """Evaluate a judge's labels: those that `rlaif label` wrote, as they were or after a review.

    Args:
        path: ``labels.jsonl`` or ``labels.parquet``, or what `rlaif review` exported.
        human: The column of what people prefer: 1, 2, "tie", null where nobody was asked, or a list of these, one an
            annotator, of which the majority counts. By default the verdicts of a review, where the file is an export
            with some.

    Raises:
        DataError: A row is no label, or what people prefer is none of these; names the row.
    """
    table = read_labels(path, columns=[human] if human else [])
    human_N = human_outcomes(table, human, path) if human else table.human_N
    labels = int((~np.isnan(table.prob_1_N)).sum())
    if not labels:
        raise DataError("has no labels of a judge, only people's", file=str(path))
    return LabelEvaluation(
        labels=labels,
        ties=int(table.tie_N.sum()),
        hard=int(table.hard_N.sum()),
        **_places(table),
        usage=table.usage,
        alignment=(
            _alignment(table, human_N, _annotators(table, human, path))
            if human or not np.isnan(human_N).all()
            else None
        ),
    )


def human_outcomes(table: LabelTable, column: str, path: TableName) -> Array:
    """1, 0 and 0.5 for what people prefer by a column of the table, NaN where nobody was asked.

    Of several annotators the majority counts; 0.5 where there is none.

    Raises:
        DataError: A value is none of 1, 2, "tie" and null, nor a list of them; names the row.
    """
    outcomes_N = np.full(len(table), np.nan)
    for pair, value in enumerate(table.columns[column]):
        if said := read_verdicts(value, str(path), int(table.rows_N[pair])):
            outcomes_N[pair] = 0.5 * (1 + np.sign(np.mean(said) - 0.5))
    return outcomes_N


def read_verdicts(value: Any, file: str, row: int) -> list[float]:
    """What annotators prefer of a pair: 1 for response 1, 0 for response 2, 0.5 for neither; nothing of who was not asked.

    Args:
        value: 1, 2, "tie", null, or a list of these, one an annotator.
        file: Where it stands, for the error.
        row: Likewise, from 1.

    Raises:
        DataError: It is none of these.
    """
    votes = [vote for vote in (value if isinstance(value, list) else [value]) if vote is not None]
    for vote in votes:
        if isinstance(vote, bool) or not isinstance(vote, str | int | float) or vote not in _HUMAN:
            problem = f"what people prefer is 1, 2, 'tie' or null, or a list of these, not {value!r}"
            raise DataError(problem, file=file, row=row)
    return [_HUMAN[vote] for vote in votes]


def vote_counts(said: Sequence[float]) -> list[float]:
    """How many of these verdicts are for response 1, response 2, and neither."""
    return [float(said.count(verdict)) for verdict in (1.0, 0.0, 0.5)]


def _annotators(table: LabelTable, column: str | None, path: TableName) -> Array | None:
    """(N, 3) how many annotators of each pair said 1, 2 and tie; None where no pair has several."""
    values = table.columns[column] if column else ()
    if not any(isinstance(value, list) for value in values):
        return None
    rows = zip(values, table.rows_N.tolist(), strict=True)
    return np.array([vote_counts(read_verdicts(value, str(path), row)) for value, row in rows], dtype=np.float64)


def _places(table: LabelTable) -> dict[str, Estimate | None]:
    asked_N = ~np.isnan(table.when_first_N) & ~np.isnan(table.when_second_N)
    names = ("flip_rate", "first_wins", "second_wins", "place_effect")
    if not asked_N.any():
        return dict.fromkeys(names)
    when_first, when_second = table.when_first_N[asked_N], table.when_second_N[asked_N]
    first = int(((when_first > 0.5) & (when_second < 0.5)).sum())
    second = int(((when_first < 0.5) & (when_second > 0.5)).sum())
    _, groups = np.unique(table.prompts_N[asked_N], return_inverse=True)
    shares = [wilson(wins, len(when_first)) for wins in (first + second, first, second)]
    effect = bootstrap_mean(when_first - when_second, groups)
    return dict(zip(names, (*shares, effect), strict=True))


def _alignment(table: LabelTable, human_N: Array, votes_N3: Array | None) -> Alignment:
    outcomes_N = table.judged_N
    counts = [
        [int(((outcomes_N == own) & (human_N == other)).sum()) for other in (1.0, 0.0, 0.5)] for own in (1.0, 0.0, 0.5)
    ]
    counts_33 = np.array(counts, dtype=np.float64)
    soft_N = ~table.hard_N & ~np.isnan(human_N) & ~np.isnan(table.prob_1_N)
    decided_N = soft_N & (human_N != 0.5)
    probs_N, people_N = table.prob_1_N[decided_N], human_N[decided_N]
    return Alignment(
        accuracy=_accuracy(outcomes_N, human_N),
        three_class=wilson(float(np.trace(counts_33)), int(counts_33.sum())),
        strict=_strict_accuracy(table, human_N),
        when_first=_accuracy_of(table.when_first_N, human_N),
        when_second=_accuracy_of(table.when_second_N, human_N),
        kappa=cohens_kappa(counts_33),
        symmetric_kappa=symmetric_kappa(counts_33),
        auc=auc_over_groups(probs_N, people_N, table.prompts_N[decided_N]),
        brier=brier(probs_N, people_N),
        annotators=None if votes_N3 is None else fleiss_kappa(votes_N3),
        counts=counts,
        human_ties=int((human_N == 0.5).sum()),
        without_human=int(np.isnan(human_N).sum()),
        calibration=calibrate_probs(table.prob_1_N[soft_N], human_N[soft_N]) if soft_N.any() else None,
    )


def _strict_accuracy(table: LabelTable, human_N: Array) -> Estimate:
    """A verdict for the right response counts 1, one for the other -1, a tie 0; right is what comes out above 0."""
    orders_2N = np.stack([table.when_first_N, table.when_second_N])
    asked_N = ~np.isnan(orders_2N).all(axis=0)
    verdicts_N = np.where(asked_N, np.nansum(np.sign(orders_2N - 0.5), axis=0), 2 * table.judged_N - 1)
    decided_N = ((human_N == 1) | (human_N == 0)) & ~np.isnan(verdicts_N)
    right_N = np.sign(verdicts_N[decided_N]) == 2 * human_N[decided_N] - 1
    return wilson(float(right_N.sum()), len(right_N))


def _accuracy(outcomes_N: Array, human_N: Array) -> Estimate:
    """Over the pairs for which people prefer a response and the AI was asked; a tie of the AI counts half."""
    decided_N = ((human_N == 1) | (human_N == 0)) & ~np.isnan(outcomes_N)
    agreed_N = 1 - np.abs(outcomes_N[decided_N] - human_N[decided_N])
    return wilson(float(agreed_N.sum()), len(agreed_N))


def _accuracy_of(prob_1_N: Array, human_N: Array) -> Estimate | None:
    if np.isnan(prob_1_N).all():
        return None
    return _accuracy(0.5 * (1 + np.sign(prob_1_N - 0.5)), human_N)


def _calibration_record(found: Calibration) -> dict[str, Any]:
    bins = [
        {
            "low": part.low,
            "high": part.high,
            "pairs": part.pairs,
            "confidence": part.confidence if part.pairs else None,
            "accuracy": part.accuracy if part.pairs else None,
        }
        for part in found.bins
    ]
    return {"pairs": found.pairs, "ece": found.error, "cross_entropy": found.cross_entropy, "bins": bins}
