"""The reward server beside the composer in-process: samples a second with the same ONNX reward, p99, nothing lost.

The server and the load generator are processes of their own, on loopback, 64 clients that each wait for their answer.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from _checksum import checksum
from _report import save
from _rewards import text_batch

from rlaif_sdk import Composer, RewardBatch

HERE = Path(__file__).parent
ONE_THREAD = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
TOXICITY = {"rewards": {"toxicity": {}}}
CHECKSUM = {"rewards": {"checksum": {"use": f"{HERE / '_checksum.py'}:checksum"}}}


@contextmanager
def server(config: dict[str, Any], *options: str) -> Iterator[tuple[int, int]]:
    """``rlaif serve`` in a process of its own: its process id and port."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "rewards.json")
        file.write_text(json.dumps(config), encoding="utf-8")
        program = "from rlaif_sdk.cli import main; main()"
        with listening("-c", program, "serve", "-c", str(file), "--port", "0", *options) as address:
            yield address


def bare_server() -> AbstractContextManager[tuple[int, int]]:
    """A server that only answers, see `_bare_server`: its process id and port."""
    return listening(str(HERE / "_bare_server.py"))


@contextmanager
def listening(*arguments: str) -> Iterator[tuple[int, int]]:
    """A Python process that serves: its process id, and the port that its log tells."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        with log.open("w", encoding="utf-8") as opened:
            process = subprocess.Popen(
                [sys.executable, *arguments], env={**os.environ, **ONE_THREAD}, stdout=opened, stderr=opened
            )
        try:
            while not (found := re.search(r"127\.0\.0\.1:(\d+)", log.read_text(encoding="utf-8"))):
                if process.poll() is not None:
                    raise RuntimeError(log.read_text(encoding="utf-8"))
                time.sleep(0.05)
            yield process.pid, int(found[1])
        finally:
            process.terminate()
            process.wait()


def load(pid: int, port: int, requests: Sequence[Sequence[Any]], **asked: Any) -> dict[str, float]:
    """What the load generator says, in a process of its own."""
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
        json.dump({"pid": pid, "port": port, "requests": requests, **asked}, file)
        file.flush()
        done = subprocess.run(
            [sys.executable, str(HERE / "_http_load.py"), file.name], capture_output=True, text=True, check=True
        )
    said: dict[str, Any] = json.loads(done.stdout)
    if refusals := said.pop("refusals"):
        print(f"refused, the first of each status: {refusals}", file=sys.stderr)
    return said


def answered(said: dict[str, float]) -> str:
    """What became of the requests of a load, in a sentence."""
    return (
        f"{said['lost']} lost, {said['crossed']} crossed, {said['refused']} refused, "
        f"{said['requests'] / said['seconds']:,.0f} requests a second, p99 {1e3 * said['p99 (s)']:.0f} ms."
    )


def in_process(composer: Composer, texts: list[str], size: int, seconds: float) -> tuple[float, float]:
    """Samples a second, and samples a second of processor time, of the composer in this process."""
    batches = [texts[first : first + size] for first in range(0, len(texts) - size + 1, size)]
    rows, since, cpu = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - since < seconds:
        part = batches[(rows // size) % len(batches)]
        composer.compose(RewardBatch(["p"] * size, part, training=False))
        rows += size
    return rows / (time.perf_counter() - since), rows / (time.process_time() - cpu)


def ceiling(bare: tuple[int, int], requests: Sequence[Sequence[Any]], clients: int, own: float) -> float:
    """The share of in-process speed, by processor time, of a server whose only cost is uvicorn's.

    Args:
        bare: The server that only answers.
        requests: What it is asked.
        clients: How many ask at once.
        own: Processor seconds that the composer takes for the rows of a request.
    """
    said = load(*bare, requests, clients=clients, seconds=1.0)
    return own / (own + said["server cores"] * said["seconds"] / said["requests"])


def throughput(options: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    """The server beside the composer, taking turns."""
    texts = list(text_batch(4096).completions)
    results: dict[str, Any] = {}
    heads = ("rows a request", "in-process (rows/s)", "server (rows/s)", "ratio", "by processor time", "p50 (ms)")
    heads += ("uvicorn's ceiling", "p99 (ms)", "server's cores", "generator's cores")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    config = (
        TOXICITY
        if options.model is None
        else {"rewards": {"onnx": {"params": {"model": str(options.model.resolve())}}}}
    )
    with Composer.from_config(config) as composer, server(config) as (pid, port), bare_server() as bare:
        in_process(composer, texts, options.clients, 0.5)
        for size in options.sizes:
            requests = [texts[first : first + size] for first in range(0, len(texts), size)]
            rounds = []
            for _ in range(options.repeats):
                own, own_cpu = in_process(composer, texts, options.clients, options.seconds)
                said = load(pid, port, requests, clients=options.clients, seconds=options.seconds)
                assert not said["refused"]
                of_cpu = said["rows a second"] / said["server cores"]
                ratios = {
                    "ratio": said["rows a second"] / own,
                    "ratio by processor time": of_cpu / own_cpu,
                    "ceiling by processor time": ceiling(bare, requests, options.clients, size / own_cpu),
                }
                rounds.append({"in-process (rows/s)": own, **said, **ratios})
            median = {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}
            results[f"{size} rows a request"] = median
            rates = f"{median['in-process (rows/s)']:,.0f} | {median['rows a second']:,.0f}"
            shares = f"{median['ratio']:.2f} | {median['ratio by processor time']:.2f}"
            times = f"{1e3 * median['p50 (s)']:.0f} | {median['ceiling by processor time']:.2f} | {1e3 * median['p99 (s)']:.0f}"
            cores = f"{median['server cores']:.2f} | {median['generator cores']:.2f}"
            lines.append(f"| {size} | {rates} | {shares} | {times} | {cores} |")
    return results, lines


def integrity(options: argparse.Namespace) -> tuple[dict[str, float], str]:
    """Whether every request gets its own answer."""
    draw = random.Random(0)
    requests = [[f"{number} {row}" for row in range(draw.randint(1, 4))] for number in range(options.requests)]
    with server(CHECKSUM) as (pid, port):
        expected = [checksum(texts) for texts in requests]
        said = load(pid, port, requests, clients=options.clients, seconds=None, expected=expected)
    line = f"{len(requests):,} requests of 1 to 4 rows, each with texts of its own, {options.clients} at once: {answered(said)}"
    return said, line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="a folder of `rlaif export` to score with; nothing else is measured")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--seconds", type=float, default=3.0, help="of one round")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--requests", type=int, default=100_000, help="of the check that nothing is lost or crossed")
    options = parser.parse_args()
    os.environ.update(ONE_THREAD)
    results, lines = throughput(options)
    what = (
        "The embedded toxicity model (ONNX)"
        if options.model is None
        else f"The exported reward model {options.model.name}"
    )
    head = (
        f"{what}, {options.clients} clients beside batches of as many rows in-process, medians of {options.repeats} rounds "
        f"of {options.seconds:g} s; the generator takes its processor time from the same cores. By processor time no server "
        "behind uvicorn is above its ceiling: an application that only answers costs as much beside the composer:"
    )
    table = [head, "", *lines]
    if options.model is not None:
        save("server_exported", results, "\n".join(table))
        return
    checked, line = integrity(options)
    save("server", {**results, "integrity": checked}, "\n".join([*table, "", line]))


if __name__ == "__main__":
    main()
