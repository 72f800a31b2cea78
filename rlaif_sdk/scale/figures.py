"""Figures over shards, merged into those of the whole table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rlaif_sdk.composer.tables import Moments, Summary


def as_record(summary: Summary) -> dict[str, Any]:
    """A summary as a JSON-ready mapping; minimum and maximum are null without values."""
    return {
        "rows": summary.rows,
        "unscored": summary.unscored,
        "columns": {
            name: {
                "count": moments.count,
                "mean": moments.mean,
                "m2": moments.m2,
                "low": moments.low if moments.count else None,
                "high": moments.high if moments.count else None,
                "failed": moments.failed,
                "seconds": moments.seconds,
            }
            for name, moments in summary.columns.items()
        },
    }


def from_record(record: Mapping[str, Any]) -> Summary:
    """The summary that `as_record` wrote."""
    columns = {}
    for name, kept in record["columns"].items():
        low, high = (math.inf, -math.inf) if kept["low"] is None else (kept["low"], kept["high"])
        columns[name] = Moments(**{**kept, "low": low, "high": high})
    return Summary(record["rows"], record["unscored"], columns)


def merge(whole: Summary, part: Summary) -> None:
    """Take a part into the whole (Chan, Golub and LeVeque 1979)."""
    whole.rows += part.rows
    whole.unscored += part.unscored
    for name, own in part.columns.items():
        moments = whole.columns.setdefault(name, Moments())
        moments.failed += own.failed
        moments.seconds += own.seconds
        if not own.count:
            continue
        count = moments.count + own.count
        delta = own.mean - moments.mean
        moments.m2 += own.m2 + delta**2 * moments.count * own.count / count
        moments.mean += delta * own.count / count
        moments.count = count
        moments.low, moments.high = min(moments.low, own.low), max(moments.high, own.high)


def readable(summary: Summary) -> dict[str, Any]:
    """What ``__job__/summary.json`` says: rows, unscored rows, and each reward's failures and moments."""
    return {
        "rows": summary.rows,
        "unscored": summary.unscored,
        "rewards": {
            name: {
                "scored": moments.count,
                "failed": moments.failed,
                **{key: value for key, value in _moments(moments).items() if moments.count},
            }
            for name, moments in summary.columns.items()
        },
    }


def _moments(moments: Moments) -> dict[str, float]:
    return {"mean": moments.mean, "std": moments.std, "min": moments.low, "max": moments.high}
