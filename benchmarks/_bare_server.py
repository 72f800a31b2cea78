"""An application that reads a request and gives a row's answer, whatever it is: what uvicorn itself costs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from rlaif_sdk.io.http_server import run_server

BODY = b'{"rows":[{"total":0.12345678901234567,"status":"scored","reason":null}]}'
START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-length", str(len(BODY)).encode()), (b"content-type", b"application/json")],
}


async def application(
    scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
) -> None:
    """Answer."""
    if scope["type"] == "http":
        while (await receive()).get("more_body"):
            pass
        await send(START)
        await send({"type": "http.response.body", "body": BODY})
        return
    for event in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{event}.complete"})


if __name__ == "__main__":
    run_server(application, host="127.0.0.1", port=0, access_log=False, server_header=False)
