"""The judge backend ``replay``: answers from a recording, and records what it lacks."""

from __future__ import annotations

import json
import math
import os
import threading
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field

from rlaif_sdk import (
    ConfigError,
    Conversation,
    GeneratedText,
    JudgeBackend,
    JudgeBackendSpec,
    JudgeConnectionError,
    JudgeResponseError,
    LabelLogprobs,
    Params,
    Registry,
    Usage,
    hookimpl,
)

__all__ = ["Replay", "ReplayParams", "rlaif_judge_backends"]

rlaif_api_version = 1

AnswerT = TypeVar("AnswerT", LabelLogprobs, GeneratedText)


class ReplayParams(Params):
    """A recording, and whom to ask where it has no answer."""

    model: str
    """The model whose answers are recorded: a name for ``record``."""
    file: str
    """The recording, a ``.jsonl`` file."""
    record: str | None = None
    """The backend that is asked where there is no answer, such as ``openai``; null asks nobody."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Parameters of that backend beside ``model``."""


class Replay(JudgeBackend):
    """Answers from a recording.

    An answer is found by the whole request: the messages, and the labels or the limit and the temperature that it was
    asked with. What a recorded answer took is part of it, so usage and cost are those of the recording.
    """

    def __init__(self, params: ReplayParams) -> None:
        self.params = params
        self._path = Path(params.file)
        self._answers: dict[str, dict[str, Any]] | None = None
        self._source: JudgeBackend | None = None
        self._lock = threading.Lock()
        if params.record is not None:
            offered = Registry.default().judge_backends()
            if params.record == "replay" or params.record not in offered:
                known = ", ".join(sorted(set(offered) - {"replay"}))
                raise ConfigError(f"no judge backend to record is called {params.record!r}", hint=f"there are {known}")
            self._source = offered[params.record].build({"model": params.model, **params.options})

    @property
    def identity(self) -> str:
        """The recorded model's: a recording answers what the model answered."""
        return f"replay/{self.params.model}"

    def setup(self) -> None:
        """Read the recording.

        Raises:
            ConfigError: It cannot be read, is another model's, or there is none and nobody to ask.
        """
        self._load()
        if self._source is not None:
            self._source.setup()

    async def label_logprobs(
        self, requests: Sequence[Conversation], labels: Sequence[str]
    ) -> list[LabelLogprobs | JudgeConnectionError | JudgeResponseError]:
        asked = {"labels": list(labels)}
        source = self._source

        async def ask(missing: Sequence[Conversation]) -> Sequence[Any]:
            assert source is not None
            return await source.label_logprobs(missing, labels)

        return await self._answer(requests, asked, _labels, ask)

    async def generate(
        self, requests: Sequence[Conversation], *, max_new_tokens: int, temperature: float = 0.0
    ) -> list[GeneratedText | JudgeConnectionError | JudgeResponseError]:
        asked = {"max_new_tokens": max_new_tokens, "temperature": temperature}
        source = self._source

        async def ask(missing: Sequence[Conversation]) -> Sequence[Any]:
            assert source is not None
            return await source.generate(missing, max_new_tokens=max_new_tokens, temperature=temperature)

        return await self._answer(requests, asked, _text, ask)

    def close(self) -> None:
        if self._source is not None:
            self._source.close()

    async def _answer(
        self,
        requests: Sequence[Conversation],
        asked: dict[str, Any],
        read: Callable[[dict[str, Any]], AnswerT],
        ask: Callable[[Sequence[Conversation]], Awaitable[Sequence[Any]]],
    ) -> list[AnswerT | JudgeConnectionError | JudgeResponseError]:
        answers = self._load()
        keys = [_key(request, asked) for request in requests]
        missing = {key: request for key, request in zip(keys, requests, strict=True) if key not in answers}
        failed: dict[str, Any] = {}
        if missing and self._source is None:
            problem = f"{self._path} has no answer to this request of {self.params.model}"
            failed = {key: JudgeResponseError(problem, hint="name a backend under 'record'") for key in missing}
        elif missing:
            replies = await ask(list(missing.values()))
            for (key, request), reply in zip(missing.items(), replies, strict=True):
                if isinstance(reply, LabelLogprobs | GeneratedText):
                    self._keep(key, request, asked, reply)
                else:
                    failed[key] = reply
        return [failed[key] if key in failed else read(answers[key]) for key in keys]

    def _load(self) -> dict[str, dict[str, Any]]:
        with self._lock:
            if self._answers is None:
                self._answers = self._read_file()
            return self._answers

    def _read_file(self) -> dict[str, dict[str, Any]]:
        try:
            data = self._path.read_bytes()
            whole = data[: data.rfind(b"\n") + 1]  # the last line is torn where the recording process died
            if self._source is not None and len(whole) < len(data):
                os.truncate(self._path, len(whole))
            text = whole.decode()
        except FileNotFoundError:
            if self._source is None:
                hint = "record one: name a backend under 'record'"
                raise ConfigError("there is no such recording", file=str(self._path), hint=hint) from None
            return {}
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"the recording cannot be read: {error}", file=str(self._path)) from error
        answers = {}
        for number, line in enumerate(text.split("\n")[:-1], start=1):
            try:
                entry = json.loads(line)
                model, request, asked, answer = (entry[name] for name in ("model", "request", "asked", "answer"))
            except (ValueError, LookupError, TypeError) as error:
                raise ConfigError("is no line of a recording", file=str(self._path), line=number) from error
            if model != self.params.model:
                problem = f"records {model}, not {self.params.model}"
                raise ConfigError(problem, file=str(self._path), line=number, hint="name another file")
            answers[_key(request, asked)] = answer
        return answers

    def _keep(
        self, key: str, request: Conversation, asked: dict[str, Any], reply: LabelLogprobs | GeneratedText
    ) -> None:
        answer = _record(reply)
        entry = {"model": self.params.model, "request": list(request), "asked": asked, "answer": answer}
        line = json.dumps(entry) + "\n"
        with self._lock:
            assert self._answers is not None
            self._answers[key] = answer
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line)


def _key(request: Conversation, asked: dict[str, Any]) -> str:
    return json.dumps([list(request), asked], sort_keys=True)


def _record(reply: LabelLogprobs | GeneratedText) -> dict[str, Any]:
    common = {"flags": list(reply.flags), "usage": reply.usage.record()}
    if isinstance(reply, GeneratedText):
        return {"text": reply.text, "truncated": reply.truncated, **common}
    logprobs = [None if math.isinf(value) else value for value in reply.logprobs]
    return {"logprobs": logprobs, "bounded": list(reply.bounded), **common}


def _text(answer: dict[str, Any]) -> GeneratedText:
    return GeneratedText(answer["text"], answer["truncated"], tuple(answer["flags"]), Usage.of_record(answer["usage"]))


def _labels(answer: dict[str, Any]) -> LabelLogprobs:
    logprobs = tuple(-math.inf if value is None else value for value in answer["logprobs"])
    usage = Usage.of_record(answer["usage"])
    return LabelLogprobs(logprobs, tuple(answer["bounded"]), tuple(answer["flags"]), usage)


@hookimpl
def rlaif_judge_backends() -> list[JudgeBackendSpec]:
    """Offer the backend ``replay``."""
    return [
        JudgeBackendSpec(
            name="replay",
            factory=Replay,
            params=ReplayParams,
            description="Answers from a recording, and records what it lacks",
        )
    ]
