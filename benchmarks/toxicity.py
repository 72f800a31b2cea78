"""The embedded toxicity model beside the one before it and alt-profanity-check: AUC, flags on harmless text, speed.

    python benchmarks/toxicity.py --data DATA --previous FOLDER --rival-python PYTHON

``DATA`` is the folder of sources that ``plugins/toxicity/MODEL_CARD.md`` lists. ``FOLDER`` holds the package
``rlaif_toxicity`` as it was: ``git archive 6cb1178 plugins/toxicity/rlaif_toxicity``. ``PYTHON`` has alt-profanity-check,
which pins scikit-learn, in an environment of its own.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
from _report import save

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "plugins" / "toxicity" / "training"))

import corpus  # noqa: E402
from measure import auc_with_error  # noqa: E402

WORDS_A_TEXT, TEXTS = 40, 512


class Scorer:
    """`_toxicity_scorer.py` as a process."""

    def __init__(self, python: str, *arguments: str) -> None:
        command = [python, str(Path(__file__).with_name("_toxicity_scorer.py")), *arguments]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self, texts: list[str]) -> tuple[np.ndarray, float]:
        """The log-odds of the texts and the processor time that they took."""
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("the scorer has no pipes")
        self._process.stdin.write(json.dumps(texts) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        return np.array(answer["log_odds"]), answer["seconds"]


def texts_of_forty_words(sets: dict[str, list[corpus.Row]]) -> list[str]:
    """Running text of the held-out sets in pieces of 40 words."""
    words = " ".join(row.text for rows in sets.values() for row in rows).split()
    starts = random.Random(0).sample(range(len(words) - WORDS_A_TEXT), TEXTS)
    return [" ".join(words[start : start + WORDS_A_TEXT]) for start in starts]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--previous", required=True)
    parser.add_argument("--rival-python", required=True)
    parser.add_argument("--only", action="append", help="a set, by the start of its name; all without it")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    scorers = {
        "embedded": Scorer(sys.executable, "embedded"),
        "before": Scorer(sys.executable, "previous", options.previous),
        "alt-profanity-check": Scorer(options.rival_python, "alt-profanity-check"),
    }
    wanted = tuple(options.only or ("",))
    found = corpus.held_out_sets(options.data, seed=1).items()
    sets = {name: read() for name, read in found if name.startswith(wanted)}
    results: dict[str, dict[str, float]] = {}
    lines = []
    for name, rows in sets.items():
        toxic_N = np.array([row.toxic >= 0.5 for row in rows])
        cells = []
        for scorer, score in scorers.items():
            logits_N, _ = score([row.text for row in rows])
            flagged = float((logits_N[~toxic_N] > 0).mean())
            results.setdefault(name, {})[f"{scorer}, harmless flagged"] = flagged
            if toxic_N.any():
                auc, error = auc_with_error(logits_N, toxic_N)
                results[name] |= {f"{scorer}, AUC": auc, f"{scorer}, AUC's standard error": error}
                cells.append(f"{auc:.3f} ± {error:.3f}, {flagged:.1%}")
            else:
                cells.append(f"{flagged:.1%}")
        lines.append(f"| {name} | {len(rows):,} | {' | '.join(cells)} |")
    texts = texts_of_forty_words(sets)
    speeds: dict[str, list[float]] = {name: [] for name in scorers}
    for _ in range(options.repeats):
        for name, score in scorers.items():
            speeds[name].append(TEXTS / score(texts)[1])
    medians = {name: statistics.median(found) for name, found in speeds.items()}
    results["texts of 40 words a second of one processor core"] = medians
    lines.append(
        f"| texts of {WORDS_A_TEXT} words a second of one core | {TEXTS} | {' | '.join(f'{value:,.0f}' for value in medians.values())} |"
    )
    table = "\n".join(
        [
            "AUC ± standard error, and the share of harmless texts that is flagged at probability .5:",
            "",
            f"| held-out texts | n | {' | '.join(scorers)} |",
            f"|---|---|{'---|' * len(scorers)}",
            *lines,
        ]
    )
    save("toxicity", results, table)


if __name__ == "__main__":
    main()
