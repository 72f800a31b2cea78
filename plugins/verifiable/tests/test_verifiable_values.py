"""The values that other projects publish in their tests, and those of each formula, by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from rlaif_sdk import Score

Values = Callable[..., list[float | None]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>This is my reasoning.</think>This is my answer.", 1.0),
        ("<think>\nThis is\nmy reasoning.\n</think>\nThis is my answer.", 1.0),
        ("<think>\nThis is <some tag> my reasoning.</think>\nThis is my answer.", 1.0),
        ("<think></think>\nThis is my answer.", 1.0),
        ("<think>\nThis is my reasoning.\nThis is my answer.", 0.0),
        ("This is my reasoning. This is my answer.", 0.0),
        ("This is my reasoning.</think>\nThis is my answer.", 0.0),
        ("This<think>is my reasoning.</think>\nThis is my answer.", 0.0),
        ("<think>This is<think>my reasoning.</think></think>This is my answer.", 0.0),
        ("<think>This is</think>\nmy\n<think>reasoning.</think>\nThis is my answer.", 0.0),
    ],
)
def test_the_think_format_is_trls(text: str, expected: float, values: Values) -> None:
    """TRL's tests/test_rewards.py, TestThinkFormatReward."""
    assert values("format", [text], {"form": "think"}) == [expected]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>\nSome reasoning\n</think>\n<answer>\nThe answer\n</answer>", 1.0),
        ("<think>Only thinking</think>", 0.0),
        ("<answer>Only answer</answer>", 0.0),
        ("No tags at all", 0.0),
        ("<think>Missing closing</think><answer>Missing closing", 0.0),
        ("<think>Wrong order</answer><answer>Wrong order</think>", 0.0),
        ("<answer>first</answer><think>then</think>", 0.0),
        ("<think>a</think><answer>b</answer> and more", 0.0),
    ],
)
def test_the_think_answer_format_is_open_r1s(text: str, expected: float, values: Values) -> None:
    """open-r1's tests/test_rewards.py, format_reward."""
    assert values("format", [text], {"form": "think_answer"}) == [expected]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>\nSome reasoning\n</think>\n<answer>\nThe answer\n</answer>", 1.0),
        ("Some reasoning\n</think>\n<answer>\nThe answer\n</answer>", 0.75),
        ("<think>\nSome reasoning\n<answer>\nThe answer\n</answer>", 0.75),
        ("<think>\nSome reasoning\n</think>\n<answer>\nThe answer", 0.75),
        ("Some reasoning\nThe answer", 0.0),
        ("<think>" * 9, 0.0),
    ],
)
def test_tags_are_counted_as_in_open_r1(text: str, expected: float, values: Values) -> None:
    """open-r1's tag_count_reward; a tag that stands there twice does not count."""
    assert values("format", [text], {"form": "tags"}) == [expected]


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("<think>\nx\n</think>\n<answer>\n```python\ndef hello():\n    print('world')\n```\n</answer>", "python", 1.0),
        ("```python\ndef hello():\n    print('world')\n```", "python", 0.0),
        ("<think>Some thinking</think><answer>Just plain text</answer>", "python", 0.0),
        ("<think>A</think><answer>```javascript\nconsole.log('hello');\n```</answer>", "python", 0.0),
        ("<think>A</think><answer>```\ndef hello(): pass\n```</answer>", "python", 0.0),
        ("<think>\n```python\nx = 1\n```\n</think>\n<answer>\n```python\ny = 2\n```\n</answer>", "python", 1.0),
        ("<think>\n```python\nx = 1\n```\n</think>\n<answer>\nnone\n</answer>", "python", 0.0),
        ("<think>\nA\n</think>\n<answer>\n```javascript\nconsole.log('hello');\n```\n</answer>", "javascript", 1.0),
    ],
)
def test_the_code_format_is_open_r1s(text: str, language: str, expected: float, values: Values) -> None:
    """open-r1's get_code_format_reward."""
    assert values("format", [text], {"form": "think_code", "language": language}) == [expected]


@pytest.mark.parametrize(("length", "expected"), [(50, 0.0), (80, 0.0), (90, -0.5), (100, -1.0), (110, -1.0)])
def test_overlong_is_trls(length: int, expected: float, values: Values) -> None:
    """TRL's and open-r1's get_soft_overlong_punishment(max_completion_len=100, soft_punish_cache=20)."""
    found = values("overlong", ["x"], {"max_tokens": 100, "buffer": 20}, completion_ids=[[1] * length])
    assert found == pytest.approx([expected])


def test_overlong_is_verls_where_it_is_not_clamped(values: Values) -> None:
    """verl's DAPO reward manager: 4 tokens of 4 with a buffer of 2 cost 1, and beyond it goes on."""
    params = {"max_tokens": 4, "buffer": 2, "clamp": False}
    assert values("overlong", ["x", "x"], params, completion_ids=[[1] * 4, [1] * 7]) == [-1.0, -2.5]


RIGHT = {"shape": "cosine", "max_length": 100}
WRONG = {**RIGHT, "shortest": -1.0, "longest": -0.5}


@pytest.mark.parametrize(
    ("params", "lengths", "expected"),
    [
        (RIGHT, [0, 25, 50, 75, 100, 200], [1.0, 0.92678, 0.75, 0.57322, 0.5, 0.5]),
        (WRONG, [0, 25, 50, 75, 100, 200], [-1.0, -0.92678, -0.75, -0.57322, -0.5, -0.5]),
        ({**RIGHT, "shortest": 2.0, "longest": 0.0}, [50], [1.0]),
        ({**RIGHT, "clamp": False}, [0, 25, 50, 75, 100, 150], [1.0, 0.926777, 0.75, 0.573223, 0.5, 0.75]),
    ],
)
def test_the_cosine_is_trls_and_ms_swifts(params, lengths: list[int], expected: list[float], values: Values) -> None:
    """TRL's TestCosineScaledReward; unclamped it is ms-swift's."""
    ids = [[1] * length for length in lengths]
    assert values("length", ["x"] * len(ids), params, completion_ids=ids) == pytest.approx(expected, abs=1e-5)


def test_the_cosine_of_characters_is_open_r1s(values: Values) -> None:
    """open-r1's test_cosine_scaled_reward: an answer of 22 characters, and the same with 58 spaces behind it."""
    short = "\\boxed{\\frac{63}{400}}"
    texts = [short, short + " " * 58]
    by_characters = {"unit": "characters", "clamp": False}
    assert values("length", texts, {**RIGHT, **by_characters}) == pytest.approx([0.943, 0.547], abs=0.005)
    assert values("length", texts, {**WRONG, **by_characters}) == pytest.approx([-0.942, -0.547], abs=0.005)


def test_lengths_within_a_group_are_compared_as_in_open_r1(values: Values) -> None:
    """len_reward of right answers: test_different_lengths_correct_answers, test_same_length_responses."""
    short = "\\boxed{\\frac{63}{400}}"
    texts = [short, short + "  xxxxxxxxxx", short, short, short, short + "x" * 10, short + "x" * 5]
    group = [0, 0, 1, 1, 2, 2, 2]
    found = values("length", texts, {"shape": "group", "unit": "characters"}, group=group)
    assert found == pytest.approx([0.5, -0.5, 0.0, 0.0, 0.5, -0.5, 0.0])


def test_a_target_is_met_or_missed_to_either_side(values: Values) -> None:
    """Of the config or of each row; a row that wants no length abstains."""
    ids = [[1] * length for length in (100, 90, 120, 0, 500)]
    params = {"shape": "target", "target": 100, "width": 100}
    assert values("length", ["x"] * 5, params, completion_ids=ids) == pytest.approx([0.0, -0.1, -0.2, -1.0, -1.0])
    by_row = {"shape": "target", "column": "wanted", "width": 10, "clamp": False, "unit": "characters"}
    assert values("length", ["four"] * 3, by_row, columns={"wanted": [4, 29, None]}) == [0.0, -2.5, None]


@pytest.mark.parametrize(
    ("ids", "ngram", "expected"),
    [
        ([1, 2, 3, 4], 2, 0.0),
        ([5, 5, 5, 5, 5], 2, -0.75),
        ([1, 2, 1, 2, 1, 2], 2, -0.6),
        ([1, 2], 3, 0.0),
        ([1, 2, 3], 3, 0.0),
        ([], 3, 0.0),
        ([1, 2, 3, 1, 2, 3], 2, -0.4),
        ([1, 2, 3, 1, 2, 3], 3, -0.25),
    ],
)
def test_repetition_of_tokens_is_trls(ids: list[int], ngram: int, expected: float, values: Values) -> None:
    """TRL's get_repetition_penalty_reward with a greatest punishment of -1."""
    assert values("repetition", ["x"], {"ngram": ngram, "unit": "tokens"}, completion_ids=[ids]) == pytest.approx(
        [expected]
    )


@pytest.mark.parametrize(
    ("text", "ngram", "expected"),
    [
        ("this is a test sentence", 2, 0.0),
        ("this this this this this", 2, -0.75),
        ("this is a this is a test", 2, -1 / 3),
        ("test test test test", 3, -0.5),
        ("", 2, 0.0),
        ("This is A this IS a", 3, -0.25),
        ("A B C A B C E F G A B C A B C", 3, -5 / 13),
    ],
)
def test_repetition_of_words_is_open_r1s(text: str, ngram: int, expected: float, values: Values) -> None:
    """open-r1's get_repetition_penalty_reward."""
    assert values("repetition", [text], {"ngram": ngram}) == pytest.approx([expected], abs=5e-5)


@pytest.mark.parametrize(
    ("answer", "right", "exact", "f1"),
    [
        ("The Eiffel Tower.", "eiffel tower", 1.0, 1.0),
        ("in the Eiffel tower", "Eiffel Tower", 0.0, 0.8),
        ("Paris", "London", 0.0, 0.0),
        ("", "London", 0.0, 0.0),
        ("the", "a", 0.0, 0.0),
        ("one two two", "two one", 0.0, 0.8),
        ("巴黎。", "巴黎", 1.0, 1.0),
        ("“Paris”", "Paris", 1.0, 1.0),
        ("ＰＡＲＩＳ", "paris", 1.0, 1.0),
        ("STRASSE", "Straße", 1.0, 1.0),
        ("5²", "52", 0.0, 0.0),
    ],
)
def test_words_are_compared_as_squad_does(answer: str, right: str, exact: float, f1: float, values: Values) -> None:
    """SQuAD 1.1's evaluation; but two answers without a word are not equal."""
    assert values("exact_match", [answer], columns={"answer": [right]}) == [exact]
    assert values("token_f1", [answer], columns={"answer": [right]}) == pytest.approx([f1])


def test_overlap_is_that_of_the_libraries(values: Values) -> None:
    """rouge-score's and sacrebleu's own figures of a pair."""
    text, right = "the cat sat on the mat", "a cat sat on a mat"
    columns = {"reference": [right]}
    assert values("overlap", [text], {"metric": "rouge1"}, columns=columns) == pytest.approx([4 / 6])
    assert values("overlap", [text], {"metric": "rougeL"}, columns=columns) == pytest.approx([4 / 6])
    assert values("overlap", [text], {"metric": "rouge2"}, columns=columns) == pytest.approx([2 / 5])
    # n-gram precisions 4/6, 2/5, 1/4 and 1/6 (the last smoothed: none of three, halved)
    bleu = math.exp(sum(map(math.log, (4 / 6, 2 / 5, 1 / 4, 1 / 6))) / 4)
    assert values("overlap", [text], {"metric": "bleu"}, columns=columns) == pytest.approx([bleu], abs=1e-6)
    assert values("overlap", [right], {"metric": "chrf"}, columns=columns) == pytest.approx([1.0])


def test_the_words_and_tokens_that_come_again_are_marked(scores: Callable[..., list[Score]]) -> None:
    """Each run where it comes again, however it is written; together they are the score."""
    text = "Go  on and on.  GO\non And stop."
    (said,) = scores("repetition", [text], {"ngram": 2})
    assert said.credit is not None
    assert [text[span.start : span.end] for span in said.credit.spans] == ["GO\non", "on And"]
    assert sum(said.credit.parts) == pytest.approx(said.value) == pytest.approx(-2 / 7)
    (counted,) = scores("repetition", ["x"], {"ngram": 2, "unit": "tokens"}, completion_ids=[[5, 6, 5, 6, 5]])
    assert counted.credit is not None
    assert counted.credit.tokens == [0.0, 0.0, 0.0, -0.25, -0.25]
    assert (counted.value, scores("repetition", ["a b c"])[0].credit) == (-0.5, None)


def test_each_tag_that_stands_once_earns_its_quarter(scores: Callable[..., list[Score]]) -> None:
    """Where it stands, in the view that was read."""
    (said,) = scores("format", ["<think>a</think> <answer>b <answer>"], {"form": "tags", "thinking": "keep"})
    assert said.credit is not None
    assert [(span.start, span.end, span.value) for span in said.credit.spans] == [(0, 7, 0.25), (8, 16, 0.25)]
    assert (said.value, said.credit.rest, said.credit.thinking) == (0.5, 0.0, "keep")
