"""The cache of a ledger: a reward's finite scores by content key, so that what is known is not scored again.

A row's key tells its prompt, its completion and what else the reward reads; a `CacheKey` tells the reward. A row that is
scored among its group has a key that tells the whole group.
"""

from __future__ import annotations

import functools
import inspect
import json
import math
import sqlite3
import time
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from rlaif_sdk.composer.component import Component
from rlaif_sdk.io.digests import Digest, code_digest, json_digest
from rlaif_sdk.io.sqlite import Database, checksum
from rlaif_sdk.plugins.references import is_reference
from rlaif_sdk.rewards import FunctionReward, Reward, ScoreLike, stated_by, unwrapped
from rlaif_sdk.scoring import CallResult, described, is_plain
from rlaif_sdk.scoring.checks import check_entries
from rlaif_sdk.statistics.arrays import Mask
from rlaif_sdk.types import Credit, RewardBatch, Score, SubScore

IDS = "completion_ids"


def row_keys(fingerprint: str, batch: RewardBatch, inputs: Collection[str] | None) -> list[bytes] | None:
    """B keys, each of the reward, the prompt, the completion, and what else the reward reads of the row.

    Args:
        fingerprint: Of the reward.
        batch: B rows.
        inputs: The columns that the reward reads, with ``completion_ids`` if it reads those; None when that is
            unknown: all of them then count.

    Returns:
        The keys, or None if a column holds what has no JSON form, so that equal rows cannot be told.
    """
    columns: dict[str, Sequence[Any]] = dict(batch.columns)
    if batch.completion_ids is not None:
        columns[IDS] = batch.completion_ids
    names = sorted(columns if inputs is None else columns.keys() & set(inputs))
    header = Digest()
    header.add([fingerprint, names])
    keys = []
    try:
        for row in zip(batch.prompts, batch.completions, *(columns[name] for name in names), strict=True):
            digest = header.copy()
            for value in row:
                digest.add(value)
            keys.append(digest.bytes())
    except (TypeError, ValueError, RecursionError):
        return None
    return keys


def member_keys(keys: Sequence[bytes], groups: Sequence[Sequence[int]]) -> list[bytes]:
    """B keys, each of the row and of all rows of its group, whatever their order.

    Args:
        keys: The B rows' own; see `row_keys`.
        groups: The rows of each group.
    """
    found = list(keys)
    for rows in groups:
        whole = Digest()
        whole.add(sorted(keys[row] for row in rows))
        for row in rows:
            member = whole.copy()
            member.add(keys[row])
            found[row] = member.bytes()
    return found


UNVERSIONED = Reward.version


@dataclass(frozen=True, slots=True)
class CacheKey:
    """What a reward's scores depend on beside its input. Equal keys give equal scores.

    Attributes:
        name: The plugin's name for it, a reference, or where its class or function is defined.
        version: Its `rlaif_sdk.Reward.version`.
        revision: Its ``revision``, where it has one: that of the model that it loads.
        params: A digest of its parameters, which may hold a secret.
        code: A digest of its source, or empty where its version vouches for that.
    """

    name: str
    version: str
    revision: str
    params: str
    code: str

    @property
    def fingerprint(self) -> str:
        """32 hexadecimal digits."""
        return json_digest(asdict(self))


class UnidentifiedError(Exception):
    """Nothing tells a reward from another of its class, so its scores cannot be kept."""


class RewardOrigin:
    """How a reward was made, known before its setup; what it states of itself may be known only after.

    Raises:
        UnidentifiedError: It was made in Python, of things that have no JSON form, or nothing identifies its code.
    """

    def __init__(self, component: Component) -> None:
        self.reward = component.reward
        target = unwrapped(component.reward)
        recipe = component.recipe
        self._is_plugin = recipe is not None and not is_reference(recipe.use)
        self._name = recipe.use if recipe else _home(target)
        self._params = _params_digest(recipe.params if recipe else _made_of(target))
        self._target = target
        if not self._is_plugin and not self._code:
            raise UnidentifiedError("its code has no digest")

    @property
    def is_costly(self) -> bool:
        """Whether it is an installed plugin's and loads something or is async; a plain function is quickly asked again."""
        return self._is_plugin and not is_plain(self.reward)

    def cache_key(self, stated: Mapping[str, str] | None = None) -> CacheKey:
        """The key of the reward's scores after its setup.

        Args:
            stated: What it states of itself where it runs in another process; see `rlaif_sdk.rewards.stated_by`.
        """
        stated = stated_by(self.reward) if stated is None else stated
        vouched = self._is_plugin and stated["version"] != UNVERSIONED
        return CacheKey(
            self._name, stated["version"], stated["revision"], self._params, code="" if vouched else self._code
        )

    @functools.cached_property
    def _code(self) -> str:
        return code_digest(_named(self._target))


def _named(target: Any) -> Any:
    """The class or function whose code a reward is."""
    return target.function if isinstance(target, FunctionReward) else type(target)


def _home(target: Any) -> str:
    named = _named(target)
    named = named if hasattr(named, "__qualname__") else type(named)
    return f"{named.__module__}:{named.__qualname__}"


def _made_of(target: Any) -> Any:
    """What tells an object that was made in Python from others of its class: its attributes, or a function's closure."""
    if not isinstance(target, FunctionReward):
        made = vars(target) if hasattr(target, "__dict__") else None
        return (
            repr(target)
            if made is None
            else {name: value for name, value in made.items() if not isinstance(value, LedgerMemory)}
        )
    function = target.function
    owner = getattr(function, "__self__", function)
    closure = inspect.getclosurevars(function).nonlocals if inspect.isfunction(function) else {}
    owned = {} if inspect.isroutine(owner) or inspect.ismodule(owner) else vars(owner)
    return [target.values, dict(closure), owned]


def _params_digest(value: Any) -> str:
    try:
        return json_digest(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise UnidentifiedError(str(error)) from None


_AT_ONCE = 500
_SELECT = "SELECT key, value, extra, checksum FROM scores WHERE key IN ({})"


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


class ScoreTable:
    """The cached scores of all rewards in a ledger file."""

    def __init__(self, database: Database, *, keeps: bool = True) -> None:
        self._database = database
        self._keeps = keeps

    def get(self, keys: Sequence[bytes]) -> dict[bytes, ScoreLike]:
        """The scores that are there, by key: a plain number, or a `Score` where there is more to say.

        Raises:
            LedgerError: The file cannot be read.
        """
        ordered = sorted(keys)

        def select(connection: sqlite3.Connection) -> tuple[dict[bytes, ScoreLike], list[bytes]]:
            found: dict[bytes, ScoreLike] = {}
            changed: list[bytes] = []
            for start in range(0, len(ordered), _AT_ONCE):
                some = ordered[start : start + _AT_ONCE]
                for key, value, extra, written in connection.execute(_SELECT.format(",".join("?" * len(some))), some):
                    if checksum(key, value, extra) != written:
                        changed.append(key)
                    else:
                        found[key] = value if extra is None else _score(value, extra)
            return found, changed

        found, changed = self._database.run(select)
        if changed:
            self._forget(changed)
        return found

    def _forget(self, keys: Sequence[bytes]) -> None:
        """Forget scores that are not what was written; where none are kept, the file stays as it is."""
        rows = [(key,) for key in keys]
        if self._keeps:
            self._database.run(lambda each: each.executemany("DELETE FROM scores WHERE key = ?", rows), write=True)
        warnings.warn(
            f"{len(keys)} of the scores in the ledger {self._database.path} are not what was written: the disk, or "
            "something else, changed them; they are scored again",
            stacklevel=2,
        )

    def put(self, reward: CacheKey, scores: Iterable[tuple[bytes, float, ScoreLike]]) -> None:
        """Keep scores: key, value, and the reward's entry. The first to write a key wins.

        Raises:
            LedgerError: The file cannot be written.
        """
        now = int(time.time())
        rows = []
        for key, value, entry in scores:
            extra = _extra(entry)
            rows.append((key, value, extra, now, checksum(key, value, extra)))

        def insert(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT OR IGNORE INTO rewards (fingerprint, name, version, revision, params) VALUES (?, ?, ?, ?, ?)",
                (reward.fingerprint, reward.name, reward.version, reward.revision, reward.params),
            )
            (number,) = connection.execute(
                "SELECT id FROM rewards WHERE fingerprint = ?", (reward.fingerprint,)
            ).fetchone()
            connection.executemany(
                "INSERT OR IGNORE INTO scores (key, reward, value, extra, created, checksum) VALUES (?, ?, ?, ?, ?, ?)",
                [(key, number, *row) for key, *row in rows],
            )

        if rows and self._keeps:
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
    if entry.credit is not None:
        said["credit"] = entry.credit.record()
    said |= {"reason": entry.reason, "subscores": {name: part.record() for name, part in entry.subscores.items()}}
    return json.dumps({key: value for key, value in said.items() if value}, default=_plain_or_repr)


def _score(value: float, extra: str) -> Score:
    said: Mapping[str, Any] = json.loads(extra)
    subscores = {name: SubScore.of_record(part) for name, part in said.get("subscores", {}).items()}
    credit = Credit.of_record(said["credit"]) if "credit" in said else None
    return Score(value, said.get("reason"), said.get("details", {}), credit, subscores=subscores)


def without_usage(entry: ScoreLike) -> ScoreLike:
    """The entry as a look-up would give it, for a row that equals one that was scored."""
    if not isinstance(entry, Score) or "usage" not in entry.details:
        return entry
    details = {key: value for key, value in entry.details.items() if key != "usage"}
    return replace(entry, details=details)


def _plain_or_repr(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else repr(value)


@dataclass(frozen=True, slots=True)
class CachedRows:
    """What the cache knows of B rows.

    Attributes:
        keys: The B content keys.
        found: The scores that there are, by key.
        missing: The rows to score: the first with each key that is not found, or all rows of the first of equal groups.
        groups: The rows of each group, where scores are kept of whole groups only; else None.
    """

    keys: Sequence[bytes]
    found: Mapping[bytes, ScoreLike]
    missing: Sequence[int]
    groups: Sequence[Sequence[int]] | None = None

    @property
    def cached(self) -> Mask:
        """(B,) True where the row is not among those to score."""
        cached_B = np.ones(len(self.keys), dtype=bool)
        cached_B[list(self.missing)] = False
        return cached_B

    def entries(self, scored: Sequence[ScoreLike]) -> list[ScoreLike]:
        """The B entries, given those of the missing rows."""
        new = {self.keys[row]: entry for row, entry in zip(self.missing, scored, strict=True)}
        entries = [self.found[key] if key in self.found else without_usage(new[key]) for key in self.keys]
        for row, entry in zip(self.missing, scored, strict=True):
            entries[row] = entry
        return entries


class LedgerCache:
    """One reward's scores in a ledger: what is known is not scored again, and equal rows are scored once.

    Args:
        name: The reward's name in the composition.
        component: The reward, and how it was made.
        scores: The ledger's cache.

    Attributes:
        is_costly: See `RewardOrigin.is_costly`.

    Raises:
        UnidentifiedError: Nothing tells the reward from another of its class.
    """

    def __init__(self, name: str, component: Component, scores: ScoreTable) -> None:
        self.name = name
        self._origin = RewardOrigin(component)
        self.is_costly = self._origin.is_costly
        self._reward = component.reward
        self._scores = scores
        self._key: CacheKey | None = None

    @property
    def is_identified(self) -> bool:
        """Whether it is known which reward this is; before the first setup it is not."""
        return self._key is not None

    @property
    def key(self) -> CacheKey:
        """What tells this reward from others, once it is identified."""
        assert self._key is not None
        return self._key

    def identify(self, stated: Mapping[str, str] | None) -> None:
        """Note what the reward states of itself, now that it is set up; None asks the object in this process."""
        self._key = self._origin.cache_key(stated)

    def get(self, batch: RewardBatch) -> CachedRows | None:
        """What is known of B rows; None if they hold what cannot be compared.

        Raises:
            LedgerError: The ledger cannot be read.
        """
        keys = row_keys(self.key.fingerprint, batch, self._reward.inputs)
        if keys is None:
            warnings.warn(f"reward {self.name!r} is not cached: a column has no JSON form", stacklevel=2)
            return None
        groups = batch.groups() if self._reward.scope == "group" else None
        if groups is not None:
            keys = member_keys(keys, groups)
        found = self._scores.get(list(set(keys)))
        first: dict[tuple[bytes, ...], Sequence[int]] = {}
        for rows in groups or [[row] for row in range(len(keys))]:
            asked = tuple(sorted(keys[row] for row in rows))
            if any(key not in found for key in asked):
                first.setdefault(asked, rows)
        return CachedRows(keys, found, sorted(row for rows in first.values() for row in rows), groups)

    def _keep(self, known: CachedRows, scored: Sequence[ScoreLike]) -> None:
        """Keep the scores of the missing rows that are scores: failures and abstentions are asked for again.

        A group of which a row has no score is asked for again as a whole.

        Raises:
            LedgerError: The ledger cannot be written.
        """
        values = dict(zip(known.missing, check_entries(scored, self._reward.range).raw.tolist(), strict=True))
        entries = dict(zip(known.missing, scored, strict=True))
        unscored = {row for row, value in values.items() if math.isnan(value)}
        for rows in known.groups or ():
            if not unscored.isdisjoint(rows):
                unscored.update(rows)
        self._scores.put(
            self.key, [(known.keys[row], values[row], entry) for row, entry in entries.items() if row not in unscored]
        )

    def put(self, known: CachedRows, result: CallResult) -> CallResult:
        """The result for all B rows, given that for the missing ones, whose scores are kept.

        Raises:
            LedgerError: The ledger cannot be written.
        """
        rows = len(known.missing)
        scored = result.answer
        if scored is None:
            assert result.error is not None
            if not known.found:
                return result
            scored = [Score.failed(described(result.error))] * rows
        self._keep(known, scored)
        return replace(result, answer=known.entries(scored), cached=known.cached)


class LedgerMemory:
    """What a reward keeps of its own in a ledger, see `rlaif_sdk.rewards.Memory`: among its scores, under other keys."""

    def __init__(self, cache: LedgerCache, scores: ScoreTable) -> None:
        self._cache = cache
        self._scores = scores

    def get(self, keys: Sequence[Any]) -> list[Score | None]:
        """What is known under each key.

        Raises:
            LedgerError: The ledger cannot be read.
        """
        digests = [self._digest(key) for key in keys]
        found = self._scores.get(list(set(digests)))
        known = (found.get(digest) for digest in digests)
        return [entry if entry is None or isinstance(entry, Score) else Score(float(entry)) for entry in known]

    def put(self, findings: Iterable[tuple[Any, Score]]) -> None:
        """Keep findings.

        Raises:
            LedgerError: The ledger cannot be written.
        """
        self._scores.put(
            self._cache.key,
            [(self._digest(key), score.value, score) for key, score in findings if score.value is not None],
        )

    def _digest(self, key: Any) -> bytes:
        digest = Digest()
        for part in (self._cache.key.fingerprint, "memory", key):
            digest.add(part)
        return digest.bytes()


def open_cache(name: str, component: Component, scores: ScoreTable, *, costly: bool) -> LedgerCache | None:
    """A reward's cache; None where its scores cannot be kept, or are not to be: of costly rewards only, if asked."""
    if not component.cache or not component.reward.cacheable:
        return None
    try:
        cache = LedgerCache(name, component, scores)
    except UnidentifiedError as error:
        if not costly:
            warnings.warn(
                f"reward {name!r} is not cached, since nothing tells its scores from those of another like it: {error}; "
                "build the composer from a config, or set cache=False",
                stacklevel=2,
            )
        return None
    if costly and not cache.is_costly:
        return None
    own = component.reward.memory
    if own is Reward.memory or isinstance(own, LedgerMemory):  # a reward may have something else of that name
        component.reward.memory = LedgerMemory(cache, scores)
    return cache
