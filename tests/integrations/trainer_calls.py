"""How trainers call a reward: a loop of one's own, TRL, verl, OpenRLHF, ms-swift and slime, as their sources have it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from rlaif_sdk import Composer, Composition, RewardError
from rlaif_sdk.integrations import openrlhf, slime, swift, verl
from tests.integrations.cases import UNSCORED, Case, Row, batch_of, row_of, rows_of


def by_loop(composer: Composer, cases: Sequence[Case]) -> list[Row]:
    """A loop that composes one sample after another."""
    return [row for case in cases for row in rows_of(composer.compose(batch_of([case])))]


def by_async_loop(composer: Composer, cases: Sequence[Case]) -> list[Row]:
    """A loop that composes samples at the same time."""

    async def run() -> list[Composition]:
        return await asyncio.gather(*(composer.acompose(batch_of([case])) for case in cases))

    return [row for composition in asyncio.run(run()) for row in rows_of(composition)]


def by_trl(composer: Composer, cases: Sequence[Case]) -> list[Row]:
    totals = composer.for_trl()(
        prompts=[case.prompt for case in cases],
        completions=[case.completion for case in cases],
        label=[case.label for case in cases],
    )
    return [(total, {}) for total in totals]


def by_trl_online_dpo(composer: Composer, cases: Sequence[Case]) -> list[Row]:
    """Both completions to a prompt are the case's; an unscored one ends the call, and its cases are asked one by one."""
    reward = composer.for_trl()
    state = SimpleNamespace(global_step=0, max_steps=4, stateful_callbacks={})

    def totals(cases: Sequence[Case]) -> list[float | None]:
        both = [*cases, *cases]
        try:
            said = reward(
                prompts=[case.prompt for case in both],
                completions=[case.completion for case in both],
                completion_ids=[[1]] * len(both),
                label=[case.label for case in both],
                trainer_state=state,
            )
        except RewardError:
            return [None] if len(cases) == 1 else [total for case in cases for total in totals([case])]
        assert said[: len(cases)] == said[len(cases) :]
        return said[: len(cases)]

    return [(total, {}) for total in totals(cases)]


def by_verl(composer: Composer, cases: Sequence[Case]) -> list[Row]:
    reward = verl.VerlReward(composer, unscored=UNSCORED)
    answers = [
        reward.compute_score_sync("suite", case.completion, case.label, {"prompt": case.prompt, "label": case.label})
        for case in cases
    ]
    return [row_of(answer["score"], answer) for answer in answers]


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

    return [row_of(answer["score"], answer) for answer in asyncio.run(run())]


def by_verl_batch(composer: Composer, cases: Sequence[Case]) -> list[Row]:
    reward = verl.VerlReward(composer, unscored=UNSCORED)
    answers = reward.compute_score_batch(
        data_sources=["suite"] * len(cases),
        solution_strs=[case.completion for case in cases],
        ground_truths=[case.label for case in cases],
        extra_infos=[{"prompt": case.prompt, "label": case.label} for case in cases],
    )
    return [row_of(answer["score"], answer) for answer in answers]


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
        rows += [row_of(total, row) for total, row in zip(said["rewards"].tolist(), figures, strict=True)]
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
    assert [sample.remove_sample for sample in samples] == [reward == UNSCORED for reward in rewards]
    return [
        (None if sample.remove_sample else reward, sample.metadata[slime.SCORES])
        for sample, reward in zip(samples, rewards, strict=True)
    ]


def by_slime(composer: Composer, cases: Sequence[Case]) -> list[Row]:
    rm = slime.reward_model(composer, unscored=UNSCORED)
    samples = [SlimeSample(case.prompt, case.completion, case.label) for case in cases]

    async def run() -> list[float]:
        return await asyncio.gather(*(rm(SimpleNamespace(), sample) for sample in samples))

    return _slime_rows(samples, asyncio.run(run()))


def by_slime_list(composer: Composer, cases: Sequence[Case]) -> list[Row]:
    """The parts of one rollout, which are no group."""
    rm = slime.reward_model(composer, unscored=UNSCORED)
    samples = [SlimeSample(case.prompt, case.completion, case.label) for case in cases]
    rewards: list[float] = asyncio.run(_awaited(rm(SimpleNamespace(), samples)))
    return _slime_rows(samples, rewards)


def by_slime_groups(composer: Composer, groups: Sequence[Sequence[Case]]) -> list[Row]:
    """``--group-rm``: a call a group, all at the same time; an unscored sample is removed."""
    rm = slime.reward_model(composer)
    batch = [[SlimeSample(case.prompt, case.completion, case.label) for case in cases] for cases in groups]

    async def run() -> list[list[float]]:
        return await asyncio.gather(*(rm(SimpleNamespace(group_rm=True), samples) for samples in batch))

    return [
        (None if sample.remove_sample else reward, sample.metadata[slime.SCORES])
        for samples, rewards in zip(batch, asyncio.run(run()), strict=True)
        for sample, reward in zip(samples, rewards, strict=True)
    ]


def by_swift_groups(composer: Composer, groups: Sequence[Sequence[Case]]) -> list[Row]:
    """A batch of all groups, told by ``prompt_id``."""
    cases = [case for group in groups for case in group]
    totals = swift.orm(composer)(args=None)([case.completion for case in cases], **_swift_kwargs(cases))
    return [(total, {}) for total in totals]


def by_trl_groups(composer: Composer, groups: Sequence[Sequence[Case]]) -> list[Row]:
    """A batch of all groups, one prompt after another."""
    return by_trl(composer, [case for group in groups for case in group])


async def _awaited(value: Awaitable[Any]) -> Any:
    return await value
