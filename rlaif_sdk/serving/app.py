"""The application: requests read within limits, the routes, how errors are told, and what is closed at the end."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json
from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

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
from rlaif_sdk.serving.service import Service
from rlaif_sdk.serving.settings import ServeSettings
from rlaif_sdk.serving.state import kept_in, learned_in


def service_of(request: Request) -> Service:
    """The service of the application that a request is made to."""
    service: Service = request.app.state.service
    return service


async def _read_json(scope: Scope, receive: Receive, settings: ServeSettings, keep: Callable[[int], None]) -> Any:
    """The body of a request, which is strict JSON of a limited length and comes within a time.

    Args:
        scope: The request.
        receive: Gives its parts.
        settings: The limits.
        keep: Called with the bytes of each part, see `rlaif_sdk.serving.service.Queue.request`.

    Raises:
        HTTPException: 400, the body is no JSON, has NaN or Infinity, or is nested too deep; 408, it does not come in time;
            413, it is longer than allowed; 503, there is no room for it.
        RequestValidationError: It is said to be something else than JSON, or there is none.
    """
    headers = dict(scope["headers"])
    kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if kind != b"application/json" and not (kind.startswith(b"application/") and kind.endswith(b"+json")):
        said = kind[:80].decode("latin-1")
        raise _invalid_body(f"the body is said to be {said!r}, not JSON", "content_type")
    announced = headers.get(b"content-length", b"")
    if announced.isdigit() and (len(announced) > 18 or int(announced) > settings.max_body):
        raise HTTPException(413, f"the body is longer than {settings.max_body} bytes")
    try:
        async with asyncio.timeout(settings.timeout):
            body = await _read(receive, settings.max_body, keep)
    except TimeoutError:
        detail = f"the body did not come within {settings.timeout:g} s"
        raise HTTPException(408, detail, headers={"Connection": "close"}) from None
    if not body:
        raise _invalid_body("there is no body", "missing")
    try:
        return from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise HTTPException(400, f"the body is not the JSON that is read here: {error}") from None


async def _read(receive: Receive, most: int, keep: Callable[[int], None]) -> bytes:
    chunks: list[bytes] = []
    length, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise HTTPException(499, "the client left")
        chunk = message.get("body", b"")
        length += len(chunk)
        if length > most:
            raise HTTPException(413, f"the body is longer than {most} bytes")
        keep(len(chunk))
        chunks.append(chunk)
        more = message.get("more_body", False)
    return b"".join(chunks)


def _invalid_body(message: str, kind: str) -> RequestValidationError:
    return RequestValidationError([{"loc": ("body",), "msg": message, "type": kind}])


class GuardedRoute(APIRoute):
    """A route that asks for the key, and is counted."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler that FastAPI calls."""
        inner = super().get_route_handler()

        async def handle(request: Request) -> Response:
            service = service_of(request)
            since, status = time.monotonic(), 500
            try:
                service.check_key(request.headers.get("authorization", ""))
                response = await inner(request)
                status = response.status_code
            except HTTPException as error:
                status = error.status_code
                raise
            finally:
                service.metrics.answered(self.path, status, time.monotonic() - since)
            return response

        return handle


class ScoringRoute(APIRoute):
    """A route that asks for the key before it reads anything, reads within limits, and is counted.

    Its function is called with the request and its checked body, and that alone, and answers with a response. FastAPI's own
    way there, made for dependencies of any kind, takes several times as long as all else that a small request costs.
    """

    @cached_property
    def _checks(self) -> TypeAdapter[Any]:
        assert self.body_field is not None
        model: Any = self.body_field.field_info.annotation
        return TypeAdapter(model)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["method"] != "POST":
            await super().handle(scope, receive, send)
            return
        since = time.monotonic()
        request = Request(scope, receive)
        service = service_of(request)
        broken: Exception | None = None
        try:
            service.check_key(request.headers.get("authorization", ""))
            with service.queue.request() as keep:
                body = self._checked(await _read_json(scope, receive, service.settings, keep))
                response: Response = await self.endpoint(request, body)
        except _ANSWERED as error:
            response = _answer_to(error, self.path)
        except Exception as error:  # noqa: BLE001 - the server logs it with its traceback
            response, broken = json_response({"detail": "an error of the server, see its log"}, status=500), error
        service.metrics.answered(self.path, response.status_code, time.monotonic() - since)
        await response(scope, receive, send)
        if broken:
            raise broken

    def _checked(self, given: Any) -> Any:
        try:
            return self._checks.validate_python(given)
        except ValidationError as error:
            problems = error.errors(include_url=False, include_context=False, include_input=False)
            raise RequestValidationError([{**one, "loc": ("body", *one["loc"])} for one in problems]) from None


_log = logging.getLogger(__name__)
_MOST_ERRORS = 10
_ANSWERED = (HTTPException, RequestValidationError, RlaifError)


def _answer_to(error: Exception, path: str) -> Response:
    """What a client is told of an error: not what its request said, which may be long or secret, nor our insides."""
    if isinstance(error, HTTPException):
        return json_response({"detail": error.detail}, status=error.status_code, headers=error.headers)
    if isinstance(error, RequestValidationError):
        problems = [{key: problem[key] for key in ("loc", "msg", "type")} for problem in error.errors()[:_MOST_ERRORS]]
        return json_response({"detail": problems}, status=422)
    if isinstance(error, BatchError):
        return json_response({"detail": [{"loc": ["body"], "msg": str(error), "type": "batch"}]}, status=422)
    _log.error("%s: %s: %s", path, type(error).__name__, printable(str(error)))
    return json_response({"detail": f"{type(error).__name__}: {error}"}, status=500)


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
"""How the document says that requests carry the key. The routes ask for it; a dependency would do so once more."""
_KEYED: dict[str, Any] = {"security": [{scheme: []} for scheme in KEY_SCHEMES]}

scoring = APIRouter(route_class=ScoringRoute, responses=_PROBLEMS)
"""The routes that score."""
monitoring = APIRouter(route_class=GuardedRoute, responses={401: _PROBLEMS[401]})
"""The routes that tell of the server."""
public = APIRouter()
"""What needs no key."""


@scoring.post("/v1/score", response_model=ScoreAnswer, openapi_extra=_KEYED)
async def score(request: Request, body: ScoreRequest) -> Response:
    """Score rows; those without a total are unscored, and say why."""
    service = service_of(request)
    samples = [
        Sample(
            row.prompt,  # type: ignore[arg-type]
            row.completion,  # type: ignore[arg-type]
            row.columns,
            row.group,
            row.group_size,
            row.member,
            row.completion_ids,
            row.turn_spans,
        )
        for row in body.rows
    ]
    scored = await service.score(request, samples, step=body.step, training=body.training)
    answer: dict[str, Any] = {"rows": [row_score(one, detail=body.detail) for one in scored]}
    if body.detail:
        answer["composition"] = service.description
    return json_response(answer)


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
    return app


class _Application(FastAPI):
    """Its routes that score stand before all that FastAPI puts between added middleware and a route.

    Its document tells of the key, which no dependency asks for.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":  # without FastAPI's own look at its telemetry, for which nothing is set up here
            await Starlette.__call__(self, scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    def build_middleware_stack(self) -> ASGIApp:
        """What each request passes."""
        added, self.user_middleware = self.user_middleware, []
        others = super().build_middleware_stack()
        routes = {route.path: route for route in scoring.routes if isinstance(route, ScoringRoute)}
        self.user_middleware = added

        async def routed(scope: Scope, receive: Receive, send: Send) -> None:
            is_asked = scope["type"] == "http" and scope["method"] == "POST"
            route = routes.get(scope["path"]) if is_asked else None
            await (others(scope, receive, send) if route is None else route.handle(scope, receive, send))

        app: ASGIApp = routed
        for kind, args, kwargs in reversed(added):
            app = kind(app, *args, **kwargs)
        return app

    def openapi(self) -> dict[str, Any]:
        document = super().openapi()
        document["components"]["securitySchemes"] = KEY_SCHEMES
        return document
