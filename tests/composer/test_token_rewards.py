"""Per-token rewards in a composition: what falls on which token, and that it adds up to the total."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlaif_robust import GroupRobust, GroupRobustParams, Robust, RobustParams
from rlaif_sdk import BatchError, Composer, Composition, ConfigError, RewardBatch, Score
from rlaif_sdk.composer import Component, FailurePolicy, Gate
from rlaif_sdk.composer.aggregators import Minimum, RewardGroup
from rlaif_sdk.composer.constraints import Constraint
from rlaif_sdk.composer.normalizers import (
    GroupCenter,
    GroupZScore,
    Limited,
    LimitParams,
    MinMax,
    Normalizer,
    Passthrough,
    Rank,
    ZScore,
    ZScoreParams,
)
from rlaif_sdk.scoring.checks import check_entries, plain_scores
from rlaif_sdk.testing import FixedReward

TOKENS = [[0.5, 0.0, -1.0], [2.0], [0.0, 1.0]]


def batch_of(lengths: Sequence[int], **fields: Any) -> RewardBatch:
    rows = len(lengths)
    ids = [list(range(length)) for length in lengths]
    return RewardBatch(prompts=["a"] * rows, completions=["b"] * rows, completion_ids=ids, **fields)


def per_token(tokens: Sequence[Sequence[float] | None] = TOKENS, **declared: Any) -> FixedReward:
    return FixedReward([None if values is None else Score.of_tokens(values) for values in tokens], **declared)


def compose(rewards: dict[str, Any], batch: RewardBatch | None = None, **settings: Any) -> Composition:
    with Composer(rewards, **settings) as composer:
        return composer.compose(batch or batch_of([3, 1, 2]))


def test_a_weighted_token_value_falls_on_its_token() -> None:
    """In place of the reward's score: the totals are what they are without token values."""
    rewards = {
        "dense": Component(per_token(), weight=2.0),
        "whole": Component(FixedReward([1.0, 1.0, 1.0]), weight=0.5),
    }
    composition = compose(rewards)
    first, second, third = composition.token_rewards()
    assert (first.tolist(), second.tolist(), third.tolist()) == ([1.0, 0.0, -2.0], [4.0], [0.0, 2.0])
    np.testing.assert_allclose(composition.totals, [2 * -0.5 + 0.5, 4.5, 2.5])


def test_several_rewards_meet_on_a_token() -> None:
    """Each with its own weight; a row without token values has none."""
    rewards = {
        "a": Component(per_token([[1.0, 2.0], None, [0.0]]), weight=1.0),
        "b": Component(per_token([[10.0, 0.0], [1.0, 1.0], None]), weight=-0.1),
        "plain": Component(FixedReward([0.0, 0.0, 0.0]), weight=0.0),
    }
    first, second, third = compose(rewards, batch_of([2, 2, 1])).token_rewards()
    np.testing.assert_allclose(first, [0.0, 2.0])
    np.testing.assert_allclose(second, [-1.1, -1.1])
    np.testing.assert_allclose(third, [0.0])
    assert compose({"plain": FixedReward([1.0, 2.0, 3.0])}).token_rewards() == [None, None, None]


def test_a_missing_neighbour_scales_the_tokens_as_it_scales_the_share() -> None:
    """The weights of those present are scaled up, token by token too, so that a share is the sum of its tokens."""
    rewards = {
        "dense": Component(per_token([[1.0, -3.0], [1.0, 1.0]]), weight=1.0),
        "other": Component(FixedReward([None, 0.0]), weight=3.0),
    }
    composition = compose(rewards, batch_of([2, 2]))
    first, second = composition.token_rewards()
    assert (first.tolist(), second.tolist()) == ([4.0, -12.0], [1.0, 1.0])
    assert composition.rewards["dense"].weighted.tolist() == [-8.0, 2.0]


def test_a_cost_falls_on_its_tokens_with_its_sign_turned() -> None:
    """Where lower is better, a token that costs takes away."""
    first, *_ = compose({"cost": Component(per_token(higher_is_better=False), weight=2.0)}).token_rewards()
    assert first.tolist() == [-1.0, 0.0, 2.0]


NORMALIZERS: list[Normalizer] = [
    Passthrough(),
    MinMax(),
    ZScore(ZScoreParams(clip=None)),
    Robust(RobustParams(clip=None)),
    Limited(ZScore(ZScoreParams(clip=None)), LimitParams()),
]


@pytest.mark.parametrize("normalizer", NORMALIZERS, ids=lambda normalizer: type(normalizer).__name__)
@settings(max_examples=25, deadline=None)
@given(values=st.lists(st.floats(-2, 2), min_size=3, max_size=3), more=st.floats(-1, 1))
def test_a_token_s_value_changes_the_total_by_what_falls_on_it(
    normalizer: Normalizer, values: list[float], more: float
) -> None:
    """Whatever the normalizer learned: raise one token's value, and the total rises by as much as its reward does."""
    reward = per_token(range=(-50.0, 50.0), higher_is_better=False)
    with Composer({"dense": Component(reward, weight=0.7, normalizer=normalizer)}) as composer:
        reward.scores[:] = [Score.of_tokens([float(row), 0.5, -(row**2)]) for row in range(4)]
        composer.compose(batch_of([3] * 4))
        totals, tokens = [], []
        for values_T in (values, [values[0], values[1] + more, values[2]]):
            reward.scores[:] = [Score.of_tokens(values_T)]
            composition = composer.compose(batch_of([3], training=False))
            totals.append(composition.totals[0])
            tokens.append(composition.token_rewards()[0])
    change_T = tokens[1] - tokens[0]
    assert change_T[[0, 2]].tolist() == [0.0, 0.0]
    assert change_T[1] == pytest.approx(totals[1] - totals[0], abs=1e-9)


@pytest.mark.parametrize(
    "normalizer",
    [GroupZScore(ZScoreParams(clip=None)), GroupCenter(), GroupRobust(GroupRobustParams(clip=None))],
    ids=lambda normalizer: type(normalizer).__name__,
)
def test_in_a_group_token_values_have_the_scale_of_the_scores(normalizer: Normalizer) -> None:
    """Two completions differ by as much token by token as in their normalised scores; without spread all is 0."""
    tokens = [[1.0, 0.0], [0.0, 3.0], [5.0, 0.5], [2.0, 0.0], [1.0, 1.0], [0.0, 2.0]]
    batch = batch_of([2] * 6, group=[0, 0, 0, 1, 1, 1])
    composition = compose({"dense": Component(per_token(tokens), normalizer=normalizer)}, batch)
    placed = [row.sum() for row in composition.token_rewards()]
    column = composition.rewards["dense"]
    np.testing.assert_allclose(np.diff(placed[:3]), np.diff(column.normalized[:3]))
    np.testing.assert_allclose(column.normalized[3:], 0.0)
    if not isinstance(normalizer, GroupCenter):
        assert placed[3:] == [0.0, 0.0, 0.0]


def test_a_closed_gate_takes_the_place_of_the_tokens() -> None:
    """The capped total falls on the last token whole: no part of a row that does not pass is paid out before."""
    rewards = {"dense": per_token(), "safe": Component(FixedReward([0.0, 1.0, 1.0]), weight=0.0)}
    first, second, third = compose(rewards, gates=[Gate("safe", floor=-2.0, min=0.5)]).token_rewards()
    assert first is None
    assert (second.tolist(), third.tolist()) == ([2.0], [0.0, 1.0])


def test_a_constraint_s_penalty_stays_off_the_tokens() -> None:
    """It is of the row, so it is left for the last token."""
    constraint = Constraint("long", max=1.0, initial=0.5)
    rewards = {"dense": per_token(), "long": Component(FixedReward([3.0, 1.0, 1.0]), weight=0.0)}
    composition = compose(rewards, constraints=[constraint])
    assert composition.token_rewards()[0].tolist() == TOKENS[0]
    assert composition.totals[0] == -0.5 - composition.constraints[0].penalty[0]


def test_groups_of_weighted_sums_pass_tokens_through() -> None:
    """A member's tokens carry the group's weight too."""
    rewards = {"dense": Component(per_token(), weight=2.0), "plain": FixedReward([0.0, 0.0, 0.0])}
    composition = compose(rewards, groups={"both": RewardGroup(["dense", "plain"], weight=3.0)})
    assert composition.token_rewards()[0].tolist() == [3.0, 0.0, -6.0]
    assert composition.totals[0] == -3.0


@pytest.mark.parametrize(
    "settings", [{"aggregator": Minimum()}, {"groups": {"g": RewardGroup(["dense"], 1.0, Minimum())}}]
)
def test_tokens_need_a_weighted_sum(settings: dict[str, Any]) -> None:
    """The least of several rewards has no share a token; the refusal says what has."""
    composition = compose({"dense": per_token(), "plain": FixedReward([1.0, 1.0, 1.0])}, **settings)
    with pytest.raises(ConfigError, match=r"rewards\.dense\.normalize.*weighted_sum"):
        composition.token_rewards()


def test_tokens_need_a_normalizer_with_a_scale() -> None:
    """Ranks keep the order of scores alone. A reward of weight 0 is not asked."""
    with pytest.raises(ConfigError, match="no place"):
        compose({"dense": Component(per_token(), normalizer=Rank())}).token_rewards()
    rewards = {"dense": Component(per_token(), weight=0.0, normalizer=Rank()), "plain": FixedReward([1.0, 1.0, 1.0])}
    for choice in ({}, {"aggregator": Minimum()}):
        assert compose(rewards, **choice).token_rewards()[0].tolist() == [0.0, 0.0, 0.0]


def test_values_for_another_number_of_tokens_fail_their_row() -> None:
    """Nothing is broadcast or cut: the reward failed on that row, and its failure policy applies."""
    reward = FixedReward([Score.of_tokens([1.0]), Score.of_tokens([1.0]), Score.of_tokens([1.0, 0.0, 0.0])])
    composition = compose({"dense": reward})
    column = composition.rewards["dense"]
    assert column.failures == {0: "gave 1 token values for 3 tokens", 2: "gave 3 token values for 2 tokens"}
    assert np.isnan(composition.totals).tolist() == [True, False, True]
    assert [row is None for row in composition.token_rewards()] == [True, False, True]


def test_token_values_that_do_not_add_up_fail_their_row() -> None:
    """The score is their sum, up to rounding in 32 bits; a mean beside them is refused."""
    answer = check_entries(
        plain_scores([Score(0.5, token_values=[0.5, 0.5]), Score(1.0, token_values=[0.5, 0.50001])], 2), None
    )
    assert answer.failures == {0: "gave token values that sum to 1, and the score 0.5"}
    assert answer.tokens.keys() == {1}
    long = np.random.default_rng(0).normal(size=4096).astype(np.float32)
    assert not check_entries(plain_scores([Score(float(long.sum()), token_values=long.tolist())], 1), None).failures


def test_a_score_without_a_value_abstains_with_its_tokens() -> None:
    """None is no score, whatever stands beside it."""
    composition = compose({"dense": FixedReward([Score(None, token_values=[1.0, 1.0, 1.0]), 1.0, 1.0])})
    assert composition.rewards["dense"].status(0) == "abstained"
    assert composition.token_rewards() == [None, None, None]


def test_a_failed_neighbour_takes_the_tokens_along() -> None:
    """A reward that is masked for the group pays on none of its tokens."""
    reward = FixedReward([Score.of_tokens([1.0, 1.0]), Score.failed("down")])
    rewards = {"dense": Component(reward, failure=FailurePolicy()), "plain": FixedReward([1.0, 1.0])}
    composition = compose(rewards, batch_of([2, 2], group=[0, 0]))
    assert composition.token_rewards()[0].tolist() == [0.0, 0.0]
    assert "of it on its tokens" not in str(composition.explain(0))


def test_the_fallback_s_tokens_stand_in() -> None:
    """Where it scores in the place of a reward that failed, its token values count, checked for length too."""
    reward = FixedReward([Score.failed("down"), Score.of_tokens([1.0]), Score.failed("down")])
    fallback = FixedReward([Score.of_tokens([0.0, 4.0, 0.0]), Score.of_tokens([1.0])])
    composition = compose({"dense": Component(reward, fallback="other")}, fallbacks={"other": fallback})
    first, second, third = composition.token_rewards()
    assert (first.tolist(), second.tolist(), third) == ([0.0, 4.0, 0.0], [1.0], None)
    assert "1 token values for 2 tokens" in composition.rewards["dense"].failures[2]


def test_without_token_ids_nothing_can_be_placed() -> None:
    """Scoring a table works; asking for the tokens of texts does not."""
    composition = compose({"dense": per_token()}, RewardBatch(prompts=["a"] * 3, completions=["b"] * 3))
    assert composition.totals.tolist() == [-0.5, 2.0, 1.0]
    with pytest.raises(BatchError, match="no completion_ids"):
        composition.token_rewards()


def test_the_waterfall_says_how_much_falls_on_tokens() -> None:
    """And only where there are token values."""
    composition = compose(
        {"dense": Component(per_token([[1.0, 2.0, 0.0], None, None])), "plain": FixedReward([1.0] * 3)}
    )
    dense, plain = composition.explain(0).steps
    assert dense.on_tokens == 3.0
    assert math.isnan(plain.on_tokens)
    assert str(composition.explain(0)).count("+3.0000 of it on its tokens") == 1
    told = composition.explain(0).record()["rewards"]
    assert (told["dense"]["on_tokens"], told["plain"]["on_tokens"]) == (3.0, None)
