"""How environments and rubrics call a reward: NeMo Gym, NeMo RL, SkyRL and verifiers, in the shapes of their sources."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, NamedTuple

from pydantic import BaseModel

from rlaif_sdk import Composer
from rlaif_sdk.integrations import nemo_gym, nemo_rl, skyrl, verifiers
from tests.integrations.cases import UNSCORED, Case, Row, present, row_of


class VerifyRequest(BaseModel):
    """The shape of ``BaseVerifyRequest`` in NeMo Gym, which drops further fields."""

    responses_create_params: dict[str, Any]
    response: dict[str, Any]


class VerifyResponse(VerifyRequest):
    """The shape of ``BaseVerifyResponse``."""

    reward: float


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


def verified(composer: Composer, bodies: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What NeMo Gym's route answers, which reads and writes what ``verify`` is annotated with."""
    verify = nemo_gym.verifier(composer, VerifyRequest, VerifyResponse)
    asked, answered = verify.__annotations__["body"], verify.__annotations__["return"]

    async def run() -> list[VerifyResponse]:
        return await asyncio.gather(*(verify(None, asked(**body)) for body in bodies))

    return [answered.model_validate(answer.model_dump()).model_dump() for answer in asyncio.run(run())]


def by_nemo_gym(composer: Composer, cases: Sequence[Case]) -> list[Row]:
    rows: list[Row] = []
    for answer in verified(composer, [nemo_gym_body(case) for case in cases]):
        assert math.isclose(answer["reward"], sum(answer["reward_components"].values()), rel_tol=1e-9, abs_tol=1e-9)
        masked = answer.get("instance_config", {}).get("mask_sample", False)
        assert masked == answer.get("mask_sample", False) == bool(answer["rlaif/unscored"])
        own = {name[6:]: value for name, value in answer.items() if name.startswith("rlaif/")}
        rows.append((None if masked else answer["reward"], present(own)))
    return rows


class EnvironmentReturn(NamedTuple):
    """The shape of NeMo RL's ``EnvironmentReturn``."""

    observations: list[dict[str, str]]
    metadata: list[Any]
    next_stop_strings: list[Any]
    rewards: Any
    terminateds: Any
    answers: list[str | None] | None = None


def by_nemo_rl(composer: Composer, cases: Sequence[Case], *, components: bool = False) -> list[Row]:
    settings: dict[str, Any] = {"unscored": UNSCORED, "components": components}
    environment = nemo_rl.environment(composer, object, EnvironmentReturn, **settings)({})
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
    rewards = sum(answer.rewards.values()) if components else answer.rewards
    return [row_of(total, known["rlaif"]) for total, known in zip(rewards.tolist(), answer.metadata, strict=True)]


def by_nemo_rl_parts(composer: Composer, cases: Sequence[Case]) -> list[Row]:
    """The parts of the total, which NeMo RL sums."""
    return by_nemo_rl(composer, cases, components=True)


class TextEnv:
    """The shape of SkyRL-Gym's ``BaseTextEnv``."""

    def __init__(self) -> None:
        self.turns = 0

    def init(self, prompt: Any) -> tuple[Any, dict[str, Any]]:
        return prompt, {}

    def step(self, action: str) -> Any:
        """Says nothing."""

    def get_metrics(self) -> dict[str, Any]:
        return {}


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


class Spoken(BaseModel):
    """The shape of verifiers' messages."""

    role: str
    content: str | None = None
    tool_calls: list[dict[str, str]] | None = None
    tool_call_id: str | None = None


@dataclass
class Trace:
    """The shape of verifiers' ``Trace``: messages of one branch, and which of them the model said."""

    said: list[tuple[Spoken, bool]]
    root_reply: str | None = None
    metrics: dict[str, float] = field(default_factory=dict)

    @property
    def branches(self) -> list[Any]:
        nodes = [SimpleNamespace(message=message, sampled=sampled) for message, sampled in self.said]
        return [SimpleNamespace(nodes=nodes)] if nodes else []

    @property
    def last_reply(self) -> str:
        if self.root_reply is not None:
            return self.root_reply.strip()
        said = [message.content or "" for message, sampled in self.said if sampled]
        return said[-1].strip() if said else ""

    def record_metrics(self, values: Mapping[str, float]) -> None:
        self.metrics |= values


def by_verifiers_task(composer: Composer, cases: Sequence[Case]) -> list[Row]:
    composed = verifiers.task_reward(composer)
    traces = [
        Trace(
            [
                (Spoken(role="user", content=case.prompt), False),
                (Spoken(role="assistant", content=case.completion), True),
            ]
        )
        for case in cases
    ]

    async def run() -> list[Any]:
        tasks = [TaskData(prompt=case.prompt, label=case.label) for case in cases]
        calls = (composed(task, trace) for task, trace in zip(tasks, traces, strict=True))
        return await asyncio.gather(*calls, return_exceptions=True)

    return [
        (None if isinstance(total, Exception) else total, present(trace.metrics))
        for total, trace in zip(asyncio.run(run()), traces, strict=True)
    ]
