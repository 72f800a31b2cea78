"""Labels after review, and the card beside them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rlaif_sdk.conversations import ASSISTANT, Turn, chat_messages, read, view
from rlaif_sdk.exceptions import ConfigError, DataError
from rlaif_sdk.io.files import is_same_path
from rlaif_sdk.io.jsonl import Row
from rlaif_sdk.io.tables import TableName, TableSource, table_digest, write_table
from rlaif_sdk.preferences.card import Card
from rlaif_sdk.preferences.review.estimates import review_estimates
from rlaif_sdk.preferences.review.pairs import ReviewPair
from rlaif_sdk.preferences.review.store import Annotation, ReviewStore
from rlaif_sdk.preferences.tables import LABEL_COLUMNS, PAIR_COLUMNS
from rlaif_sdk.statistics.estimates import Estimate
from rlaif_sdk.types import TextOrConversation

_NOT_ON_A_CARD = {"mine", "complete"}

_MARGIN = "margin"
"""What DPO takes from the difference of chosen and rejected: its sign turns with the pair, and no edit has it."""
EDITED = "human-edit"
"""The ``source`` of a pair that an edit made."""
VERDICTS = "verdicts"
"""The column of each reviewer's verdict: "1" for the chosen response, "2" for the rejected one, "tie"."""
_PROB_OF = {"1": 1.0, "2": 0.0, "tie": 0.5}


def review_card(
    store: ReviewStore, file: Path, *, rows: int, settings: Mapping[str, Any], inputs: Sequence[TableName]
) -> Card:
    """How the labels in an export came about; reviewers are counted and not named.

    Args:
        store: The review.
        file: What was exported.
        rows: How many rows it has.
        settings: The options of the export.
        inputs: The files that were reviewed.
    """
    estimates = review_estimates(store)
    done = (annotation for _, given in store.results(judged_only=True) for annotation in given)
    reviewers = {annotation.reviewer for annotation in done if annotation.choice != "skip"}
    counted = {name: count for name, count in asdict(store.progress()).items() if name not in _NOT_ON_A_CARD}
    agreed = {
        "people agree with the judge": estimates.ai.accuracy,
        "the same over the random sample": estimates.ai_audit.accuracy,
        "Cohen's kappa": estimates.ai.kappa,
        "symmetric kappa": estimates.ai.symmetric_kappa,
    }
    return Card(
        title="Preferences reviewed by people",
        method="People looked at pairs that judges had labelled, those first on which the judges were least sure or "
        "disagreed, and a random sample in between. The column `source` says who decided a row: people, the judge where "
        "nobody looked, or both by weight; an edited response is a pair of its own.",
        files={file.name: "prompt, chosen, rejected, chosen_prob, who decided, and the columns that were reviewed"},
        counts={
            "rows": rows,
            "reviewers": len(reviewers),
            **counted,
            **{name: _shown(estimate) for name, estimate in agreed.items() if estimate.n},
        },
        inputs={TableSource.of(table).path.name: table_digest(table) for table in inputs},
        settings={**settings, "audit": store.audit, "reviewers a pair": store.overlap},
    )


def _shown(estimate: Estimate) -> str:
    interval = "" if math.isnan(estimate.low) else f" [{estimate.low:.3f}, {estimate.high:.3f}]"
    return f"{estimate.value:.3f}{interval} over {estimate.n} verdicts"


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What an export holds.

    Attributes:
        human_weight: The weight of people's verdicts beside the judges' label, in [0, 1]. At 1, the verdicts of people
            take precedence; below, the label is the weighted mean of both.
        rows: ``all`` pairs, with the judges' label where nobody gave a verdict, or only the ``reviewed`` ones.
        ties: ``keep`` them with 0.5, or ``drop`` pairs whose label is 0.5.

    Raises:
        ConfigError: An option is out of range.
    """

    human_weight: float = 1.0
    rows: Literal["all", "reviewed"] = "all"
    ties: Literal["keep", "drop"] = "keep"

    def __post_init__(self) -> None:
        if not 0 <= self.human_weight <= 1:
            raise ConfigError(f"must be in [0, 1], not {self.human_weight}", key="human_weight")


EVERYTHING = ExportOptions()
"""All pairs, people over judges, ties kept."""


def export_review(
    store: ReviewStore, path: str | Path, options: ExportOptions = EVERYTHING, *, inputs: Sequence[TableName] = ()
) -> int:
    """Write the labels to a .jsonl or .parquet file, and a card beside it: ``NAME.card.md``.

    Args:
        store: The review.
        path: The file; it appears under its name when it is whole.
        options: What it holds.
        inputs: The files that were reviewed: they must not be written over, and stand on the card.

    Returns:
        How many rows were written.

    Raises:
        DataError: The file is one of the inputs, the suffix is neither, or there is nothing to write.
    """
    path = Path(path)
    if any(is_same_path(path, each) for each in (*(TableSource.of(table).path for table in inputs), store.path)):
        raise DataError("is what is reviewed, and stays as it is", file=str(path), hint="name another file")
    written = 0

    def counted() -> Iterator[Row]:
        nonlocal written
        for row in exported_rows(store, options):
            written += 1
            yield row

    rows = counted()
    first = next(rows, None)
    if first is None:
        raise DataError("there is nothing to export yet", file=str(store.path))
    write_table(_chained(first, rows), path)
    card = review_card(store, path, rows=written, settings=asdict(options), inputs=inputs)
    card.write(path.parent, f"{path.stem}.card.md")
    return written


def exported_rows(store: ReviewStore, options: ExportOptions) -> Iterator[Row]:
    """The rows of an export: a row a pair in the order of the files, each followed by what its edits make."""
    for pair, given in store.results(judged_only=options.rows == "reviewed"):
        row = _labelled(pair, given, options)
        if row is not None:
            yield row
        yield from (
            edited for annotation in given if annotation.choice == "edit" for edited in _edited(pair, annotation)
        )


def human_prob_1(given: list[Annotation]) -> float | None:
    """The mean of people's verdicts on response 1 (1, 0, and 0.5 for a tie), or None without any."""
    probs = [_PROB_OF[annotation.choice] for annotation in given if annotation.choice in _PROB_OF]
    return math.fsum(probs) / len(probs) if probs else None


def _labelled(pair: ReviewPair, given: list[Annotation], options: ExportOptions) -> Row | None:
    human, ai = human_prob_1(given), pair.prob_1
    if human is None and options.rows == "reviewed":
        return None
    prob_1, source = _combined(human, ai, options.human_weight)
    if prob_1 is None or (prob_1 == 0.5 and options.ties == "drop"):
        return None
    first_chosen = prob_1 > 0.5 or (prob_1 == 0.5 and pair.record.get("chosen_response") != 2)
    responses = (pair.response_1, pair.response_2)
    chosen, rejected = responses if first_chosen else responses[::-1]
    verdicts = [annotation for annotation in given if annotation.choice in _PROB_OF]
    flipped = first_chosen is (pair.record.get("chosen_response") == 2)
    margin = pair.record.get(_MARGIN)
    return {
        **_pair_columns(pair, chosen, rejected, max(prob_1, 1 - prob_1)),
        **pair.record,
        **({_MARGIN: -margin} if flipped and isinstance(margin, (int, float)) else {}),
        "chosen_prob": max(prob_1, 1 - prob_1),
        "chosen_response": 1 if first_chosen else 2,
        "source": source,
        "ai_prob_1": ai,
        "human_prob_1": human,
        "reviewers": [annotation.reviewer for annotation in verdicts],
        VERDICTS: [_verdict(annotation, swapped=not first_chosen) for annotation in verdicts],
        "comments": [annotation.comment for annotation in given if annotation.comment],
    }


def _verdict(annotation: Annotation, *, swapped: bool) -> str:
    return {"1": "2", "2": "1"}.get(annotation.choice, "tie") if swapped else annotation.choice


def _combined(human: float | None, ai: float | None, weight: float) -> tuple[float | None, str]:
    if human is None:
        return ai, "ai"
    if ai is None or weight == 1:
        return human, "human"
    return weight * human + (1 - weight) * ai, "human+ai"


def _edited(pair: ReviewPair, annotation: Annotation) -> Iterator[Row]:
    """An edited response is better than what it was made of; one written anew is better than both."""
    originals = {1: pair.response_1, 2: pair.response_2}
    kept = {name: value for name, value in pair.record.items() if name not in {*PAIR_COLUMNS, *LABEL_COLUMNS, _MARGIN}}
    for original in [originals[annotation.based_on]] if annotation.based_on else originals.values():
        better = with_text(original, annotation.text or "")
        if view(better, "transcript", thinking="keep") == view(original, "transcript", thinking="keep"):
            continue
        yield {
            **_pair_columns(pair, better, original, 1.0),
            **kept,
            "source": EDITED,
            "reviewers": [annotation.reviewer],
            "comments": [annotation.comment] if annotation.comment else [],
        }


def _pair_columns(
    pair: ReviewPair, chosen: TextOrConversation, rejected: TextOrConversation, chosen_prob: float
) -> Row:
    prompt = {} if pair.prompt is None else {"prompt": pair.prompt}
    return {**prompt, "chosen": chosen, "rejected": rejected, "chosen_prob": chosen_prob}


def with_text(response: TextOrConversation, text: str) -> TextOrConversation:
    """The response with other text: of messages, in the place of the policy's last one."""
    if isinstance(response, str):
        return text
    turns = list(read(response))
    last = max((place for place, turn in enumerate(turns) if turn.role == ASSISTANT), default=len(turns))
    turns[last:] = [Turn(ASSISTANT, text)]
    messages: TextOrConversation = chat_messages(turns)  # type: ignore[assignment]  # chat messages are messages
    return messages


def _chained(first: Row, rest: Iterator[Row]) -> Iterator[Row]:
    yield first
    yield from rest
