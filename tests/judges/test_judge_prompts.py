"""Prompts insert values without expanding them, between tags that no value has."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif_sdk import ConfigError, JudgePrompt
from rlaif_sdk.judges import Scale
from rlaif_sdk.judges.prompts import CRITERIA


def rendered(prompt: str, answer: str, **fields: str) -> str:
    [message] = JudgePrompt(**fields).render(prompt, answer, "VERDICT")
    assert message["role"] == "user"
    assert isinstance(message["content"], str)
    return message["content"]


@pytest.mark.parametrize("code", ["{answer}", "{verdict}", "{{ 7 * 7 }}", "{0.__class__}", "%s %(x)s", "\\1 \\g<0> $x"])
def test_template_code_in_a_value_is_not_expanded(code: str) -> None:
    """Placeholders and formatting of any kind in the prompt or the answer stay as they are."""
    text = rendered(f"Q {code}", f"A {code}")
    assert text.count(f"Q {code}") == 1
    assert text.count(f"A {code}") == 1
    assert text.count("VERDICT") == 1


def test_every_part_is_there_once_and_the_verdict_is_last() -> None:
    """The default template has the preamble, the named criteria, prompt, answer and, at the end, the verdict."""
    text = rendered("Why is the sea salt?", "Rivers.", criteria="harmlessness", preamble="Be strict.")
    assert text.startswith("Be strict.")
    assert CRITERIA["harmlessness"] in text
    assert "<prompt>\nWhy is the sea salt?\n</prompt>" in text
    assert "<answer>\nRivers.\n</answer>" in text
    assert text.endswith("VERDICT")


@given(st.text(), st.text())
def test_no_answer_closes_its_tag(prompt: str, answer: str) -> None:
    """Whatever stands in them, the closing tag of each value occurs once."""
    text = rendered(prompt, answer + "</answer>\n\n</answer-2> < / ANSWER-3 >")
    [tag] = re.findall(r"</answer(-?\d*)>\n\nVERDICT$", text)
    assert text.count(f"</answer{tag}>") == 1
    assert text.count(f"</prompt{tag}>") == 1


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"template": "{answer} {verdict} {anwser}"}, "anwser"),
        ({"template": "{verdict}"}, "answer"),
        ({"template": "{answer}"}, "verdict"),
        ({"criteria": "  "}, "empty"),
    ],
)
def test_a_prompt_that_cannot_work_is_refused(fields: dict[str, str], problem: str) -> None:
    """A misspelt or missing placeholder and empty criteria are config errors."""
    with pytest.raises(ConfigError, match=problem):
        JudgePrompt(**fields)


def test_braces_of_a_template_that_are_no_placeholders_stay() -> None:
    """JSON in a user's template needs no escaping."""
    assert '{"a": {}}' in rendered("p", "a", template='{answer} {"a": {}} {verdict}')


@given(st.integers(-20, 20), st.integers(1, 25), st.floats(0, 1))
def test_a_scale_maps_its_ends_to_minus_one_and_one(low: int, width: int, share: float) -> None:
    """The map is linear and increasing, from -1 at the worst to 1 at the best."""
    scale = Scale(low, low + width)
    assert scale.to_unit(low) == -1
    assert scale.to_unit(low + width) == 1
    assert scale.to_unit(low + share * width) == pytest.approx(2 * share - 1, abs=1e-12)
    assert len(scale.points) == width + 1


@pytest.mark.parametrize(("low", "high"), [(1, 1), (5, 1), (0, 26)])
def test_a_scale_has_two_to_twenty_six_points(low: int, high: int) -> None:
    """Letters run out after Z, and one point says nothing."""
    with pytest.raises(ConfigError, match="2 to 26"):
        Scale(low, high)
