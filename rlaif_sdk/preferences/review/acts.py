"""What reviewers do with pairs, in the tables of a review."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from datetime import UTC, datetime

from rlaif_sdk.exceptions import DataError
from rlaif_sdk.preferences.review.pairs import Number, ReviewPair
from rlaif_sdk.preferences.review.queue import left_response


@dataclass(frozen=True, slots=True)
class Act:
    """Something that a reviewer did with a pair.

    Attributes:
        pair: The pair's id.
        reviewer: Who.
        choice: The better response's number, ``tie``, ``skip``, or ``edit``.
        left_response: Which response stood on the left of the page.
        comment: The reviewer's words.
        seconds: How long the pair was looked at, or None.
        based_on: Of an edit, the response that was edited; None for one that was written anew.
        text: Of an edit, the better response.
        created: When, ISO 8601 in UTC.
    """

    pair: str
    reviewer: str
    choice: str
    left_response: Number
    comment: str
    seconds: float | None
    based_on: Number | None
    text: str | None
    created: str


def pair_of(connection: sqlite3.Connection, pair_id: str) -> ReviewPair:
    """The pair of that id.

    Raises:
        DataError: There is none.
    """
    found = connection.execute("SELECT content FROM pair WHERE id = ?", (pair_id,)).fetchone()
    if found is None:
        raise DataError(f"there is no pair {pair_id!r} in this review", hint="reload the page")
    return ReviewPair.from_json(found["content"])


def acts_of(connection: sqlite3.Connection, pair_id: str) -> list[Act]:
    """What was done with a pair and not taken back, in order."""
    found = connection.execute("SELECT * FROM act WHERE pair = ? AND revoked = 0 ORDER BY id", (pair_id,))
    return [act_of(each) for each in found]


def act_of(row: sqlite3.Row) -> Act:
    """A row of the table as an act."""
    return Act(**{name: row[name] for name in Act.__slots__})


def insert_act(
    connection: sqlite3.Connection,
    reviewer: str,
    pair_id: str,
    choice: str,
    *,
    comment: str,
    seconds: float | None = None,
    based_on: Number | None = None,
    text: str | None = None,
) -> None:
    """Keep an act; the time and the side are filled in."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    act = Act(pair_id, reviewer, choice, left_response(pair_id, reviewer), comment, seconds, based_on, text, now)
    names = Act.__slots__
    connection.execute(
        f"INSERT INTO act ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})",  # noqa: S608
        [getattr(act, name) for name in names],
    )


def mark_contested(connection: sqlite3.Connection, pair: ReviewPair) -> None:
    """A pair on which people contradict each other or the judge goes to the front, for the next reviewer."""
    opinions = {act.choice for act in acts_of(connection, pair.id)} - {"skip", "edit"}
    contested = len(opinions) > 1 or (pair.ai_preference is not None and bool(opinions - {pair.ai_preference}))
    connection.execute("UPDATE pair SET contested = ? WHERE id = ?", (contested, pair.id))
