"""The routes: the SDK's own, and those of other training stacks."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from rlaif_sdk import __version__
from rlaif_sdk.conversations.special_tokens import without_end
from rlaif_sdk.exceptions import BatchError, ConfigError, DataError
from rlaif_sdk.integrations.openrlhf import completion_of
from rlaif_sdk.integrations.samples import Sample
from rlaif_sdk.integrations.verl import sample_of
from rlaif_sdk.serving.answers import json_response, openrlhf_answer, row_score, verl_answer
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
)
from rlaif_sdk.serving.requests import GuardedRoute, service_of

_PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "The body is no JSON, has NaN or Infinity, or is nested too deep."},
    401: {"model": Problem, "description": "The key is missing or wrong."},
    408: {"model": Problem, "description": "The body did not come in time."},
    413: {"model": Problem, "description": "Too many bytes or rows."},
    429: {"model": Problem, "description": "The queue is full; Retry-After says when to come again."},
    500: {"model": Problem, "description": "A reward cannot go on."},
    503: {"model": Problem, "description": "It took too long; Retry-After says when to come again."},
}
KEY_SCHEMES = {"HTTPBearer": {"type": "http", "description": "The server's key, where it has one.", "scheme": "bearer"}}
"""How the document says that requests carry the key. `GuardedRoute` asks for it; a dependency would do so once more."""
_KEYED: dict[str, Any] = {"security": [{scheme: []} for scheme in KEY_SCHEMES]}

scoring = APIRouter(route_class=GuardedRoute, responses=_PROBLEMS)
"""The routes that score."""
watching = APIRouter(route_class=GuardedRoute, responses={401: _PROBLEMS[401]})
"""The routes that tell of the server."""
open_to_all = APIRouter()
"""What needs no key."""


@scoring.post("/v1/score", response_model=ScoreAnswer, openapi_extra=_KEYED)
async def score(request: Request, body: ScoreRequest) -> Response:
    """Score rows; those without a total are unscored, and say why."""
    samples = [Sample(row.prompt, row.completion, row.columns, row.group) for row in body.rows]  # type: ignore[arg-type]
    scored = await service_of(request).score(request, samples)
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


@watching.get("/metrics", response_class=Response, openapi_extra=_KEYED)
async def metrics(request: Request) -> Response:
    """Counters for Prometheus."""
    return Response(service_of(request).metrics.text(), media_type=CONTENT_TYPE_LATEST)


@open_to_all.get("/health")
async def health(request: Request) -> Health:
    """That the server answers, and what it scores with."""
    service = service_of(request)
    return Health(version=__version__, rewards=list(service.composer.components), waiting=service.queue.rows)
