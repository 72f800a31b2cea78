"""The diagnostics of one composition, as flat numbers for a training log."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np

from rlaif_sdk.composer.column import RewardColumn
from rlaif_sdk.diagnostics.saturation import TOLERANCE, flat_groups, group_spread, saturation, width
from rlaif_sdk.diagnostics.variance import variance_shares
from rlaif_sdk.statistics.arrays import Array, encode_groups
from rlaif_sdk.statistics.correlation import pearson
from rlaif_sdk.types import RewardBatch


def composition_diagnostics(
    batch: RewardBatch, totals_B: Array, columns: Mapping[str, RewardColumn]
) -> dict[str, float]:
    """Measure how a batch's rewards relate to the total, to each other, to length and to their range.

    Args:
        batch: B rows that were composed.
        totals_B: Their totals, NaN where a row is unscored.
        columns: Each reward's part, by name.

    Returns:
        Numbers by name, NaN where there is nothing to measure.

        - ``reward/NAME/variance_share``: its share in the variance of the total (`variance_shares`).
        - ``reward/NAME/length_correlation``, and of the ``total``: Pearson's correlation with the completion's length,
          in tokens where they are known, else in characters.
        - ``reward/NAME/at_low``, ``at_high`` and ``tied``: its `saturation`.
        - ``reward/NAME/flat_groups``, and of the ``total``: the share of groups whose scores are all alike; with groups.
        - ``correlation/NAME/OTHER``: Pearson's correlation of two rewards' raw scores.
        - ``proxy/NAME`` of a reward with a weight, ``held_out/NAME`` of one without: the mean of its raw scores, inverted
          so that higher is better, or what the weight rewards; for `rlaif_sdk.diagnostics.drift_in_history`.
    """
    names = list(columns)
    raw_RB = np.stack([column.raw for column in columns.values()])
    shares_R = variance_shares(np.stack([column.weighted for column in columns.values()]), totals_B)
    spread_RG = _group_spread(np.vstack([raw_RB, totals_B]), batch)
    correlations = pearson(np.vstack([raw_RB, totals_B, completion_lengths(batch)]))
    numbers: dict[str, float] = {}
    for index, (name, column) in enumerate(columns.items()):
        measured = saturation(column.raw, column.declared_range)
        numbers |= {
            f"reward/{name}/variance_share": float(shares_R[index]),
            f"reward/{name}/length_correlation": float(correlations[index, -1]),
            f"reward/{name}/at_low": measured.low,
            f"reward/{name}/at_high": measured.high,
            f"reward/{name}/tied": measured.tied,
        }
        if spread_RG is not None:
            epsilon = TOLERANCE * width(column.raw, column.declared_range)
            numbers[f"reward/{name}/flat_groups"] = flat_groups(spread_RG[index], epsilon=epsilon)
        if (present := column.raw[~np.isnan(column.raw)]).size:
            kind = "proxy" if column.weight else "held_out"
            direction = (1.0 if column.higher_is_better else -1.0) * (-1.0 if column.weight < 0 else 1.0)
            numbers[f"{kind}/{name}"] = direction * float(present.mean())
    numbers["reward/total/length_correlation"] = float(correlations[-2, -1])
    if spread_RG is not None:
        numbers["reward/total/flat_groups"] = flat_groups(spread_RG[-1], epsilon=TOLERANCE * width(totals_B))
    for first, second in combinations(range(len(names)), 2):
        numbers[f"correlation/{names[first]}/{names[second]}"] = float(correlations[first, second])
    return numbers


def completion_lengths(batch: RewardBatch) -> Array:
    """(B,) the completions' lengths: in tokens where they are known, else in characters."""
    if batch.completion_ids is None:
        return completion_characters(batch)
    return np.fromiter(map(len, batch.completion_ids), dtype=np.float64, count=len(batch))


def completion_characters(batch: RewardBatch) -> Array:
    """(B,) the characters that the policy said, without thinking; 0 where the row cannot be read."""
    readable = [row for row in range(len(batch)) if row not in batch.unreadable]
    lengths_B = np.zeros(len(batch))
    lengths_B[readable] = [len(text) for text in batch.select(readable).completion_texts]
    return lengths_B


def _group_spread(values_RB: Array, batch: RewardBatch) -> Array | None:
    group_B = encode_groups(batch.group)
    return None if group_B is None else group_spread(values_RB, group_B)
