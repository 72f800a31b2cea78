"""Reading requests within limits: the key first, then no more bytes, depth or time than allowed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic_core import from_json

from rlaif_sdk.exceptions import BatchError
from rlaif_sdk.serving.admission import carries_key
from rlaif_sdk.serving.service import Service


def service_of(request: Request) -> Service:
    """The service of the application that a request is made to."""
    service: Service = request.app.state.service
    return service


class LimitedRequest(Request):
    """A request whose body is read up to a number of bytes, within a time, and as strict JSON alone."""

    async def body(self) -> bytes:
        """The body.

        Raises:
            HTTPException: 413, it is longer than allowed; 408, it does not come in time.
        """
        if not hasattr(self, "_body"):
            settings = service_of(self).settings
            try:
                async with asyncio.timeout(settings.timeout):
                    self._body = await self._read(settings.max_body)
            except TimeoutError:
                detail = f"the body did not come within {settings.timeout:g} s"
                raise HTTPException(408, detail, headers={"Connection": "close"}) from None
        return self._body

    async def _read(self, most: int) -> bytes:
        announced = self.headers.get("content-length", "")
        if announced.isascii() and announced.isdigit() and (len(announced) > 18 or int(announced) > most):
            raise HTTPException(413, f"the body is longer than {most} bytes")
        body = bytearray()
        async for chunk in self.stream():
            body += chunk
            if len(body) > most:
                raise HTTPException(413, f"the body is longer than {most} bytes")
        return bytes(body)

    async def json(self) -> Any:
        """The body as JSON.

        Raises:
            HTTPException: 400, it is none, has NaN or Infinity, or is nested too deep.
        """
        try:
            return from_json(await self.body(), allow_inf_nan=False)
        except ValueError as error:
            raise HTTPException(400, f"the body is not the JSON that is read here: {error}") from None


class GuardedRoute(APIRoute):
    """A route that asks for the key before it reads anything, reads within limits, and is counted."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler that FastAPI calls."""
        inner = super().get_route_handler()

        async def handle(request: Request) -> Response:
            service = service_of(request)
            since, status = time.monotonic(), 500
            try:
                key = service.settings.api_key
                if key is not None and not carries_key(request.headers.get("authorization"), key):
                    raise HTTPException(401, "the key is missing or wrong", headers={"WWW-Authenticate": "Bearer"})
                if request.method == "GET":
                    response = await inner(request)
                else:
                    with service.queue.request():
                        response = await inner(LimitedRequest(request.scope, request.receive))
                status = response.status_code
            except HTTPException as error:
                status = error.status_code
                raise
            except (RequestValidationError, BatchError):
                status = 422
                raise
            finally:
                service.metrics.answered(self.path, status, time.monotonic() - since)
            return response

        return handle
