"""A reward server as what an adapter scores with: ``rewards="http://host:8000"`` in place of a config.

The server has the composition, so that every process of a stack is scored by one: with ``rlaif serve --cohort`` the
members of a group find each other there, and what is learned is learned once.
"""

from __future__ import annotations

import asyncio
import itertools
import uuid
import weakref
from collections.abc import Hashable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rlaif_sdk.composer.aggregators import AggregationTree
from rlaif_sdk.composer.column import RewardColumn
from rlaif_sdk.composer.composition import Composition
from rlaif_sdk.composer.constraints import Constraint, ConstraintColumn
from rlaif_sdk.composer.gates import Gate
from rlaif_sdk.exceptions import ConfigError, RewardError, RewardOutputError
from rlaif_sdk.integrations.samples import Sample, Scored, batch_of
from rlaif_sdk.io.digests import json_digest
from rlaif_sdk.io.forks import on_fork
from rlaif_sdk.io.http import HttpError, JsonClient, json_body
from rlaif_sdk.scoring.checks import Imputed
from rlaif_sdk.scoring.event_loops import reward_loop
from rlaif_sdk.scoring.wire import json_plain
from rlaif_sdk.statistics.arrays import Array, Mask
from rlaif_sdk.types import Credit, Progress, Score, SubScore

ROWS = 256
"""Rows in a request at most; those of one group are in one request, whatever its size."""
TOKENS = 200_000
"""Tokens of completions in a request at most, likewise: a server reads 8 MB."""
CONNECTIONS = 4096
"""Requests under way at most: each member of a group that is gathered holds one until the group is whole."""
SESSION_HEADER = "x-session-id"
_MAX_ANSWER = 64_000_000


@dataclass(frozen=True, slots=True)
class _Submitted:
    """A sample that somebody waits for.

    Attributes:
        sample: The sample, with a name by which the server knows a request that is sent again.
        together: Samples with the same value are in one request; None may be with any.
        progress: How far training is, where that is known.
        answer: What the server says of it.
    """

    sample: Sample
    together: Hashable | None
    progress: Progress | None
    answer: asyncio.Future[dict[str, Any]]


class RewardServer:
    """Scores samples by asking a server of ``rlaif serve``, whose connections all event loops of the process share.

    A sample that has a ``group_size`` is answered when its group is whole on the server; whatever else is asked for in the
    same moment goes in one request. A request that comes to nothing is sent again, and its members keep their names, so
    that none is counted twice. After the last attempt its samples are unscored with the reason, once the server has
    answered before.

    Args:
        url: ``http://host:port``.
        api_key_env: The environment variable with the server's key; None for a server without one.
        training: False where the server is to learn nothing from these samples, as in an evaluation.
        timeout: Seconds for one attempt; more than the server's ``--cohort-deadline`` and ``--timeout`` together.
        attempts: Attempts for one request at most, at growing distances up to half a minute.

    Raises:
        ConfigError: The address is none.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key_env: str | None = None,
        training: bool = True,
        timeout: float = 600.0,
        attempts: int = 10,
    ) -> None:
        self._settings = {
            "url": url,
            "api_key_env": api_key_env,
            "training": training,
            "timeout": timeout,
            "attempts": attempts,
        }
        self._training = training
        self._client = JsonClient(
            url=f"{url.rstrip('/')}/v1/score",
            server=f"the reward server {url}",
            extra="serve",
            api_key_env=api_key_env,
            timeout=timeout,
            attempts=attempts,
            max_retry_after=60.0,
            concurrency=CONNECTIONS,
            max_body_bytes=_MAX_ANSWER,
        )
        weakref.finalize(self, self._client.close)  # adapters live in processes that nobody closes them in
        self._waiting: list[_Submitted] = []
        self._names: tuple[str, ...] | None = None
        self._description: Mapping[str, Any] | None = None
        self._serial = itertools.count()
        self._name_members()
        on_fork(self._name_members)
        self._requests: set[asyncio.Task[None]] = set()

    def __getstate__(self) -> dict[str, Any]:
        return self._settings

    def __setstate__(self, settings: dict[str, Any]) -> None:
        self.__init__(**settings)  # type: ignore[misc]  # made anew, as in any process

    def __repr__(self) -> str:
        return f"RewardServer({self._settings['url']!r})"

    def submit(self, samples: Sequence[Sample], progress: Progress | None = None) -> Future[list[Scored]]:
        """Begin to score samples, whose groups hold among them unless they have a ``group_size``.

        The future raises:
            ConfigError: The server refuses the key, or sends us elsewhere.
            RewardError: It refuses the samples, or has never answered.
        """
        return asyncio.run_coroutine_threadsafe(self._score(samples, progress), reward_loop().loop)

    async def _score(self, samples: Sequence[Sample], progress: Progress | None) -> list[Scored]:
        loop = asyncio.get_running_loop()
        serial = next(self._serial)
        asked = [
            _Submitted(self._named(one), _together(one, serial), progress, loop.create_future()) for one in samples
        ]
        if not self._waiting:
            loop.call_soon(self._send)
        self._waiting += asked
        answers = await asyncio.gather(*(one.answer for one in asked))
        composition = _told(samples, progress or Progress(), answers, self._description or {})
        return [
            Scored(composition, row, answer.get("gathered"), _group_means(answer)) for row, answer in enumerate(answers)
        ]

    def _name_members(self) -> None:
        """Begin names that no other process gives, nor the parent of this one."""
        self._name, self._members = uuid.uuid4().hex, itertools.count()

    def _named(self, sample: Sample) -> Sample:
        """A sample that has a name among its group, after those of this process that were asked for before."""
        if sample.member is not None:
            return sample
        return replace(sample, member=f"{self._name}-{next(self._members):012}")

    def _send(self) -> None:
        """Send what was asked for in this turn of the loop."""
        waiting, self._waiting = self._waiting, []
        for part in _requests(waiting):
            task = asyncio.get_running_loop().create_task(self._ask(part))
            self._requests.add(task)  # or it might be collected
            task.add_done_callback(self._requests.discard)

    async def _ask(self, part: Sequence[_Submitted]) -> None:
        try:
            answers = await self._answers(part)
        except (ConfigError, RewardError) as error:
            for one in part:
                if not one.answer.done():
                    one.answer.set_exception(error)
            return
        for one, answer in zip(part, answers, strict=True):
            if not one.answer.done():
                one.answer.set_result(answer)

    async def _answers(self, part: Sequence[_Submitted]) -> list[dict[str, Any]]:
        progress = part[0].progress
        body = {
            "rows": [_row(one) for one in part],
            "detail": True,
            "training": self._training,
            **({} if progress is None else {"step": progress.step}),
        }
        try:
            data = json_body(body, default=json_plain)
        except (TypeError, ValueError) as error:
            raise RewardError(f"a sample cannot be sent as JSON: {error}") from None
        try:
            session = await self._client.session()
            headers = _headers(part[0].sample)
            said = await self._client.tried(lambda: self._client.post(session, lambda: data, headers))
        except HttpError as error:
            if error.problem in ("key", "quota", "redirect"):
                raise ConfigError(str(error), key="rewards", hint=error.hint) from None
            if error.problem == "passing" and self._names is not None:
                return [_failed(self._names, str(error)) for _ in part]
            raise RewardError(str(error), hint=error.hint) from None
        answers = _rows_in(said, len(part))
        self._names = tuple(answers[0]["rewards"])
        self._description = said.get("composition") or self._description
        return answers


def _together(sample: Sample, serial: int) -> Hashable | None:
    """What a sample's request is for: its group, which is the call's own unless it has a size."""
    if sample.group is None:
        return None
    return (None, sample.group) if sample.group_size is not None else (serial, sample.group)


def _requests(waiting: Sequence[_Submitted]) -> Iterator[list[_Submitted]]:
    """The requests for what waits: groups whole, those that are gathered each in one of its own, training steps apart."""
    groups: dict[Hashable, list[_Submitted]] = {}
    for place, one in enumerate(waiting):
        groups.setdefault(place if one.together is None else one.together, []).append(one)
    parts: dict[Hashable, list[_Submitted]] = {}
    for group in groups.values():
        first = group[0]
        if first.sample.group_size is not None:
            yield group
            continue
        has = (first.sample.completion_ids is None, first.sample.turn_spans is None)
        kind = (first.together is None, first.progress, has)
        part = parts.setdefault(kind, [])
        if part and (len(part) + len(group) > ROWS or _tokens(part) + _tokens(group) > TOKENS):
            yield part
            part = parts[kind] = []
        part += group
    yield from parts.values()


def _tokens(part: Sequence[_Submitted]) -> int:
    return sum(len(one.sample.completion_ids or ()) for one in part)


def _row(asked: _Submitted) -> dict[str, Any]:
    sample = asked.sample
    row: dict[str, Any] = {
        "prompt": sample.prompt,
        "completion": sample.completion,
        "columns": sample.columns,
        "member": sample.member,
    }
    if sample.completion_ids is not None:
        row["completion_ids"] = sample.completion_ids
    if sample.turn_spans is not None:
        row["turn_spans"] = sample.turn_spans
    if sample.group_size is not None:
        return {**row, "group": _label(sample.group), "group_size": sample.group_size}
    return row if asked.together is None else {**row, "group": str(asked.together)}


def _headers(sample: Sample) -> dict[str, str]:
    """The session that Ray Serve knows a gathered group by: all its requests then reach one replica."""
    return {} if sample.group_size is None else {SESSION_HEADER: json_digest(_label(sample.group))}


def _label(group: Hashable | None) -> str | int:
    """A label that is the same from every process."""
    return group if isinstance(group, (str, int)) else str(group)


def _rows_in(said: Any, rows: int) -> list[dict[str, Any]]:
    """The answers about the rows of a request, each with every reward's part.

    Raises:
        RewardOutputError: It is no such answer.
    """
    answers = said.get("rows") if isinstance(said, dict) else None
    if not isinstance(answers, list) or len(answers) != rows:
        raise RewardOutputError(f"the reward server does not answer {rows} rows: {str(said)[:80]}")
    for answer in answers:
        if not isinstance(answer, dict) or "total" not in answer or not isinstance(answer.get("rewards"), dict):
            raise RewardOutputError(f"the reward server says nothing of a row's rewards: {str(answer)[:80]}")
    return answers


def _failed(names: Sequence[str], reason: str) -> dict[str, Any]:
    """The answer about a row that no answer came about."""
    part = {"raw": None, "normalized": None, "weighted": None, "status": "failed", "reason": reason}
    return {"total": None, "rewards": dict.fromkeys(names, part)}


def _told(
    samples: Sequence[Sample],
    progress: Progress,
    answers: Sequence[Mapping[str, Any]],
    described: Mapping[str, Any],
) -> Composition:
    """The composition that the server tells of: all of it but how normalizers work and how long rewards took.

    Raises:
        RewardOutputError: It tells of something else.
    """
    batch = batch_of([replace(sample, columns={}) for sample in samples], progress)
    totals = _numbers([answer["total"] for answer in answers])
    names = {name: None for answer in answers for name in answer["rewards"]}
    kinds = described.get("rewards", {})
    parts = {name: [answer["rewards"].get(name, {}) for answer in answers] for name in names}
    without: dict[str | None, Mask] = {}
    if batch.group is not None:
        without = {None: _flags(answers), **{name: _flags(parts[name]) for name in names}}

    def told(what: str, place: int) -> list[Any]:
        """What each row's list has at a place, None where there is none, as of a row that came too late."""
        lists = [answer.get(what) or () for answer in answers]
        return [said[place] if place < len(said) else None for said in lists]

    try:
        gates = [
            (Gate(**gate), np.array([closed is True for closed in told("gates_closed", place)]))
            for place, gate in enumerate(described.get("gates", ()))
        ]
        constraints = [
            ConstraintColumn(
                Constraint(**constraint),
                next((one for one in told("multipliers", place) if one is not None), np.nan),
                _numbers(told("penalties", place)),
            )
            for place, constraint in enumerate(described.get("constraints", ()))
        ]
        return Composition(
            batch,
            totals,
            {name: _column(name, parts[name], kinds.get(name, {})) for name in names},
            gates,
            _numbers([answer.get("before_gates", answer["total"]) for answer in answers]),
            np.array([answer.get("dropped", False) for answer in answers]),
            constraints=constraints,
            group_weights=next((answer["group_weights"] for answer in answers if "group_weights" in answer), {}),
            aggregation=AggregationTree(**described.get("aggregation", {})),
            gate_order=described.get("gate_order", "independent"),
            without_variance=without,
        )
    except TypeError as error:  # of a class that is given what it does not know
        raise RewardOutputError(f"the reward server is of another version: {error}") from None


def _first(parts: Sequence[Mapping[str, Any]], field: str) -> float:
    return next((part[field] for part in parts if part.get(field) is not None), np.nan)


def _column(name: str, parts: Sequence[Mapping[str, Any]], kind: Mapping[str, Any]) -> RewardColumn:
    status = [part.get("status") for part in parts]
    reasons = {row: str(part.get("reason") or status[row]) for row, part in enumerate(parts)}
    raw = _numbers([part.get("raw") for part in parts])
    credit = {row: Credit.of_record(part["credit"]) for row, part in enumerate(parts) if part.get("credit")}
    no_place = [row for row, part in enumerate(parts) if part.get("credit_without_place")]
    credit_scale = np.ones(len(parts))
    credit_scale[no_place] = np.nan

    imputed = {
        row: Imputed(part["imputed"][0], part["imputed"][1], reasons[row])
        for row, part in enumerate(parts)
        if part.get("imputed")
    }

    def where(*kinds: str) -> dict[int, str]:
        return {row: reasons[row] for row, said in enumerate(status) if said in kinds}

    def entry(row: int) -> Score:
        subscores = {part: SubScore.of_record(said) for part, said in (parts[row].get("subscores") or {}).items()}
        return Score(None if np.isnan(raw[row]) else raw[row], parts[row].get("reason"), subscores=subscores)

    return RewardColumn(
        name=name,
        weight=_first(parts, "weight"),
        raw=raw,
        normalized=_numbers([part.get("normalized") for part in parts]),
        weighted=_numbers([part.get("weighted") for part in parts]),
        failures=where("failed", "default"),
        masked=np.array([said == "masked" for said in status]),
        defaulted=np.array([said == "default" for said in status]),
        seconds=0.0,
        entries=[entry(row) for row in range(len(parts))],
        fallback_reasons=where("fallback") if kind.get("has_fallback") else None,
        cached=np.array([said == "cached" for said in status]) if kind.get("has_ledger") else None,
        not_asked=where("not asked", "imputed") if kind.get("has_conditions") else None,
        imputed=imputed if kind.get("has_ask") else None,
        flipped_share=_first(parts, "flipped_share") if kind.get("has_ask") else None,
        declared_range=None if kind.get("declared_range") is None else tuple(kind["declared_range"]),
        higher_is_better=kind.get("higher_is_better", True),
        ends=None if kind.get("ends") is None else tuple(kind["ends"]),
        credit={**credit, **dict.fromkeys(no_place, Credit())},
        credit_scale=credit_scale,
    )


def _group_means(answer: Mapping[str, Any]) -> dict[str | None, float | None]:
    """The means that the server tells where the row has no value."""
    parts = {None: answer, **answer["rewards"]}
    return {name: part["group_mean"] for name, part in parts.items() if "group_mean" in part}


def _flags(told: Sequence[Mapping[str, Any]]) -> Mask:
    """(B,) whether a group has no variance, as the server says, which has seen all of it."""
    return np.array([part.get("no_variance") is not False for part in told])


def _numbers(values: Sequence[Any]) -> Array:
    """(B,) numbers, NaN where there is none.

    Raises:
        RewardOutputError: One is something else.
    """
    try:
        return np.array([np.nan if value is None else float(value) for value in values])
    except (TypeError, ValueError):
        raise RewardOutputError(f"the reward server's numbers are {str(list(values))[:80]}") from None
