"""The application: requests read within limits, the routes, how errors are told, and what is closed at the end."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from rlaif_sdk import __version__
from rlaif_sdk.composer import Composer
from rlaif_sdk.conversations.special_tokens import without_end
from rlaif_sdk.exceptions import BatchError, ConfigError, DataError, RlaifError
from rlaif_sdk.integrations.host import Config, load_state
from rlaif_sdk.integrations.openrlhf import completion_of
from rlaif_sdk.integrations.samples import Sample
from rlaif_sdk.integrations.verl import sample_of
from rlaif_sdk.io.text import printable
from rlaif_sdk.serving.protocol import (
    Health,
    OpenRLHFAnswer,
    OpenRLHFRequest,
    Problem,
    ScoreAnswer,
    ScoreRequest,
    SlimeRequest,
    VerlRequest,
    VerlSample,
    VerlScore,
    json_response,
    openrlhf_answer,
    row_score,
    verl_answer,
)
from rlaif_sdk.serving.service import Service, carries_key
from rlaif_sdk.serving.settings import ServeSettings
from rlaif_sdk.serving.state import kept_in, learned_in


def service_of(request: Request) -> Service:
    """The service of the application that a request is made to."""
    service: Service = request.app.state.service
    return service


class LimitedRequest(Request):
    """A request whose body is read up to a number of bytes, within a time, and only as strict JSON.

    Args:
        request: The request.
        keep: Called with the bytes of each part of the body, see `rlaif_sdk.serving.service.Queue.request`.
    """

    def __init__(self, request: Request, keep: Callable[[int], None]) -> None:
        super().__init__(request.scope, request.receive)
        self._keep = keep

    async def body(self) -> bytes:
        """The body.

        Raises:
            HTTPException: 413, it is longer than allowed; 408, it does not come in time; 503, there is no room for it.
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
            if len(body) + len(chunk) > most:
                raise HTTPException(413, f"the body is longer than {most} bytes")
            self._keep(len(chunk))
            body += chunk
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
    """A route that asks for the key before it reads anything, reads within limits, and is counted.

    A function with a body is called with the request and that alone, and answers with a response: FastAPI's own way there,
    made for dependencies of any kind, takes nearly as long as all else that a small request costs.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler that FastAPI calls."""
        inner = (
            super().get_route_handler()
            if self.body_field is None
            else self._handler_of_json(self.body_field.field_info.annotation)
        )

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
                    with service.queue.request() as keep:
                        response = await inner(LimitedRequest(request, keep))
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

    def _handler_of_json(self, model: Any) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """What reads a body, checks it, and calls the function with it."""
        adapter: TypeAdapter[Any] = TypeAdapter(model)

        async def handle(request: Request) -> Response:
            kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
                problem = {
                    "loc": ("body",),
                    "msg": f"the body is said to be {kind[:80]!r}, not JSON",
                    "type": "content_type",
                }
                raise RequestValidationError([problem])
            if not await request.body():
                raise RequestValidationError([{"loc": ("body",), "msg": "there is no body", "type": "missing"}])
            try:
                body = adapter.validate_python(await request.json())
            except ValidationError as error:
                problems = error.errors(include_url=False, include_context=False, include_input=False)
                raise RequestValidationError([{**one, "loc": ("body", *one["loc"])} for one in problems]) from None
            response: Response = await self.endpoint(request, body)
            return response

        return handle


_PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "The body is no JSON, has NaN or Infinity, or is nested too deep."},
    401: {"model": Problem, "description": "The key is missing or wrong."},
    408: {"model": Problem, "description": "The body did not come in time."},
    413: {"model": Problem, "description": "Too many bytes or rows."},
    429: {"model": Problem, "description": "The queue is full; Retry-After says when to come again."},
    500: {"model": Problem, "description": "A reward cannot continue."},
    503: {
        "model": Problem,
        "description": "It took too long, or there is no room for its body; Retry-After says when to come again.",
    },
}
KEY_SCHEMES = {"HTTPBearer": {"type": "http", "description": "The server's key, where it has one.", "scheme": "bearer"}}
"""How the document says that requests carry the key. `GuardedRoute` asks for it; a dependency would do so once more."""
_KEYED: dict[str, Any] = {"security": [{scheme: []} for scheme in KEY_SCHEMES]}

scoring = APIRouter(route_class=GuardedRoute, responses=_PROBLEMS)
"""The routes that score."""
monitoring = APIRouter(route_class=GuardedRoute, responses={401: _PROBLEMS[401]})
"""The routes that tell of the server."""
public = APIRouter()
"""What needs no key."""


@scoring.post("/v1/score", response_model=ScoreAnswer, openapi_extra=_KEYED)
async def score(request: Request, body: ScoreRequest) -> Response:
    """Score rows; those without a total are unscored, and say why."""
    samples = [
        Sample(row.prompt, row.completion, row.columns, row.group, row.group_size, row.member)  # type: ignore[arg-type]
        for row in body.rows
    ]
    scored = await service_of(request).score(request, samples, step=body.step, training=body.training)
    return json_response({"rows": [row_score(one, detail=body.detail) for one in scored]})


@scoring.post("/get_reward", response_model=OpenRLHFAnswer, openapi_extra=_KEYED)
async def get_reward(request: Request, body: OpenRLHFRequest) -> Response:
    """Score as OpenRLHF's remote reward model."""
    service = service_of(request)
    labels = [None] * len(body.query) if body.labels is None else body.labels
    try:
        samples = [
            Sample(prompt, completion_of(query, prompt), {service.settings.label_column: label})
            for query, prompt, label in zip(body.query, body.prompts, labels, strict=True)
        ]
    except DataError as error:
        raise BatchError(error.message, hint=error.hint) from error
    return json_response(openrlhf_answer(await service.score(request, samples), service.settings.unscored))


@scoring.post("/compute_score", response_model=VerlScore | list[VerlScore], openapi_extra=_KEYED)
async def compute_score(request: Request, body: VerlRequest) -> Response:
    """Score one sample as verl hands it over, or a list of them."""
    service = service_of(request)
    one = isinstance(body, VerlSample)
    asked = [body] if isinstance(body, VerlSample) else body
    try:
        samples = [
            sample_of(
                each.data_source,
                each.solution_str,
                each.ground_truth,
                each.extra_info,
                prompt_key=service.settings.prompt_key,
            )
            for each in asked
        ]
    except ConfigError as error:
        raise BatchError(error.message, hint=error.hint) from error
    answers = [verl_answer(said, service.settings.unscored) for said in await service.score(request, samples)]
    return json_response(answers[0] if one else answers)


@scoring.post("/remote_rm", response_model=float | None, openapi_extra=_KEYED)
async def remote_rm(request: Request, body: SlimeRequest) -> Response:
    """Score one sample as slime's remote reward model: a number, or null with the reason in a header."""
    service = service_of(request)
    sample = Sample(body.prompt, without_end(body.response), {service.settings.label_column: body.label})  # type: ignore[arg-type]
    (scored,) = await service.score(request, [sample])
    if scored.total is not None:
        return json_response(scored.total)
    reason = {"X-Unscored-Reason": quote(scored.reason[:500], safe=" ,;:'()/", errors="replace")}
    return json_response(service.settings.unscored, headers=reason)


@monitoring.get("/metrics", response_class=Response, openapi_extra=_KEYED)
async def metrics(request: Request) -> Response:
    """Counters for Prometheus."""
    return Response(service_of(request).metrics.text(), media_type=CONTENT_TYPE_LATEST)


@public.get("/health")
async def health(request: Request) -> Health:
    """That the server answers, and what it scores with."""
    service = service_of(request)
    return Health(version=__version__, rewards=list(service.composer.components), waiting=service.queue.rows)


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
        state: A file that `rlaif_sdk.integrations.save_state` wrote: running statistics, which stay as they are. With
            ``settings.cohort`` the file that what is learned is kept in: it is taken up from there, if it is there, and
            written every few seconds and at the end.

    Raises:
        ConfigError: The config is refused, or its numbers would depend on what else is scored at the moment.
        StateError: The saved state is of another composition.
    """
    ours = not isinstance(rewards, Composer)
    settings = settings or ServeSettings()
    composer = rewards if isinstance(rewards, Composer) else Composer.from_config(rewards)
    kept = Path(state) if state is not None and settings.cohort else None
    try:
        learned, groups = (None, 0) if state is None else learned_in(kept) if kept else (load_state(state), 0)
        if learned is not None:
            composer.load_state_dict(learned)
        service = Service(composer, settings, restored=state is not None, groups=groups)
    except BaseException:
        if ours:
            composer.close()
        raise

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        try:
            await asyncio.to_thread(composer.set_up)
            async with kept_in(kept, service.learned) if kept else nullcontext():
                yield
        finally:
            if ours:
                await asyncio.to_thread(composer.close)

    app = _Application(
        title="rlaif_sdk reward server", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None
    )
    app.state.service = service
    for router in (scoring, monitoring, public):
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
    _log.error("%s: %s: %s", request.url.path, type(error).__name__, printable(str(error)))
    return json_response({"detail": f"{type(error).__name__}: {error}"}, status=500)


async def _broken(_: Request, error: Exception) -> Response:
    del error  # the server logs it with its traceback; clients need not see our insides
    return json_response({"detail": "an error of the server, see its log"}, status=500)
