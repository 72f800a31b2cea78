"""`rlaif fit` on simulated people with known weights: do intervals hold, does choosing pairs pay, how long does it take?

    python benchmarks/fit.py [--runs 200]

People prefer by Davidson's model. Coverage is of the intervals that `fit_composition` gives, with everything that it does:
folds, penalty, bounds. Learning curves are of the functions that `next_pairs` is made of.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from _report import save

from rlaif_sdk import DataError
from rlaif_sdk.evaluation import VerdictColumns, fit_composition
from rlaif_sdk.statistics.arrays import Array
from rlaif_sdk.statistics.davidson import (
    DavidsonFit,
    fit_davidson,
    most_informative,
    verdict_probs,
    weight_covariance,
)
from rlaif_sdk.statistics.estimates import mean_interval, wilson

WEIGHTS = np.array([1.0, 0.6, 0.3, 0.1, 0.0])
CORRELATION, LOG_TIES = 0.3, -0.5
POOL, ROUND, MOST = 5000, 20, 400
HUMAN = VerdictColumns(human="human")


def scores(draw: np.random.Generator, count: int, rewards: int) -> Array:
    """Of completions: normal, each two rewards correlated."""
    shared = draw.normal(size=(count, 1))
    own = draw.normal(size=(count, rewards))
    return (math.sqrt(CORRELATION) * shared + math.sqrt(1 - CORRELATION) * own).round(6)


def said(draw: np.random.Generator, margins: Array) -> list[Any]:
    """What people say of pairs."""
    probs = verdict_probs(margins, LOG_TIES)
    return [[1, 2, "tie"][place] for place in (draw.random(len(margins))[:, None] > probs.cumsum(axis=1)).sum(axis=1)]


def composition(folder: Path, rewards: int) -> Path:
    """Of rewards that read their recorded scores from the completion."""
    names = [f"r{number}" for number in range(rewards)]
    lines = [
        "import json",
        "def recorded(place):",
        "    def score(completion_texts):",
        "        return [scores[place] for scores in map(json.loads, completion_texts)]",
        "    return score",
        *(f"{name} = recorded({place})" for place, name in enumerate(names)),
    ]
    (folder / "recorded.py").write_text("\n".join(lines), encoding="utf-8")
    path = folder / "composition.json"
    config = {"rewards": {name: {"use": f"./recorded.py:{name}"} for name in names}}
    path.write_text(json.dumps(config), encoding="utf-8")
    return path


def independent(draw: np.random.Generator, pairs: int, weights: Array) -> list[dict[str, Any]]:
    """A pair a prompt."""
    values = scores(draw, 2 * pairs, len(weights))
    verdicts = said(draw, (values[::2] - values[1::2]) @ weights)
    return [
        {
            "prompt": f"q{place}",
            "response_1": json.dumps(values[2 * place].tolist()),
            "response_2": json.dumps(values[2 * place + 1].tolist()),
            "human": verdict,
        }
        for place, verdict in enumerate(verdicts)
    ]


def grouped(draw: np.random.Generator, pairs: int, weights: Array) -> list[dict[str, Any]]:
    """Every two of four completions a prompt, so that pairs share completions."""
    rows = []
    for prompt in range(pairs // 6):
        values = scores(draw, 4, len(weights))
        places = [(one, other) for one in range(4) for other in range(one + 1, 4)]
        verdicts = said(draw, np.array([(values[one] - values[other]) @ weights for one, other in places]))
        rows += [
            {
                "prompt": f"q{prompt}",
                "response_1": json.dumps(values[one].tolist()),
                "response_2": json.dumps(values[other].tolist()),
                "human": verdict,
            }
            for (one, other), verdict in zip(places, verdicts, strict=True)
        ]
    return rows


def coverage(runs: int, config: Path) -> tuple[dict[str, Any], list[str]]:
    found: dict[str, Any] = {}
    lines = [
        f"| pairs | {' | '.join(f'weight {weight:g}' for weight in WEIGHTS)} | mean error of the fitted weights |",
        f"|---|{'---|' * len(WEIGHTS)}---|",
    ]
    for name, make, pairs in (
        ("100, a prompt each", independent, 100),
        ("300, a prompt each", independent, 300),
        ("300, six a prompt", grouped, 300),
    ):
        held, errors = np.zeros(len(WEIGHTS)), []
        refused = 0
        for run in range(runs):
            try:
                fit = fit_composition(config, [make(np.random.default_rng([pairs, run]), pairs, WEIGHTS)], HUMAN)
            except DataError:
                refused += 1
                continue
            estimates = [each.estimate for each in fit.weights.values()]
            held += [each.low <= weight <= each.high for each, weight in zip(estimates, WEIGHTS, strict=True)]
            values = np.array([each.value for each in estimates])
            errors.append(float(np.sqrt(((values - WEIGHTS) ** 2).mean())))
        shares = [wilson(count, runs - refused) for count in held]
        found[name] = {
            "coverage": [share.record() for share in shares],
            "error": mean_interval(errors),
            "refused": refused,
        }
        cells = [f"{share.value:.1%} ({share.low:.1%} to {share.high:.1%})" for share in shares]
        lines.append(f"| {name} | {' | '.join(cells)} | {found[name]['error'][0]:.3f} |")
        print(lines[-1], flush=True)
    return found, lines


def learning(runs: int) -> tuple[dict[str, Any], list[str]]:
    """The error of the weights over the pairs that were judged, chosen by information and at random."""
    counts = [*range(ROUND, MOST + 1, ROUND)]
    errors = {choice: np.zeros((runs, len(counts))) for choice in ("random", "next")}
    for run in range(runs):
        draw = np.random.default_rng([7, run])
        values = scores(draw, 2 * POOL, len(WEIGHTS))
        differences = values[::2] - values[1::2]
        verdicts = np.array([{1: 0, 2: 1, "tie": 2}[verdict] for verdict in said(draw, differences @ WEIGHTS)])
        penalty = np.diag((differences**2).mean(axis=0))
        for choice, curve in errors.items():
            judged: list[int] = []
            fit, covariance = DavidsonFit(np.zeros(len(WEIGHTS)), -math.inf), np.linalg.inv(penalty)
            for place in range(len(counts)):
                allowed = np.ones(POOL, dtype=bool)
                allowed[judged] = False
                judged += (
                    most_informative(differences, fit, covariance, ROUND, allowed_N=allowed)
                    if choice == "next"
                    else draw.choice(np.flatnonzero(allowed), ROUND, replace=False).tolist()
                )
                seen, votes = differences[judged], np.eye(3)[verdicts[judged]]
                fit = fit_davidson(seen, votes, penalty, signs_R=np.ones(len(WEIGHTS)))
                covariance = weight_covariance(fit, seen, votes, np.arange(len(judged)), penalty)
                curve[run, place] = np.sqrt(((fit.weights - WEIGHTS) ** 2).mean())
    curves = {choice: curve.mean(axis=0).tolist() for choice, curve in errors.items()}
    lines = [
        "| pairs judged at random | error of the weights | pairs chosen by `--next` for the same error | share |",
        "|---|---|---|---|",
    ]
    shares = {}
    for place, count in enumerate(counts):
        if count not in {100, 200, 300, 400}:
            continue
        needed = float(np.interp(-curves["random"][place], -np.array(curves["next"]), counts))
        shares[count] = needed / count
        lines.append(f"| {count} | {curves['random'][place]:.3f} | {needed:.0f} | {shares[count]:.0%} |")
    return {"pairs": counts, "curves": curves, "shares": shares, "runs": runs}, lines


def speed(config: Path) -> tuple[dict[str, Any], list[str]]:
    draw = np.random.default_rng(0)
    weights = np.linspace(0, 1, 10)
    rows = independent(draw, 100_000, weights)
    since = time.process_time()
    found = fit_composition(config, [rows], HUMAN)
    fitting = time.process_time() - since
    differences = draw.normal(size=(1_000_000, 10))
    fit = DavidsonFit(np.array([each.weight for each in found.weights.values()]), LOG_TIES)
    since = time.process_time()
    chosen = most_informative(differences, fit, np.eye(10) * 0.1, 50)
    choosing = time.process_time() - since
    lines = [
        "| what | seconds of processor time, one thread |",
        "|---|---|",
        f"| `fit_composition` of {len(rows):,} pairs x {len(weights)} rewards, the reading of rows and scores included | {fitting:.1f} |",
        f"| choosing {len(chosen)} of {len(differences):,} pairs x 10 rewards | {choosing:.1f} |",
    ]
    return {"fit": fitting, "next": choosing}, lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=200)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder:
        speeds, speed_lines = speed(composition(Path(folder), 10))
        print("\n".join(speed_lines), flush=True)
        curves, curve_lines = learning(runs)
        print("\n".join(curve_lines), flush=True)
        covered, coverage_lines = coverage(runs, composition(Path(folder), len(WEIGHTS)))
    parts = [
        f"How often the 95% interval of a weight has the true one in it, over {runs} simulations each.",
        "\n".join(coverage_lines),
        f"Pairs chosen in rounds of {ROUND} among {POOL}, mean over {runs} simulations.",
        "\n".join(curve_lines),
        "\n".join(speed_lines),
    ]
    save("fit", {"coverage": covered, "learning": curves, "seconds": speeds}, "\n\n".join(parts))


if __name__ == "__main__":
    main()
