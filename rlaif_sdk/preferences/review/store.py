"""A review's file: its pairs, and what reviewers did with them."""

from __future__ import annotations

import json
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from rlaif_sdk.exceptions import ConfigError, DataError, StateError
from rlaif_sdk.io.sqlite import Database, Schema
from rlaif_sdk.io.tables import TableName, table_digest
from rlaif_sdk.preferences.review.pairs import (
    Number,
    ReviewPair,
    audit_draw,
    left_response,
    priority,
    read_review_pairs,
)

_TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE pair (
    row INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, content TEXT NOT NULL, prob_1 REAL, priority REAL NOT NULL,
    contested INTEGER NOT NULL DEFAULT 0, draw REAL NOT NULL
);
CREATE INDEX pair_by_priority ON pair (contested DESC, priority DESC, row);
CREATE INDEX pair_by_draw ON pair (draw);
CREATE TABLE annotation (
    id INTEGER PRIMARY KEY AUTOINCREMENT, pair TEXT NOT NULL REFERENCES pair (id), reviewer TEXT NOT NULL,
    choice TEXT NOT NULL CHECK (choice IN ('1', '2', 'tie', 'skip', 'edit')), left_response INTEGER NOT NULL,
    comment TEXT NOT NULL, seconds REAL, based_on INTEGER, text TEXT, created TEXT NOT NULL,
    revoked INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX annotation_by_pair ON annotation (pair, reviewer);
CREATE UNIQUE INDEX one_verdict ON annotation (pair, reviewer) WHERE revoked = 0 AND choice != 'edit';
CREATE TABLE lease (
    reviewer TEXT PRIMARY KEY, pair TEXT NOT NULL REFERENCES pair (id), until REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX lease_by_pair ON lease (pair);
"""

Verdict = Literal["1", "2", "tie", "skip"]
_ACTIVE_VERDICT = "annotation.revoked = 0 AND annotation.choice != 'edit'"
_PREFERENCE = "annotation.revoked = 0 AND annotation.choice IN ('1', '2', 'tie')"
_OPEN = f"""
    NOT EXISTS (SELECT 1 FROM annotation WHERE annotation.pair = pair.id AND annotation.reviewer = :reviewer AND {_ACTIVE_VERDICT})
    AND (SELECT COUNT(*) FROM annotation WHERE annotation.pair = pair.id AND annotation.reviewer != :reviewer AND {_PREFERENCE})
      + (SELECT COUNT(*) FROM lease WHERE lease.pair = pair.id AND lease.reviewer != :reviewer) < :overlap
"""  # noqa: S608  (its parts are the constants above)
_CHUNK = 500


def _error(path: Path, message: str, hint: str | None) -> DataError:
    return DataError(message, file=str(path), hint=hint)


REVIEW = Schema(
    name="review",
    application_id=0x524C5256,  # RLRV
    version=2,
    tables=[statement for statement in _TABLES.split(";") if statement.strip()],
    error=_error,
    durable=True,
    private=True,
    other_file="name another file with --store",
)


@dataclass(frozen=True, slots=True)
class Annotation:
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


def annotations_of(connection: sqlite3.Connection, pair_id: str) -> list[Annotation]:
    """What was done with a pair and not taken back, in order."""
    found = connection.execute("SELECT * FROM annotation WHERE pair = ? AND revoked = 0 ORDER BY id", (pair_id,))
    return [annotation_of(each) for each in found]


def annotation_of(row: sqlite3.Row) -> Annotation:
    """A row of the table as an annotation."""
    return Annotation(**{name: row[name] for name in Annotation.__slots__})


def insert_annotation(
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
    """Keep an annotation; the time and the side are filled in."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    annotation = Annotation(
        pair_id, reviewer, choice, left_response(pair_id, reviewer), comment, seconds, based_on, text, now
    )
    names = Annotation.__slots__
    connection.execute(
        f"INSERT INTO annotation ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})",  # noqa: S608
        [getattr(annotation, name) for name in names],
    )


def mark_contested(connection: sqlite3.Connection, pair: ReviewPair) -> None:
    """A pair on which people contradict each other or the judge goes to the front, for the next reviewer."""
    opinions = {annotation.choice for annotation in annotations_of(connection, pair.id)} - {"skip", "edit"}
    contested = len(opinions) > 1 or (pair.ai_preference is not None and bool(opinions - {pair.ai_preference}))
    connection.execute("UPDATE pair SET contested = ? WHERE id = ?", (contested, pair.id))


def add_pair(connection: sqlite3.Connection, pair: ReviewPair) -> None:
    """Take in a pair; of one that is there, its labels join those of the other row."""
    known = connection.execute("SELECT content FROM pair WHERE id = ?", (pair.id,)).fetchone()
    if known:
        pair = ReviewPair.from_json(known["content"]).with_labels_of(pair)
    fields = pair.to_json(), pair.prob_1, priority(pair.prob_1, pair.labels), pair.id
    if known:
        connection.execute("UPDATE pair SET content = ?, prob_1 = ?, priority = ? WHERE id = ?", fields)
        mark_contested(connection, pair)
    else:
        connection.execute(
            "INSERT INTO pair (content, prob_1, priority, id, draw) VALUES (?, ?, ?, ?, ?)",
            (*fields, audit_draw(pair.id)),
        )


@dataclass(frozen=True, slots=True)
class ReviewProgress:
    """Counts over a review.

    Attributes:
        pairs: All pairs.
        judged: Pairs with a verdict, a tie included.
        complete: Pairs with as many verdicts as are wanted.
        verdicts: Verdicts of all reviewers.
        skipped: Skips of all reviewers.
        edits: Edited and newly written responses.
        mine: Verdicts of the reviewer who asks.
    """

    pairs: int
    judged: int
    complete: int
    verdicts: int
    skipped: int
    edits: int
    mine: int


class ReviewStore:
    """A review's file. Several threads and processes may use it at once.

    Args:
        path: The file; made if need be.
        overlap: How many reviewers each pair is given to.
        audit: The share of pairs, in [0, 1], that are reviewed as a random sample, in between the doubtful ones.
        lease_seconds: How long a pair is kept for the reviewer who has it on the page. A verdict that comes later
            counts all the same.

    Raises:
        ConfigError: An option is out of range.
        DataError: The file cannot be used.
    """

    def __init__(self, path: str | Path, *, overlap: int = 1, audit: float = 0.1, lease_seconds: float = 900.0) -> None:
        if overlap < 1:
            raise ConfigError(f"must be at least 1, not {overlap}", key="overlap")
        if not 0 <= audit <= 1:
            raise ConfigError(f"must be a share in [0, 1], not {audit}", key="audit")
        self.path = Path(path)
        self.overlap = overlap
        self.audit = audit
        self._lease_seconds = lease_seconds
        self._database = Database(path, REVIEW)
        self._choose: Callable[[Mapping[str, Sequence[str]]], Sequence[str]] | None = None
        self._chosen: Sequence[str] = ()
        self._choosing = threading.Lock()

    def choose_by(self, choose: Callable[[Mapping[str, Sequence[str]]], Sequence[str]]) -> None:
        """Let something else than doubt say which pairs come next, beside the random sample.

        Args:
            choose: Takes the verdicts, ``1``, ``2`` or ``tie``, of each pair that has some, by id; gives the ids of pairs
                to review next, in order. It is asked again when these are done; where it names none that is open, the
                doubtful ones come next.
        """
        self._choose = choose

    def add(self, files: Sequence[TableName]) -> int:
        """Take in the pairs of files, all or none; what was taken in before is left as it is.

        A pair that several rows have is one pair with several labels.

        Returns:
            How many pairs the review has now.

        Raises:
            DataError: A file has a row that is no pair, or there are no pairs.
            StateError: The review was begun with a file that is not among these, or has changed.
        """
        digests = {table_digest(file): file for file in files}
        with self._database.transaction() as connection:
            begun = json.loads(_meta(connection, "files") or "[]")
            if set(begun) - set(digests):
                raise StateError(
                    f"{self.path} was begun with a file that is not given, or has changed since",
                    hint="give all of its files as they were, or begin another review with --store",
                )
            for digest, file in digests.items():
                if digest not in begun:
                    for pair in read_review_pairs(file):
                        add_pair(connection, pair)
            ((pairs,),) = connection.execute("SELECT COUNT(*) FROM pair")
            if not pairs:
                raise DataError("has no pairs", file=", ".join(map(str, files)))
            _set_meta(connection, "files", json.dumps(sorted(digests)))
            return int(pairs)

    def token(self) -> str:
        """The secret of this review's page; the same after a restart, so that open pages keep working."""
        with self._database.transaction() as connection:
            if _meta(connection, "token") is None:
                _set_meta(connection, "token", secrets.token_urlsafe(24))
            return str(_meta(connection, "token"))

    def claim(self, reviewer: str) -> ReviewPair | None:
        """The pair that a reviewer shall look at: the one that they have, else the next; None when all is done.

        Nobody else is given it meanwhile, beyond the overlap.
        """
        if self._choose is not None:
            self._choose_more(self._choose, reviewer)
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM lease WHERE until < ?", (time.time(),))
            held = connection.execute(
                f"SELECT pair FROM lease WHERE reviewer = :reviewer AND NOT EXISTS (SELECT 1 FROM annotation"  # noqa: S608
                f" WHERE annotation.pair = lease.pair AND annotation.reviewer = :reviewer AND {_ACTIVE_VERDICT})",
                {"reviewer": reviewer},
            ).fetchone()
            pair_id = held["pair"] if held else self._next(connection, reviewer)
            if pair_id is None:
                return None
            self._lease(connection, reviewer, pair_id)
            return pair_of(connection, pair_id)

    def judge(
        self, reviewer: str, pair_id: str, verdict: Verdict, *, comment: str = "", seconds: float | None = None
    ) -> ReviewPair:
        """Keep a verdict, in the place of an earlier one of the same reviewer.

        Raises:
            DataError: There is no such pair.
        """
        with self._database.transaction() as connection:
            pair = pair_of(connection, pair_id)
            connection.execute(
                f"UPDATE annotation SET revoked = 1 WHERE pair = ? AND reviewer = ? AND {_ACTIVE_VERDICT}",  # noqa: S608
                (pair_id, reviewer),
            )
            insert_annotation(connection, reviewer, pair_id, verdict, comment=comment, seconds=seconds)
            connection.execute("DELETE FROM lease WHERE reviewer = ? AND pair = ?", (reviewer, pair_id))
            mark_contested(connection, pair)
            return pair

    def edit(self, reviewer: str, pair_id: str, text: str, *, based_on: Number | None, comment: str = "") -> ReviewPair:
        """Keep a better response: an edited one, or one written anew. The pair still waits for a verdict.

        Raises:
            DataError: There is no such pair, or the text is empty.
        """
        if not text.strip():
            raise DataError("the better response is empty")
        with self._database.transaction() as connection:
            pair = pair_of(connection, pair_id)
            insert_annotation(connection, reviewer, pair_id, "edit", comment=comment, based_on=based_on, text=text)
            return pair

    def undo(self, reviewer: str) -> Annotation | None:
        """Take back the last thing that a reviewer did, and give them its pair again; None when there is nothing."""
        with self._database.transaction() as connection:
            last = connection.execute(
                "SELECT * FROM annotation WHERE reviewer = ? AND revoked = 0 ORDER BY id DESC LIMIT 1", (reviewer,)
            ).fetchone()
            if last is None:
                return None
            connection.execute("UPDATE annotation SET revoked = 1 WHERE id = ?", (last["id"],))
            self._lease(connection, reviewer, last["pair"])
            mark_contested(connection, pair_of(connection, last["pair"]))
            return annotation_of(last)

    def verdicts(self) -> dict[str, list[str]]:
        """What people prefer of each pair that has verdicts, by id: ``1``, ``2`` or ``tie`` each."""
        found: dict[str, list[str]] = {}
        with self._database.transaction() as connection:
            for pair, choice in connection.execute(f"SELECT pair, choice FROM annotation WHERE {_PREFERENCE}"):  # noqa: S608
                found.setdefault(pair, []).append(choice)
        return found

    def progress(self, reviewer: str = "") -> ReviewProgress:
        """Counts over the review."""
        with self._database.transaction() as connection:
            count = connection.execute(
                f"""
                WITH preferred AS (
                    SELECT COUNT(*) AS votes, COUNT(*) FILTER (WHERE reviewer = :reviewer) AS mine
                    FROM annotation WHERE {_PREFERENCE} GROUP BY pair
                )
                SELECT (SELECT COUNT(*) FROM pair) AS pairs,
                    COUNT(*) AS judged, COUNT(*) FILTER (WHERE votes >= :overlap) AS complete,
                    COALESCE(SUM(votes), 0) AS verdicts,
                    (SELECT COUNT(*) FROM annotation WHERE revoked = 0 AND choice = 'skip') AS skipped,
                    (SELECT COUNT(*) FROM annotation WHERE revoked = 0 AND choice = 'edit') AS edits,
                    COALESCE(SUM(mine), 0) AS mine
                FROM preferred
                """,  # noqa: S608
                {"reviewer": reviewer, "overlap": self.overlap},
            ).fetchone()
            return ReviewProgress(**dict(count))

    def edits(self, reviewer: str, pair_id: str) -> list[Annotation]:
        """A reviewer's edits of a pair."""
        with self._database.transaction() as connection:
            return [
                annotation
                for annotation in annotations_of(connection, pair_id)
                if annotation.reviewer == reviewer and annotation.choice == "edit"
            ]

    def results(self, *, judged_only: bool = False) -> Iterator[tuple[ReviewPair, list[Annotation]]]:
        """Each pair in the order of the files, with what was done with it and not taken back."""
        condition = "AND id IN (SELECT pair FROM annotation WHERE revoked = 0)" if judged_only else ""
        last = -1
        while True:
            with self._database.transaction() as connection:
                found = connection.execute(
                    f"SELECT row, content FROM pair WHERE row > ? {condition} ORDER BY row LIMIT {_CHUNK}",  # noqa: S608
                    (last,),
                ).fetchall()
                pairs = [ReviewPair.from_json(each["content"]) for each in found]
                chunk = [(pair, annotations_of(connection, pair.id)) for pair in pairs]
            if not chunk:
                return
            last = found[-1]["row"]
            yield from chunk

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _next(self, connection: sqlite3.Connection, reviewer: str) -> str | None:
        """The next pair: of the random sample as often as its share says, else one that was chosen, or the most doubtful."""
        ((given, audited),) = connection.execute(
            f"""
            WITH given AS (SELECT pair FROM annotation WHERE {_ACTIVE_VERDICT} UNION ALL SELECT pair FROM lease)
            SELECT COUNT(*), COUNT(*) FILTER (WHERE draw < ?) FROM given JOIN pair ON pair.id = given.pair
            """,  # noqa: S608
            (self.audit,),
        ).fetchall()
        doubtful = "draw >= :audit", "contested DESC, priority DESC, row"
        sampled = "draw < :audit", "draw"
        streams = [sampled, doubtful] if audited < self.audit * (given + 1) - 0.5 else [doubtful, sampled]
        for condition, order in streams:
            if (condition, order) == doubtful and (chosen := self._open_one(connection, reviewer)):
                return chosen
            found = connection.execute(
                f"SELECT id FROM pair WHERE {condition} AND {_OPEN} ORDER BY {order} LIMIT 1",  # noqa: S608
                {"reviewer": reviewer, "overlap": self.overlap, "audit": self.audit},
            ).fetchone()
            if found:
                return str(found["id"])
        return None

    def _choose_more(self, choose: Callable[[Mapping[str, Sequence[str]]], Sequence[str]], reviewer: str) -> None:
        """Have the next pairs chosen if none of those that were is open to a reviewer."""
        with self._choosing:
            with self._database.transaction() as connection:
                is_left = self._open_one(connection, reviewer) is not None
            if not is_left:
                self._chosen = choose(self.verdicts())

    def _open_one(self, connection: sqlite3.Connection, reviewer: str) -> str | None:
        """The first of the chosen pairs that is open to a reviewer."""
        for pair_id in self._chosen:
            asked = {"id": pair_id, "reviewer": reviewer, "overlap": self.overlap}
            if connection.execute(f"SELECT 1 FROM pair WHERE id = :id AND {_OPEN}", asked).fetchone():  # noqa: S608
                return pair_id
        return None

    def _lease(self, connection: sqlite3.Connection, reviewer: str, pair_id: str) -> None:
        until = time.time() + self._lease_seconds
        connection.execute("INSERT OR REPLACE INTO lease VALUES (?, ?, ?)", (reviewer, pair_id, until))


def _meta(connection: sqlite3.Connection, key: str) -> str | None:
    found = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return found["value"] if found else None


def _set_meta(connection: sqlite3.Connection, key: str, value: str) -> None:
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))
