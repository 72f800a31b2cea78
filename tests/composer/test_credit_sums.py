"""Random compositions: the credit of a row sums to its total, and each part is what a slow reckoning by hand gives."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlaif_sdk import Composer, Composition, Credit, CreditSpan, RewardBatch, Score
from rlaif_sdk.composer import Component, FailurePolicy, Gate
from rlaif_sdk.composer.aggregators import Minimum, RewardGroup, WeightedSum
from rlaif_sdk.composer.constraints import Constraint
from rlaif_sdk.composer.normalizers import (
    GroupCenter,
    GroupZScore,
    MinMax,
    Normalizer,
    Passthrough,
    Rank,
    ZScore,
    ZScoreParams,
)
from rlaif_sdk.composer.panels import Panel
from rlaif_sdk.testing import FixedReward

TALK = [
    {"role": "assistant", "content": "One. Two."},
    {"role": "tool", "content": "10:02"},
    {"role": "assistant", "content": "Three."},
]
IDS = list(b"One. Two.<10:02>Three.")
TURN_SPANS = [(0, 9), (16, 22)]
ENDS = {4: 3, 9: 8, 17: 21}
"""Where a span ends in the text `One. Two.`, a blank line and `Three.`, and on which token that is."""
ROWS = 4
NORMALIZERS: dict[str, Any] = {
    "none": Passthrough,
    "minmax": MinMax,
    "zscore": lambda: ZScore(ZScoreParams(clip=None)),
    "group_zscore": lambda: GroupZScore(ZScoreParams(clip=1.0)),
    "group_center": GroupCenter,
    "rank": Rank,
}
numbers = st.floats(-2, 2).map(lambda value: round(value, 3))


class Bytes:
    def decode(self, token_ids: Any, *, skip_special_tokens: bool) -> str:
        return bytes(token_ids).decode()


@st.composite
def credits_of(draw: Any) -> Credit:
    tokens = draw(st.none() | st.dictionaries(st.integers(0, len(IDS) - 1), numbers, max_size=3))
    turns = draw(st.none() | st.lists(numbers, min_size=2, max_size=2))
    spans = draw(st.lists(st.tuples(st.sampled_from([*ENDS]), numbers), max_size=3))
    placed = None if tokens is None else [tokens.get(place, 0.0) for place in range(len(IDS))]
    return Credit(placed, turns, tuple(CreditSpan(0, end, value) for end, value in spans), draw(numbers))


@st.composite
def scores(draw: Any) -> Score | float | None:
    kind = draw(st.sampled_from(["credit", "credit", "credit", "plain", "abstains", "fails"]))
    if kind == "credit":
        credit = draw(credits_of())
        return Score(math.fsum([*credit.parts, credit.rest]), credit=credit)
    return {"plain": draw(numbers), "abstains": None, "fails": Score.failed("down")}[kind]


@st.composite
def compositions(draw: Any) -> dict[str, Any]:
    names = [f"r{index}" for index in range(draw(st.integers(1, 4)))]
    policies = st.sampled_from(
        [
            FailurePolicy("abstain", fail_fast=False),
            FailurePolicy("abstain", mask_group="never", fail_fast=False),
            FailurePolicy("default", 0.5, fail_fast=False),
            FailurePolicy("drop", fail_fast=False),
        ]
    )
    rewards = {
        name: Component(
            FixedReward(
                draw(st.lists(scores(), min_size=ROWS, max_size=ROWS)),
                range=(-40.0, 40.0),
                higher_is_better=draw(st.booleans()),
            ),
            weight=draw(st.sampled_from([1.0, 0.3, 2.0, 0.0] if number else [1.0, 2.5])),
            normalizer=NORMALIZERS[draw(st.sampled_from([*NORMALIZERS]))](),
            failure=draw(policies),
        )
        for number, name in enumerate(names)
    }
    inner = draw(st.sampled_from([WeightedSum, WeightedSum, Minimum, Panel]))
    groups = {"panel": RewardGroup(names[:2], 1.5, inner())} if len(names) > 2 and draw(st.booleans()) else {}
    floors = [-1.0, 0.25][: draw(st.integers(0, 2))]
    return {
        "rewards": rewards,
        "aggregator": Minimum() if draw(st.integers(0, 5)) == 0 else None,
        "groups": groups,
        "gates": [Gate(names[0], floor=floor, min=floor - 0.5, on_missing="pass") for floor in floors],
        "gate_order": draw(st.sampled_from(["independent", "lexicographic"])),
        "constraints": [Constraint(names[-1], max=0.1, initial=0.7)] if draw(st.booleans()) else [],
    }


def by_hand(composition: Composition, normalizers: dict[str, Normalizer], costs: set[str], row: int) -> list[float]:
    """The (T,) rewards of a row's tokens, one number at a time."""
    tokens = [0.0] * len(IDS)
    closed = any(mask[row] for _, mask in composition.gates)
    for step in composition.explain(row).steps:
        score = composition.rewards[step.reward].score(row)
        if closed or math.isnan(step.effective) or step.weight == 0 or score is None or score.credit is None:
            continue
        unit = (
            step.effective
            * (-1 if step.reward in costs else 1)
            * unit_of(normalizers[step.reward], composition, step.reward, row)
        )
        for place, value in enumerate(score.credit.tokens or []):
            tokens[place] += unit * value
        for (_, end), value in zip(TURN_SPANS, score.credit.turns or [], strict=False):
            tokens[end - 1] += unit * value
        for span in score.credit.spans:
            tokens[ENDS[span.end]] += unit * span.value
    tokens[-1] += composition.totals[row] - math.fsum(tokens)
    return tokens


def unit_of(normalizer: Normalizer, composition: Composition, name: str, row: int) -> float:
    """What one unit of a score adds on the common scale."""
    if isinstance(normalizer, MinMax):
        return 1 / 80
    if isinstance(normalizer, Rank):
        return 0.0
    if isinstance(normalizer, (Passthrough, GroupCenter)):
        return 1.0
    if isinstance(normalizer, ZScore):
        spread = math.sqrt(normalizer.m2 / normalizer.count)
    else:
        first = row // 2 * 2
        column = composition.rewards[name]
        taken_B = np.where(column.masked, np.nan, np.where(column.defaulted, 0.5, column.raw))
        spread = float(np.nanstd(taken_B[first : first + 2]))
    return 1 / (spread + 1e-8) if spread > 1e-8 else 0.0


@settings(max_examples=150, deadline=None)
@given(compositions())
def test_the_credit_of_a_row_sums_to_its_total_and_falls_where_it_does_by_hand(made: dict[str, Any]) -> None:
    """Whatever the weights, normalizers, gates, panels, constraints and failures are; by token and by turn too."""
    batch = RewardBatch(
        ["p"] * ROWS,
        [TALK] * ROWS,
        completion_ids=[IDS] * ROWS,
        turn_spans=[TURN_SPANS] * ROWS,
        group=[row // 2 for row in range(ROWS)],
    )
    rewards = made["rewards"]
    with Composer(**made) as composer:
        composition = composer.compose(batch)
    costs = {name for name, part in rewards.items() if not part.reward.higher_is_better}
    normalizers = {name: part.normalizer for name, part in rewards.items()}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the credit of")
        by_token, by_turn = composition.token_rewards(Bytes()), composition.turn_rewards()
    for row, total in enumerate(composition.totals.tolist()):
        parts = [part for _, credit in composition.credits(row) for part in (*credit.parts, credit.rest)]
        if math.isnan(total):
            assert (parts, by_token[row], by_turn[row]) == ([], None, None)
            continue
        exact = 1e-9 * max(1.0, math.fsum(map(abs, parts)))
        assert math.fsum(parts) == pytest.approx(total, abs=exact)
        by_hand_T = by_hand(composition, normalizers, costs, row)
        if by_token[row] is None:
            assert by_hand_T[:-1] == pytest.approx([0.0] * (len(IDS) - 1), abs=exact)
            continue
        assert by_token[row].tolist() == pytest.approx(by_hand_T, abs=exact)
        assert by_token[row].sum() == pytest.approx(total, abs=exact)
        assert by_turn[row].tolist() == pytest.approx([sum(by_hand_T[:9]), sum(by_hand_T[9:])], abs=exact)
