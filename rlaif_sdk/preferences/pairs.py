"""Preference pairs from several scored completions a prompt."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Literal

from rlaif_sdk.exceptions import BatchError, ConfigError
from rlaif_sdk.types import PreferencePair, TextOrConversation

if TYPE_CHECKING:
    from rlaif_sdk.composer import Composition

Choice = Literal["best_worst", "threshold", "all"]
Ties = Literal["drop", "half"]


@dataclass(frozen=True, slots=True)
class PairRule:
    """Which scored completions make pairs, and with what label; `make_pairs` says what each option does.

    Raises:
        ConfigError: The options contradict each other or are out of range.
    """

    choose: Choice = "best_worst"
    threshold: float | None = None
    min_gap: float = 0.0
    temperature: float | None = 1.0
    ties: Ties = "drop"

    def __post_init__(self) -> None:
        if self.choose not in ("best_worst", "threshold", "all"):
            raise ConfigError(
                f"unknown choice of pairs {self.choose!r}", key="choose", hint="best_worst, threshold or all"
            )
        if self.ties not in ("drop", "half"):
            raise ConfigError(f"unknown treatment of ties {self.ties!r}", key="ties", hint="drop or half")
        if (self.choose == "threshold") != (self.threshold is not None):
            problem = "needs a threshold" if self.threshold is None else "takes no threshold"
            raise ConfigError(f"the choice {self.choose!r} {problem}", key="threshold")
        if self.threshold is not None and not math.isfinite(self.threshold):
            raise ConfigError(f"must be a finite number, not {self.threshold}", key="threshold")
        if not (math.isfinite(self.min_gap) and self.min_gap >= 0):
            raise ConfigError(f"must be at least 0, not {self.min_gap}", key="min_gap")
        if self.temperature is not None and not (math.isfinite(self.temperature) and self.temperature > 0):
            raise ConfigError(
                f"must be above 0, not {self.temperature}", key="temperature", hint="None for hard labels"
            )
        if self.ties == "half" and (self.min_gap > 0 or self.choose == "threshold"):
            raise ConfigError("no pair with equal totals is made that could be given 0.5", key="ties", hint="use drop")


def make_pairs(
    composition: Composition,
    choose: Choice = "best_worst",
    *,
    threshold: float | None = None,
    min_gap: float = 0.0,
    temperature: float | None = 1.0,
    ties: Ties = "drop",
    source: str | None = "composition",
) -> list[PreferencePair]:
    """The pairs that a composition's totals make of the completions to each prompt.

    Rows of one label in the batch's ``group`` are compared. An unscored row is in no pair, and neither are two
    completions that are equal.

    Args:
        composition: The scored completions.
        choose: ``best_worst`` makes one pair a prompt, of the highest and the lowest total (the first of each where
            several are equal); ``all`` makes every pair; ``threshold`` every pair of one completion at or above
            ``threshold`` and one below it.
        threshold: In units of the total; only for ``threshold``.
        min_gap: Leave out pairs whose totals differ by less, in the same units.
        temperature: The label is `preference_probability` of the totals' difference at this temperature; None gives
            hard labels.
        ties: What becomes of two equal totals: ``drop`` leaves the pair out, ``half`` gives it 0.5 (in the order of the
            rows).
        source: Stands in every pair.

    Returns:
        Pairs in the order of the prompts, each with the higher total as ``chosen``.

    Raises:
        BatchError: The batch has no ``group``.
        ConfigError: The options contradict each other or are out of range.
    """
    batch = composition.batch
    if batch.group is None:
        raise BatchError("pairs are made of the completions to one prompt, and the batch has no 'group'")
    rule = PairRule(choose, threshold, min_gap, temperature, ties)
    chosen = choose_pairs(composition.totals.tolist(), batch.group, batch.completions, rule)
    return [
        PreferencePair(
            prompt=batch.prompts[better],
            chosen=batch.completions[better],
            rejected=batch.completions[worse],
            chosen_prob=probability,
            source=source,
        )
        for better, worse, probability in chosen
    ]


def choose_pairs(
    totals: Sequence[float], group: Sequence[Hashable], completions: Sequence[TextOrConversation], rule: PairRule
) -> list[tuple[int, int, float]]:
    """Which of B scored completions make pairs.

    Args:
        totals: B scores, NaN where there is none.
        group: B labels, equal for completions to one prompt.
        completions: The B completions.
        rule: Which make pairs.

    Returns:
        For each pair the rows of the higher and the lower total, and the probability that the first is better.
    """
    pairs = []
    for rows in _scored_groups(group, totals):
        for better, worse in _candidates(rows, totals, rule):
            gap = totals[better] - totals[worse]
            skipped = gap < rule.min_gap or (gap == 0 and rule.ties == "drop")
            if not skipped and completions[better] != completions[worse]:
                pairs.append((better, worse, _label(gap, rule.temperature)))
    return pairs


def preference_probability(difference: float, *, temperature: float = 1.0) -> float:
    """The probability that one completion is preferred, given by how much its score is the higher one.

    The logistic 1 / (1 + exp(-difference / temperature)) of Bradley and Terry (1952).

    Args:
        difference: In units of the score.
        temperature: The difference, in the same units, that makes odds of e to 1; above 0.
    """
    odds_exponent = difference / temperature
    if odds_exponent >= 0:
        return 1 / (1 + math.exp(-odds_exponent))
    return math.exp(odds_exponent) / (1 + math.exp(odds_exponent))


def _label(gap: float, temperature: float | None) -> float:
    if gap == 0:
        return 0.5
    return 1.0 if temperature is None else preference_probability(gap, temperature=temperature)


def _scored_groups(group: Sequence[Hashable], totals: Sequence[float]) -> Iterator[list[int]]:
    """The scored rows of each prompt."""
    rows_of: dict[Hashable, list[int]] = {}
    from rlaif_sdk.statistics.arrays import encode_groups

    for row, label in enumerate(encode_groups(group).tolist()):
        rows_of.setdefault(label, [])
        if not math.isnan(totals[row]):
            rows_of[label].append(row)
    yield from rows_of.values()


def _candidates(rows: Sequence[int], totals: Sequence[float], rule: PairRule) -> Iterator[tuple[int, int]]:
    """Pairs of rows, the one with the higher total first."""
    if len(rows) < 2:
        return
    if rule.choose == "best_worst":
        best, worst = max(rows, key=totals.__getitem__), min(rows, key=totals.__getitem__)
        yield (rows[0], rows[-1]) if best == worst else (best, worst)
        return
    for first, second in combinations(rows, 2):
        better, worse = (first, second) if totals[first] >= totals[second] else (second, first)
        if rule.threshold is None or totals[worse] < rule.threshold <= totals[better]:
            yield better, worse
