"""One composition and one set of samples, and every adapter's way to score them, as its stack calls it.

Where a stack's package is installed its own reward-calling code runs, in ``test_adapters_in_their_stacks.py``; here the
calls have the shapes that its source has.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from rlaif_sdk import Composer, RewardBatch, Score
from rlaif_sdk.composer.component import Component
from rlaif_sdk.composer.failures import FailurePolicy
from rlaif_sdk.composer.gates import Gate
from rlaif_sdk.integrations import nemo_gym, nemo_rl, openrlhf, skyrl, slime, swift, verifiers, verl

Row = tuple[float | None, Mapping[str, float | None]]
"""The total and each reward's own score, None where there is none."""


@dataclass(frozen=True)
class Case:
    """A sample of the suite."""

    prompt: str
    completion: str
    label: str


CASES = [
    Case("What is the capital of France?", "Paris.", "Paris"),
    Case("What is the capital of France?", "It is Lyon, I think, or perhaps Marseille.", "Paris"),
    Case("Say nothing.", "", "nothing"),
    Case("Name a colour.", "abstain: blue", "blue"),
    Case("Name a colour.", "fail: blue", "blue"),
    Case("Name a colour.", "abstain fail", "red"),
    Case("Grüß mich — 你好?", "Hallo 世界 🙂 ", "世界"),
    Case("Shout.", "DAMN DAMN DAMN", "quiet"),
]


def mentions(completions: Sequence[str], label: Sequence[str]) -> list[float | None]:
    """1 where the label is in the completion; abstains where asked to."""
    return [None if "abstain" in text else float(word in text) for text, word in zip(completions, label, strict=True)]


async def brevity(prompts: Sequence[Any], completions: Sequence[str]) -> list[Any]:
    """The shorter the better, beside the prompt; fails where asked to."""
    await asyncio.sleep(0)
    asked = [prompt if isinstance(prompt, str) else prompt[-1]["content"] for prompt in prompts]
    return [
        Score.failed("asked to fail") if "fail" in text else len(prompt) / (1 + len(text))
        for prompt, text in zip(asked, completions, strict=True)
    ]


def calm(completions: Sequence[str]) -> list[float | None]:
    """The share of characters that are no capitals; abstains where the others say nothing either."""
    return [
        None if text == "abstain fail" else 1 - sum(map(str.isupper, text)) / max(1, len(text)) for text in completions
    ]


def build_composer() -> Composer:
    """Weights, a gate, an abstention and a failure, and nothing that compares rows.

    No group is masked for a failure: only stacks that score a group together can.
    """
    return Composer(
        {
            "mentions": Component(mentions, weight=2.0),
            "brevity": Component(brevity, weight=0.3, failure=FailurePolicy(mask_group="never")),
            "calm": Component(calm, weight=0.1),
        },
        gates=[Gate("calm", floor=-1.0, min=0.5)],
    )


def by_composer(cases: Sequence[Case]) -> list[Row]:
    """What the composer itself says, the suite's truth."""
    with build_composer() as composer:
        composition = composer.compose(
            RewardBatch(
                prompts=[case.prompt for case in cases],
                completions=[case.completion for case in cases],
                columns={"label": [case.label for case in cases]},
                training=False,
            )
        )
    return [
        (total, {name: reward["raw"] for name, reward in record["rewards"].items()})
        for total, record in zip(composition.to_list(), composition.records(), strict=True)
    ]


def _present(figures: Mapping[str, float]) -> dict[str, float]:
    """Each reward's own score, of those that have one."""
    others = ("score", "unscored")
    return {name: value for name, value in figures.items() if name not in others and not math.isnan(value)}


UNSCORED = -999.0
"""What stacks that have no word for an unscored completion are told to write, for this suite to read."""


def _row(total: float, figures: Mapping[str, float]) -> Row:
    return (None if figures["unscored"] else total), _present(figures)


def by_verl(composer: Composer, cases: Sequence[Case]) -> list[Row]:
    reward = verl.VerlReward(composer, unscored=UNSCORED)
    answers = [
        reward.compute_score_sync("suite", case.completion, case.label, {"prompt": case.prompt, "label": case.label})
        for case in cases
    ]
    return [_row(answer["score"], answer) for answer in answers]


def by_verl_at_once(composer: Composer, cases: Sequence[Case]) -> list[Row]:
    reward = verl.VerlReward(composer, unscored=UNSCORED)

    async def run() -> list[dict[str, float]]:
        return await asyncio.gather(
            *(
                reward.compute_score(
                    data_source="suite",
                    solution_str=case.completion,
                    ground_truth=case.label,
                    extra_info={"prompt": case.prompt, "label": case.label},
                )
                for case in cases
            )
        )

    return [_row(answer["score"], answer) for answer in asyncio.run(run())]


def by_verl_batch(composer: Composer, cases: Sequence[Case]) -> list[Row]:
    reward = verl.VerlReward(composer, unscored=UNSCORED)
    answers = reward.compute_score_batch(
        data_sources=["suite"] * len(cases),
        solution_strs=[case.completion for case in cases],
        ground_truths=[case.label for case in cases],
        extra_infos=[{"prompt": case.prompt, "label": case.label} for case in cases],
    )
    return [_row(answer["score"], answer) for answer in answers]


def _by_openrlhf(composer: Composer, batches: Sequence[Sequence[Case]]) -> list[Row]:
    function = openrlhf.reward_function(composer, unscored=UNSCORED)
    rows: list[Row] = []
    for cases in batches:
        said = function(
            [f"{case.prompt}{case.completion}<|im_end|>" for case in cases],
            [case.prompt for case in cases],
            [case.label for case in cases],
        )
        logs = {name: values.tolist() for name, values in said["extra_logs"].items()}
        figures = [{name: values[row] for name, values in logs.items()} for row in range(len(cases))]
        rows += [_row(total, row) for total, row in zip(said["rewards"].tolist(), figures, strict=True)]
    return rows


def by_openrlhf(composer: Composer, cases: Sequence[Case]) -> list[Row]:
    return _by_openrlhf(composer, [[case] for case in cases])


def by_openrlhf_batch(composer: Composer, cases: Sequence[Case]) -> list[Row]:
    return _by_openrlhf(composer, [cases])


def _swift_kwargs(cases: Sequence[Case]) -> dict[str, Any]:
    return {
        "messages": [
            [{"role": "user", "content": case.prompt}, {"role": "assistant", "content": case.completion}]
            for case in cases
        ],
        "label": [case.label for case in cases],
        "prompt_id": [case.prompt for case in cases],
        "request_id": [str(row) for row in range(len(cases))],
        "rollout_infos": [{} for _ in cases],
        "trainer_state": SimpleNamespace(global_step=3, max_steps=10),
    }


def by_swift(composer: Composer, cases: Sequence[Case]) -> list[Row]:
    reward = swift.orm(composer)(args=None)
    return [(total, {}) for total in reward([case.completion for case in cases], **_swift_kwargs(cases))]


def by_swift_async(composer: Composer, cases: Sequence[Case]) -> list[Row]:
    reward = swift.orm(composer, asynchronous=True)(args=None)
    return [(total, {}) for total in asyncio.run(reward([case.completion for case in cases], **_swift_kwargs(cases)))]


@dataclass
class SlimeSample:
    """The fields of slime's ``Sample`` that a reward touches."""

    prompt: Any
    response: str
    label: str | None
    metadata: dict[str, Any] = field(default_factory=dict)
    remove_sample: bool = False


def _slime_rows(samples: Sequence[SlimeSample], rewards: Sequence[float]) -> list[Row]:
    return [
        (None if sample.remove_sample else reward, sample.metadata[slime.FIGURES])
        for sample, reward in zip(samples, rewards, strict=True)
    ]


def by_slime(composer: Composer, cases: Sequence[Case]) -> list[Row]:
    rm = slime.reward_model(composer, unscored=UNSCORED)
    samples = [SlimeSample(case.prompt, case.completion, case.label) for case in cases]

    async def run() -> list[float]:
        return await asyncio.gather(*(rm(SimpleNamespace(), sample) for sample in samples))

    return _slime_rows(samples, asyncio.run(run()))


def by_slime_group(composer: Composer, cases: Sequence[Case]) -> list[Row]:
    rm = slime.reward_model(composer, unscored=UNSCORED)
    samples = [SlimeSample(case.prompt, case.completion, case.label) for case in cases]
    rewards: list[float] = asyncio.run(_awaited(rm(SimpleNamespace(), samples)))
    return _slime_rows(samples, rewards)


async def _awaited(value: Awaitable[Any]) -> Any:
    return await value


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
    return [_row(total, known["rlaif"]) for total, known in zip(answer.rewards.tolist(), answer.metadata, strict=True)]


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
        rows.append(_row(answer["reward"], answer["metadata"]))
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
        (None if state["metrics"]["unscored"] else state["reward"], _present(state["metrics"]))  # type: ignore[index]
        for state in states
    ]


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
        (None if isinstance(total, Exception) else total, _present(trace.metrics))
        for total, trace in zip(asyncio.run(run()), traces, strict=True)
    ]


def by_trl(composer: Composer, cases: Sequence[Case]) -> list[Row]:
    totals = composer.for_trl()(
        prompts=[case.prompt for case in cases],
        completions=[case.completion for case in cases],
        label=[case.label for case in cases],
    )
    return [(total, {}) for total in totals]


ADAPTERS: dict[str, Callable[[Composer, Sequence[Case]], list[Row]]] = {
    "trl": by_trl,
    "verl": by_verl,
    "verl, at once": by_verl_at_once,
    "verl, a batch": by_verl_batch,
    "openrlhf": by_openrlhf,
    "openrlhf, a batch": by_openrlhf_batch,
    "ms-swift": by_swift,
    "ms-swift, async": by_swift_async,
    "slime": by_slime,
    "slime, a group": by_slime_group,
    "nemo gym": by_nemo_gym,
    "nemo rl": by_nemo_rl,
    "skyrl": by_skyrl,
    "verifiers, a rubric": by_verifiers_rubric,
    "verifiers, a task": by_verifiers_task,
}
"""Every adapter, by its name and how it is called."""
