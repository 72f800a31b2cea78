"""Asking where it matters: about which completions of a group a costly reward is asked, and what is taken for the rest.

B rows of a batch, n of a group, F other rewards, K = F + 1 with the costly one last. A group is decided when no answer that
is still open can turn the sign of an advantage (a total less its group's mean), by more than a tolerance, with a stated
confidence.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from rlaif_sdk.exceptions import ConfigError, StateError
from rlaif_sdk.io.digests import json_digest
from rlaif_sdk.scoring.checks import Imputed
from rlaif_sdk.statistics.arrays import Array, Labels, Mask, encode_groups, is_finite_number, json_number
from rlaif_sdk.statistics.groups import group_means, group_sums, rows_of_groups
from rlaif_sdk.types import RewardBatch

_Policy: TypeAlias = Literal["advantage", "order"]
Totals: TypeAlias = Callable[[Array], tuple[Array, Array]]
"""The (B,) totals before and after the gates, for the costly reward's (B,) raw scores."""

LEAST_GROUPS = 8
"""Groups that the intervals are measured on before anything is left open; until then every row is asked about."""
MOST_GROUPS = 64
"""Groups that they are measured on: the last ones."""
HALF_LIFE = 1024
"""Answers after which one counts half in the regression: a policy that learns moves what its answers are worth."""
RIDGE = 1.0
"""How many answers' worth of evidence draws each coefficient to 0."""
_AT_ONCE = 1 << 20
"""Differences of two totals that are looked at together, each after each number of calls: some 100 MB."""
_TEACHES, _MEASURES = 1.0, 2.0
"""What a group that is asked about in full is for."""


@dataclass(frozen=True, slots=True)
class Ask:
    """When a costly reward is asked. See `rlaif_sdk.config.AskConfig` for the meaning of each field.

    Raises:
        ConfigError: A value is out of bounds; the message says which.
    """

    policy: _Policy = "advantage"
    confidence: float = 0.9
    tolerance: float = 0.0
    budget: float | None = None
    random_share: float = 0.1
    waves: int = 3
    past: str | Path | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        def refuse(name: str, wanted: str, hint: str | None = None) -> None:
            raise ConfigError(f"'{name}' is {wanted}, not {getattr(self, name)!r}", key=f"ask.{name}", hint=hint)

        if self.policy not in get_args(_Policy):
            refuse("policy", f"one of {', '.join(get_args(_Policy))}")
        if not (is_finite_number(self.confidence) and 0.5 < self.confidence <= 1):
            refuse("confidence", "above 0.5, which a coin has, and at most 1")
        if not (is_finite_number(self.tolerance) and self.tolerance >= 0):
            refuse("tolerance", "a finite number of at least 0")
        if self.budget is not None:
            if not is_finite_number(self.budget) or self.budget <= 0:
                hint = "a budget of nothing asks about nothing: leave the reward out, or leave 'budget' out"
                refuse("budget", "a number of calls a group, or a share of it below 1", hint)
            if self.budget > 1 and self.budget != int(self.budget):
                refuse("budget", "a whole number of calls a group, or a share of it below 1")
        if not (is_finite_number(self.random_share) and 0 < self.random_share <= 1):
            hint = "without groups that are asked about in full, nothing would notice that the intervals no longer hold"
            refuse("random_share", "above 0 and at most 1", hint)
        if not (isinstance(self.waves, int) and self.waves >= 1):
            refuse("waves", "a whole number of at least 1")

    def calls(self, size: int) -> int:
        """The most calls about a group of so many completions."""
        if self.budget is None:
            return size
        return min(size, math.ceil(self.budget * size) if self.budget < 1 else int(self.budget))


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """What the costly reward's answer is expected to be, given the others'; how far off that is; nothing that changes.

    An answer is the prediction, plus what the answers of its group have in common, plus noise.

    Attributes:
        mean: (K,) mean scores.
        slopes: (F,) by how much its score rises with each of the others' within a group.
        noise: The standard deviation of the noise, in the reward's units.
        common: The variance of what the answers of a group have in common.
        residuals: (N,) absolute residuals less their group's mean, over their standard deviation, ascending: of the groups
            that the intervals are measured on.
        groups: How many those are.
    """

    mean: Array
    slopes: Array
    noise: float
    common: float
    residuals: Array
    groups: int

    @property
    def is_ready(self) -> bool:
        """Whether there are enough groups to measure intervals on."""
        return self.groups >= LEAST_GROUPS

    def of(self, others_BF: Array) -> Array:
        """(B,) the expected answer; another reward's missing score counts as its mean."""
        apart_BF = others_BF - self.mean[:-1]
        expected_B: Array = self.mean[-1] + np.where(np.isnan(apart_BF), 0.0, apart_BF) @ self.slopes
        return expected_B

    def width(self, confidence: float) -> float:
        """By how many standard deviations an answer is off at most, with this confidence (split conformal: Vovk et al. 2005).

        It is off to one side by more than ``width(2 * confidence - 1)`` with the probability 1 - confidence at most, if it is as
        often too high as too low.

        Infinite where there are too few residuals for it, so that only the declared range bounds an answer.
        """
        place = math.ceil((len(self.residuals) + 1) * confidence)
        return float(self.residuals[place - 1]) if place <= len(self.residuals) else math.inf

    def common_after(self, answers_G: Array) -> Array:
        """(G,) the variance of what a group has in common once so many of its answers are known."""
        noise = self.noise**2
        if not self.common:
            return np.zeros(len(answers_G))
        left_G: Array = np.where(
            answers_G > 0, self.common * noise / (noise + np.maximum(answers_G, 1) * self.common), self.common
        )
        return left_G

    def shift(self, residual_B: Array, group_B: Labels) -> Array:
        """(B,) what a row's group has in common, given the residuals of its answers, NaN where there is none.

        It is their mean, drawn to 0 the more the fewer they are.
        """
        if not self.common:
            return np.zeros(len(residual_B))
        answers_G, sum_G = group_sums(residual_B, group_B)
        shift_G = sum_G * self.common / np.where(answers_G > 0, self.noise**2 + answers_G * self.common, 1.0)
        shift_B: Array = shift_G[group_B]
        return shift_B


class ScoreModel:
    """Learns the costly reward's answers from those of the others; the same on every rank.

    A ridge regression within groups, so that what a prompt does to all of its answers is not taken for what tells them
    apart. Rows that the policy chose weigh 1. Of the groups asked about in full, whatever they would have been asked, one half
    teaches: rows that the policy would have left out weigh as much as all that they stand for (Horvitz and Thompson, 1952),
    so that the choice of the policy does not bend the line. The other half never teaches, and intervals are measured on it
    alone.

    Args:
        others: F.
    """

    def __init__(self, others: int) -> None:
        self.count = 0.0
        self.mean_K = np.zeros(others + 1)
        self.moments_KK = np.zeros((others + 1, others + 1))
        self.measured: list[Array] = []
        self.audited: list[tuple[int, int]] = []
        self._stack: tuple[list[Array], tuple[Array, Labels, Array]] | None = None
        self.prediction = self._fitted()

    @property
    def flipped_share(self) -> float:
        """Of the advantages of the groups asked about in full, the share whose sign the policy would have flipped; or NaN."""
        rows = sum(rows for _, rows in self.audited)
        return sum(flipped for flipped, _ in self.audited) / rows if rows else math.nan

    def learn(self, values_NK: Array, group_N: Labels, use_N: Array, weight_N: Array, flipped_N: Array) -> None:
        """Take in what was answered in a training batch, on all ranks.

        Args:
            values_NK: The scores, the costly one's last; NaN where there is none.
            group_N: Equal for rows of one group.
            use_N: What the row's group is for, if it was asked about in full.
            weight_N: What a row weighs in the regression.
            flipped_N: 1 where the policy would have flipped the sign of the advantage, 0 where it would not have, NaN where
                it was not tried.
        """
        for rows in rows_of_groups(group_N):
            values_nK = values_NK[rows][~np.isnan(values_NK[rows, -1])]
            if use_N[rows[0]] == _MEASURES:
                if len(values_nK) > 1:
                    self.measured = [*self.measured, values_nK][-MOST_GROUPS:]
            elif len(values_nK):
                self._teach(values_nK, weight_N[rows][~np.isnan(values_NK[rows, -1])])
            tried = flipped_N[rows][~np.isnan(flipped_N[rows])]
            if tried.size:
                self.audited = [*self.audited, (int(tried.sum()), tried.size)][-MOST_GROUPS:]
        self.prediction = self._fitted()

    def _teach(self, values_nK: Array, weight_n: Array) -> None:
        total = float(weight_n.sum())
        kept = 0.5 ** (total / HALF_LIFE)
        present_nK = ~np.isnan(values_nK)
        known_K = weight_n @ present_nK
        own_K = weight_n @ np.where(present_nK, values_nK, 0.0) / np.maximum(known_K, 1e-300)
        values_nK = np.where(present_nK, values_nK, np.where(known_K > 0, own_K, self.mean_K))
        mean_K = weight_n @ values_nK / total
        centred_nK = values_nK - mean_K
        self.count = self.count * kept + total
        self.mean_K = self.mean_K + (mean_K - self.mean_K) * (total / self.count)
        self.moments_KK = self.moments_KK * kept + (centred_nK * weight_n[:, None]).T @ centred_nK

    def _fitted(self) -> Prediction:
        spread_F = np.diag(self.moments_KK)[:-1]
        varies_F = spread_F > 0
        slopes_F = np.zeros(len(spread_F))
        if varies_F.any():
            matrix = self.moments_KK[:-1, :-1][np.ix_(varies_F, varies_F)]
            matrix = matrix + np.diag(spread_F[varies_F]) * (RIDGE / self.count)
            slopes_F[varies_F] = np.linalg.solve(matrix, self.moments_KK[:-1, -1][varies_F])
        unmeasured = Prediction(self.mean_K, slopes_F, math.inf, 0.0, np.empty(0), 0)
        if not self.measured:
            return unmeasured
        values_NK, group_N, size_G = self._stacked
        residual_N = values_NK[:, -1] - unmeasured.of(values_NK[:, :-1])
        mean_G = np.bincount(group_N, residual_N) / size_G
        within_N = residual_N - mean_G[group_N]
        variance = float((within_N**2).sum() / (size_G - 1).sum())
        common = max(0.0, float((mean_G**2 - variance / size_G).mean()))
        with np.errstate(divide="ignore", invalid="ignore"):
            scaled_N = np.abs(within_N) / np.sqrt(variance * (1 - 1 / size_G))[group_N]
        return Prediction(
            self.mean_K, slopes_F, math.sqrt(variance), common, np.sort(np.nan_to_num(scaled_N)), len(self.measured)
        )

    @property
    def _stacked(self) -> tuple[Array, Labels, Array]:
        """The answers that intervals are measured on, (N, K); (N,) their groups; (G,) how many each has."""
        if self._stack is None or self._stack[0] is not self.measured:
            size_G = np.array([len(values) for values in self.measured], dtype=np.float64)
            group_N = np.repeat(np.arange(len(self.measured)), size_G.astype(np.intp))
            self._stack = self.measured, (np.concatenate(self.measured), group_N, size_G)
        return self._stack[1]

    def state_dict(self) -> dict[str, Any]:
        """What must survive a checkpoint, as JSON values."""
        return {
            "count": self.count,
            "mean": self.mean_K.tolist(),
            "moments": self.moments_KK.tolist(),
            "measured": [[[*map(json_number, row)] for row in values] for values in self.measured],
            "audited": [list(audited) for audited in self.audited],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a saved state.

        Raises:
            StateError: It is not of a model with so many rewards.
        """
        if state.keys() != self.state_dict().keys() or np.shape(state["moments"]) != self.moments_KK.shape:
            raise StateError(
                "an asking policy's state has count, mean, moments, measured and audited, of as many rewards"
            )
        self.count = float(state["count"])
        self.mean_K, self.moments_KK = np.array(state["mean"]), np.array(state["moments"])
        self.measured = [np.array(values, dtype=np.float64) for values in state["measured"]]
        self.audited = [(int(flipped), int(rows)) for flipped, rows in state["audited"]]
        self.prediction = self._fitted()


@dataclass(frozen=True, slots=True, eq=False)
class OpenGroups:
    """G groups of n completions, of which some have no answer yet.

    Attributes:
        rows: (G, n) their rows in the batch.
        totals: (G, n) the totals, with the expected answer where there is none; NaN where a row has none whatever it is.
        slopes: (G, n) by how much a total rises with a unit of the reward; 0 where it does not depend on it.
        low: (G, n) the least total that the declared range admits; the total where the answer is known.
        high: (G, n) the greatest.
        is_open: (G, n) True where there is no answer and the total depends on it.
        answers: (G,) how many are known.
    """

    rows: Labels
    totals: Array
    slopes: Array
    low: Array
    high: Array
    is_open: Mask
    answers: Array

    def certainty(self, ask: Ask, prediction: Prediction, width: float, chosen_Gn: Mask | None = None) -> Array:
        """(G, n) how far each advantage is from another sign, over how far open answers may move it: below 1 is undecided.

        With the policy ``order`` the least of that and of the same of each difference of two totals. How far they may move
        it is the lesser of two bounds: so many standard deviations of what is expected, and what the declared range admits.

        Args:
            ask: The policy.
            prediction: What is expected.
            width: `Prediction.width`.
            chosen_Gn: Completions whose answers are taken for known, and as expected.
        """
        present_Gn = ~np.isnan(self.totals)
        size_G1 = np.maximum(present_Gn.sum(axis=1, keepdims=True), 1)
        open_Gn = self.is_open if chosen_Gn is None else self.is_open & ~chosen_Gn
        answers_G = self.answers if chosen_Gn is None else self.answers + chosen_Gn.sum(axis=1)
        noise, common_G1 = prediction.noise**2, prediction.common_after(answers_G)[:, None]
        total_Gn = np.where(present_Gn, self.totals, 0.0)
        distance_Gn = total_Gn - total_Gn.sum(axis=1, keepdims=True) / size_G1
        slope_Gn = np.where(open_Gn, self.slopes, 0.0)
        down_Gn, up_Gn = (np.where(open_Gn, far, 0.0) for far in (total_Gn - self.low, self.high - total_Gn))
        squares_Gn = slope_Gn**2
        variance_Gn = noise * (squares_Gn * (1 - 2 / size_G1) + squares_Gn.sum(axis=1, keepdims=True) / size_G1**2)
        variance_Gn += common_G1 * (slope_Gn - slope_Gn.sum(axis=1, keepdims=True) / size_G1) ** 2
        fall_Gn = down_Gn + (up_Gn.sum(axis=1, keepdims=True) - up_Gn - down_Gn) / size_G1
        rise_Gn = up_Gn + (down_Gn.sum(axis=1, keepdims=True) - down_Gn - up_Gn) / size_G1
        certainty_Gn = _certainty(distance_Gn, variance_Gn, fall_Gn, rise_Gn, width, ask.tolerance)
        certainty_Gn = np.where(present_Gn, certainty_Gn, np.inf)
        if ask.policy == "advantage":
            return certainty_Gn
        apart_Gnn = total_Gn[:, :, None] - total_Gn[:, None]
        variance_Gnn = noise * (squares_Gn[:, :, None] + squares_Gn[:, None])
        variance_Gnn += common_G1[:, None] * (slope_Gn[:, :, None] - slope_Gn[:, None]) ** 2
        fall_Gnn, rise_Gnn = down_Gn[:, :, None] + up_Gn[:, None], up_Gn[:, :, None] + down_Gn[:, None]
        certainty_Gnn = _certainty(apart_Gnn, variance_Gnn, fall_Gnn, rise_Gnn, width, ask.tolerance)
        both_Gnn = present_Gn[:, :, None] & present_Gn[:, None] & ~np.eye(total_Gn.shape[1], dtype=bool)
        of_pairs_Gn: Array = np.where(both_Gnn, certainty_Gnn, np.inf).min(axis=2)
        return np.minimum(certainty_Gn, of_pairs_Gn)

    def choose(self, ask: Ask, prediction: Prediction, width: float, most_G: Labels) -> Mask:
        """(G, n) the completions to ask about now: as few as decide each group if answers come as expected.

        The least certain now come first, and after them those on which most depends.

        Args:
            ask: The policy.
            prediction: What is expected.
            width: `Prediction.width`.
            most_G: How many of each group, at most.
        """
        chosen_Gn = np.zeros(self.rows.shape, dtype=bool)
        certainty_Gn = self.certainty(ask, prediction, width)
        goes_on = np.flatnonzero((certainty_Gn.min(axis=1) < 1) & self.is_open.any(axis=1) & (most_G > 0))
        at_once = max(1, _AT_ONCE // self.rows.shape[1] ** 3)
        for start in range(0, len(goes_on), at_once):
            place_g = goes_on[start : start + at_once]
            part, own_gn = self.among(place_g), certainty_Gn[place_g]
            order_gn = np.lexsort((-part.slopes, np.where(own_gn < 1, own_gn, 1.0), ~part.is_open), axis=1)
            most_g = np.minimum(most_G[place_g], part.is_open.sum(axis=1))
            calls_P = np.arange(1, int(most_g.max()) + 1)
            first_gPn = order_gn.argsort(axis=1)[:, None] < np.minimum(calls_P, most_g[:, None])[:, :, None]
            each = part.among(np.repeat(np.arange(len(part.rows)), len(calls_P)))
            after_Gn = each.certainty(ask, prediction, width, first_gPn.reshape(each.rows.shape))
            decides_gP = after_Gn.min(axis=1).reshape(first_gPn.shape[:2]) >= 1
            least_g = np.where(decides_gP.any(axis=1), decides_gP.argmax(axis=1), len(calls_P) - 1)
            chosen_Gn[place_g] = first_gPn[np.arange(len(least_g)), least_g]
        return chosen_Gn

    def among(self, groups_G: Labels) -> OpenGroups:
        """Some of them."""
        return OpenGroups(*(getattr(self, name)[groups_G] for name in self.__dataclass_fields__))


def _certainty(distance: Array, variance: Array, fall: Array, rise: Array, width: float, tolerance: float) -> Array:
    """How far each distance is from another sign, over how far it may move that way; infinite where it cannot move."""
    reach = np.where(distance > 0, fall, np.where(distance < 0, rise, np.maximum(fall, rise)))
    if math.isfinite(width):
        reach = np.minimum(reach, width * np.sqrt(np.maximum(variance, 0.0)))
    with np.errstate(divide="ignore", invalid="ignore"):
        certainty: Array = np.where(reach > 0, (np.abs(distance) + tolerance) / reach, np.inf)
    return certainty


class Asking:
    """The waves in which a costly reward is asked about a batch, as few as its groups need.

    Args:
        ask: The policy.
        prediction: What its answers are expected to be.
        value_range: Its declared range.
        group_B: Equal for rows of one group.
        others_BF: What the other rewards said.
        eligible_B: True where its conditions let it be asked.
        in_full_B: True where it is asked in any case.
        totals: What its scores make of the batch.
    """

    def __init__(
        self,
        ask: Ask,
        prediction: Prediction,
        value_range: tuple[float, float],
        group_B: Labels,
        others_BF: Array,
        eligible_B: Mask,
        in_full_B: Mask,
        totals: Totals,
    ) -> None:
        self._ask, self._prediction, self._range, self._totals = ask, prediction, value_range, totals
        self._group_B, self._width = group_B, prediction.width(2 * ask.confidence - 1)  # signs turn to one side
        self._chosen_B, self._in_full = eligible_B & ~in_full_B, np.flatnonzero(eligible_B & in_full_B).tolist()
        self.asked_B = np.zeros(len(group_B), dtype=bool)
        self._raw_B = np.full(len(group_B), np.nan)
        self._wave = 0
        by_size: dict[int, list[list[int]]] = {}
        for rows in rows_of_groups(group_B):
            if not in_full_B[rows[0]]:
                by_size.setdefault(len(rows), []).append(rows)
        self._alike = [np.array(groups, dtype=np.intp) for groups in by_size.values()]
        if self._alike:
            low, high = value_range
            self._expected_B = np.clip(prediction.of(others_BF), low, high)
            ends = [totals(np.where(eligible_B, end, np.nan)) for end in value_range]
            self._low_B, self._high_B = (edge([after_B for _, after_B in ends], axis=0) for edge in (np.min, np.max))
            slope_B = np.abs(ends[1][0] - ends[0][0]) / (high - low)
            self._slope_B = np.where(self._low_B < self._high_B, slope_B, 0.0)

    def next_rows(self) -> list[int]:
        """The rows of the next wave, ascending; none where nothing more is asked.

        The last of several waves asks about all of the groups that are still undecided, as far as the budget goes.
        """
        self._wave += 1
        rows = self._in_full if self._wave == 1 else []
        if self._wave > self._ask.waves or not self._alike:
            return rows
        is_last = 1 < self._wave == self._ask.waves
        for groups in self._open_groups():
            size = groups.rows.shape[1]
            most_G = self._ask.calls(size) - self.asked_B[groups.rows].sum(axis=1)
            chosen_Gn = groups.choose(self._ask, self._prediction, self._width, most_G)
            if is_last:
                undecided_G = chosen_Gn.any(axis=1) & (groups.is_open.sum(axis=1) <= most_G)
                chosen_Gn |= groups.is_open & undecided_G[:, None]
            rows = rows + groups.rows[chosen_Gn].tolist()
        return sorted(rows)

    def tell(self, rows: Sequence[int], raw: Array) -> None:
        """Take in the answers of a wave; NaN where it abstained or failed."""
        self.asked_B[rows] = True
        self._raw_B[rows] = raw

    def expected(self) -> Array:
        """(B,) its scores: the answers, and what is expected of the rows that it may still be asked about."""
        if not self._alike:
            return self._raw_B
        shift_B = self._prediction.shift(self._raw_B - self._expected_B, self._group_B)
        expected_B = np.clip(self._expected_B + shift_B, *self._range)
        raw_B: Array = np.where(self._chosen_B & ~self.asked_B, expected_B, self._raw_B)
        return raw_B

    def totals(self) -> Array:
        """(B,) the totals that follow from `expected`."""
        _, after_B = self._totals(self.expected())
        return after_B

    def _open_groups(self) -> Iterator[OpenGroups]:
        """The groups that are not asked about in full, those of one size together."""
        totals_B = self.totals()
        open_B = self._chosen_B & ~self.asked_B & (self._slope_B > 0)
        low_B, high_B = np.where(open_B, self._low_B, totals_B), np.where(open_B, self._high_B, totals_B)
        known_B = ~np.isnan(self._raw_B)
        for rows in self._alike:
            answers_G = known_B[rows].sum(axis=1).astype(np.float64)
            slopes_Gn, low_Gn, high_Gn = self._slope_B[rows], low_B[rows], high_B[rows]
            yield OpenGroups(rows, totals_B[rows], slopes_Gn, low_Gn, high_Gn, open_B[rows], answers_G)

    def imputed(self) -> dict[int, Imputed]:
        """What is taken for its score of each row that it was not asked about, though its conditions would let it."""
        found: dict[int, Imputed] = {}
        left_B = self._chosen_B & ~self.asked_B
        if not left_B.any():
            return found
        raw_B = self.expected()
        low, high = self._range
        for groups in self._open_groups():
            undecided_G = groups.certainty(self._ask, self._prediction, self._width).min(axis=1) < 1
            half_G = np.full(len(groups.rows), np.inf)
            if math.isfinite(width := self._prediction.width(self._ask.confidence)):
                half_G = width * np.sqrt(self._prediction.noise**2 + self._prediction.common_after(groups.answers))
            for rows, undecided, half in zip(groups.rows, undecided_G, half_G.tolist(), strict=True):
                why = self._why(len(rows), undecided=bool(undecided))
                for row in rows[left_B[rows]].tolist():
                    value = float(raw_B[row])
                    within = max(min(half, value - low), min(half, high - value))
                    found[row] = Imputed(value, within, f"{value:.4g} ± {within:.2g}, not asked: {why}")
        return dict(sorted(found.items()))

    def _why(self, size: int, *, undecided: bool) -> str:
        if undecided:
            spent = self._ask.calls(size)
            return f"{spent} calls a group are spent" if spent < size else "there is no other wave"
        what = "an advantage's sign" if self._ask.policy == "advantage" else "an order or an advantage's sign"
        more = f" by more than {self._ask.tolerance:g}" if self._ask.tolerance else ""
        return f"cannot change {what}{more} (confidence {self._ask.confidence:.0%})"


def drawn_groups(batch: RewardBatch, group_B: Labels, share: float, *, ready: bool) -> Array:
    """(B,) what a row's group is for, if it is asked about in full, else 0.

    Which groups are drawn depends on their texts alone: it is the same on every rank and after a restart, and nothing that a
    reward says has a part in it.

    Args:
        batch: B rows.
        group_B: Equal for rows of one group.
        share: How many of the groups are drawn.
        ready: False draws all.
    """
    use_B = np.zeros(len(batch))
    place = np.array([row for row in range(len(batch)) if row not in batch.unreadable], dtype=np.intp)
    readable = batch.select(place.tolist()) if batch.unreadable else batch
    prompts, completions = readable.prompt_texts, readable.completion_texts
    for rows in rows_of_groups(group_B[place]):
        if len(rows) < 2:
            continue
        digest = int(json_digest([prompts[rows[0]], [completions[row] for row in rows]]), 16)
        drawn, half = divmod(digest >> 64, 2)
        if not ready or drawn < share * 2.0**63:
            use_B[place[rows]] = _MEASURES if half else _TEACHES
    return use_B


def begin_asking(
    ask: Ask,
    model: ScoreModel,
    batch: RewardBatch,
    value_range: tuple[float, float],
    others_BF: Array,
    eligible_B: Mask,
    totals: Totals,
) -> Asking:
    """The waves of a batch that was not asked about yet.

    It is asked about in full where the batch does not train or has no groups, until the model is ready, and in the groups that
    are drawn; so is a row alone in its group.
    """
    group_B = encode_groups(batch.group)
    if group_B is None or not batch.training or not model.prediction.is_ready:
        label_B = np.zeros(len(batch), dtype=np.intp) if group_B is None else group_B
        in_full_B = np.ones(len(batch), dtype=bool)
    else:
        label_B = group_B
        alone_B = (np.bincount(group_B) == 1)[group_B]
        in_full_B = alone_B | (drawn_groups(batch, group_B, ask.random_share, ready=True) > 0)
    return Asking(ask, model.prediction, value_range, label_B, others_BF, eligible_B, in_full_B, totals)


def training_data(
    ask: Ask,
    model: ScoreModel,
    batch: RewardBatch,
    value_range: tuple[float, float],
    others_BF: Array,
    raw_B: Array,
    eligible_B: Mask,
    totals_of: Callable[[], Totals],
) -> Array:
    """(3, B) what `ScoreModel.learn` takes beside the scores: what a row's group is for, its weight, and whether it flips.

    In the groups that were asked about in full the policy is tried with the answers at hand: whom it would have asked, and
    which advantages would have had another sign.
    """
    group_B = encode_groups(batch.group)
    use_B, weight_B, flipped_B = (
        np.zeros(len(raw_B)),
        (~np.isnan(raw_B)).astype(np.float64),
        np.full(len(raw_B), np.nan),
    )
    if group_B is None:
        return np.stack([use_B, weight_B, flipped_B])
    ready = model.prediction.is_ready
    use_B = drawn_groups(batch, group_B, ask.random_share, ready=ready)
    missing_B = eligible_B & np.isnan(raw_B)
    use_B[(np.bincount(group_B, weights=missing_B) > 0)[group_B]] = 0.0
    drawn_B = use_B > 0
    if ready and drawn_B.any():
        totals = totals_of()
        trial = Asking(ask, model.prediction, value_range, group_B, others_BF, eligible_B, ~drawn_B, totals)
        while rows := [row for row in trial.next_rows() if drawn_B[row]]:
            trial.tell(rows, raw_B[rows])
        # the others are learnt from unless their group measures; these in half of the drawn groups alone
        weight_B[drawn_B & ~trial.asked_B & (weight_B > 0)] = (1 - ask.random_share / 2) / (ask.random_share / 2)
        now_B, then_B = (
            values_B - group_means(values_B, group_B)[group_B] for values_B in (totals(raw_B)[1], trial.totals())
        )
        tried_B = drawn_B & ~np.isnan(now_B)
        flipped_B[tried_B] = (now_B * then_B < 0)[tried_B] & (np.abs(now_B) > ask.tolerance)[tried_B]
    return np.stack([use_B, weight_B, flipped_B])
