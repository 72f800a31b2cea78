"""Which sentences the reward ``factuality`` marks."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlaif_factuality import rlaif_rewards
from rlaif_factuality.sentences import sentence_spans, split_sentences
from rlaif_sdk import Composer, Credit, RewardBatch, Score

SPEC = next(iter(rlaif_rewards()))
SOURCE = "The capital of France is Paris. It lies on the Seine. Marie Curie was born in Warsaw in 1867."


def score(completion: Any, **params: Any) -> Score:
    reward = SPEC.build(params)
    result: Score = reward.score(RewardBatch([""], [completion], columns={"reference": [SOURCE]}))[0]
    return result


def marked(completion: str, **params: Any) -> dict[str, float]:
    credit = score(completion, **params).credit
    assert isinstance(credit, Credit)
    return {completion[span.start : span.end]: span.value for span in credit.spans}


def test_an_unsupported_sentence_is_marked_and_a_supported_one_is_not() -> None:
    """By what it takes from the score; where the same words stand twice, each is marked where it is."""
    wrong = "The capital of France is Lyon."
    found = score(f"It lies on the Seine. {wrong} {wrong}")
    assert found.value is not None
    assert found.credit is not None
    assert [(span.start, span.end) for span in found.credit.spans] == [(22, 52), (53, 83)]
    assert all(-1 / 3 <= span.value < -0.2 for span in found.credit.spans)
    assert found.credit.spans[0].reason == "not in the source: Lyon"
    assert sum([*found.credit.parts, found.credit.rest]) == pytest.approx(found.value, abs=1e-12)
    assert score("It lies on the Seine.").credit is None


def test_with_the_least_only_the_worst_sentence_is_marked() -> None:
    """The others take nothing from the score."""
    found = marked("The capital of France is Lyon. It lies on a river in France.", aggregate="min")
    assert list(found) == ["The capital of France is Lyon."]


def test_a_sentence_over_several_lines_and_in_a_list_is_marked_whole() -> None:
    """As it stands in the text, without the list's mark."""
    text = "France:\n\n- It lies on the Seine.\n- The capital\n  of France is Lyon.\n"
    assert "The capital\n  of France is Lyon." in marked(text)


@pytest.mark.parametrize("params", [{}, {"view": "assistant"}, {"view": "transcript", "thinking": "keep"}])
def test_the_marks_are_found_in_what_the_policy_said_through_every_view(params: dict[str, Any]) -> None:
    """They go through the composer's check, and are shown where they stand."""
    talk = [
        {"role": "assistant", "content": "It lies on the Seine."},
        {"role": "user", "content": "And?"},
        {"role": "assistant", "content": "<think>Hm, Lyon.</think>\n\nThe capital of France is Lyon."},
    ]
    with Composer({"factuality": SPEC.build(params)}) as composer:
        composition = composer.compose(RewardBatch([""], [talk], columns={"reference": [SOURCE]}))
    shown = {text: value for text, value in composition.explain(0).text if value}
    assert shown["The capital of France is Lyon."] < -0.2
    last = composition.turn_rewards()[0]
    assert last is not None
    assert last.sum() == pytest.approx(composition.totals[0], abs=1e-9)


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from('aB1 .!?\n\r\t\x0b\x1c\x85\u2028-*#>()"\u3002\u00e9'), max_size=60))
def test_every_sentence_is_found_in_its_text(text: str) -> None:
    """In order, letter for letter up to white space."""
    spans = sentence_spans(text)
    assert [" ".join(text[start:end].split()) for start, end in spans] == [
        " ".join(sentence.split()) for sentence in split_sentences(text)
    ]
    assert spans == sorted(spans)
