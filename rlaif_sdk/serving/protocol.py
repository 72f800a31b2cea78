"""What requests and answers look like, route by route, and the answers of scored samples as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any, Literal, Self

from fastapi import Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, model_validator
from pydantic_core import PydanticSerializationError, to_json

from rlaif_sdk.composer import Composition
from rlaif_sdk.integrations.samples import Scored
from rlaif_sdk.io.text import safe_text
from rlaif_sdk.statistics.arrays import json_number


def _finite(value: JsonValue) -> JsonValue:
    """JSON writes what no double holds, such as 1e999, and a reader makes infinity of it."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("a number is too large")
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _finite(part)
    return value


Anything = Annotated[JsonValue, AfterValidator(_finite)]
Columns = dict[str, Anything]
Text = str | list[dict[str, Anything]]
"""Text, or messages of any shape that `rlaif_sdk.conversations` reads; a row whose messages it cannot read is the only one to fail."""


class Strict(BaseModel):
    """A request whose keys are all ours, so that a misspelt one is refused."""

    model_config = ConfigDict(extra="forbid")


class Row(Strict):
    """A completion to score."""

    prompt: Text = ""
    completion: Text
    columns: Columns = Field(default_factory=dict)
    """Whatever else the rewards need: references, labels, tests."""
    group: str | int | None = None
    """A label that the completions to one prompt share; it holds within this request, unless ``group_size`` is given."""
    group_size: int | None = Field(None, ge=1)
    """How many the group has, over all requests: it is scored when so many have come, or at the server's deadline."""
    member: str | int | None = None
    """Which of them it is, so that a request that is sent again is known as that."""
    completion_ids: list[int] | None = None
    """The completion's tokens, for rewards that read them; of all rows of a request, or of none."""
    turn_spans: list[tuple[int, int]] | None = None
    """Where in them each turn of the policy begins and ends."""

    @model_validator(mode="after")
    def _of_a_group(self) -> Self:
        if self.group_size is not None and self.group is None:
            raise ValueError("a group_size without a group")
        return self


class ScoreRequest(Strict):
    """``POST /v1/score``."""

    rows: list[Row] = Field(min_length=1)
    detail: bool = False
    """Whether to tell each reward's part."""
    step: int | None = Field(None, ge=0, lt=2**53)
    """Optimiser steps done, for schedules."""
    training: bool = True
    """Whether a server that gathers groups learns from these rows; another never does."""

    @model_validator(mode="after")
    def _all_or_none(self) -> Self:
        for name in ("group", "completion_ids", "turn_spans"):
            if len({getattr(row, name) is None for row in self.rows}) > 1:
                raise ValueError(f"some rows have {'a ' * (name == 'group')}{name} and some have none")
        return self


class RewardPart(BaseModel):
    """A reward's part in a row's total."""

    raw: float | None
    """What it said, in its own units."""
    normalized: float | None
    weighted: float | None
    status: str
    reason: str | None
    weight: float | None = None
    """Its weight in force."""
    credit: dict[str, Any] | None = None
    """Where in the completion its weighted part falls: ``tokens``, ``turns``, ``spans`` and the ``rest``; of a reward that
    says so."""
    credit_without_place: bool | None = None
    """True where it says so and that has no place in the total: its normalizer or the aggregator does more than scale and
    shift."""
    subscores: dict[str, dict[str, Any]] | None = None
    """What its score is made of, by name, where it says so."""
    imputed: tuple[float, float] | None = None
    """What is taken for its score where its ``ask`` kept it from being asked, and how far off that may be."""
    flipped_share: float | None = None
    """Where it has an ``ask``: what the metric of that name says."""
    no_variance: bool | None = None
    """Where the row has a group: whether all of that have the same score."""
    group_mean: float | None = None
    """Where it has a group and no score: the mean of those of its group that have one."""


class RowScore(BaseModel):
    """What is said of a row."""

    total: float | None
    """The composed reward; null where the row is unscored."""
    status: Literal["scored", "abstained", "failed"]
    reason: str | None
    """Why it is unscored."""
    gathered: int | None = None
    """Where its group was gathered: how many of it were scored together, 0 where this row came too late."""
    no_variance: bool | None = None
    """Where it has a group: whether all totals of that are the same, so that it teaches nothing."""
    group_mean: float | None = None
    """Where it has a group and is unscored: the mean of the totals of its group."""
    rewards: dict[str, RewardPart] | None = None
    dropped: bool | None = None
    """True where a reward's failure policy dropped the row."""
    before_gates: float | None = None
    """Where there are gates: the total before any."""
    gates_closed: list[bool] | None = None
    """Whether it does not pass, of each gate of the `Description`."""
    penalties: list[float | None] | None = None
    """What each constraint of the `Description` takes off."""
    multipliers: list[float] | None = None
    """The multiplier in force of each."""
    group_weights: dict[str, float] | None = None
    """The weight in force of each group of rewards."""


class Description(BaseModel):
    """What a composition is made of, beside weights and multipliers, which training changes."""

    rewards: dict[str, dict[str, Any]]
    """Each reward's ``declared_range``, ``higher_is_better`` and ``ends``, and whether it ``has_fallback``, ``has_ledger``,
    ``has_conditions`` and ``has_ask``."""
    gates: list[dict[str, Any]]
    """The settings of each gate."""
    gate_order: str
    constraints: list[dict[str, Any]]
    """The settings of each constraint."""
    aggregation: dict[str, Any]
    """Which groups the rewards are in, and how they are aggregated: see `rlaif_sdk.composer.aggregators.AggregationTree`."""


class ScoreAnswer(BaseModel):
    """The rows in the order of the request."""

    rows: list[RowScore]
    composition: Description | None = None
    """With ``detail``."""


class OpenRLHFRequest(BaseModel):
    """``POST /get_reward``, as OpenRLHF posts it to ``--reward.remote_url``; further keys are ignored."""

    query: list[str] = Field(min_length=1)
    """Prompts with their completions, special tokens included."""
    prompts: list[str]
    labels: list[Anything] | None = None

    @model_validator(mode="after")
    def _of_one_length(self) -> Self:
        lengths = {"prompts": len(self.prompts), "labels": len(self.query if self.labels is None else self.labels)}
        for name, length in lengths.items():
            if length != len(self.query):
                raise ValueError(f"{name} has {length} entries where query has {len(self.query)}")
        return self


class OpenRLHFAnswer(BaseModel):
    """What OpenRLHF reads, and why a completion is unscored."""

    rewards: list[float | None]
    scores: list[float | None]
    extra_logs: dict[str, list[float]]
    """Each reward's scores, its 0 where it has none and ``NAME/missing`` is 1, and ``unscored``: the same names always."""
    reasons: list[str | None]


class VerlSample(BaseModel):
    """What verl hands to ``compute_score``; further keys are ignored."""

    data_source: str
    solution_str: str
    ground_truth: Anything = None
    extra_info: Columns | None = None


VerlRequest = VerlSample | Annotated[list[VerlSample], Field(min_length=1)]
VerlScore = dict[str, Any]


class SlimeRequest(BaseModel):
    """What slime's ``remote_rm`` posts; further keys are ignored."""

    prompt: Text
    response: str
    label: Anything = None


class Problem(BaseModel):
    """Why a request is refused."""

    detail: str


class Health(BaseModel):
    """That the server answers."""

    status: Literal["ok"] = "ok"
    version: str
    rewards: list[str]
    waiting: int
    """Rows that wait or are scored."""


_encode = json.JSONEncoder(allow_nan=False, ensure_ascii=False).encode


def json_response(content: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A response in which a lone surrogate, as in a reason, is U+FFFD: not every client can read its escape."""
    try:
        body: bytes | str = to_json(content, inf_nan_mode="null")
    except (PydanticSerializationError, UnicodeEncodeError):  # a lone surrogate
        body = safe_text(_encode(content))
    return Response(body, status, media_type="application/json", headers=headers)


def row_score(scored: Scored, *, detail: bool) -> dict[str, Any]:
    """A `RowScore`."""
    row = scored.row
    columns = scored.composition.rewards
    unscored = scored.total is None
    failed = unscored and (
        bool(scored.composition.dropped[row]) or any(row in column.failures for column in columns.values())
    )
    answer: dict[str, Any] = {
        "total": scored.total,
        "status": "failed" if failed else "abstained" if unscored else "scored",
        "reason": scored.reason if unscored else None,
    }
    if scored.gathered is not None:
        answer["gathered"] = scored.gathered
    if (no_variance := scored.no_variance()) is not None:
        answer["no_variance"] = no_variance
        if unscored:
            answer["group_mean"] = scored.group_mean()
    if detail:
        answer |= _details(scored)
        for name, part in answer["rewards"].items() if no_variance is not None else ():
            part["no_variance"] = scored.no_variance(name)
            if part["raw"] is None:
                part["group_mean"] = scored.group_mean(name)
    return answer


def _details(scored: Scored) -> dict[str, Any]:
    """What a `RowScore` has of each reward, and of gates, constraints and groups of rewards where there are any."""
    row, composition = scored.row, scored.composition
    rewards = {name: column.record(row) for name, column in composition.rewards.items()}
    for name, column in composition.rewards.items():
        rewards[name]["weight"] = json_number(column.weight)
        if row in column.credit and column.has_no_place(row):
            rewards[name]["credit_without_place"] = True
        if column.flipped_share is not None:
            rewards[name]["flipped_share"] = json_number(column.flipped_share)
        if column.imputed and row in column.imputed:
            rewards[name]["imputed"] = column.imputed[row][:2]
    details: dict[str, Any] = {"rewards": rewards}
    if composition.dropped[row]:
        details["dropped"] = True
    if composition.gates:
        details["before_gates"] = json_number(composition.before_gates[row])
        details["gates_closed"] = [bool(closed_B[row]) for _, closed_B in composition.gates]
    if composition.constraints:
        details["penalties"] = [json_number(part.penalty[row]) for part in composition.constraints]
        details["multipliers"] = [part.multiplier for part in composition.constraints]
    if composition.group_weights:
        details["group_weights"] = dict(composition.group_weights)
    return details


def description(composition: Composition) -> dict[str, Any]:
    """A `Description`."""
    return {
        "rewards": {
            name: {
                "declared_range": column.declared_range,
                "higher_is_better": column.higher_is_better,
                "ends": column.ends,
                "has_fallback": column.fallback_reasons is not None,
                "has_ledger": column.cached is not None,
                "has_conditions": column.not_asked is not None,
                "has_ask": column.imputed is not None,
            }
            for name, column in composition.rewards.items()
        },
        "gates": [asdict(gate) for gate, _ in composition.gates],
        "gate_order": composition.gate_order,
        "constraints": [asdict(part.constraint) for part in composition.constraints],
        "aggregation": asdict(composition.aggregation),
    }


def openrlhf_answer(scored: Sequence[Scored], unscored: float | None) -> dict[str, Any]:
    """A `OpenRLHFAnswer`."""
    totals = [unscored if one.total is None else one.total for one in scored]
    logged = [one.logged_scores() for one in scored]
    return {
        "rewards": totals,
        "scores": totals,
        "extra_logs": {name: [row[name] for row in logged] for name in logged[0]},
        "reasons": [one.reason if one.total is None else None for one in scored],
    }


def verl_answer(scored: Scored, unscored: float | None) -> dict[str, Any]:
    """``score``, each reward's own score, ``unscored`` and ``reason``, flat, as verl's ``reward_extra_info``."""
    scores = {name: json_number(value) for name, value in scored.scores().items()}
    total = unscored if scored.total is None else scored.total
    return {**scores, "score": total, "reason": scored.reason if scored.total is None else None}
