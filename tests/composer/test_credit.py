"""Credit in a composition: what falls on which token, turn and span of text, and that it adds up to the total."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from rlaif_robust import GroupRobust, GroupRobustParams, Robust, RobustParams
from rlaif_sdk import BatchError, Composer, Composition, Credit, CreditSpan, RewardBatch, Score
from rlaif_sdk.composer import Component, FailurePolicy, Gate, Ledger
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
    """And on the last one what the tokens leave over of the total, which is what it is without token values."""
    rewards = {
        "dense": Component(per_token(), weight=2.0),
        "whole": Component(FixedReward([1.0, 1.0, 1.0]), weight=0.5),
    }
    composition = compose(rewards)
    first, second, third = composition.token_rewards()
    assert (first.tolist(), second.tolist(), third.tolist()) == ([1.0, 0.0, -1.5], [4.5], [0.0, 2.5])
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
    assert third.tolist() == [0.0]
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
    assert change_T[0] == 0.0
    assert change_T[1:] == pytest.approx([totals[1] - totals[0], 0.0], abs=1e-9)
    assert [row.sum() for row in tokens] == pytest.approx(totals, abs=1e-9)


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
    column = composition.rewards["dense"]
    placed = [sum(credited.parts) for row in range(3) if (credited := column.credited(row))]
    np.testing.assert_allclose(np.diff(placed), np.diff(column.normalized[:3]))
    np.testing.assert_allclose(column.normalized[3:], 0.0)
    if not isinstance(normalizer, GroupCenter):
        assert composition.token_rewards()[3:] == [None, None, None]


def test_a_closed_gate_takes_the_place_of_the_tokens() -> None:
    """The capped total falls on the last token whole: no part of a row that does not pass is paid out before, nor recorded."""
    rewards = {"dense": per_token(), "safe": Component(FixedReward([0.0, 1.0, 1.0]), weight=0.0)}
    composition = compose(rewards, gates=[Gate("safe", floor=-2.0, min=0.5)])
    first, second, third = composition.token_rewards()
    assert first is None
    assert [record["rewards"]["dense"]["credit"] is None for record in composition.to_records()] == [True, False, False]
    assert (second.tolist(), third.tolist()) == ([2.0], [0.0, 1.0])


def test_a_constraint_s_penalty_stays_off_the_tokens() -> None:
    """It is of the row, so it falls on the end."""
    constraint = Constraint("long", max=1.0, initial=0.5)
    rewards = {"dense": per_token(), "long": Component(FixedReward([3.0, 1.0, 1.0]), weight=0.0)}
    composition = compose(rewards, constraints=[constraint])
    penalty = composition.constraints[0].penalty[0]
    assert composition.token_rewards()[0].tolist() == [0.5, 0.0, -1.0 - penalty]
    assert composition.totals[0] == -0.5 - penalty


def test_groups_of_weighted_sums_pass_tokens_through() -> None:
    """A member's tokens carry the group's weight too."""
    rewards = {"dense": Component(per_token(), weight=2.0), "plain": FixedReward([0.0, 0.0, 0.0])}
    composition = compose(rewards, groups={"both": RewardGroup(["dense", "plain"], weight=3.0)})
    assert composition.token_rewards()[0].tolist() == [3.0, 0.0, -6.0]
    assert composition.totals[0] == -3.0


@pytest.mark.parametrize(
    "settings",
    [
        {"aggregator": Minimum()},
        {"groups": {"g": RewardGroup(["dense"], 1.0, Minimum())}},
        {"rewards": {"dense": Component(per_token(), normalizer=Rank()), "plain": FixedReward([1.0, 1.0, 1.0])}},
    ],
    ids=["minimum", "minimum within", "rank"],
)
def test_credit_without_a_place_falls_on_the_end_and_is_warned_of(settings: dict[str, Any]) -> None:
    """The least of several rewards, and the order of scores, have no share a token; the total is what it is."""
    rewards = settings.pop("rewards", {"dense": per_token(), "plain": FixedReward([1.0, 1.0, 1.0])})
    composition = compose(rewards, **settings)
    with pytest.warns(UserWarning, match="the credit of 'dense' has no place in the total.*weighted_sum"):
        assert composition.token_rewards() == [None, None, None]
    for row in range(3):
        assert sum(credit.rest for _, credit in composition.credits(row)) == pytest.approx(composition.totals[row])
        assert not any(credit.has_parts for _, credit in composition.credits(row))


@pytest.mark.parametrize("settings", [{}, {"aggregator": Minimum()}])
def test_a_reward_that_only_watches_gives_no_credit(settings: dict[str, Any]) -> None:
    """With a weight of 0 it takes no part, whatever its normalizer and the aggregator do."""
    rewards = {"dense": Component(per_token(), weight=0.0, normalizer=Rank()), "plain": FixedReward([1.0, 1.0, 1.0])}
    assert compose(rewards, **settings).token_rewards() == [None, None, None]


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
        plain_scores([Score(0.5, credit=Credit([0.5, 0.5])), Score(1.0, credit=Credit([0.5, 0.50001]))], 2), None
    )
    assert answer.failures == {0: "gave credit that sums to 1, and the score 0.5; say as 'rest' what is left over"}
    assert answer.credit.keys() == {1}
    long = np.random.default_rng(0).normal(size=4096).astype(np.float32)
    assert not check_entries(plain_scores([Score(float(long.sum()), credit=Credit(long.tolist()))], 1), None).failures


def test_a_score_without_a_value_abstains_with_its_tokens() -> None:
    """None is no score, whatever stands beside it."""
    composition = compose({"dense": FixedReward([Score(None, credit=Credit([1.0, 1.0, 1.0])), 1.0, 1.0])})
    assert composition.rewards["dense"].status(0) == "abstained"
    assert composition.token_rewards() == [None, None, None]


def test_a_failed_neighbour_takes_the_tokens_along() -> None:
    """A reward that is masked for the group pays on none of its tokens."""
    reward = FixedReward([Score.of_tokens([1.0, 1.0]), Score.failed("down")])
    rewards = {"dense": Component(reward, failure=FailurePolicy()), "plain": FixedReward([1.0, 1.0])}
    composition = compose(rewards, batch_of([2, 2], group=[0, 0]))
    assert composition.token_rewards() == [None, None]
    assert "of it on" not in str(composition.explain(0))


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
    assert dense.credit is not None
    assert (dense.credit.tokens, dense.credit.rest, plain.credit) == ([1.0, 2.0, 0.0], 0.0, None)
    assert str(composition.explain(0)).count("+3.0000 of it on 3 tokens") == 1
    told = composition.explain(0).record()["rewards"]
    assert (told["dense"]["credit"], told["plain"]["credit"]) == ({"tokens": [1.0, 2.0, 0.0], "rest": 0.0}, None)


CALL = {"name": "clock", "arguments": "{}"}
TALK = [
    {"role": "assistant", "content": "<think>Hm.</think>I look.", "tool_calls": [{"function": CALL}]},
    {"role": "tool", "content": "10:02"},
    {"role": "assistant", "content": "It is ten. I think."},
]
"""Two turns of the policy. `assistant` shows "I look.", a blank line and "It is ten. I think."."""
IDS = [*b"<think>Hm.</think>I look.<call>", *b"<tool>10:02</tool>", *b"It is ten. I think."]
TURN_SPANS = [(0, 31), (49, 68)]


class Bytes:
    """A tokenizer with a token a byte."""

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        return bytes(token_ids).decode(errors="replace")


def talk_of(scores: Sequence[Score | float | None], **fields: Any) -> Composition:
    rows = len(scores)
    fields = {"completion_ids": [IDS] * rows, "turn_spans": [TURN_SPANS] * rows, **fields}
    return compose({"it": FixedReward(scores)}, RewardBatch(["How late?"] * rows, [TALK] * rows, **fields))


def marked(*spans: tuple[int, int, float], rest: float = 1.0, **fields: Any) -> Score:
    return Score(
        rest + sum(value for *_, value in spans),
        credit=Credit(spans=tuple(CreditSpan(*s) for s in spans), rest=rest, **fields),
    )


def nonzero(values: Any) -> dict[int, float]:
    return {place: value for place, value in enumerate(values.tolist()) if value}


def test_a_turn_s_credit_falls_on_its_last_token() -> None:
    """The rest on the last of all; tools' tokens get nothing."""
    composition = talk_of([Score.of_turns([0.25, 0.5]), Score(2.0, credit=Credit(turns=[-1.0, 0.0], rest=3.0))])
    first, second = composition.token_rewards()
    assert (nonzero(first), nonzero(second)) == ({30: 0.25, 67: 0.5}, {30: -1.0, 67: 3.0})
    assert [values.tolist() for values in composition.turn_rewards()] == [[0.25, 0.5], [-1.0, 3.0]]


def test_a_span_s_credit_falls_on_the_token_with_its_last_character() -> None:
    """Found through the view that the reward read: thinking, calls and tools' words are between there and the tokens."""
    scores = [
        marked((0, 7, -0.5), (9, 19, 0.25)),
        marked((0, 10, 0.25), view="answer"),
        marked((0, 25, 0.5), view="assistant", thinking="keep"),
        marked((11, 18, -0.5), view="transcript"),
    ]
    composition = talk_of(scores)
    placed = [nonzero(values) for values in composition.token_rewards(Bytes())]
    assert placed[0] == {24: -0.5, 58: 0.25, 67: 1.0}
    assert placed[1] == {58: 0.25, 67: 1.0}
    assert placed[2] == {24: 0.5, 67: 1.0}
    assert placed[3] == {24: -0.5, 67: 1.0}
    assert [values.tolist() for values in composition.turn_rewards()] == [
        [-0.5, 1.25],
        [0.0, 1.25],
        [0.5, 1.0],
        [-0.5, 1.0],
    ]


def test_a_span_of_what_the_policy_did_not_write_falls_on_the_end_of_the_turn_before() -> None:
    """A tool's result in a transcript, and words that the tokens do not say."""
    text = RewardBatch(["?"], [TALK]).views("transcript")[0]
    result = marked((text.index("10:02"), text.index("10:02") + 5, 0.5), view="transcript")
    assert nonzero(talk_of([result]).token_rewards(Bytes())[0]) == {30: 0.5, 67: 1.0}
    other = [*b"something else", *b"and more of it"]
    moved = talk_of([marked((0, 7, 0.5))], completion_ids=[other], turn_spans=[[(0, 14), (14, 28)]])
    assert nonzero(moved.token_rewards(Bytes())[0]) == {13: 0.5, 27: 1.0}


def test_credit_by_token_falls_on_the_turn_that_the_token_is_in() -> None:
    """A tool's tokens are of the turn that begins after them."""
    values = [0.0] * len(IDS)
    values[3], values[30], values[31], values[40], values[67] = 1.0, 0.5, 0.125, 0.25, 2.0
    assert talk_of([Score.of_tokens(values)]).turn_rewards()[0].tolist() == [1.5, 2.375]


def test_the_end_of_a_completion_is_the_policy_s_last_token() -> None:
    """Not that of a tool which answered after it, as where a rollout was cut off."""
    talk = [{"role": "assistant", "content": "Ten."}, {"role": "tool", "content": "10:02"}]
    batch = RewardBatch(["?"], [talk], completion_ids=[[*b"Ten.10:02"]], turn_spans=[[(0, 4)]])
    composition = compose({"it": FixedReward([marked((0, 1, -0.5))])}, batch)
    assert nonzero(composition.token_rewards(Bytes())[0]) == {0: -0.5, 3: 1.0}


def test_an_explanation_shows_the_thinking_that_has_credit() -> None:
    """Where no reward reads it, it is left out."""
    batch = RewardBatch(["?"], ["<think>Hm.</think>Ten."])
    for thinking, shown in (
        ("keep", [("<think>Hm.</think>", 0.0), ("Ten", 0.5), (".", 0.0)]),
        ("drop", [("Ten", 0.5), (".", 0.0)]),
    ):
        start = 18 if thinking == "keep" else 0
        composition = compose({"it": FixedReward([marked((start, start + 3, 0.5), thinking=thinking)])}, batch)
        assert list(composition.explain(0).text) == shown


@pytest.mark.parametrize(
    ("credit", "problem"),
    [
        (Credit(turns=[0.5, 0.25, 0.25]), "gave 3 turn values for 2 turns of the policy"),
        (Credit(turns=[]), "gave credit that sums to 0, and the score 1; say as 'rest' what is left over"),
        (Credit(turns=[], rest=1.0), "gave 0 turn values for 2 turns of the policy"),
        (Credit(spans=(CreditSpan(9, 29, 1.0),)), "gave credit for the characters 9 to 29 of a text of 28 (assistant)"),
        (
            Credit(spans=(CreditSpan(0, 20, 1.0),), view="answer"),
            "gave credit for the characters 0 to 20 of a text of 19 (answer)",
        ),
        (Credit(spans=(CreditSpan(-1, 2, 1.0),)), "gave credit for the characters -1 to 2 of a text of 28 (assistant)"),
        (Credit(spans=(CreditSpan(4, 4, 1.0),)), "gave credit for the characters 4 to 4 of a text of 28 (assistant)"),
        (
            Credit(spans=(CreditSpan(0, 2, 0.5),)),
            "gave credit that sums to 0.5, and the score 1; say as 'rest' what is left over",
        ),
        (Credit(tokens=[1.0]), "gave 1 token values for 68 tokens"),
    ],
)
def test_credit_outside_the_completion_or_of_another_sum_fails_its_row(credit: Credit, problem: str) -> None:
    """Nothing is cut, scaled or filled up: the reward failed on that row, and the others are as they were."""
    composition = talk_of([Score(1.0, credit=credit), 1.0])
    assert composition.rewards["it"].failures == {0: problem}
    assert np.isnan(composition.totals).tolist() == [True, False]


def test_turns_need_to_be_told_apart_in_the_tokens() -> None:
    """Without spans of turns, and with others than there are turns: refused, with what to do. One turn needs none."""
    for turn_spans, problem in (
        (None, "row 0 has 2 turns of the policy, and the batch does not say which tokens are whose.*mask_spans"),
        ([[(0, 68)]], "row 0 has 2 turns of the policy, and turn_spans has 1"),
        ([[(0, 31), (49, 69)]], "beyond its 68 tokens"),
    ):
        composition = talk_of([Score.of_turns([0.5, 0.5])], turn_spans=turn_spans)
        with pytest.raises(BatchError, match=problem):
            composition.token_rewards()
        assert composition.turn_rewards()[0].tolist() == [0.5, 0.5]
    with pytest.raises(BatchError, match="no tokenizer to find them"):
        talk_of([marked((0, 7, -0.5))]).token_rewards()
    with pytest.raises(BatchError, match="turn_spans has 1 rows where completions has 2"):
        RewardBatch(["p"] * 2, ["c"] * 2, turn_spans=[[(0, 1)]])
    single = compose({"it": FixedReward([Score.of_turns([0.5])])}, batch_of([3]))
    assert single.token_rewards()[0].tolist() == [0.0, 0.0, 0.5]


def test_an_empty_completion_and_one_without_a_turn_take_the_total_whole() -> None:
    """There is no token, or no turn, for it to fall on."""
    spoken = marked((0, 1, 0.5))
    empty = compose({"it": FixedReward([spoken])}, batch_of([0]))
    assert empty.token_rewards(Bytes()) == [None]
    nobody = RewardBatch(["p"], [[{"role": "user", "content": "Hi."}]], completion_ids=[[1, 2]])
    composition = compose({"it": FixedReward([marked((0, 3, 0.5), view="transcript")])}, nobody)
    assert composition.turn_rewards() == [None]
    assert composition.token_rewards(Bytes())[0].tolist() == [0.0, 1.5]


def test_a_ledger_gives_the_same_credit_again(tmp_path: Path) -> None:
    """From the cache, and in the explanation of what was recorded; tokens, which are not recorded, are part of the rest."""

    def everywhere(completions):
        parts = Credit([0.0] * 67 + [0.25], [0.5, 0.0], (CreditSpan(0, 7, 0.5, "looks"),), -0.25)
        return [Score(1.0, credit=parts) for _ in completions]

    batch = RewardBatch(["How late?"], [TALK], completion_ids=[IDS], turn_spans=[TURN_SPANS])
    found = []
    with Ledger(tmp_path / "ledger.db") as ledger:
        for _ in range(2):
            with Composer({"it": Component(everywhere, weight=2.0)}, ledger=ledger) as composer:
                composition = composer.compose(batch)
            found.append((composition.credits(0), composition.token_rewards(Bytes())[0].tolist()))
        run = ledger.run(1)
        recorded = next(iter(ledger.batches(run))).composition(run.rewards)
    assert composition.rewards["it"].status(0) == "cached"
    assert found[0] == found[1]
    ((_, credit),) = recorded.credits(0)
    assert (credit.tokens, credit.turns, credit.rest) == (None, [1.0, 0.0], 0.0)
    assert credit.spans == (CreditSpan(0, 7, 1.0, "looks"),)


def test_records_and_tables_have_credit_in_plain_form() -> None:
    """What falls where in units of the total; null on a row without, and no key for a reward that gives none."""
    rewards = {"a": Component(FixedReward([marked((0, 2, -0.5)), 1.0]), weight=2.0), "b": FixedReward([0.0, 0.0])}
    batch = RewardBatch(["p"] * 2, ["Ten."] * 2)
    composition = compose(rewards, batch)
    span = {"start": 0, "end": 2, "value": -1.0, "reason": None}
    first, second = (record["rewards"] for record in composition.to_records())
    assert (first["a"]["credit"], second["a"]["credit"]) == ({"spans": [span], "rest": 2.0}, None)
    assert "credit" not in first["b"]
    frame = composition.to_pandas()
    assert frame["a/credit"].tolist() == [{"spans": [span], "rest": 2.0}, None]
    assert "b/credit" not in frame


def explained() -> Composition:
    scores = Score(0.75, credit=Credit(turns=[0.5, 0.0], spans=(CreditSpan(15, 18, -0.75, "guessed"),), rest=1.0))
    rewards = {"it": Component(FixedReward([scores]), weight=2.0), "plain": FixedReward([0.0])}
    return compose(rewards, RewardBatch(["How late?"], [TALK]))


def test_an_explanation_shows_the_text_with_its_credit() -> None:
    """The transcript, cut where credit begins and ends, and in words what falls where; it sums as the waterfall does."""
    explanation = explained().explain(0)
    assert explanation.text == (
        ("assistant: ", 0.0),
        ("I look.", 1.0),
        ("\n", 0.0),
        ("[calls clock({})]", 1.0),
        ("\n\n", 0.0),
        ("tool: ", 0.0),
        ("10:02", 0.0),
        ("\n\n", 0.0),
        ("assistant: ", 0.0),
        ("It is ", 0.0),
        ("ten", -1.5),
        (". I think.", 0.0),
    )
    assert explanation.marks == ("-1.5000 it, \u201cten\u201d: guessed", "+1.0000 it, turn 1")
    assert "-0.5000 of it on 2 turns, 1 span" in str(explanation)
    assert str(explanation).endswith("  assistant: It is [ten -1.5000]. I think.")


def test_credit_has_colours_in_a_terminal_and_a_notebook() -> None:
    """Green for what raises the total, red for what lowers it; brackets where there are no colours."""
    explanation = explained().explain(0)
    page = explanation._repr_html_()
    assert '<span style="background: rgba(215, 50, 45, 0.60)" title="-1.5000">ten</span>. I think.' in page
    assert '<span style="background: rgba(0, 150, 80, 0.45)" title="+1.0000">I look.</span>' in page
    shown = {}
    for colours in (True, False):
        console = Console(
            width=200, force_terminal=colours, color_system="truecolor" if colours else None, file=io.StringIO()
        )
        console.print(explanation)
        shown[colours] = console.file.getvalue()
    assert "\x1b[30;48;2;240;90;80mten\x1b[0m" in shown[True]
    assert "[ten -1.5000]" not in shown[True]
    assert "\x1b" not in shown[False]
    assert "It is [ten -1.5000]. I think." in shown[False]


def test_what_a_completion_says_does_not_act_where_its_credit_is_shown() -> None:
    """Control characters and tags are escaped; line breaks are kept."""
    text = "<b>\x1b[2J\nDone."
    reward = FixedReward([Score(1.0, credit=Credit(spans=(CreditSpan(0, len(text), 1.0),)))])
    explanation = compose({"it": reward}, RewardBatch(["p"], [text])).explain(0)
    assert "&lt;b&gt;\\x1b[2J\nDone.</span>" in explanation._repr_html_()
    assert "\x1b" not in str(explanation)


def test_a_row_without_credit_shows_no_text() -> None:
    """Nor does one whose gate is closed, nor one with credit by token alone, of which the words are not known."""
    gated = {"it": FixedReward([Score.of_turns([1.0])]), "safe": FixedReward([0.0])}
    for rewards, gates in (
        ({"it": FixedReward([1.0])}, []),
        ({"it": per_token([[1.0]])}, []),
        (gated, [Gate("safe", floor=-1.0, min=0.5)]),
    ):
        explanation = compose(rewards, batch_of([1]), gates=gates).explain(0)
        assert (explanation.text, explanation.marks) == ((), ())


def test_a_long_answer_s_marks_are_cut() -> None:
    """The most of them are said."""
    spans = tuple(CreditSpan(at, at + 1, -0.01 * (at + 1)) for at in range(20))
    score = Score(1.0 + sum(span.value for span in spans), credit=Credit(spans=spans, rest=1.0))
    explanation = compose({"it": FixedReward([score])}, RewardBatch(["p"], ["abcdefghijklmnopqrstuvwxyz"])).explain(0)
    assert explanation.marks[0] == "-0.2000 it, \u201ct\u201d"
    assert (len(explanation.marks), explanation.marks[-1]) == (13, "and 8 more of less")
