"""Preference pairs made of scored completions."""

from __future__ import annotations

import math
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif_sdk import BatchError, Composer, ConfigError, DataError, RewardBatch
from rlaif_sdk.preferences import make_pairs, preference_probability
from rlaif_sdk.types import PreferencePair

SCORES = {"a": [3.0, None, 1.0, 2.0], "b": [0.0, 0.0, None], "c": [5.0], "d": []}


def compose(scores: dict[str, list[float | None]], texts: list[str] | None = None):
    """A composition of one reward that gives each row of each prompt its score."""
    flat = [score for of_prompt in scores.values() for score in of_prompt]
    group = [prompt for prompt, of_prompt in scores.items() for _ in of_prompt]
    batch = RewardBatch(
        prompts=group,
        completions=texts or [f"answer {row}" for row in range(len(flat))],
        columns={"given": flat},
        group=group,
    )

    def as_given(completions, given):
        return given

    with Composer({"given": as_given}) as composer:
        return composer.compose(batch)


def names(pairs: list[PreferencePair]) -> list[tuple[str, str]]:
    return [(pair.chosen, pair.rejected) for pair in pairs]


def test_best_against_worst_makes_one_pair_a_prompt() -> None:
    """The highest total against the lowest; unscored rows, lone rows and ties make none."""
    (pair,) = make_pairs(compose(SCORES))
    assert (pair.prompt, pair.chosen, pair.rejected, pair.source) == ("a", "answer 0", "answer 2", "composition")
    assert pair.chosen_prob == pytest.approx(1 / (1 + math.exp(-2)))


def test_all_makes_every_pair_with_the_higher_total_first() -> None:
    """Three scored rows make three pairs."""
    expected = [("answer 0", "answer 2"), ("answer 0", "answer 3"), ("answer 3", "answer 2")]
    assert names(make_pairs(compose(SCORES), "all")) == expected


def test_a_threshold_pairs_what_passes_with_what_does_not() -> None:
    """A total equal to the threshold passes."""
    expected = [("answer 0", "answer 2"), ("answer 3", "answer 2")]
    assert names(make_pairs(compose(SCORES), "threshold", threshold=2.0)) == expected


def test_small_gaps_are_left_out() -> None:
    """A pair whose totals differ by less than the least gap is not made."""
    assert names(make_pairs(compose(SCORES), "all", min_gap=1.5)) == [("answer 0", "answer 2")]


@pytest.mark.parametrize("choose", ["best_worst", "all"])
def test_ties_are_given_a_half_when_asked(choose: str) -> None:
    """Two equal totals make a pair in the order of the rows, also where all labels are hard."""
    for temperature in (1.0, None):
        pairs = make_pairs(compose({"b": [0.0, 0.0, None]}), choose, ties="half", temperature=temperature)
        assert [(pair.chosen, pair.rejected, pair.chosen_prob) for pair in pairs] == [("answer 0", "answer 1", 0.5)]


def test_equal_completions_make_no_pair() -> None:
    """There is nothing to prefer between two equal texts, whatever a noisy reward says."""
    assert make_pairs(compose({"a": [1.0, 0.0]}, ["same", "same"]), "all") == []


def test_without_a_temperature_labels_are_hard() -> None:
    """The higher total is preferred with probability 1."""
    assert [pair.chosen_prob for pair in make_pairs(compose(SCORES), "all", temperature=None)] == [1.0] * 3


totals = st.lists(st.one_of(st.none(), st.floats(-1e3, 1e3)), max_size=6)


@given(st.lists(totals, min_size=1, max_size=4), st.floats(0.01, 100))
def test_all_pairs_are_those_of_a_slow_count(groups: list[list[float | None]], temperature: float) -> None:
    """Each two scored rows of one prompt with different totals make one pair, with the logistic of their difference."""
    scores = {f"prompt {index}": of_prompt for index, of_prompt in enumerate(groups)}
    expected = []
    row = 0
    for of_prompt in groups:
        scored = [(row + index, score) for index, score in enumerate(of_prompt) if score is not None]
        for (first, a), (second, b) in combinations(scored, 2):
            if a != b:
                better, worse = (first, second) if a > b else (second, first)
                label = preference_probability(abs(a - b), temperature=temperature)
                expected.append((f"answer {better}", f"answer {worse}", label))
        row += len(of_prompt)
    pairs = make_pairs(compose(scores), "all", temperature=temperature)
    assert [(pair.chosen, pair.rejected, pair.chosen_prob) for pair in pairs] == expected


@given(st.floats(-1e300, 1e300), st.floats(1e-3, 1e3))
def test_the_probability_is_one_less_that_of_the_opposite(difference: float, temperature: float) -> None:
    """The logistic is symmetric, in [0, 1] and does not overflow."""
    prob = preference_probability(difference, temperature=temperature)
    assert 0 <= prob <= 1
    assert prob + preference_probability(-difference, temperature=temperature) == pytest.approx(1)


def test_the_temperature_is_the_difference_that_makes_odds_of_e_to_one() -> None:
    """At a difference of one temperature the log-odds are 1."""
    prob = preference_probability(2.5, temperature=2.5)
    assert math.log(prob / (1 - prob)) == pytest.approx(1)


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"choose": "some"}, "choose"),
        ({"ties": "keep"}, "ties"),
        ({"choose": "threshold"}, "threshold"),
        ({"threshold": 1.0}, "threshold"),
        ({"choose": "threshold", "threshold": math.inf}, "threshold"),
        ({"min_gap": -1.0}, "min_gap"),
        ({"temperature": 0.0}, "temperature"),
        ({"ties": "half", "min_gap": 1.0}, "ties"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, object], key: str) -> None:
    """The error names the option."""
    with pytest.raises(ConfigError) as caught:
        make_pairs(compose(SCORES), **options)
    assert caught.value.key == key


def test_a_batch_without_groups_is_refused() -> None:
    """Nothing says which completions answer the same prompt."""
    with Composer({"length": lambda completions: [1.0] * len(completions)}) as composer:
        composition = composer.compose(RewardBatch(prompts=["p", "p"], completions=["a", "b"]))
    with pytest.raises(BatchError, match="group"):
        make_pairs(composition)


@pytest.mark.parametrize("prob", [-0.1, 1.1, math.nan, math.inf])
def test_a_label_that_is_no_probability_is_refused(prob: float) -> None:
    """A pair cannot be made with it."""
    with pytest.raises(DataError, match="chosen_prob"):
        PreferencePair("p", "a", "b", chosen_prob=prob)


def test_a_pairs_record_has_the_columns_that_the_trainers_take() -> None:
    """Text and messages stay as they are."""
    pair = PreferencePair("p", [{"role": "assistant", "content": "a"}], "b", 0.7, "judge")
    assert pair.record() == {
        "prompt": "p",
        "chosen": [{"role": "assistant", "content": "a"}],
        "rejected": "b",
        "chosen_prob": 0.7,
        "source": "judge",
    }
