"""What is said of scored samples, as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from fastapi import Response

from rlaif_sdk.integrations.samples import Scored
from rlaif_sdk.io.text import safe_text

_encode = json.JSONEncoder(allow_nan=False, ensure_ascii=False).encode


def json_response(content: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A response in which a lone surrogate, as in a reason, is U+FFFD: not every client can read its escape."""
    return Response(safe_text(_encode(content)), status, media_type="application/json", headers=headers)


def row_score(scored: Scored, *, detail: bool) -> dict[str, Any]:
    """A `rlaif_sdk.serving.protocol.RowScore`."""
    row = scored.row
    columns = scored.composition.rewards
    unscored = scored.total is None
    failed = unscored and (
        bool(scored.composition.dropped[row]) or any(row in column.failures for column in columns.values())
    )
    answer: dict[str, Any] = {
        "total": scored.total,
        "status": "failed" if failed else "abstained" if unscored else "scored",
        "reason": scored.reason if unscored else None,
    }
    if detail:
        answer["rewards"] = {
            name: {
                "raw": number(column.raw[row]),
                "normalized": number(column.normalized[row]),
                "weighted": number(column.weighted[row]),
                "status": column.status(row),
                "reason": column.reason(row),
            }
            for name, column in columns.items()
        }
    return answer


def openrlhf_answer(scored: Sequence[Scored], unscored: float | None) -> dict[str, Any]:
    """A `rlaif_sdk.serving.protocol.OpenRLHFAnswer`."""
    totals = [unscored if one.total is None else one.total for one in scored]
    figures = [one.figures() for one in scored]
    logs = {name: [row[name] for row in figures] for name in figures[0]}
    return {
        "rewards": totals,
        "scores": totals,
        "extra_logs": {name: values for name, values in logs.items() if all(map(math.isfinite, values))},
        "reasons": [one.reason if one.total is None else None for one in scored],
    }


def verl_answer(scored: Scored, unscored: float | None) -> dict[str, Any]:
    """``score``, each reward's own score, ``unscored`` and ``reason``, flat, as verl's ``reward_extra_info``."""
    figures = {name: number(value) for name, value in scored.figures().items()}
    total = unscored if scored.total is None else scored.total
    return {**figures, "score": total, "reason": scored.reason if scored.total is None else None}


def number(value: float) -> float | None:
    """A number that JSON has."""
    return float(value) if math.isfinite(value) else None
