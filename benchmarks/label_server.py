"""A labelling job against a slow loopback server, beside the same requests by hand and the least that is possible."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "NO_PROXY": "*"}

from _judge import judge, judge_server
from _report import interleaved, save

from rlaif_sdk.preferences import run_labeling


def write_pairs(path: Path, pairs: int) -> None:
    with path.open("w") as file:
        for row in range(pairs):
            responses = {"response_1": f"one {row} " * 40, "response_2": f"two {row} " * 40}
            file.write(json.dumps({"prompt": f"question {row} " * 20, **responses}) + "\n")


def measured(folder: Path, chat: int, digits: int, pairs: int, at_once: int, repeats: int) -> dict[str, list[float]]:
    """Seconds of each round of the requests by hand and of the job, and the processor's seconds of the job."""
    write_pairs(folder / "pairs.jsonl", pairs)
    ask = judge(digits, at_once)
    texts = ["question " * 300] * (2 * pairs)
    processor: list[float] = []

    def job() -> None:
        shutil.rmtree(folder / "out", ignore_errors=True)
        address = f"http://127.0.0.1:{chat}/v1"
        config: dict[str, Any] = {
            "pairs": {"file": str(folder / "pairs.jsonl")},
            "judge": {"model": "judge", "base_url": address, "concurrency": at_once},
            "output": str(folder / "out"),
        }
        since = time.process_time()
        assert run_labeling(config).summary.labelled == pairs
        processor.append(time.process_time() - since)

    variants = {"requests by hand": lambda: asyncio.run(ask(texts, texts)), "rlaif label": job}
    return {**interleaved(variants, repeats=repeats), "processor": processor[-repeats:]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, nargs="+", default=[2048, 8192], help="each is asked in both orders")
    parser.add_argument("--latency", type=float, default=0.1, help="seconds that the server takes for a request")
    parser.add_argument("--at-once", type=int, default=64, help="requests that are allowed at once")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    results: dict[str, Any] = {}
    lines = ["| pairs | | s | over ideal |", "|---|---|---|---|"]
    costs = []
    folder = Path(tempfile.mkdtemp())
    try:
        with judge_server(options.latency, chat=True) as chat, judge_server(options.latency) as digits:
            for pairs in options.pairs:
                seconds = measured(folder, chat, digits, pairs, options.at_once, options.repeats)
                ideal = options.latency * -(-2 * pairs // options.at_once)
                costs.append(1e3 * statistics.median(seconds.pop("processor")) / (2 * pairs))
                results[f"{pairs} pairs"] = {"ideal (s)": ideal, "CPU ms a request": costs[-1]}
                for name, own in seconds.items():
                    median = statistics.median(own)
                    results[f"{pairs} pairs"] |= {f"{name} (s)": median, f"{name} over ideal": median / ideal}
                    lines.append(f"| {pairs:,} | {name} | {median:.2f} | {median / ideal:.3f} |")
    finally:
        shutil.rmtree(folder)
    head = (
        f"Pairs in both orders, a server of {1e3 * options.latency:.0f} ms, {options.at_once} requests at once; medians of "
        f"{options.repeats} rounds. The job asks the server first what it can do, keeps every label on disk and writes "
        f"tables and card; it takes {costs[-1]:.2f} ms of the processor a request:"
    )
    save("label_server", results, "\n".join([head, "", *lines]))


if __name__ == "__main__":
    main()
