"""Verdicts: the expected score of a distribution, and ratings read strictly from text."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif_sdk.exceptions import JudgeResponseError
from rlaif_sdk.judges import Scale
from rlaif_sdk.judges.pointwise import expected_score, parse_rating
from rlaif_sdk.judges.rubric import json_objects

ONE_TO_FIVE = Scale(1, 5)


@given(st.lists(st.floats(-700, 0), min_size=2, max_size=26))
def test_the_expected_score_is_the_mean_of_the_softmax(logprobs: list[float]) -> None:
    """It equals the naive formula in exact enough arithmetic, and lies on the scale."""
    points = list(range(1, len(logprobs) + 1))
    distribution, expected = expected_score(logprobs, points)
    weights = [math.exp(value - max(logprobs)) for value in logprobs]
    assert distribution == pytest.approx([weight / sum(weights) for weight in weights])
    assert expected == pytest.approx(sum(p * w for p, w in zip(points, weights, strict=True)) / sum(weights))
    assert points[0] <= expected <= points[-1]


@given(st.lists(st.floats(-50, 0), min_size=2, max_size=10), st.floats(-100, 0))
def test_mass_outside_the_labels_does_not_matter(logprobs: list[float], shift: float) -> None:
    """Only the proportions between the labels count (they are normalised, as in the paper)."""
    points = range(1, len(logprobs) + 1)
    shifted = [value + shift for value in logprobs]
    assert expected_score(shifted, points)[1] == pytest.approx(expected_score(logprobs, points)[1], rel=1e-6)


def test_a_label_without_any_probability_counts_nothing() -> None:
    """Minus infinity is a probability of 0."""
    assert expected_score([-math.inf, math.log(0.2), math.log(0.2)], [1, 2, 4]) == ([0, 0.5, 0.5], 3)


@given(st.decimals("1", "5", places=2), st.text())
def test_a_rating_on_the_last_line_is_read_with_what_stands_before(rating: object, words: str) -> None:
    """Any rating on the scale with two decimals comes back, with the justification, whatever that says."""
    words = words.replace("</think>", "")
    found, justification = parse_rating(f"{words}\nRating: {rating}", ONE_TO_FIVE)
    assert found == float(str(rating))
    assert justification == "\n".join(words.strip().splitlines())


@pytest.mark.parametrize(
    "last", ["Rating: 4", "**Rating:** 4.0", "rating: **4.00**", "Final rating: 4.", "> Rating : `4`"]
)
def test_a_rating_may_be_dressed(last: str) -> None:
    """Markdown around the verdict is no obstacle."""
    assert parse_rating(f"Fine.\n{last}\n\n", ONE_TO_FIVE) == (4.0, "Fine.")


def test_the_last_verdict_is_the_judges() -> None:
    """A rating that the judge quotes from the answer, or thinks aloud, is not its verdict."""
    reply = "<think>Rating: 3</think>It claims\nRating: 5.00\nand \\boxed{5}. That is false.\nRating: 1.25"
    assert parse_rating(reply, ONE_TO_FIVE)[0] == 1.25


@pytest.mark.parametrize(
    "thinking",
    [
        "[THINK]Rating: 3[/THINK]",
        "◁think▷Rating: 3◁/think▷",
        "<seed:think>Rating: 3</seed:think>",
        "analysisRating: 3assistantfinal",
    ],
)
def test_a_verdict_stands_after_thinking_of_every_form(thinking: str) -> None:
    """What a reasoning judge of another family thinks is no part of its justification."""
    assert parse_rating(f"{thinking}Fine.\nRating: 4.00", ONE_TO_FIVE) == (4.0, "Fine.")
    assert json_objects(f'{thinking}[{{"criterion": 1}}]') == [{"criterion": 1}]


def test_thinking_without_an_end_holds_no_verdict() -> None:
    """A judge that used up its tokens by thinking has said nothing yet."""
    with pytest.raises(JudgeResponseError):
        parse_rating("<think>I might say\nRating: 4.00", ONE_TO_FIVE)


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "Good answer.",
        "Rating: 5.00\nBecause the answer says so.",
        "Rating: 10/10",
        "Rating: 4/5",
        "Rating: 11",
        "Rating: 0.99",
        "Rating: 5.01",
        "Rating: -5",
        "Rating: 7.5",
        "Rating: \u0664",
        "Rating: \uff14",
        "Rating: 4,5",
        "Rating: 4.123",
        "Rating: 1e0",
        "Rating: nan",
        "Rating: 4 or 5",
        "Rating: " + "9" * 9000,
        "\\boxed{4}",
        "4",
    ],
)
def test_anything_but_a_rating_on_the_scale_is_an_error(reply: str) -> None:
    """No guess is made of a verdict, and the error stays short."""
    with pytest.raises(JudgeResponseError) as caught:
        parse_rating(reply, ONE_TO_FIVE)
    assert len(str(caught.value)) < 200


@given(st.text())
def test_no_text_breaks_the_parser(reply: str) -> None:
    """Any reply is a rating on the scale or a typed error."""
    try:
        rating, _ = parse_rating(reply, ONE_TO_FIVE)
    except JudgeResponseError:
        return
    assert 1 <= rating <= 5


def test_a_scale_below_zero_has_negative_ratings() -> None:
    """From -5 to 5, as some published judges rate."""
    assert parse_rating("Bad.\nRating: -4.50", Scale(-5, 5))[0] == -4.5
