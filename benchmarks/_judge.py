"""Judges behind HTTP: as a script, a loopback server that takes its time; imported, the reward that asks it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

_LABELS = [{"token": "1", "logprob": -0.4}, {"token": "2", "logprob": -1.2}]
_LABELS += [{"token": letter, "logprob": -6.0 - place / 10} for place, letter in enumerate("ABCDEFGH")]
_CHOICE = {
    "index": 0,
    "finish_reason": "length",
    "message": {"role": "assistant", "content": "1"},
    "logprobs": {"content": [{**_LABELS[0], "bytes": None, "top_logprobs": _LABELS}]},
}
CHAT = json.dumps(
    {
        "id": "0",
        "object": "chat.completion",
        "created": 0,
        "model": "judge",
        "choices": [_CHOICE],
        "usage": {"prompt_tokens": 200, "completion_tokens": 1, "total_tokens": 201},
    }
).encode()
"""A chat completion that prefers 1 of two and A of a list, with the log-probabilities of all labels."""


async def serve(latency: float, body: bytes | None = None) -> None:
    """Answer every request after ``latency`` seconds, with a body or a digit; the port is printed first."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (await reader.readline()).strip():
                length = 0
                while header := (await reader.readline()).strip():
                    if header.lower().startswith(b"content-length:"):
                        length = int(header.split(b":")[1])
                await reader.readexactly(length)
                await asyncio.sleep(latency)
                said = body or b"%d" % (length % 10)
                head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
                writer.write(head % len(said) + said)
                await writer.drain()
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


@contextmanager
def judge_server(latency: float, *, chat: bool = False) -> Iterator[int]:
    """The server in a process of its own, which answers with digits or in the chat protocol; gives its port."""
    command = [sys.executable, __file__, str(latency), *(["chat"] if chat else [])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
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
    asyncio.run(serve(float(sys.argv[1]), CHAT if "chat" in sys.argv[2:] else None))
