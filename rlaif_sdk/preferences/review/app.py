"""The review page's application: a handful of JSON routes over a `ReviewStore`, and the page itself.

`Guard` stands before it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from rlaif_sdk.exceptions import DataError
from rlaif_sdk.io.text import safe_text
from rlaif_sdk.preferences.review.export import EVERYTHING, ExportOptions, exported_rows
from rlaif_sdk.preferences.review.figures import review_figures
from rlaif_sdk.preferences.review.guard import Guard
from rlaif_sdk.preferences.review.pairs import Number, ReviewPair
from rlaif_sdk.preferences.review.queue import left_response
from rlaif_sdk.preferences.review.store import ReviewStore, Verdict
from rlaif_sdk.preferences.review.view import Side, number, shown_labels, shown_pair

_STATIC = Path(__file__).with_name("static")


def _printable(name: str) -> str:
    name = name.strip()
    if not name or not name.isprintable():
        raise ValueError("a reviewer has a name of printable characters")
    return name


def _whole(text: Any) -> Any:
    return safe_text(text) if isinstance(text, str) else text


Words = Annotated[str, BeforeValidator(_whole)]
"""Text of a browser's, with U+FFFD in the place of lone surrogates."""


class Asked(BaseModel):
    """Who asks."""

    model_config = ConfigDict(extra="forbid")

    reviewer: Annotated[Words, Field(max_length=64), AfterValidator(_printable)]


class JudgedPair(Asked):
    """A verdict on a pair."""

    pair: Words = Field(max_length=64)
    choice: Literal["left", "right", "tie", "skip"]
    comment: Words = Field(default="", max_length=10_000)
    seconds: float | None = Field(default=None, ge=0, allow_inf_nan=False)


class EditedPair(Asked):
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

    def next_pair(self, asked: Asked) -> dict[str, Any]:
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

    def undo(self, asked: Asked) -> dict[str, Any]:
        """Take the reviewer's last act back; its pair."""
        undone = self._store.undo(asked.reviewer)
        state = self._state(asked.reviewer, self._store.claim(asked.reviewer))
        return {**state, "undone": None if undone is None else undone.choice}

    def figures(self, asked: Asked) -> dict[str, Any]:
        """Progress and agreement."""
        progress = asdict(self._store.progress(asked.reviewer))
        return {"progress": progress, "figures": review_figures(self._store).record()}

    def export(self) -> StreamingResponse:
        """The labels after review, as JSONL."""
        disposition = {"content-disposition": 'attachment; filename="reviewed.jsonl"'}
        lines = _lines(self._store, self._options)
        return StreamingResponse(lines, media_type="application/x-ndjson", headers=disposition)

    def _state(self, reviewer: str, pair: ReviewPair | None) -> dict[str, Any]:
        edits = [] if pair is None else [act.text or "" for act in self._store.edits(reviewer, pair.id)]
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
        "figures": api.figures,
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
