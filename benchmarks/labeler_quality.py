"""How a labeler's ways of asking change its labels: alignment with people, flip rate, position, calibration.

On pairs of LLMBar Natural, whose better answer people agreed on. By default the labeler is the quickstart's model, which
is too small to judge: the negative control.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from _report import save

from rlaif_sdk.evaluation import Figure, LabelEvaluation, evaluate_labels, read_labels
from rlaif_sdk.preferences import run_labeling
from rlaif_sdk.records import write_records

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("RLAIF_DATA") or ROOT.parent / "shared" / "data")
SET = Path("llmbar") / "Dataset_LLMBar_Natural_dataset.json"
WAYS: dict[str, dict[str, Any]] = {
    "base preamble": {"prompt": {"detail": "base"}},
    "detailed preamble": {"prompt": {"detail": "detailed"}},
    "base, chain of thought": {"prompt": {"detail": "base"}, "chain_of_thought": True},
    "detailed, chain of thought": {"prompt": {"detail": "detailed"}, "chain_of_thought": True},
}


def write_pairs(path: Path, rows: int) -> int:
    """The first pairs of the set, with what people prefer in the column ``human``."""
    pairs = json.loads((DATA / SET).read_text(encoding="utf-8"))[:rows]
    with write_records(path) as writer:
        for pair in pairs:
            responses = {"response_1": pair["output_1"], "response_2": pair["output_2"]}
            writer.write({"prompt": pair["input"], **responses, "human": pair["label"]})
    return len(pairs)


def shown(figure: Figure | None) -> str:
    return "–" if figure is None else f"{figure.value:.2f} ({figure.low:.2f} to {figure.high:.2f})"


def line(name: str, found: LabelEvaluation, mass: float, seconds: float) -> str:
    assert found.alignment is not None
    by_order = (found.alignment.when_first, found.alignment.when_second, found.alignment.accuracy)
    calibration = found.alignment.calibration
    places = " / ".join(f"{figure.value:.2f}" for figure in (found.first_wins, found.second_wins) if figure)
    cells = [
        *map(shown, by_order),
        shown(found.alignment.kappa),
        shown(found.flip_rate),
        places,
        f"{calibration.error:.2f}" if calibration else "–",
        f"{mass:.2f}",
        f"{seconds / found.labels:.1f}",
    ]
    return f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="a folder or hub name; by default the quickstart's model")
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--max-new-tokens", type=int, default=96, help="of a rationale")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    import torch

    torch.set_num_threads(options.threads)
    if options.model is None:
        from rlaif_sdk.quickstart.model import prepare_policy

        options.model = str(prepare_policy())
    results, lines = {}, []
    with tempfile.TemporaryDirectory() as scratch:
        pairs = Path(scratch) / "pairs.jsonl"
        rows = write_pairs(pairs, options.pairs)
        for number, (name, way) in enumerate(WAYS.items()):
            config = {
                "pairs": {"file": str(pairs)},
                "judge": {"model": options.model, "dtype": "float32"},
                "output": str(Path(scratch) / str(number)),
                "max_new_tokens": options.max_new_tokens,
                **way,
            }
            since = time.perf_counter()
            labels = run_labeling(config).labels
            seconds = time.perf_counter() - since
            found = evaluate_labels(labels, human="human")
            masses = read_labels(labels, columns=["label_mass"]).columns["label_mass"]
            mass = sum(value or 0.0 for value in masses) / len(masses)
            results[name] = {**found.record(), "mean_label_mass": mass, "seconds": seconds}
            lines.append(line(name, found, mass, seconds))
            print(lines[-1], flush=True)
    table = "\n".join(
        [
            f"{rows} pairs of LLMBar Natural labelled by {Path(options.model).name} in float32; 95% intervals.",
            "",
            (
                "| way of asking | given order | turned order | both, averaged | kappa | flip rate "
                "| first / second place wins | ECE | label mass | s a pair |"
            ),
            "|---|---|---|---|---|---|---|---|---|---|",
            *lines,
        ]
    )
    save("labeler_quality", results, table)


if __name__ == "__main__":
    main()
