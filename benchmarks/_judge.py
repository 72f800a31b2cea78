"""A judge behind HTTP: as a script, a loopback server that takes its time; imported, the reward that asks it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager


async def serve(latency: float) -> None:
    """Answer every request after ``latency`` seconds with a digit; the port is printed first."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (await reader.readline()).strip():
                length = 0
                while header := (await reader.readline()).strip():
                    if header.lower().startswith(b"content-length:"):
                        length = int(header.split(b":")[1])
                await reader.readexactly(length)
                await asyncio.sleep(latency)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d" % (length % 10))
                await writer.drain()
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


@contextmanager
def judge_server(latency: float) -> Iterator[int]:
    """The server in a process of its own; gives its port."""
    with subprocess.Popen([sys.executable, __file__, str(latency)], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.terminate()


def judge(port: int, at_once: int) -> Callable[..., Awaitable[list[float]]]:
    """An async reward that asks the server about each completion, over ``at_once`` connections."""

    async def ask(prompts: list[str], completions: list[str], **columns: object) -> list[float]:
        scores = [0.0] * len(completions)
        rows = iter(range(len(completions)))

        async def work() -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for row in rows:
                body = f"{prompts[row]}\n\n{completions[row]}".encode()
                writer.write(b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].split()[0])
                scores[row] = float(await reader.readexactly(length)) / 10
            writer.close()

        await asyncio.gather(*(work() for _ in range(min(at_once, len(completions)))))
        return scores

    return ask


if __name__ == "__main__":
    asyncio.run(serve(float(sys.argv[1])))
