"""Labels after a review: what people said, with the judges' labels where nobody looked."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from rlaif_sdk.exceptions import ConfigError, DataError
from rlaif_sdk.io.jsonl import Row
from rlaif_sdk.io.tables import write_table
from rlaif_sdk.preferences.label_output import LABEL_COLUMNS, PAIR_COLUMNS
from rlaif_sdk.preferences.review.acts import Act
from rlaif_sdk.preferences.review.card import review_card
from rlaif_sdk.preferences.review.pairs import ReviewPair
from rlaif_sdk.preferences.review.store import ReviewStore
from rlaif_sdk.types import TextOrConversation, as_text

_MARGIN = "margin"
"""What DPO takes from the difference of chosen and rejected: its sign turns with the pair, and no edit has it."""
EDITED = "human-edit"
"""The ``source`` of a pair that an edit made."""
_PROB_OF = {"1": 1.0, "2": 0.0, "tie": 0.5}


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What an export holds.

    Attributes:
        human_weight: The weight of people's verdicts beside the judges' label, in [0, 1]. At 1, the verdicts of people
            take precedence; below, the label is the weighted mean of both.
        rows: ``all`` pairs, with the judges' label where nobody gave a verdict, or the ``reviewed`` ones alone.
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
    store: ReviewStore, path: str | Path, options: ExportOptions = EVERYTHING, *, inputs: tuple[Path, ...] = ()
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
    if path.resolve() in {each.resolve() for each in (*inputs, store.path)}:
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
    for pair, acts in store.results(judged_only=options.rows == "reviewed"):
        row = _labelled(pair, acts, options)
        if row is not None:
            yield row
        yield from (edited for act in acts if act.choice == "edit" for edited in _edited(pair, act))


def human_prob_1(acts: list[Act]) -> float | None:
    """The mean of people's verdicts on response 1 (1, 0, and 0.5 for a tie), or None without any."""
    probs = [_PROB_OF[act.choice] for act in acts if act.choice in _PROB_OF]
    return math.fsum(probs) / len(probs) if probs else None


def _labelled(pair: ReviewPair, acts: list[Act], options: ExportOptions) -> Row | None:
    human, ai = human_prob_1(acts), pair.prob_1
    if human is None and options.rows == "reviewed":
        return None
    prob_1, source = _combined(human, ai, options.human_weight)
    if prob_1 is None or (prob_1 == 0.5 and options.ties == "drop"):
        return None
    first_chosen = prob_1 > 0.5 or (prob_1 == 0.5 and pair.record.get("chosen_response") != 2)
    responses = (pair.response_1, pair.response_2)
    chosen, rejected = responses if first_chosen else responses[::-1]
    verdicts = [act for act in acts if act.choice in _PROB_OF]
    turned = first_chosen is (pair.record.get("chosen_response") == 2)
    margin = pair.record.get(_MARGIN)
    return {
        **_pair_columns(pair, chosen, rejected, max(prob_1, 1 - prob_1)),
        **pair.record,
        **({_MARGIN: -margin} if turned and isinstance(margin, (int, float)) else {}),
        "chosen_prob": max(prob_1, 1 - prob_1),
        "chosen_response": 1 if first_chosen else 2,
        "source": source,
        "ai_prob_1": ai,
        "human_prob_1": human,
        "reviewers": [act.reviewer for act in verdicts],
        "comments": [act.comment for act in acts if act.comment],
    }


def _combined(human: float | None, ai: float | None, weight: float) -> tuple[float | None, str]:
    if human is None:
        return ai, "ai"
    if ai is None or weight == 1:
        return human, "human"
    return weight * human + (1 - weight) * ai, "human+ai"


def _edited(pair: ReviewPair, act: Act) -> Iterator[Row]:
    """An edited response is better than what it was made of; one written anew is better than both."""
    originals = {1: pair.response_1, 2: pair.response_2}
    kept = {name: value for name, value in pair.record.items() if name not in {*PAIR_COLUMNS, *LABEL_COLUMNS, _MARGIN}}
    for original in [originals[act.based_on]] if act.based_on else originals.values():
        better = with_text(original, act.text or "")
        if as_text(better) == as_text(original):
            continue
        yield {
            **_pair_columns(pair, better, original, 1.0),
            **kept,
            "source": EDITED,
            "reviewers": [act.reviewer],
            "comments": [act.comment] if act.comment else [],
        }


def _pair_columns(
    pair: ReviewPair, chosen: TextOrConversation, rejected: TextOrConversation, chosen_prob: float
) -> Row:
    prompt = {} if pair.prompt is None else {"prompt": pair.prompt}
    return {**prompt, "chosen": chosen, "rejected": rejected, "chosen_prob": chosen_prob}


def with_text(response: TextOrConversation, text: str) -> TextOrConversation:
    """The response with other text: of messages, in the place of the last one."""
    if isinstance(response, str):
        return text
    return [*response[:-1], {"role": response[-1]["role"], "content": text}]


def _chained(first: Row, rest: Iterator[Row]) -> Iterator[Row]:
    yield first
    yield from rest
