"""How environments and rubrics call a reward: NeMo Gym, NeMo RL, SkyRL and verifiers, in the shapes of their sources."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from rlaif_sdk import Composer
from rlaif_sdk.integrations import nemo_gym, nemo_rl, skyrl, verifiers
from tests.integrations.cases import UNSCORED, Case, Row, present, row_of


class VerifyRequest(BaseModel):
    """The shape of ``BaseVerifyRequest`` in NeMo Gym, whose servers allow further fields."""

    model_config = ConfigDict(extra="allow")
    responses_create_params: dict[str, Any]
    response: dict[str, Any]


class VerifyResponse(VerifyRequest):
    """The shape of ``BaseMultiRewardVerifyResponse``."""

    reward: float
    mask_sample: bool = False
    failure_kind: str | None = None
    failure_reason: str | None = None
    reward_components: dict[str, float] = Field(default_factory=dict)


def nemo_gym_body(case: Case) -> dict[str, Any]:
    """A request for verification as NeMo Gym's agents post it."""
    return {
        "responses_create_params": {"input": [{"role": "user", "content": case.prompt}]},
        "response": {
            "output": [
                {"type": "reasoning", "summary": []},
                {
                    "type": "message",
                    "role": "assistant",
                    "content": [{"type": "output_text", "text": case.completion, "annotations": []}],
                },
            ]
        },
        "label": case.label,
    }


def by_nemo_gym(composer: Composer, cases: Sequence[Case]) -> list[Row]:
    verify = nemo_gym.verifier(composer, VerifyRequest, VerifyResponse)

    async def run() -> list[VerifyResponse]:
        return await asyncio.gather(*(verify(None, VerifyRequest(**nemo_gym_body(case))) for case in cases))

    return [(None if answer.mask_sample else answer.reward, answer.reward_components) for answer in asyncio.run(run())]


class EnvironmentReturn(NamedTuple):
    """The shape of NeMo RL's ``EnvironmentReturn``."""

    observations: list[dict[str, str]]
    metadata: list[Any]
    next_stop_strings: list[Any]
    rewards: Any
    terminateds: Any
    answers: list[str | None] | None = None


def by_nemo_rl(composer: Composer, cases: Sequence[Case]) -> list[Row]:
    environment = nemo_rl.environment(composer, object, EnvironmentReturn, unscored=UNSCORED)({})
    answer = environment.step(
        [
            [
                {"role": "user", "content": case.prompt, "token_ids": [1]},
                {"role": "assistant", "content": case.completion, "token_ids": [2]},
            ]
            for case in cases
        ],
        [{"label": case.label} for case in cases],
    )
    return [
        row_of(total, known["rlaif"]) for total, known in zip(answer.rewards.tolist(), answer.metadata, strict=True)
    ]


class TextEnv:
    """The shape of SkyRL-Gym's ``BaseTextEnv``."""

    def __init__(self) -> None:
        self.turns = 0

    def init(self, prompt: Any) -> tuple[Any, dict[str, Any]]:
        return prompt, {}


def by_skyrl(composer: Composer, cases: Sequence[Case], base: type = TextEnv) -> list[Row]:
    kind = skyrl.environment(composer, base, unscored=UNSCORED)
    rows: list[Row] = []
    for case in cases:
        environment = kind(extras={"reward_spec": {"ground_truth": case.label}, "extra_info": {"label": case.label}})
        environment.init([{"role": "user", "content": case.prompt}])
        answer = environment.step(case.completion)
        assert answer["done"]
        rows.append(row_of(answer["reward"], answer["metadata"]))
    return rows


class Rubric:
    """The shape of verifiers' ``Rubric``, which is made without arguments."""


def by_verifiers_rubric(composer: Composer, cases: Sequence[Case], base: type = Rubric) -> list[Row]:
    rubric = verifiers.rubric(composer, base)
    states = [
        {
            "prompt": [{"role": "user", "content": case.prompt}],
            "completion": case.completion,
            "answer": case.label,
            "input": {"label": case.label, "example_id": 1},
            "trajectory": [{"advantage": None, "reward": None}],
        }
        for case in cases
    ]
    asyncio.run(rubric.score_group(states))
    return [
        (None if state["metrics"]["unscored"] else state["reward"], present(state["metrics"]))  # type: ignore[index]
        for state in states
    ]


def by_verifiers_groups(composer: Composer, groups: Sequence[Sequence[Case]], base: type = Rubric) -> list[Row]:
    """A call a group."""
    return [row for cases in groups for row in by_verifiers_rubric(composer, cases, base)]


class TaskData(BaseModel):
    """The shape of verifiers' ``TaskData``."""

    prompt: str
    label: str


@dataclass
class Trace:
    """The shape of verifiers' ``Trace``."""

    last_reply: str
    metrics: dict[str, float] = field(default_factory=dict)

    def record_metrics(self, values: Mapping[str, float]) -> None:
        self.metrics |= values


def by_verifiers_task(composer: Composer, cases: Sequence[Case]) -> list[Row]:
    composed = verifiers.task_reward(composer)
    traces = [Trace(case.completion) for case in cases]

    async def run() -> list[Any]:
        tasks = [TaskData(prompt=case.prompt, label=case.label) for case in cases]
        calls = (composed(None, task, trace) for task, trace in zip(tasks, traces, strict=True))
        return await asyncio.gather(*calls, return_exceptions=True)

    return [
        (None if isinstance(total, Exception) else total, present(trace.metrics))
        for total, trace in zip(asyncio.run(run()), traces, strict=True)
    ]
