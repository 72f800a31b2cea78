"""What stands before the page's application: the token, a limit on bodies, headers that keep foreign content out."""

from __future__ import annotations

import secrets

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY_BYTES = 1 << 20
_TOO_LARGE = f"a request has at most {MAX_BODY_BYTES} bytes"
_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


class Guard:
    """Lets requests to ``/api/`` pass that have the token in the header ``X-Review-Token``, and no long body.

    No other site's page can send that header. Nothing of a request is read before. Every answer has headers that forbid
    inline and foreign code, framing and caching.

    Args:
        app: What is guarded.
        token: The secret.
    """

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        taken = 0

        async def limited() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > MAX_BODY_BYTES:
                raise HTTPException(413, _TOO_LARGE)
            return message

        async def protected(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", ()), *headers]}
            await send(message)

        await (self._refusal(scope) or self._app)(scope, limited, protected)

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        headers = dict(scope["headers"])
        given: bytes = headers.get(b"x-review-token", b"")
        if scope["path"].startswith("/api/") and not secrets.compare_digest(given, self._token):
            problem = "open the page by the address that rlaif review printed: it has the token"
            return JSONResponse({"detail": problem}, 401)
        stated: bytes = headers.get(b"content-length", b"0")
        if not stated.isdigit() or int(stated) > MAX_BODY_BYTES:
            return JSONResponse({"detail": _TOO_LARGE}, 413)
        return None
