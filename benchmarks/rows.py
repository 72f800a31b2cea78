"""Rows of 1 KB in through the door and out again, beside plain json and `datasets`: time, and memory as they grow."""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _report import interleaved, median_ratio, save

from rlaif_sdk.io.tables import read_rows, survey, write_rows


def plain_json(source: Path, target: Path) -> None:
    with source.open(encoding="utf-8") as lines, target.open("w", encoding="utf-8") as file:
        for line in lines:
            file.write(json.dumps(json.loads(line), ensure_ascii=False) + "\n")


def door(source: Path, target: Path) -> None:
    with write_rows(target) as writer:
        for row in read_rows(source):
            writer.write(row)


def looked_over(source: Path, target: Path) -> None:
    survey(source, output=target)


def with_datasets(source: Path, target: Path) -> None:
    from datasets import disable_progress_bars, load_dataset

    disable_progress_bars()

    with tempfile.TemporaryDirectory(dir=target.parent) as cache:
        rows = load_dataset("json", data_files=str(source), split="train", cache_dir=cache)
        rows.to_json(target)


WAYS: dict[str, Callable[[Path, Path], None]] = {
    "plain json": plain_json,
    "the door": door,
    "survey": looked_over,
    "datasets": with_datasets,
}


def make(file: Path, rows: int) -> None:
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyzéü", k=draw.randint(2, 9))) for _ in range(500)]
    with file.open("w", encoding="utf-8") as lines:
        for number in range(rows):
            row = {
                "prompt": [{"role": "user", "content": " ".join(draw.choices(words, k=50))}],
                "completion": " ".join(draw.choices(words, k=85)),
                "id": number,
                "score": draw.random(),
                "tags": ["a", "b"],
            }
            lines.write(json.dumps(row, ensure_ascii=False) + "\n")


def peak(way: str, rows: int, folder: Path) -> float:
    """The greatest memory of a process that does it, in MB."""
    command = [sys.executable, __file__, "--only", way, "--rows", str(rows), "--folder", str(folder)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", choices=WAYS)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    if options.only:
        WAYS[options.only](options.folder / f"{options.rows}.jsonl", options.folder / "out.jsonl")
        status = Path("/proc/self/status").read_text(encoding="utf-8")  # getrusage would count the parent's memory too
        print(int(status.partition("VmHWM:")[2].split()[0]) / 1024)
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        tenth = options.rows // 10
        for rows in (tenth, options.rows):
            make(folder / f"{rows}.jsonl", rows)
        source, target = folder / f"{options.rows}.jsonl", folder / "out.jsonl"
        assert list(read_rows(folder / f"{tenth}.jsonl"))[-1]["id"] == tenth - 1
        calls: dict[str, Callable[[], object]] = {
            way: lambda way=way: WAYS[way](source, target)
            for way in WAYS  # type: ignore[misc]
        }
        seconds = interleaved(calls, repeats=options.repeats, clock=time.process_time)
        memory = {way: (peak(way, tenth, folder), peak(way, options.rows, folder)) for way in WAYS}
        size = source.stat().st_size / options.rows
    results: dict[str, Any] = {"rows": options.rows, "bytes a row": size}
    lines = []
    for way, own in seconds.items():
        median, ratio = statistics.median(own), median_ratio(own, seconds["plain json"])
        few, many = memory[way]
        results |= {
            f"{way} (s)": median,
            f"{way} / plain json": ratio,
            f"{way} (MB)": many,
            f"{way}, a tenth (MB)": few,
        }
        lines.append(f"| {way} | {median:.2f} | {ratio:.2f} | {few:.0f} | {many:.0f} |")
    table = "\n".join(
        [
            f"{options.rows:,} rows of {size:.0f} bytes, in and out again; processor time, median of {options.repeats} rounds:",
            "",
            "| | s | times plain json | MB, a tenth of the rows | MB |",
            "|---|---|---|---|---|",
            *lines,
        ]
    )
    save("rows", results, table)


if __name__ == "__main__":
    main()
