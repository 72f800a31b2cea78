"""Measure an embedded model on the sets that are kept out of its training: ``python training/measure.py --data DATA``.

For each kind of text it prints the AUC with the standard error of Hanley and McNeil (1982, "The meaning and use of the
area under a ROC curve", equations 1 and 2), and the share that is flagged at the threshold of .5 with Wilson's 95%
interval: of the harmless texts, and of the toxic ones.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import corpus
import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from rlaif_sdk import label_log_odds, load_classifier
from rlaif_sdk.statistics.estimates import wilson
from rlaif_toxicity.reward import EMBEDDED

Scorer = Callable[[Sequence[str]], NDArray[np.float64]]


def auc_with_error(logits_N: NDArray[np.float64], toxic_N: NDArray[np.bool_]) -> tuple[float, float]:
    """The AUC and its standard error."""
    auc = float(roc_auc_score(toxic_N, logits_N))
    positive, negative = int(toxic_N.sum()), int((~toxic_N).sum())
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = auc * (1 - auc) + (positive - 1) * (q1 - auc**2) + (negative - 1) * (q2 - auc**2)
    return auc, float(np.sqrt(variance / (positive * negative)))


def report(scorer: Scorer, sets: dict[str, Callable[[], list[corpus.Row]]]) -> None:
    """Print a line for each set, for each kind of made sentence, and for each moderated category beside the harmless."""
    print(f"{'kind of text':46} {'texts':>6} {'AUC':>14} {'harmless flagged':>22} {'toxic flagged':>22}")
    for name, read in sets.items():
        try:
            rows = read()
        except FileNotFoundError as error:
            print(f"{name:46} not measured: there is no {error.filename}")
            continue
        logits_N = scorer([row.text for row in rows])
        toxic_N = np.array([row.toxic >= 0.5 for row in rows])
        print_line(name, logits_N, toxic_N)
        sources = [row.source.split("; ") for row in rows]
        if name.startswith("made"):
            for kind in sorted({kind for [kind] in sources}):
                of_kind_N = np.array([source == [kind] for source in sources])
                print_line(f"  {kind}", logits_N[of_kind_N], toxic_N[of_kind_N])
        elif name.startswith("prompts"):
            for kind in corpus.MODERATED.values():
                chosen_N = np.array([kind in source for source in sources]) | ~toxic_N
                print_line(f"  {kind}", logits_N[chosen_N], toxic_N[chosen_N])


def print_line(name: str, logits_N: NDArray[np.float64], toxic_N: NDArray[np.bool_]) -> None:
    """One set's figures."""
    auc = "{:.3f} ({:.3f})".format(*auc_with_error(logits_N, toxic_N)) if 0 < toxic_N.sum() < len(toxic_N) else "-"
    flagged = [_share(logits_N[side] > 0) if side.any() else "-" for side in (~toxic_N, toxic_N)]
    print(f"{name:46} {len(toxic_N):>6} {auc:>14} {flagged[0]:>22} {flagged[1]:>22}")


def _share(hits_N: NDArray[np.bool_]) -> str:
    found = wilson(float(hits_N.sum()), len(hits_N))
    return f"{found.value:.3f} ({found.low:.3f}-{found.high:.3f})"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="the folder of sources that MODEL_CARD.md lists")
    parser.add_argument("--model", type=Path, default=EMBEDDED, help="a folder as `rlaif export` writes it")
    parser.add_argument("--only", action="append", help="a set, by the start of its name; all without it")
    options = parser.parse_args()
    if not options.data.is_dir():
        parser.error(f"--data: there is no folder {options.data}")
    classifier = load_classifier(options.model, device="cpu")
    sets = corpus.held_out_sets(options.data, seed=1)
    report(
        lambda texts: label_log_odds(classifier.logits(texts))[:, 1],
        {name: read for name, read in sets.items() if name.startswith(tuple(options.only or ("",)))},
    )
