"""A million pairs labelled by a double in constant memory: the file is streamed, and the journal keeps nine bytes a pair."""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from _report import save

from rlaif_sdk.judges import PairwiseLabeler
from rlaif_sdk.preferences import run_labeling
from rlaif_sdk.testing import ScriptedJudge


class Forgetful(list[Any]):
    """Keeps nothing, as a server would."""

    def append(self, item: Any) -> None:
        pass


def label_many(rows: int) -> None:
    """As a process of its own: label so many pairs with a double, and print seconds and peak memory."""
    judge = ScriptedJudge(lambda _: {"1": 0.6, "2": 0.3})
    judge.requests = Forgetful()
    folder = Path(tempfile.mkdtemp())
    try:
        with (folder / "pairs.jsonl").open("w") as file:
            for row in range(rows):
                pair = {
                    "prompt": f"question {row} " * 8,
                    "response_1": f"one {row} " * 10,
                    "response_2": f"two {row} " * 10,
                }
                file.write(json.dumps(pair) + "\n")
        config = {
            "pairs": {"file": str(folder / "pairs.jsonl")},
            "judge": {"model": "double"},
            "output": str(folder / "out"),
        }
        since = time.process_time()
        done = run_labeling(config, labeler=PairwiseLabeler(judge)).summary.labelled
        taken = time.process_time() - since
    finally:
        shutil.rmtree(folder)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"rows": done, "CPU seconds": taken, "peak MB": peak}))


def measured(rows: int) -> tuple[dict[str, Any], str]:
    results, lines = {}, []
    for some in (rows // 25, rows // 5, rows):
        ran = subprocess.run(
            [sys.executable, __file__, "--many", str(some)], capture_output=True, text=True, check=True
        )
        measured = json.loads(ran.stdout.splitlines()[-1])
        results[str(some)] = measured
        pace = measured["rows"] / measured["CPU seconds"]
        lines.append(f"| {measured['rows']:,} | {pace:,.0f} | {measured['peak MB']:.0f} |")
    head = ["A file of pairs labelled by a double, both orders, with its journal:", ""]
    return results, "\n".join([*head, "| pairs | pairs a CPU second | peak memory, MB |", "|---|---|---|", *lines])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--many", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.many:
        label_many(options.many)
    else:
        save("label_stream", *measured(options.rows))


if __name__ == "__main__":
    main()
