"""The card beside the labels of a review: who decided, how pairs were chosen, how people and judges agree."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rlaif_sdk.io.tables import table_digest
from rlaif_sdk.preferences.card import Card
from rlaif_sdk.preferences.review.figures import review_figures
from rlaif_sdk.preferences.review.store import ReviewStore
from rlaif_sdk.statistics.estimates import Estimate

_NOT_ON_A_CARD = {"mine", "complete"}


def review_card(
    store: ReviewStore, file: Path, *, rows: int, settings: Mapping[str, Any], inputs: Sequence[Path]
) -> Card:
    """How the labels in an export came about; reviewers are counted and not named.

    Args:
        store: The review.
        file: What was exported.
        rows: How many rows it has.
        settings: The options of the export.
        inputs: The files that were reviewed.
    """
    figures = review_figures(store)
    done = (act for _, acts in store.results(judged_only=True) for act in acts)
    reviewers = {act.reviewer for act in done if act.choice != "skip"}
    counted = {name: count for name, count in asdict(store.progress()).items() if name not in _NOT_ON_A_CARD}
    agreed = {
        "people agree with the judge": figures.ai.accuracy,
        "the same over the random sample": figures.ai_audit.accuracy,
        "Cohen's kappa": figures.ai.kappa,
    }
    return Card(
        title="Preferences reviewed by people",
        method="People looked at pairs that judges had labelled, those first on which the judges were least sure or "
        "disagreed, and a random sample in between. The column `source` says who decided a row: people, the judge where "
        "nobody looked, or both by weight; an edited response is a pair of its own.",
        files={file.name: "prompt, chosen, rejected, chosen_prob, who decided, and the columns that were reviewed"},
        counts={
            "rows": rows,
            "reviewers": len(reviewers),
            **counted,
            **{name: _shown(figure) for name, figure in agreed.items() if figure.n},
        },
        inputs={path.name: table_digest(path) for path in inputs},
        settings={**settings, "audit": store.audit, "reviewers a pair": store.overlap},
    )


def _shown(estimate: Estimate) -> str:
    interval = "" if math.isnan(estimate.low) else f" [{estimate.low:.3f}, {estimate.high:.3f}]"
    return f"{estimate.value:.3f}{interval} over {estimate.n} verdicts"
