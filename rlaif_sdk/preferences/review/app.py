"""The review page's application: what stands before it, a handful of JSON routes, and what they show of a pair."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rlaif_sdk.conversations import read, rendered
from rlaif_sdk.exceptions import DataError
from rlaif_sdk.io.text import safe_text
from rlaif_sdk.preferences.review.estimates import review_estimates
from rlaif_sdk.preferences.review.export import EVERYTHING, ExportOptions, exported_rows
from rlaif_sdk.preferences.review.pairs import AILabel, Number, ReviewPair, left_response
from rlaif_sdk.preferences.review.store import ReviewStore, Verdict
from rlaif_sdk.types import TextOrConversation

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

Side = Literal["left", "right"]
_STATIC = Path(__file__).with_name("static")


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


def shown_pair(pair: ReviewPair, reviewer: str, *, blind: bool, edits: Sequence[str] = ()) -> dict[str, Any]:
    """A pair as JSON for the page.

    Args:
        pair: The pair.
        reviewer: For whom.
        blind: Leave out what the judges said.
        edits: Better responses that the reviewer has written so far.
    """
    left = left_response(pair.id, reviewer)
    responses = {1: pair.response_1, 2: pair.response_2}
    return {
        "id": pair.id,
        "prompt": [] if pair.prompt is None else turns(pair.prompt),
        "left": turns(responses[left]),
        "right": turns(responses[3 - left]),
        "edits": list(edits),
        "ai": None if blind or pair.prob_1 is None else shown_labels(pair, reviewer),
    }


def shown_labels(pair: ReviewPair, reviewer: str) -> dict[str, Any]:
    """What the judges said, in terms of left and right."""
    left = left_response(pair.id, reviewer)
    preference = pair.ai_preference
    prob_1 = pair.prob_1
    return {
        "preference": preference if preference in (None, "tie") else side(int(preference), left),
        "prob_left": None if prob_1 is None else _prob_left(prob_1, left),
        "labels": [_shown_label(label, left) for label in pair.labels],
    }


def side(number: int, left: Number) -> Side:
    """Where a response stands, given which one stands on the left."""
    return "left" if number == left else "right"


def number(place: Side, left: Number) -> Number:
    """Which response stands there, given which one stands on the left."""
    other: Number = 2 if left == 1 else 1
    return left if place == "left" else other


def turns(value: TextOrConversation) -> list[dict[str, str | None]]:
    """Text or messages as turns with a role, which is None for text; thinking is shown, as people judge all of it."""
    if isinstance(value, str):
        return [{"role": None, "text": value}]
    return [{"role": turn.role, "text": rendered(turn, thinking="keep")} for turn in read(value)]


def _shown_label(label: AILabel, left: Number) -> dict[str, Any]:
    return {
        "judge": label.judge,
        "prob_left": _prob_left(label.prob_1, left),
        "flipped": label.flipped,
        "rationales": [
            {"text": each.text, "first": side(each.first, left) if each.first else None} for each in label.rationales
        ],
    }


def _prob_left(prob_1: float, left: Number) -> float:
    return prob_1 if left == 1 else 1 - prob_1


def _printable(name: str) -> str:
    name = name.strip()
    if not name or not name.isprintable():
        raise ValueError("a reviewer has a name of printable characters")
    return name


def _whole(text: Any) -> Any:
    return safe_text(text) if isinstance(text, str) else text


Words = Annotated[str, BeforeValidator(_whole)]
"""Text of a browser's, with U+FFFD in the place of lone surrogates."""


class ReviewerRequest(BaseModel):
    """Who asks."""

    model_config = ConfigDict(extra="forbid")

    reviewer: Annotated[Words, Field(max_length=64), AfterValidator(_printable)]


class JudgedPair(ReviewerRequest):
    """A verdict on a pair."""

    pair: Words = Field(max_length=64)
    choice: Literal["left", "right", "tie", "skip"]
    comment: Words = Field(default="", max_length=10_000)
    seconds: float | None = Field(default=None, ge=0, allow_inf_nan=False)


class EditedPair(ReviewerRequest):
    """A better response than those of a pair."""

    pair: Words = Field(max_length=64)
    based_on: Side | None
    text: Words = Field(max_length=200_000)
    comment: Words = Field(default="", max_length=10_000)


class _SafeResponse(JSONResponse):
    """A response with U+FFFD in the place of lone surrogates, which a browser shows as what they are."""

    def render(self, content: Any) -> bytes:
        return safe_text(json.dumps(content, ensure_ascii=False, allow_nan=False)).encode()


class ReviewApi:
    """What the page asks for.

    Args:
        store: The review.
        blind: Show what the judges said only after the verdict.
        options: Of the export button.
    """

    def __init__(self, store: ReviewStore, *, blind: bool, options: ExportOptions) -> None:
        self._store = store
        self._blind = blind
        self._options = options

    def next_pair(self, asked: ReviewerRequest) -> dict[str, Any]:
        """The pair to look at."""
        return self._state(asked.reviewer, self._store.claim(asked.reviewer))

    def judge(self, judged: JudgedPair) -> dict[str, Any]:
        """Keep a verdict; what the judges said of its pair, and the next one."""
        reviewer = judged.reviewer
        left = left_response(judged.pair, reviewer)
        verdict = _verdict(judged.choice, left)
        pair = self._store.judge(reviewer, judged.pair, verdict, comment=judged.comment, seconds=judged.seconds)
        last = {"choice": judged.choice, "ai": shown_labels(pair, reviewer)}
        return {**self._state(reviewer, self._store.claim(reviewer)), "last": last}

    def edit(self, edited: EditedPair) -> dict[str, Any]:
        """Keep a better response; the pair stays on the page for its verdict."""
        based_on = (
            None if edited.based_on is None else number(edited.based_on, left_response(edited.pair, edited.reviewer))
        )
        pair = self._store.edit(edited.reviewer, edited.pair, edited.text, based_on=based_on, comment=edited.comment)
        return self._state(edited.reviewer, pair)

    def undo(self, asked: ReviewerRequest) -> dict[str, Any]:
        """Take the reviewer's last annotation back; its pair."""
        undone = self._store.undo(asked.reviewer)
        state = self._state(asked.reviewer, self._store.claim(asked.reviewer))
        return {**state, "undone": None if undone is None else undone.choice}

    def estimates(self, asked: ReviewerRequest) -> dict[str, Any]:
        """Progress and agreement."""
        progress = asdict(self._store.progress(asked.reviewer))
        return {"progress": progress, "estimates": review_estimates(self._store).record()}

    def export(self) -> StreamingResponse:
        """The labels after review, as JSONL."""
        disposition = {"content-disposition": 'attachment; filename="reviewed.jsonl"'}
        lines = _lines(self._store, self._options)
        return StreamingResponse(lines, media_type="application/x-ndjson", headers=disposition)

    def _state(self, reviewer: str, pair: ReviewPair | None) -> dict[str, Any]:
        edits = [] if pair is None else [annotation.text or "" for annotation in self._store.edits(reviewer, pair.id)]
        shown = None if pair is None else shown_pair(pair, reviewer, blind=self._blind, edits=edits)
        return {"pair": shown, "progress": asdict(self._store.progress(reviewer)), "blind": self._blind}


def create_app(store: ReviewStore, *, token: str, blind: bool = False, options: ExportOptions = EVERYTHING) -> FastAPI:
    """The application that a reviewer's browser talks to.

    Args:
        store: The review.
        token: What a request must have in the header ``X-Review-Token``.
        blind: Show what the judges said only after the verdict.
        options: Of the export button.
    """
    api = ReviewApi(store, blind=blind, options=options)
    app = FastAPI(
        title="rlaif review", default_response_class=_SafeResponse, docs_url=None, redoc_url=None, openapi_url=None
    )
    app.add_middleware(Guard, token=token)
    routes: dict[str, Callable[..., Any]] = {
        "next": api.next_pair,
        "judge": api.judge,
        "edit": api.edit,
        "undo": api.undo,
        "estimates": api.estimates,
    }
    for name, route in routes.items():
        app.post(f"/api/{name}")(route)
    app.post("/api/export", response_model=None)(api.export)
    app.add_exception_handler(DataError, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.get("/", response_class=FileResponse)(_page)
    app.mount("/static", StaticFiles(directory=_STATIC), name="static")
    return app


def _verdict(choice: Literal["left", "right", "tie", "skip"], left: Number) -> Verdict:
    if choice in {"tie", "skip"}:
        return "tie" if choice == "tie" else "skip"
    return "1" if number("left" if choice == "left" else "right", left) == 1 else "2"


def _refused(_: Request, error: Exception) -> JSONResponse:
    return _SafeResponse({"detail": error.message if isinstance(error, DataError) else ""}, status_code=409)


def _invalid(_: Request, error: Exception) -> JSONResponse:
    problems = error.errors() if isinstance(error, RequestValidationError) else []
    return _SafeResponse({"detail": [{key: each[key] for key in ("loc", "msg", "type")} for each in problems]}, 422)


def _page() -> Path:
    return _STATIC / "index.html"


def _lines(store: ReviewStore, options: ExportOptions) -> Iterator[bytes]:
    for row in exported_rows(store, options):
        line = json.dumps(row, ensure_ascii=False) + "\n"
        yield line.encode("utf-8", "backslashreplace")  # JSON's escape of a lone surrogate
