"""How pairs come into the tables of a review."""

from __future__ import annotations

import sqlite3

from rlaif_sdk.preferences.review.acts import mark_contested
from rlaif_sdk.preferences.review.pairs import ReviewPair
from rlaif_sdk.preferences.review.queue import audit_draw, priority


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
