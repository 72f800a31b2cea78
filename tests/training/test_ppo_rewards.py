"""From rewards to advantages in the trainer: what rewards are given, and what becomes of what they say."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from datasets import Dataset  # noqa: E402

from rlaif_sdk import Composer, RewardBatch  # noqa: E402
from rlaif_sdk.exceptions import RewardError  # noqa: E402
from rlaif_sdk.judges.backends.local import TransformersBackend  # noqa: E402
from rlaif_sdk.training.ppo import PPOTrainer  # noqa: E402
from rlaif_sdk.training.ppo.advantages import generalized_advantages, token_rewards  # noqa: E402
from tests.training.ppo_runs import Recorder, by_length, moved, rollouts_of, state_of  # noqa: E402

Make = Callable[..., PPOTrainer]


def test_the_policy_is_assessed_while_the_rewards_score(
    make_trainer: Make, llama: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow reward and the forward passes over the rollout run at once: here the reward waits for the passes."""
    assessed = threading.Event()

    def waits(completions: list[str], **_: Any) -> list[float]:
        return [float(assessed.wait(timeout=20))] * len(completions)

    with Composer({"waits": waits}) as composer:
        trainer = make_trainer(llama, reward_funcs=composer, max_steps=1)
        score = trainer._score

        def watched(*args: Any) -> Any:
            assessed.set()
            return score(*args)

        monkeypatch.setattr(trainer, "_score", watched)
        trainer.train()
    assert rollouts_of(trainer)[0]["reward"] == 1.0


def test_rewards_get_prompts_completions_ids_and_columns(make_trainer: Make, llama: Any, prompts: Dataset) -> None:
    """The batch carries everything that the dataset does, and how far training is."""
    recorder = Recorder(by_length)
    make_trainer(llama, recorder, num_generations=2).train()
    wanted = dict(zip(prompts["prompt"], prompts["wanted"], strict=True))
    first, second = recorder.batches
    assert first.columns["wanted"] == [wanted[prompt] for prompt in first.prompts]
    assert first.group == [0, 0, 1, 1, 2, 2, 3, 3]
    assert first.prompts[0] == first.prompts[1]
    assert all(isinstance(completion, str) for completion in first.completions)
    assert (first.progress.step, second.progress.step, first.progress.total) == (0, 2, 4)
    assert first.training


def test_conversational_prompts_give_assistant_messages(make_trainer: Make, llama: Any, tokenizer: Any) -> None:
    """Messages go through the chat template, and the completion comes back as an assistant's message."""
    recorder = Recorder(by_length)
    messages = [[{"role": "user", "content": f"w{row} w2"}] for row in range(8)]
    trainer = make_trainer(llama, recorder, train_dataset=Dataset.from_dict({"prompt": messages}), max_steps=2)
    trainer.train()
    batch = recorder.batches[0]
    assert batch.prompts[0][0]["role"] == "user"
    ((message,), ids) = batch.completions[0], batch.completion_ids[0]
    assert message["role"] == "assistant"
    assert message["content"] == tokenizer.decode(ids, skip_special_tokens=True)
    tokens = trainer._rollout.tokens
    prompt = tokenizer.decode(tokens.prompt_ids_BP[0][tokens.prompt_mask_BP[0].bool()])
    assert prompt == f"user {batch.prompts[0][0]['content']} assistant"


def test_an_unscored_row_trains_nothing(make_trainer: Make, llama: Any) -> None:
    """Rows for which the rewards say None are masked, and counted in the log."""
    recorder = Recorder(lambda batch: [None if row % 2 else 1.0 for row in range(len(batch))])
    trainer = make_trainer(llama, recorder, max_steps=1, steps_per_generation=1, per_device_train_batch_size=8)
    trainer.train()
    assert trainer._rollout.mask_BT.any(dim=1).tolist() == [True, False] * 4
    entry = rollouts_of(trainer)[0]
    assert entry["reward/total/unscored"] == 0.5
    assert entry["reward"] == 1.0


def test_a_rollout_without_any_score_changes_nothing(
    make_trainer: Make, llama: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """When every reward is out of order the policy and the KL price stay, and the log says so."""
    trainer = make_trainer(llama, Recorder(lambda batch: [None] * len(batch)), max_steps=2, kl_target=1.0)
    before = state_of(trainer.model)
    trainer.train()
    assert not moved(before, trainer.model.state_dict())
    assert trainer.kl_controller.coef == 0.05
    assert "no completion of this rollout has a score" in caplog.text


def test_a_reward_that_must_not_fail_ends_training(make_trainer: Make, llama: Any) -> None:
    """An infinite total is an error with a name, not an advantage."""

    class Infinite:
        def compose(self, batch: RewardBatch) -> Any:
            composition = Composer({"one": lambda completions: [1.0] * len(completions)}).compose(batch)
            composition.totals[0] = np.inf
            return composition

    with pytest.raises(RewardError, match="infinite total"):
        make_trainer(llama, Infinite()).train()


def test_the_missing_eos_penalty_reaches_truncated_completions_alone(make_trainer: Make, llama: Any) -> None:
    """A completion that ends with the end-of-sequence token keeps its score."""
    recorder = Recorder(lambda batch: [1.0] * len(batch))
    trainer = make_trainer(
        llama, recorder, kl_coef=0.0, missing_eos_penalty=3.0, temperature=3.0, num_iterations=1, max_steps=2
    )
    trainer.train()
    ended = torch.tensor([ids[-1] == 1 for ids in recorder.batches[0].completion_ids])
    assert ended.any()
    assert not ended.all()
    assert trainer._rollout.returns_BT[:, 0].tolist() == torch.where(ended, 1.0, -2.0).tolist()


def test_the_settings_reach_the_rollout(make_trainer: Make, llama: Any) -> None:
    """Discount, lambda, whitening, clip of the reward and masking of truncated rows are those of the config."""
    recorder = Recorder(by_length)
    trainer = make_trainer(
        llama,
        recorder,
        gamma=0.9,
        gae_lambda=0.8,
        normalize_advantages=False,
        reward_clip_range=(0.0, 0.5),
        mask_truncated_completions=True,
        kl_coef=0.0,
        temperature=3.0,
    )
    with torch.no_grad():
        trainer.value_head.linear.weight.normal_()
    trainer.train()
    rollout, batch = trainer._rollout, recorder.batches[-1]
    ended = torch.tensor([ids[-1] == 1 for ids in batch.completion_ids])
    assert ended.any()
    scores_B = torch.tensor(by_length(batch)).clamp(0.0, 0.5)
    mask_BT = rollout.tokens.completion_mask_BT * ended[:, None]
    rewards_BT = token_rewards(scores_B, torch.zeros(mask_BT.shape), mask_BT, 0.0)
    expected = generalized_advantages(rewards_BT, rollout.old_values_BT, mask_BT, gamma=0.9, lam=0.8)
    torch.testing.assert_close((rollout.advantages_BT, rollout.returns_BT), expected)
    assert torch.equal(rollout.mask_BT, mask_BT)


def test_what_a_reward_function_logs_is_in_the_trainer_s_log(make_trainer: Make, llama: Any) -> None:
    """As under TRL's own trainers: a number in the log, a value a row beside the completions, the trainer's state."""

    def logs(completions: list[str], trainer_state: Any, log_metric: Any, log_extra: Any, **_: Any) -> list[float]:
        log_metric("characters", float(len(completions)))
        log_extra("step", [trainer_state.global_step] * len(completions))
        return [1.0] * len(completions)

    trainer = make_trainer(llama, reward_funcs=logs, max_steps=1, log_completions=True)
    trainer.train()
    assert rollouts_of(trainer)[0]["characters"] == trainer.args.per_device_train_batch_size * 2
    assert set(trainer._logs["extra"]["step"]) == {0}


def test_a_judge_that_is_the_policy_itself_waits_for_the_trainer(
    make_trainer: Make, llama: Any, tokenizer: Any
) -> None:
    """Rewards are asked while the trainer's own pass runs, whose hooks would catch what the judge reads."""
    judge = TransformersBackend(llama, tokenizer, share_prefix=False)
    trains, judged = threading.Event(), threading.Event()
    main = threading.get_ident()

    def begin(*_: Any) -> None:
        if threading.get_ident() == main:
            trains.set()
            judged.wait(0.2)  # until the judge's pass is over, which must not have begun
        else:
            trains.wait(5)

    def end(*_: Any) -> None:
        if threading.get_ident() != main:
            judged.set()

    def likelihoods(completions: list[str], **_: Any) -> list[float]:
        asked = [[{"role": "user", "content": text or "w1"}] for text in completions]
        return [answer.logprobs[0] for answer in asyncio.run(judge.label_logprobs(asked, ["w1", "w2"]))]

    trainer = make_trainer(llama, Composer({"judge": likelihoods}), max_steps=1, steps_per_generation=1)
    hooks = [llama.model.register_forward_pre_hook(begin), llama.lm_head.register_forward_hook(end)]
    trainer.train()
    for hook in hooks:
        hook.remove()
    assert trains.is_set()
    assert judged.is_set()
    assert trainer.state.log_history[0]["kl"] == pytest.approx(0.0, abs=1e-5)
