"""Win rates at equal length beside AlpacaEval's minimal variant and its published ones, on its published annotations.

    pip install scikit-learn
    python benchmarks/length_control.py ALPACA_EVAL

``ALPACA_EVAL`` is a checkout of https://github.com/tatsu-lab/alpaca_eval. Its minimal variant is fitted by scikit-learn here
(an L1 penalty, liblinear, ten strengths in five folds), as its own code does.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
from pathlib import Path

import numpy as np
from _report import save
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from rlaif_sdk.evaluation import length_control
from rlaif_sdk.evaluation.length_control import MIN_OVERLAP, length_controlled, length_overlap

JUDGE = "weighted_alpaca_eval_gpt4_turbo"
BANDS = ((0.0, MIN_OVERLAP / 2), (MIN_OVERLAP / 2, MIN_OVERLAP), (MIN_OVERLAP, 1.0))


def preferences(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The probability that each answer is better than the reference, and both lengths."""
    rows = [
        row
        for row in json.loads(path.read_text(encoding="utf-8"))
        if row.get("preference") is not None and isinstance(row["output_1"], str) and isinstance(row["output_2"], str)
    ]
    prob_N = np.array([float(row["preference"]) or 1.5 for row in rows]) - 1  # 0 is its tie
    return prob_N, np.array([[len(row["output_2"]), len(row["output_1"])] for row in rows], dtype=float)


def minimal(prob_N: np.ndarray, lengths_N2: np.ndarray) -> float:
    """AlpacaEval's ``length_controlled_minimal`` by scikit-learn, which takes soft labels as weighted rows."""
    difference_N = lengths_N2[:, 0] - lengths_N2[:, 1]
    design_N2 = np.column_stack([np.tanh(difference_N / difference_N.std(ddof=1)), np.ones(len(prob_N))])

    def fitted(rows_N: np.ndarray, strength: float) -> LogisticRegression:
        model = LogisticRegression(
            C=strength, l1_ratio=1, solver="liblinear", fit_intercept=False, random_state=123, tol=1e-4
        )
        weights = np.concatenate([prob_N[rows_N], 1 - prob_N[rows_N]])
        labels = np.repeat([1, 0], len(rows_N))
        return model.fit(np.concatenate([design_N2[rows_N]] * 2), labels, sample_weight=weights)

    def loss(train_N: np.ndarray, held_N: np.ndarray, strength: float) -> float:
        share_N = fitted(train_N, strength).predict_proba(design_N2[held_N])[:, 1].clip(1e-15, 1 - 1e-15)
        return float(-(prob_N[held_N] * np.log(share_N) + (1 - prob_N[held_N]) * np.log(1 - share_N)).mean())

    every_N = np.arange(len(prob_N))
    folds = list(GroupKFold(5).split(every_N, groups=every_N))
    strengths = np.logspace(-4, 4, 10)
    losses = [statistics.fmean(loss(train_N, held_N, one) for train_N, held_N in folds) for one in strengths]
    best = fitted(every_N, float(strengths[int(np.argmin(losses))]))
    return float(best.predict_proba([[0.0, 1.0]])[0, 1])


def main() -> None:
    """Print and save what each share of overlap gives."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkout", type=Path)
    options = parser.parse_args()
    board = options.checkout / f"src/alpaca_eval/leaderboards/data_AlpacaEval_2/{JUDGE}_leaderboard.csv"
    with board.open(encoding="utf-8", newline="") as lines:
        published = {row[""]: row["length_controlled_winrate"] for row in csv.DictReader(lines)}
    policies = {}
    length_control.MIN_OVERLAP = 0.0  # to see what the limit keeps out
    for path in sorted((options.checkout / "results").glob(f"*/{JUDGE}/annotations.json")):
        name = path.parents[1].name
        prob_N, lengths_N2 = preferences(path)
        if not published.get(name) or not np.ptp(lengths_N2[:, 0] - lengths_N2[:, 1]):  # the reference itself
            continue
        policies[name] = {
            "overlap": length_overlap(lengths_N2),
            "at equal length": 100 * length_controlled(prob_N, lengths_N2).value,
            "minimal": 100 * minimal(prob_N, lengths_N2),
            "raw": 100 * float(prob_N.mean()),
            "published": float(published[name]),
        }
    heads = (
        "lengths overlap in",
        "policies",
        "most from the minimal variant",
        "from the published",
        "raw from the published",
    )
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for low, high in BANDS:
        inside = [one for one in policies.values() if low <= one["overlap"] < high]
        columns = {key: np.array([one[key] for one in inside]) for key in inside[0]}
        most = np.abs(columns["at equal length"] - columns["minimal"]).max()
        shown = []
        for key in ("at equal length", "raw"):
            off, order = (
                np.abs(columns[key] - columns["published"]).mean(),
                spearmanr(columns[key], columns["published"]),
            )
            shown.append(f"{off:.1f} ({order.statistic:.2f})")
        lines.append(f"| {low:.0%} to {high:.0%} of pairs | {len(inside)} | {most:.2f} | {' | '.join(shown)} |")
    lines.append(
        f"\nPercentage points, on the annotations of {len(policies)} policies that AlpacaEval publishes with {JUDGE}: the "
        "largest difference from its minimal variant, and the mean one from its published win rates (Spearman's correlation "
        f"in brackets). Below {MIN_OVERLAP:.0%} of overlap no win rate is given."
    )
    save("length_control", {"policies": policies}, "\n".join(lines))


if __name__ == "__main__":
    main()
