"""Per-token rewards on their way from a plugin to the returns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from rlaif_sdk import Composer, Credit, CreditSpan, Score  # noqa: E402
from rlaif_sdk.composer import Component  # noqa: E402
from rlaif_sdk.composer.normalizers import MinMax, Rank  # noqa: E402
from rlaif_sdk.testing import FixedReward  # noqa: E402
from rlaif_sdk.training.ppo import PPOTrainer  # noqa: E402
from rlaif_sdk.training.ppo.rollout import Tokens  # noqa: E402
from rlaif_sdk.training.ppo.scoring import token_rewards_of  # noqa: E402
from rlaif_sdk.types import RewardBatch  # noqa: E402

Make = Callable[..., PPOTrainer]


def dense(completion_ids: list[list[int]]) -> list[Score]:
    """Each token is worth a tenth of its id."""
    return [Score.of_tokens([token / 10 for token in ids]) for ids in completion_ids]


def sparse(completion_ids: list[list[int]]) -> list[Score]:
    """The second token alone is worth 1, where there is one."""
    return [Score.of_tokens([float(place == 1) for place in range(len(ids))]) for ids in completion_ids]


def whole(completions: list[str]) -> list[float]:
    return [3.0] * len(completions)


def reward_to_go(trainer: PPOTrainer, reward_of: Callable[[list[int]], list[float]]) -> list[list[float]]:
    tokens = trainer._rollout.tokens
    lengths = tokens.completion_mask_BT.sum(dim=1).tolist()
    rows = [ids[:length].tolist() for ids, length in zip(tokens.completion_ids_BT, lengths, strict=True)]
    return [np.cumsum(reward_of(ids)[::-1])[::-1].tolist() for ids in rows]


@pytest.mark.parametrize("normalization", ["none", "running"])
def test_per_token_rewards_reach_the_returns_exactly(make_trainer: Make, llama: Any, normalization: str) -> None:
    """Each reward on its tokens with its weight, scores of whole completions on the last token, nothing twice."""
    rewards = {
        "dense": Component(dense, weight=0.5),
        "sparse": Component(sparse, weight=-2.0),
        "whole": Component(whole, weight=1.0),
    }
    with Composer(rewards) as composer:
        trainer = make_trainer(
            llama, composer, kl_coef=0.0, temperature=3.0, score_normalization=normalization, max_steps=1
        )
        trainer.train()

    def rewards_of(ids: list[int]) -> list[float]:
        values = [0.5 * token / 10 - 2.0 * (place == 1) for place, token in enumerate(ids)]
        return [*values[:-1], values[-1] + 3.0]

    expected = reward_to_go(trainer, rewards_of)
    if normalization == "running":
        totals = np.array([row[0] for row in expected])
        expected = [
            [
                (value - (totals.mean() if place == len(row) - 1 else 0)) / totals.std()
                for place, value in enumerate(rewards_of_row)
            ]
            for row in expected
            for rewards_of_row in [np.r_[-np.diff(row), row[-1]]]
        ]
        expected = [np.cumsum(row[::-1])[::-1].tolist() for row in expected]
    assert len({len(row) for row in expected}) > 1
    for row, values in enumerate(expected):
        assert trainer._rollout.returns_BT[row, : len(values)].tolist() == pytest.approx(values, abs=1e-5)


def test_a_clipped_score_is_clipped_on_the_last_token(make_trainer: Make, llama: Any) -> None:
    """The total of a row stays within the range; its tokens keep what is theirs."""
    trainer = make_trainer(llama, dense, kl_coef=0.0, reward_clip_range=(0.0, 1.0), max_steps=1)
    trainer.train()
    returns_BT = trainer._rollout.returns_BT
    assert (returns_BT[:, 0] <= 1.0 + 1e-6).all()
    first = trainer._rollout.tokens.completion_ids_BT[:, 0] / 10
    torch.testing.assert_close(returns_BT[:, 0] - returns_BT[:, 1], first)


def test_a_failed_row_is_masked_and_counts_for_nothing(make_trainer: Make, llama: Any) -> None:
    """Values for the wrong number of tokens are a failure of that row, not zeros."""

    def short(completion_ids: list[list[int]]) -> list[Score]:
        return [Score.of_tokens([1.0] * (len(ids) - row % 2)) for row, ids in enumerate(completion_ids)]

    trainer = make_trainer(llama, short, max_steps=1, steps_per_generation=1, per_device_train_batch_size=8)
    trainer.train()
    assert trainer._rollout.mask_BT.any(dim=1).tolist() == [True, False] * 4
    assert trainer.state.log_history[0]["reward/short/failed"] == 4.0


def test_credit_that_a_normalizer_has_no_place_for_falls_on_the_last_token(make_trainer: Make, llama: Any) -> None:
    """With a warning at the first rollout; the run goes on with the totals that it would have without credit."""
    with Composer({"dense": Component(dense, normalizer=Rank())}) as composer:
        trainer = make_trainer(llama, composer, kl_coef=0.0, max_steps=1)
        with pytest.warns(UserWarning, match="the credit of 'dense' has no place"):
            trainer.train()
    returns_BT = trainer._rollout.returns_BT
    assert (returns_BT[:, 0] == returns_BT[:, 1]).all()


def test_marked_words_are_rewarded_on_the_token_that_ends_them(make_trainer: Make, llama: Any) -> None:
    """A reward that reads text marks it, and PPO finds the words in the tokens that were sampled."""

    def first_letters(completion_texts: list[str]) -> list[Score]:
        spans = [(CreditSpan(0, min(2, len(text)), -0.5),) if text else () for text in completion_texts]
        return [Score(1.0 - 0.5 * len(each), credit=Credit(spans=each, rest=1.0)) for each in spans]

    trainer = make_trainer(llama, first_letters, kl_coef=0.0, max_steps=1)
    trainer.train()
    tokens, tokenizer = trainer._rollout.tokens, trainer.processing_class
    lengths = tokens.completion_mask_BT.sum(dim=1).tolist()
    checked = 0
    for ids_T, length, returns_T in zip(
        tokens.completion_ids_BT.tolist(), lengths, trainer._rollout.returns_BT.tolist(), strict=True
    ):
        text = tokenizer.decode(ids_T[:length], skip_special_tokens=True)
        if len(text) < 2:
            continue
        decoded = [tokenizer.decode(ids_T[: end + 1], skip_special_tokens=True) for end in range(length)]
        place = next(end for end, said in enumerate(decoded) if said.startswith(text[:2]))
        expected = [0.5] * (place + 1) + [1.0] * (length - place - 1)
        assert returns_T[:length] == pytest.approx(expected)
        checked += 1
    assert checked


def test_rows_without_token_values_have_zeros_beside_those_with_them() -> None:
    """One table a rollout, as wide as its longest completion; None where no reward is per token."""
    tokens = Tokens.padded([[5], [5]], [[6, 7], [8]], pad_id=0)
    batch = RewardBatch(prompts=["a", "a"], completions=["b", "c"], completion_ids=[[6, 7], [8]])
    reward = FixedReward([Score.of_tokens([0.5, 0.25]), 1.0], range=(0.0, 2.0))
    with Composer({"a": Component(reward, normalizer=MinMax())}) as composer:
        token_rewards_BT = token_rewards_of(composer.compose(batch), tokens)
    assert token_rewards_BT.tolist() == [[0.25, 0.125], [0.0, 0.0]]
    with Composer({"a": whole}) as composer:
        assert token_rewards_of(composer.compose(batch), tokens) is None
