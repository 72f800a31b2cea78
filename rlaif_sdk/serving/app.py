"""The application: a composer's routes, how errors are told, and what is closed at the end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError

from rlaif_sdk import __version__
from rlaif_sdk.composer import Composer
from rlaif_sdk.exceptions import BatchError, RlaifError
from rlaif_sdk.integrations.host import Config, load_state
from rlaif_sdk.serving.answers import json_response
from rlaif_sdk.serving.routes import KEY_SCHEMES, open_to_all, scoring, watching
from rlaif_sdk.serving.service import Service
from rlaif_sdk.serving.settings import ServeSettings

_log = logging.getLogger(__name__)
_MOST_ERRORS = 10


def create_app(
    rewards: Composer | Config, settings: ServeSettings | None = None, *, state: str | Path | None = None
) -> FastAPI:
    """An ASGI application that answers with a composed reward.

    It starts up when every reward is ready: models are loaded then, and what is missing is told.

    Args:
        rewards: A config (a file, a mapping, a `rlaif_sdk.config.CompositionConfig`), whose composer is closed when
            the application shuts down; or a `rlaif_sdk.Composer`, which stays the caller's to close.
        settings: Its limits and its key.
        state: A file that `rlaif_sdk.integrations.save_state` wrote: running statistics, which stay as they are.

    Raises:
        ConfigError: The config is refused, or its numbers would depend on what else is scored at the moment.
        StateError: The saved state is of another composition.
    """
    ours = not isinstance(rewards, Composer)
    composer = rewards if isinstance(rewards, Composer) else Composer.from_config(rewards)
    try:
        if state is not None:
            composer.load_state_dict(load_state(state))
        service = Service(composer, settings or ServeSettings(), restored=state is not None)
    except BaseException:
        if ours:
            composer.close()
        raise

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        try:
            await asyncio.to_thread(composer.set_up)
            yield
        finally:
            if ours:
                await asyncio.to_thread(composer.close)

    app = _Application(
        title="rlaif_sdk reward server", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None
    )
    app.state.service = service
    for router in (scoring, watching, open_to_all):
        app.include_router(router)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(BatchError, _unfit)
    app.add_exception_handler(RlaifError, _failed)
    app.add_exception_handler(Exception, _broken)
    return app


class _Application(FastAPI):
    """Its document tells of the key, which no dependency asks for."""

    def openapi(self) -> dict[str, Any]:
        document = super().openapi()
        document["components"]["securitySchemes"] = KEY_SCHEMES
        return document


async def _invalid(_: Request, error: Exception) -> Response:
    """What is wrong with a request, without what it said, which may be long or secret."""
    assert isinstance(error, RequestValidationError)
    problems = [{key: problem[key] for key in ("loc", "msg", "type")} for problem in error.errors()[:_MOST_ERRORS]]
    return json_response({"detail": problems}, status=422)


async def _unfit(_: Request, error: Exception) -> Response:
    return json_response({"detail": [{"loc": ["body"], "msg": str(error), "type": "batch"}]}, status=422)


async def _failed(request: Request, error: Exception) -> Response:
    _log.error("%s: %s: %s", request.url.path, type(error).__name__, error)
    return json_response({"detail": f"{type(error).__name__}: {error}"}, status=500)


async def _broken(_: Request, error: Exception) -> Response:
    del error  # the server logs it with its traceback; clients need not see our insides
    return json_response({"detail": "an error of the server, see its log"}, status=500)
