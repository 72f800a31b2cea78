"""Panels: several judges of one thing as one number, with their doubt; and cascades, where the last that was asked decides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
from pydantic import Field

from rlaif_sdk.composer.aggregators import Aggregator, presence, refuse_negative, shared_evenly
from rlaif_sdk.rewards import Params
from rlaif_sdk.statistics.arrays import Array


class PanelParams(Params):
    """Parameters of `Panel`."""

    by: Literal["mean", "median", "trimmed", "worst", "majority"] = "mean"
    """What of the members' values makes the panel's: their weighted ``mean`` or ``median``, the mean of what is left
    when ``trim`` is cut off at both ends (``trimmed``), the least (``worst``), or the vote of the ``majority``."""
    trim: float = Field(default=0.25, ge=0, lt=0.5)
    """Of ``trimmed``: the share of the weights that is cut off at each end."""
    threshold: float = 0.5
    """Of ``majority``: a member whose value is at least this votes 1, another 0."""
    doubt: float = Field(default=0.0, ge=0)
    """How many of its members' spreads are taken off a row's value."""
    certainty: bool = False
    """Whether a member weighs more in a row of which it is surer: its weight is divided by its variance there, as its
    sub-score ``std`` says it. The likelihood modes of `judge` say it, and any reward may."""
    least_std: float = Field(default=0.1, gt=0)
    """With ``certainty``, the least deviation that a member is believed, in the panel's units: one that claims to be certain
    would otherwise decide by itself."""


class Panel(Aggregator):
    """``panel``: several rewards that judge the same thing, as one, on their own scale.

    Unlike a weighted sum it does not grow with the number of its members or their weights. Members of weight 0, and those
    missing from a row, take no part. With ``doubt`` *k* a row loses *k* times its members' `spread`: a lower confidence
    bound, which keeps a policy from what only some of the judges overrate. Mean, worst case and mean minus a multiple of
    the spread are the three objectives that Coste et al. (2024, "Reward Model Ensembles Help Mitigate Overoptimization")
    compare, who take the variance where this takes its root, so that *k* has no unit; Eisenstein et al. (2023, "Helping or
    Herding?") compare mean, median and worst case. Of *n* members of equal weight the value falls with none that rises while
    *k* is at most 1 / sqrt(n - 1); with more, a member that alone rises far enough lowers it.

    With ``certainty`` members weigh by the inverse of their variance in the row: where their errors are independent and none is
    biased, no other weights give the mean a smaller error (Cochran 1954, "The Combination of Estimates from Different
    Experiments"). A member that does not say how sure it is of a row counts as the least sure of it that says so.

    The shares of ``mean`` and ``trimmed`` are each member's weight times its value, of the others they are those of the
    members that decided; what doubt takes off is shared evenly.
    """

    def __init__(self, params: PanelParams | None = None) -> None:
        self.params = params or PanelParams()
        self.weighs_certainty = self.params.certainty

    def bind(self, weights: Mapping[str, tuple[float, float]]) -> None:
        refuse_negative(weights, "panel")

    def aggregate(self, normalized_RB: Array, weights_R: Array) -> tuple[Array, Array]:
        return self.aggregate_unsure(normalized_RB, weights_R, np.full(normalized_RB.shape, np.nan))

    def aggregate_unsure(self, normalized_RB: Array, weights_R: Array, std_RB: Array) -> tuple[Array, Array]:
        present_RB, active_RB = presence(normalized_RB, weights_R)
        values_RB = np.where(active_RB, normalized_RB, 0.0)
        weights_RB = np.where(active_RB, weights_R[:, None], 0.0)
        if self.params.certainty:
            weights_RB = weights_RB * self._precisions(np.where(active_RB, std_RB, np.nan))
        shares_RB = self._shares(values_RB, weights_RB)
        if self.params.doubt:
            spread_B = spread(normalized_RB, weights_R)
            taken_B = self.params.doubt * np.where(np.isnan(spread_B), 0.0, spread_B)
            shares_RB = shares_RB - shared_evenly(taken_B, active_RB)
        totals_B = np.where(active_RB.any(axis=0), shares_RB.sum(axis=0), np.nan)
        return totals_B, np.where(present_RB, shares_RB, np.nan)

    def _precisions(self, std_RB: Array) -> Array:
        """(R, B) the inverse of each member's variance, relative to that of the surest possible."""
        least = self.params.least_std
        greatest_B = np.fmax.reduce(std_RB, axis=0, initial=least)
        believed_RB: Array = np.where(np.isnan(std_RB), greatest_B, np.maximum(std_RB, least))
        return (least / believed_RB) ** 2

    def _shares(self, values_RB: Array, weights_RB: Array) -> Array:
        """What each member adds to the panel's value before doubt; members that take no part have weight 0."""
        match self.params.by:
            case "mean":
                return _weighted(values_RB, weights_RB)
            case "median":
                return _weighted(values_RB, _kept(values_RB, weights_RB, 0.5))
            case "trimmed":
                return _weighted(values_RB, _kept(values_RB, weights_RB, self.params.trim))
            case "worst":
                among_RB = np.where(weights_RB > 0, values_RB, np.inf)
                return shared_evenly(values_RB, among_RB == among_RB.min(axis=0))
            case "majority":
                votes_RB = _weighted((values_RB >= self.params.threshold).astype(float), weights_RB)
                yes_B = votes_RB.sum(axis=0)
                verdict_B = np.where(np.isclose(yes_B, 0.5), 0.5, yes_B > 0.5)
                return _weighted(np.broadcast_to(verdict_B, votes_RB.shape), votes_RB)


class Cascade(Aggregator):
    """``cascade``: the value of the last member that has one, so that a strong judge overrules a cheap one where it is asked.

    The members stand in the order of asking, the later ones with a ``when`` on the earlier ones. They must speak in the same
    units. Members of weight 0 take no part; the sizes of the weights do not matter.
    """

    def bind(self, weights: Mapping[str, tuple[float, float]]) -> None:
        refuse_negative(weights, "cascade")

    def aggregate(self, normalized_RB: Array, weights_R: Array) -> tuple[Array, Array]:
        present_RB, active_RB = presence(normalized_RB, weights_R)
        later_RB = active_RB[::-1].cumsum(axis=0)[::-1]
        decides_RB = active_RB & (later_RB == 1)
        shares_RB = np.where(decides_RB, normalized_RB, 0.0)
        totals_B = np.where(active_RB.any(axis=0), shares_RB.sum(axis=0), np.nan)
        return totals_B, np.where(present_RB, shares_RB, np.nan)


def spread(values_RB: Array, weights_R: Array) -> Array:
    """(B,) the weighted standard deviation of R rewards within each row, NaN where fewer than two have a value.

    Args:
        values_RB: (R, B), NaN where a reward has no value for a row.
        weights_R: (R,), of which the sizes count; those of weight 0 take no part.
    """
    _, active_RB = presence(values_RB, weights_R)
    share_RB = _share(np.where(active_RB, np.abs(weights_R)[:, None], 0.0))
    values_RB = np.where(active_RB, values_RB, 0.0)
    with np.errstate(over="ignore", invalid="ignore"):
        mean_B = (share_RB * values_RB).sum(axis=0)
        variance_B = (share_RB * (values_RB - mean_B) ** 2).sum(axis=0)
    spread_B: Array = np.where(active_RB.sum(axis=0) > 1, np.sqrt(variance_B), np.nan)
    return spread_B


def _share(weights_RB: Array) -> Array:
    sums_B = weights_RB.sum(axis=0)
    shares_RB: Array = weights_RB / np.where(sums_B > 0, sums_B, 1.0)
    return shares_RB


def _weighted(values_RB: Array, weights_RB: Array) -> Array:
    shares_RB: Array = values_RB * _share(weights_RB)
    return shares_RB


def _kept(values_RB: Array, weights_RB: Array, trim: float) -> Array:
    """What is left of each member's weight when a share of the whole is cut off above and below; of a half, the middle."""
    order_RB = np.argsort(np.where(weights_RB > 0, values_RB, np.inf), axis=0, kind="stable")
    sorted_RB = np.take_along_axis(_share(weights_RB), order_RB, axis=0)
    upper_RB = sorted_RB.cumsum(axis=0)
    lower_RB = upper_RB - sorted_RB
    if trim < 0.5:
        kept_RB = np.clip(np.minimum(upper_RB, 1 - trim) - np.maximum(lower_RB, trim), 0.0, None)
    else:
        tiny = 1e-12
        kept_RB = ((lower_RB <= 0.5 + tiny) & (upper_RB >= 0.5 - tiny) & (sorted_RB > 0)).astype(float)
    result_RB: Array = np.empty_like(kept_RB)
    np.put_along_axis(result_RB, order_RB, kept_RB, axis=0)
    return result_RB
