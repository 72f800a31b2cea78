"""The cache of a ledger: finite scores by content key, with what the reward said besides."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlaif_sdk.composer.ledger.identity import Identity
from rlaif_sdk.io.sqlite import Database
from rlaif_sdk.rewards import ScoreLike
from rlaif_sdk.types import Score

_AT_ONCE = 500
_SELECT = "SELECT key, value, extra FROM scores WHERE key IN ({})"


@dataclass(frozen=True, slots=True)
class CachedReward:
    """A reward that the ledger has scores of.

    Attributes:
        name: The plugin's name for it, a reference, or where it is defined.
        version: Its version.
        revision: Its model's revision, or empty.
        params: A digest of its parameters.
        scores: How many scores there are.
        newest: When the newest was made, in seconds since 1970.
    """

    name: str
    version: str
    revision: str
    params: str
    scores: int
    newest: int


class ScoreCache:
    """The cached scores of a ledger file."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def look_up(self, keys: Sequence[bytes]) -> dict[bytes, ScoreLike]:
        """The scores that are there, by key: a plain number, or a `Score` where there is more to say.

        Raises:
            LedgerError: The file cannot be read.
        """
        ordered = sorted(keys)

        def select(connection: sqlite3.Connection) -> dict[bytes, ScoreLike]:
            found: dict[bytes, ScoreLike] = {}
            for start in range(0, len(ordered), _AT_ONCE):
                some = ordered[start : start + _AT_ONCE]
                for key, value, extra in connection.execute(_SELECT.format(",".join("?" * len(some))), some):
                    found[key] = value if extra is None else _score(value, extra)
            return found

        return self._database.run(select)

    def put(self, identity: Identity, scores: Iterable[tuple[bytes, float, ScoreLike]]) -> None:
        """Keep scores: key, value, and the reward's entry. The first to write a key wins.

        Raises:
            LedgerError: The file cannot be written.
        """
        now = int(time.time())
        rows = [(key, value, _extra(entry), now) for key, value, entry in scores]

        def insert(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT OR IGNORE INTO rewards (fingerprint, name, version, revision, params) VALUES (?, ?, ?, ?, ?)",
                (identity.fingerprint, identity.name, identity.version, identity.revision, identity.params),
            )
            (number,) = connection.execute(
                "SELECT id FROM rewards WHERE fingerprint = ?", (identity.fingerprint,)
            ).fetchone()
            connection.executemany(
                f"INSERT OR IGNORE INTO scores (key, reward, value, extra, created) VALUES (?, {number:d}, ?, ?, ?)",  # noqa: S608 - a number
                rows,
            )

        if rows:
            self._database.run(insert, write=True)

    def rewards(self) -> list[CachedReward]:
        """The rewards that there are scores of."""
        query = (
            "SELECT name, version, revision, params, COUNT(*), MAX(created) FROM rewards "
            "JOIN scores ON scores.reward = rewards.id GROUP BY rewards.id ORDER BY name, MAX(created)"
        )
        return [CachedReward(*row) for row in self._database.run(lambda c: c.execute(query).fetchall())]

    def delete(self, *, reward: str | None = None, before: float | None = None) -> int:
        """Forget the scores of a reward, or those made before a time in seconds since 1970, or both, or all.

        Returns:
            How many were forgotten.
        """
        query = (
            "DELETE FROM scores WHERE (?1 IS NULL OR created < ?1) "
            "AND (?2 IS NULL OR reward IN (SELECT id FROM rewards WHERE name = ?2))"
        )

        def delete(connection: sqlite3.Connection) -> int:
            count = connection.execute(query, (before, reward)).rowcount
            connection.execute("DELETE FROM rewards WHERE id NOT IN (SELECT reward FROM scores)")
            return count

        return self._database.run(delete, write=True)


def _extra(entry: ScoreLike) -> str | None:
    """What a score says beside its value; what it cost stays out, since a look-up costs nothing."""
    if not isinstance(entry, Score):
        return None
    said: dict[str, Any] = {"details": {key: value for key, value in entry.details.items() if key != "usage"}}
    if entry.token_values is not None:
        said["token_values"] = [float(value) for value in entry.token_values]
    said |= {"reason": entry.reason}
    return json.dumps({key: value for key, value in said.items() if value}, default=_plain_or_repr)


def _score(value: float, extra: str) -> Score:
    said: Mapping[str, Any] = json.loads(extra)
    return Score(value, said.get("reason"), said.get("details", {}), said.get("token_values"))


def without_usage(entry: ScoreLike) -> ScoreLike:
    """The entry as a look-up would give it, for a row that equals one that was scored."""
    if not isinstance(entry, Score) or "usage" not in entry.details:
        return entry
    details = {key: value for key, value in entry.details.items() if key != "usage"}
    return Score(entry.value, entry.reason, details, entry.token_values, entry.error)


def _plain_or_repr(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else repr(value)
