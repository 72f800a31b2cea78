"""The server that gathers groups beside the plain one: rows a second, p99, and no answer lost or of another group.

One row a request, 64 clients that each wait for their answer. The plain server scores rows as they come; the other gathers
groups of 8 first, whose members come in random order among those of 8 groups.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
from typing import Any

from _checksum import of_group
from _report import save
from _rewards import text_batch
from server import HERE, ONE_THREAD, answered, bare_server, ceiling, in_process, load, server

from rlaif_sdk import Composer

GROUP = 8
WINDOW = 64
"""Rows among which the order is random: with as many clients some group is always whole, so that none waits for ever."""
TOIL = {"rewards": {"toil": {"use": f"{HERE / '_checksum.py'}:toil"}}}
CHECKSUM = {"rewards": {"checksum": {"use": f"{HERE / '_checksum.py'}:ChecksumOfGroups"}}}


def rows_of(texts: list[str], draw: random.Random, *, named: bool) -> list[list[dict[str, Any]]]:
    """Requests of one row each, in groups, the members in random order; a named one is known when it is sent again."""
    rows = [
        {"prompt": f"p{place // GROUP}", "completion": text, "group": place // GROUP, "group_size": GROUP}
        | ({"member": place % GROUP} if named else {})
        for place, text in enumerate(texts)
    ]
    shuffled: list[dict[str, Any]] = []
    for first in range(0, len(rows), WINDOW):
        shuffled += draw.sample(rows[first : first + WINDOW], len(rows[first : first + WINDOW]))
    return [[row] for row in shuffled]


def throughput(options: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    """Both servers and the composer, taking turns."""
    texts = list(text_batch(4096).completions)
    many = [texts[place % len(texts)] for place in range(options.rows)]
    grouped, alone = rows_of(many, random.Random(0), named=False), [[text] for text in many]
    rounds = []
    with (
        Composer.from_config(TOIL) as composer,
        server(TOIL) as plain,
        server(TOIL, "--cohort") as cohorts,
        bare_server() as bare,
    ):
        in_process(composer, texts, options.clients, 0.5)
        for turn in range(options.repeats):
            own, own_cpu = in_process(composer, texts, options.clients, options.seconds)
            both = [("plain", plain, alone), ("cohorts", cohorts, grouped)]
            said = {
                name: load(*address, requests, clients=options.clients, seconds=None)
                for name, address, requests in (both if turn % 2 else both[::-1])
            }
            assert not any(one["refused"] for one in said.values())
            of_cpu = {name: one["rows a second"] / one["server cores"] for name, one in said.items()}
            rounds.append(
                {
                    "in-process (rows/s)": own,
                    **{f"{name}: {key}": value for name, one in said.items() for key, value in one.items()},
                    "cohorts to plain": said["cohorts"]["rows a second"] / said["plain"]["rows a second"],
                    "cohorts to plain, by processor time": of_cpu["cohorts"] / of_cpu["plain"],
                    "plain to in-process, by processor time": of_cpu["plain"] / own_cpu,
                    "cohorts to in-process, by processor time": of_cpu["cohorts"] / own_cpu,
                    "ceiling, by processor time": ceiling(bare, alone, options.clients, 1 / own_cpu),
                }
            )
    median = {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}
    lines = [
        "| server | rows/s | to the plain one | by processor time | to in-process, by processor time | p50 (ms) | p99 (ms) |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in ("plain", "cohorts"):
        to_plain = [median["cohorts to plain"], median["cohorts to plain, by processor time"]]
        shares = " | ".join(f"{value:.2f}" for value in (to_plain if name == "cohorts" else [1.0, 1.0]))
        times = " | ".join(f"{1e3 * median[f'{name}: {key} (s)']:.0f}" for key in ("p50", "p99"))
        in_proc = f"{median[f'{name} to in-process, by processor time']:.2f}"
        lines.append(f"| {name} | {median[f'{name}: rows a second']:,.0f} | {shares} | {in_proc} | {times} |")
    return median, lines


def integrity(options: argparse.Namespace) -> tuple[dict[str, float], str]:
    """Whether every row gets the answer of its own group."""
    texts = [f"text {place}" for place in range(options.requests)]
    requests = rows_of(texts, random.Random(1), named=True)
    expected = []
    for (row,) in requests:
        first = row["group"] * GROUP
        expected.append([of_group(row["completion"], texts[first : first + GROUP])])
    with server(CHECKSUM, "--cohort") as (pid, port):
        said = load(pid, port, requests, clients=options.clients, seconds=None, expected=expected)
    line = (
        f"{len(requests):,} requests of one row, groups of {GROUP}, members in random order, {options.clients} at once: "
        f"{answered(said)}"
    )
    return said, line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--rows", type=int, default=8192, help="of one round, in groups")
    parser.add_argument("--seconds", type=float, default=3.0, help="of one round in-process")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--requests", type=int, default=100_000, help="of the check that nothing is lost or crossed")
    options = parser.parse_args()
    os.environ.update(ONE_THREAD)
    results, lines = throughput(options)
    head = (
        f"A reward of about 0.2 ms a row, one row a request, {options.clients} clients, medians of {options.repeats} "
        f"rounds of {options.rows:,} rows, beside batches of as many rows in-process. A server that only answers would have "
        f"{results['ceiling, by processor time']:.2f} of the in-process speed by processor time:"
    )
    checked, line = integrity(options)
    save("cohorts", {**results, "integrity": checked}, "\n".join([head, "", *lines, "", line]))


if __name__ == "__main__":
    main()
