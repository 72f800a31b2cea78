"""How trainers call a reward: a loop of one's own, TRL, verl, OpenRLHF, ms-swift and slime, as their sources have it."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from rlaif_sdk import Composer, Composition, RewardError
from rlaif_sdk.integrations import openrlhf, slime, swift, verl
from tests.conversations.small_tokenizers import CHATML, small_tokenizer
from tests.integrations.cases import CASES, UNSCORED, Case, Row, batch_of, present, row_of, rows_of


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

    async def run() -> list[dict[str, float | None]]:
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


class Settings(dict[str, Any]):
    """The shape of verl's config: keys that are attributes too."""

    def __getattr__(self, name: str) -> Any:
        return self[name]


def verl_settings(size: int = 4, **reward_kwargs: Any) -> Settings:
    """What the manager reads of a run's config."""
    return Settings(
        reward=Settings(
            num_workers=1,
            custom_reward_function={"path": None, "reward_kwargs": reward_kwargs},
            reward_model=Settings(enable=False),
        ),
        algorithm=Settings(adv_estimator="grpo"),
        trainer=Settings(test_freq=-1, val_before_train=False),
        data=Settings(train_batch_size=len(CASES)),
        actor_rollout_ref=Settings(rollout=Settings(n=size, val_kwargs=Settings(n=1))),
    )


class VerlBase:
    """The shape of verl's ``RewardManagerBase``."""

    def __init__(self, config: Any, tokenizer: Any, compute_score: Any) -> None:
        self.config = config
        self.tokenizer = tokenizer
        self.compute_score = compute_score

    @classmethod
    def assemble_rm_scores(cls, data: Any, scores: list[float]) -> Any:
        import torch

        lengths = data.batch["attention_mask"][:, data.batch["prompts"].size(1) :].sum(dim=1)
        rm_scores = torch.zeros_like(data.batch["responses"], dtype=torch.float32)
        rm_scores[torch.arange(len(rm_scores)), lengths - 1] = rm_scores.new_tensor(scores)
        return rm_scores


@functools.cache
def verl_tokenizer() -> Any:
    """A policy's tokenizer, with a chat template."""
    return small_tokenizer("byte level", chat_template=CHATML)


def verl_data(prompt: Any, response: str, *, num_turns: int = 2, mask: Any = None, **columns: Any) -> Any:
    """A completion as verl's agent loop hands it to a reward worker: padded tensors, and columns as arrays."""
    import numpy as np
    import torch

    tokens = verl_tokenizer()(response, add_special_tokens=False)["input_ids"]
    response_mask = {} if mask is None else {"response_mask": torch.tensor([[*mask, 0]])}
    row = {"data_source": "suite", "reward_model": {"ground_truth": None}, "extra_info": {}, **columns}
    return SimpleNamespace(
        batch={
            "prompts": torch.ones((1, 3), dtype=torch.long),
            "responses": torch.tensor([[*tokens, 0]]),
            "attention_mask": torch.tensor([[0, 1, 1, *([1] * len(tokens)), 0]]),
            **response_mask,
        },
        non_tensor_batch={
            "raw_prompt": np.array([prompt]),
            "__num_turns__": np.array([num_turns]),
            "tool_extra_fields": np.array([{"turn_scores": [], "raw_prompt": prompt}], dtype=object),
            **{name: np.array([value]) for name, value in row.items()},
        },
    )


def _verl_rows(manager: Any, data: Sequence[Any]) -> list[Row]:
    async def run() -> list[Any]:
        return await asyncio.gather(*(manager.run_single(one) for one in data))

    answers = [(said["reward_score"], said["reward_extra_info"]) for said in asyncio.run(run())]
    return [(None if known["unscored"] else total, present(known)) for total, known in answers]


def by_verl_manager(composer: Composer, cases: Sequence[Case]) -> list[Row]:
    """Row by row, since nothing compares."""
    manager = verl.reward_manager(VerlBase, composer)(verl_settings(unscored=UNSCORED), verl_tokenizer())
    return _verl_rows(manager, [_verl_case(case, row) for row, case in enumerate(cases)])


def by_verl_groups(composer: Composer, groups: Sequence[Sequence[Case]]) -> list[Row]:
    """A completion a call, those of all groups in turn; a group answers when it is whole."""
    manager = verl.reward_manager(VerlBase, composer)(verl_settings(unscored="mask"), verl_tokenizer())
    turns = [(group, member) for member in range(len(groups[0])) for group in range(len(groups))]
    rows = _verl_rows(manager, [_verl_case(groups[group][member], group) for group, member in turns])
    placed = dict(zip(turns, rows, strict=True))
    return [placed[group, member] for group in range(len(groups)) for member in range(len(groups[group]))]


def _verl_case(case: Case, uid: int) -> Any:
    asked = [{"role": "user", "content": case.prompt}]
    return verl_data(asked, f"{case.completion}<|im_end|>", extra_info={"label": case.label}, uid=f"uid {uid}")


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
    return _slime_rows(samples, asyncio.run(_awaited(rm(SimpleNamespace(), samples))))


def by_slime_groups(composer: Composer, groups: Sequence[Sequence[Case]]) -> list[Row]:
    """``--group-rm``: a call a group, all at the same time; an unscored sample is removed."""
    rm = slime.group_reward_model(composer)
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
