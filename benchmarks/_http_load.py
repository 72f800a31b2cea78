"""A load generator that costs little beside the server that it asks: prepared bytes over connections that stay open."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Load:
    """What came of a round.

    Attributes:
        seconds: How long it took.
        latencies: Seconds of each request.
        answers: The totals of each request that was answered with 200, by its number.
        refused: How many requests were answered with another status.
        refusals: What the first of those said, by status.
    """

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    answers: dict[int, list[float | None]] = field(default_factory=dict)
    refused: int = 0
    refusals: dict[int, str] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        return sum(map(len, self.answers.values()))

    def quantile(self, share: float) -> float:
        return sorted(self.latencies)[min(len(self.latencies) - 1, int(share * len(self.latencies)))]


def request_bytes(rows: Sequence[str | Mapping[str, Any]]) -> bytes:
    """A request for ``POST /v1/score`` as it goes over the wire: of completions, or of whole rows."""
    whole = [{"prompt": "p", "completion": row} if isinstance(row, str) else row for row in rows]
    body = json.dumps({"rows": whole}).encode()
    head = f"POST /v1/score HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def drive(port: int, requests: Sequence[bytes], *, clients: int, seconds: float | None = None) -> Load:
    """Let clients ask, each its next request when it has its answer: all requests once, or for a time in turn."""
    return asyncio.run(_drive(port, requests, clients, seconds))


async def _drive(port: int, requests: Sequence[bytes], clients: int, seconds: float | None) -> Load:
    load = Load()
    numbers = iter(range(len(requests))) if seconds is None else _until(time.perf_counter() + seconds)
    streams = [await asyncio.open_connection("127.0.0.1", port) for _ in range(clients)]

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for number in numbers:
            since = time.perf_counter()
            writer.write(requests[number % len(requests)])
            status, body = await _answer(reader)
            load.latencies.append(time.perf_counter() - since)
            if status == 200:
                load.answers[number] = [row["total"] for row in json.loads(body)["rows"]]
            else:
                load.refused += 1
                load.refusals.setdefault(status, body.decode()[:300])

    since = time.perf_counter()
    await asyncio.gather(*(client(*stream) for stream in streams))
    load.seconds = time.perf_counter() - since
    for _, writer in streams:
        writer.close()
    return load


def _until(deadline: float) -> Iterator[int]:
    number = 0
    while time.perf_counter() < deadline:
        yield number
        number += 1


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
    return int(head.split()[1]), await reader.readexactly(length)


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has taken, of all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Drive a server as a JSON file says, and print what came of it as JSON."""
    import sys

    asked: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    requests = [request_bytes(rows) for rows in asked["requests"]]
    drive(asked["port"], requests[: asked["clients"]], clients=asked["clients"])
    before = time.process_time(), cpu_seconds(asked["pid"])
    load = drive(asked["port"], requests, clients=asked["clients"], seconds=asked["seconds"])
    said = {
        "rows a second": load.rows / load.seconds,
        "requests": len(load.latencies),
        "seconds": load.seconds,
        "refused": load.refused,
        "refusals": load.refusals,
        "p50 (s)": load.quantile(0.5),
        "p99 (s)": load.quantile(0.99),
        "generator cores": (time.process_time() - before[0]) / load.seconds,
        "server cores": (cpu_seconds(asked["pid"]) - before[1]) / load.seconds,
    }
    if asked.get("expected"):
        wrong = [number for number, totals in load.answers.items() if totals != asked["expected"][number]]
        said |= {"lost": len(requests) - len(load.answers), "crossed": len(wrong)}
    print(json.dumps(said))


if __name__ == "__main__":
    main()
