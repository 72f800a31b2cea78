"""One reward's way through the cache: what is known is not scored again, and equal rows are scored once."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from rlaif_sdk.composer.component import Component
from rlaif_sdk.composer.ledger.identity import Identity, Origin, UnidentifiedError
from rlaif_sdk.composer.ledger.keys import row_keys
from rlaif_sdk.composer.ledger.scores import ScoreCache, without_usage
from rlaif_sdk.exceptions import RewardError
from rlaif_sdk.rewards import ScoreLike
from rlaif_sdk.scoring import CallResult, described
from rlaif_sdk.scoring.checks import check_scores, entries_of
from rlaif_sdk.statistics.arrays import Mask
from rlaif_sdk.types import RewardBatch, Score


@dataclass(frozen=True, slots=True)
class Known:
    """What the cache knows of B rows.

    Attributes:
        keys: The B content keys.
        found: The scores that there are, by key.
        missing: The rows to score: the first with each key that is not found.
    """

    keys: Sequence[bytes]
    found: Mapping[bytes, ScoreLike]
    missing: Sequence[int]

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


class Recall:
    """One reward's scores in a ledger.

    Args:
        name: The reward's name in the composition.
        component: The reward, and how it was made.
        scores: The ledger's cache.

    Raises:
        UnidentifiedError: Nothing tells the reward from another of its class.
    """

    def __init__(self, name: str, component: Component, scores: ScoreCache) -> None:
        self.name = name
        self._origin = Origin(component)
        self._reward = component.reward
        self._scores = scores
        self._identity: Identity | None = None

    @property
    def is_identified(self) -> bool:
        """Whether it is known which reward this is; before the first setup it is not."""
        return self._identity is not None

    def identify(self, stated: Mapping[str, str] | None) -> None:
        """Note what the reward states of itself, now that it is set up; None asks the object in this process."""
        self._identity = self._origin.identity(stated)

    def look_up(self, batch: RewardBatch) -> Known | None:
        """What is known of B rows; None if they hold what cannot be compared.

        Raises:
            LedgerError: The ledger cannot be read.
        """
        assert self._identity is not None
        keys = row_keys(self._identity.fingerprint, batch, self._reward.inputs)
        if keys is None:
            warnings.warn(f"reward {self.name!r} is not cached: a column has no JSON form", stacklevel=2)
            return None
        found = self._scores.look_up(list(set(keys)))
        first: dict[bytes, int] = {}
        for row, key in enumerate(keys):
            if key not in found:
                first.setdefault(key, row)
        return Known(keys, found, list(first.values()))

    def keep(self, known: Known, scored: Sequence[ScoreLike]) -> None:
        """Keep the scores of the missing rows that are scores: failures and abstentions are asked for again.

        Raises:
            LedgerError: The ledger cannot be written.
        """
        assert self._identity is not None
        values = check_scores(scored, len(known.missing), self._reward.range).raw.tolist()
        rows = zip(known.missing, values, scored, strict=True)
        self._scores.put(
            self._identity, [(known.keys[row], value, entry) for row, value, entry in rows if not math.isnan(value)]
        )

    def complete(self, known: Known, outcome: CallResult) -> CallResult:
        """The outcome for all B rows, given that for the missing ones, whose scores are kept.

        Raises:
            LedgerError: The ledger cannot be written.
        """
        rows = len(known.missing)
        try:
            if outcome.error is not None:
                raise outcome.error
            scored = entries_of(outcome.answer, rows)
        except RewardError as error:
            if not known.found:
                return replace(outcome, answer=None, error=error)
            scored = [Score.failed(described(error))] * rows
        self.keep(known, scored)
        return replace(outcome, answer=known.entries(scored), error=None, cached=known.cached)


def recall(name: str, component: Component, scores: ScoreCache | None) -> Recall | None:
    """A reward's way through the cache; None where it is not cached."""
    if scores is None or not component.cache or not component.reward.cacheable:
        return None
    try:
        return Recall(name, component, scores)
    except UnidentifiedError as error:
        warnings.warn(
            f"reward {name!r} is not cached, since nothing tells its scores from those of another like it: {error}; "
            "build the composer from a config, or set cache=False",
            stacklevel=2,
        )
        return None
