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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=2048, help="each is asked about in both orders")
    parser.add_argument("--latency", type=float, default=0.1, help="seconds that the server takes for a request")
    parser.add_argument("--at-once", type=int, default=64, help="requests that are allowed at once")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    requests = 2 * options.pairs
    ideal = options.latency * -(-requests // options.at_once)
    folder = Path(tempfile.mkdtemp())
    processor: list[float] = []
    try:
        write_pairs(folder / "pairs.jsonl", options.pairs)
        with judge_server(options.latency, chat=True) as chat, judge_server(options.latency) as digits:
            ask = judge(digits, options.at_once)
            texts = ["question " * 300] * requests

            def job() -> None:
                shutil.rmtree(folder / "out", ignore_errors=True)
                config: dict[str, Any] = {
                    "pairs": {"file": str(folder / "pairs.jsonl")},
                    "judge": {
                        "model": "judge",
                        "base_url": f"http://127.0.0.1:{chat}/v1",
                        "concurrency": options.at_once,
                    },
                    "output": str(folder / "out"),
                }
                since = time.process_time()
                assert run_labeling(config).summary.labelled == options.pairs
                processor.append(time.process_time() - since)

            variants = {"requests by hand": lambda: asyncio.run(ask(texts, texts)), "rlaif label": job}
            seconds = interleaved(variants, repeats=options.repeats)
    finally:
        shutil.rmtree(folder)
    cost = 1e3 * statistics.median(processor[1:] or processor) / requests
    results: dict[str, Any] = {"ideal (s)": ideal, "requests": requests, "CPU ms a request": cost}
    lines = []
    for name, own in seconds.items():
        median = statistics.median(own)
        results |= {f"{name} (s)": median, f"{name} over ideal": median / ideal}
        lines.append(f"| {name} | {median:.2f} | {median / ideal:.3f} |")
    head = (
        f"{options.pairs:,} pairs in both orders, a server of {1e3 * options.latency:.0f} ms, {options.at_once} requests "
        f"at once (ideal {ideal:.2f} s); medians of {options.repeats} rounds. The job asks the server first what it can "
        f"do, keeps every label on disk and writes tables and card; it takes {cost:.2f} ms of the processor a request:"
    )
    save("label_server", results, "\n".join([head, "", "| | s | over ideal |", "|---|---|---|", *lines]))


if __name__ == "__main__":
    main()
