"""What each reward says of right answers, wrong ones, and data that is none."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from rlaif_sdk import Composer, RewardBatch, Score
from rlaif_sdk.testing import check_reward_contract, sample_batch
from rlaif_verifiable import rlaif_rewards

Values = Callable[..., list[float | None]]
Scores = Callable[..., list[Score]]
SPECS = {spec.name: spec for spec in rlaif_rewards()}

SAMPLE = sample_batch()
CONTRACT = {
    "math": RewardBatch(SAMPLE.prompts, SAMPLE.completions, columns={"answer": ["1", "2", "3", "10", "x"]}),
    "multiple_choice": RewardBatch(SAMPLE.prompts, SAMPLE.completions, columns={"answer": ["A"] * len(SAMPLE)}),
    "length": RewardBatch(["p", "q"], ["a b", ""], completion_ids=[[1, 2], []]),
    "overlong": RewardBatch(["p", "q"], ["a b", ""], completion_ids=[[1, 2], []]),
    "exact_match": sample_batch(["answer"]),
    "token_f1": sample_batch(["answer"]),
    "overlap": sample_batch(["reference"]),
}
CALL: dict[str, Any] = {"name": "weather", "arguments": {"city": "Oslo", "days": 2}}


CONTRACT["instruction"] = RewardBatch(
    SAMPLE.prompts,
    SAMPLE.completions,
    columns={"instruction_id_list": [["punctuation:no_comma"]] * len(SAMPLE), "kwargs": [[{}]] * len(SAMPLE)},
)
CONTRACT["tool_calls"] = RewardBatch(SAMPLE.prompts, SAMPLE.completions, columns={"tool_calls": [[CALL]] * len(SAMPLE)})


def calls(*made: tuple[str, Any]) -> list[dict[str, Any]]:
    """A completion that calls tools."""
    functions = [{"name": name, "arguments": json.dumps(arguments)} for name, arguments in made]
    listed = [{"id": str(place), "type": "function", "function": function} for place, function in enumerate(functions)]
    return [{"role": "assistant", "content": None, "tool_calls": listed}]


def test_the_entry_point_leads_to_the_registration_module() -> None:
    """An installed plugin is found by name and states its API version."""
    (entry,) = entry_points(group="rlaif_sdk", name="verifiable")
    assert entry.load().rlaif_api_version == 1


@pytest.mark.parametrize("name", SPECS)
def test_each_reward_keeps_the_contract(name: str) -> None:
    """The checks that the SDK ships for plugin authors pass, on text and on conversations."""
    spec = SPECS[name]
    check_reward_contract(spec, params=spec.example["params"], batch=CONTRACT.get(name))


def test_registration_loads_nothing_heavy() -> None:
    """Listing imports none of the libraries that check."""
    heavy = "{'math_verify', 'sympy', 'jsonschema', 'rouge_score', 'sacrebleu', 'py3langid', 'numpy', 'nltk'}"
    heavy += " | {'emoji', 'langdetect', 'punkt', 'syllapy', 'textblob'}"
    code = f"import sys, rlaif_verifiable; rlaif_verifiable.rlaif_rewards(); print(({heavy}) & set(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "set()"


RIGHT: dict[str, tuple[Mapping[str, Any], Any, Mapping[str, Any]]] = {
    "math": ({}, "So it is \\boxed{\\frac{63}{400}}.", {"answer": "63/400"}),
    "exact_match": ({}, "Ulaanbaatar", {"answer": "Ulaanbaatar"}),
    "token_f1": ({}, "Ulaanbaatar", {"answer": "Ulaanbaatar"}),
    "multiple_choice": ({}, "The answer is (C).", {"answer": "C"}),
    "format": ({"form": "think_answer"}, "<think>a</think><answer>b</answer>", {}),
    "json_schema": (
        {"json_schema": {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}},
        '{"n": 3}',
        {},
    ),
    "instruction": (
        {},
        "Ulaanbaatar",
        {"instruction_id_list": ["keywords:existence"], "kwargs": [{"keywords": ["Ulaanbaatar"]}]},
    ),
    "tool_calls": ({}, calls(("weather", {"city": "Oslo", "days": 2})), {"tool_calls": [CALL]}),
    "overlap": ({"metric": "rouge1"}, "all of these words", {"reference": "all of these words"}),
    "language": ({"language": "de"}, "Der Zug nach Hamburg fährt heute leider erst am späten Abend ab.", {}),
}
JUNK = [
    "",
    " ",
    "?",
    "I do not know.",
    "\\boxed{}",
    "<answer></answer>",
    "{}",
    "null",
    "[]",
    "(A) (B) (C) (D)",
    "no " * 400,
]


@pytest.mark.parametrize("name", RIGHT)
def test_the_right_answer_passes_and_nothing_else_does(name: str, values: Values) -> None:
    """A check that passes whatever the answer is none; deepeval and IFBench had some."""
    params, completion, columns = RIGHT[name]
    one = {column: [value] for column, value in columns.items()}
    assert values(name, [completion], params, columns=one) == [1.0]
    repeated = {column: [value] * len(JUNK) for column, value in columns.items()}
    below = values(name, JUNK, params, columns=repeated)
    assert all(value is None or value < 0.5 for value in below), list(zip(JUNK, below, strict=True))


@pytest.mark.parametrize("name", [name for name in RIGHT if name not in {"overlap", "tool_calls", "token_f1"}])
def test_a_right_answer_with_a_character_changed_is_mostly_wrong(name: str, values: Values) -> None:
    """Every character that carries the answer is looked at: of random changes to it, most do not pass."""
    core = {
        "math": "63",
        "exact_match": "Ulaanbaatar",
        "instruction": "Ulaanbaatar",
        "multiple_choice": "C",
        "format": "</think>",
    }
    core |= {"json_schema": '"n": 3', "language": "Der Zug nach Hamburg fährt heute leider erst am späten Abend ab"}
    params, completion, columns = RIGHT[name]
    part, chance = core[name], random.Random(0)
    changed = []
    for _ in range(12):
        place = chance.randrange(len(part))
        other = chance.choice([letter for letter in "017QXz#" if letter != part[place]])
        changed.append(completion.replace(part, part[:place] + other + part[place + 1 :]))
    if name == "language":
        changed = [
            "The train to Hamburg leaves late in the evening today.",
            "Le train pour Hambourg part ce soir tard.",
        ]
    one = {column: [value] * len(changed) for column, value in columns.items()}
    passed = [value == 1.0 for value in values(name, changed, params, columns=one)]
    assert sum(passed) <= len(passed) // 4, [text for text, kept in zip(changed, passed, strict=True) if kept]


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("math", {"answer": None}),
        ("exact_match", {"answer": ""}),
        ("token_f1", {"answer": []}),
        ("multiple_choice", {"answer": None}),
        ("json_schema", {"schema": None}),
        ("tool_calls", {"tool_calls": None}),
        ("overlap", {"reference": ""}),
        ("language", {"language": None}),
    ],
)
def test_a_row_with_nothing_to_check_abstains(name: str, columns: Mapping[str, Any], scores: Scores) -> None:
    """And says so, naming the column; the row beside it is checked."""
    column = next(iter(columns))
    (score,) = scores(name, ["an answer"], columns={column: [columns[column]]})
    assert score.value is None
    assert column in str(score.reason)


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("math", {"answer": "forty two"}),
        ("math", {"answer": {"a": 1}}),
        ("exact_match", {"answer": True}),
        ("multiple_choice", {"answer": "none of these"}),
        ("multiple_choice", {"answer": 40}),
        ("json_schema", {"schema": {"type": "integr"}}),
        ("json_schema", {"schema": "{not json"}),
        ("json_schema", {"schema": {"$ref": "http://127.0.0.1:9/schema.json"}}),
        ("tool_calls", {"tool_calls": [{"arguments": {}}]}),
        ("tool_calls", {"tool_calls": "weather"}),
        ("tool_calls", {"tool_calls": [{"name": "w", "arguments": "[1]"}]}),
        ("language", {"language": "xx"}),
    ],
)
def test_data_that_is_none_fails_its_row(name: str, columns: Mapping[str, Any], scores: Scores) -> None:
    """Neither a wrong answer nor a right one: the row is unscored, for a reason that people can act on."""
    (score,) = scores(name, ['{"a": 1}'], columns={column: [value] for column, value in columns.items()})
    assert score.error is not None
    assert score.value is None


MATHEMATICS = [
    ("The total is $18.", "Janet sells 16 - 3 - 4 = 9.\n#### 18", 1.0),
    ("It costs 18 dollars.", 18, 1.0),
    ("x = 1", "x+1", 0.0),
    ("$1 + x$", "x+1", 1.0),
    ("\\boxed{0.5}", "\\frac{1}{2}", 1.0),
    ("\\boxed{\\{1, 2\\}}", ["$\\{3\\}$", "$\\{2, 1\\}$"], 1.0),
    ("$\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}$", "$\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}$", 1.0),
    ("\\boxed{1,234}", "1234", 1.0),
    ("<think>\\boxed{42}</think> So it is \\boxed{43}.", "42", 0.0),
    ("<think>\\boxed{42}", "42", 0.0),
]


def test_mathematics_is_compared_by_value(values: Values) -> None:
    """In the spellings that data sets have; thinking is not the answer."""
    texts, right, expected = map(list, zip(*MATHEMATICS, strict=True))
    assert values("math", texts, columns={"answer": right}) == expected


def test_published_verdicts_are_those_of_math_verify(values: Values) -> None:
    """Math-Verify's own tests with its default settings. Needs them as a table: set RLAIF_DATA to its folder."""
    root = Path(os.environ.get("RLAIF_DATA", Path(__file__).parents[4] / "shared" / "data"))
    file = root / "math-verify" / "verify_cases.jsonl"
    if not file.is_file():
        pytest.skip("the published cases are not here")
    default = {"match_types": ["latex", "expr"], "precision": 6, "strict": True, "allow_set_relation_comp": False}
    listed = map(json.loads, file.read_text(encoding="utf-8").splitlines())
    cases = [case for case in listed if case["config"] in (default, {})]
    assert len(cases) == 100
    found = values("math", [case["prediction"] for case in cases], columns={"answer": [case["gold"] for case in cases]})
    expected = {case["gold"] + case["prediction"]: float(case["expected"]) for case in cases}
    expected["$1 - \\frac{1}{\\mathrm{e}}$$1 + \\frac{1}{\\mathrm{e}}$"] = (
        0.0  # the library read the 1 of both, and took it for right
    )
    assert found == [expected[case["gold"] + case["prediction"]] for case in cases]


@pytest.mark.parametrize(
    ("text", "answer", "expected"),
    [
        ("$\\frac{1}{2^{98}}$", "\\frac{1}{2^{99}}", 0.0),
        ("$\\frac{1}{2^{99}}$", "\\frac{1}{2^{99}}", 1.0),
        ("$\\frac{1001}{2^{109}}$", "\\frac{1000}{2^{109}}", 0.0),
        ("$\\frac{1}{2006!}$", "\\frac{1}{2004!}", 0.0),
        ("$\\frac{1}{3 \\cdot 2^{2006}}$", "\\frac{2^{2005}+1}{3 \\cdot 2^{2006}}", 0.0),
        ("\\boxed{0.333333}", "\\frac{1}{3}", 1.0),
        ("$1 + \\frac{1}{\\mathrm{e}}$", "1 - \\frac{1}{\\mathrm{e}}", 0.0),
        ("$1 - \\frac{1}{e}$", "1 - \\frac{1}{\\mathrm{e}}", 1.0),
        ("$4\\sqrt(2)$", "4", 0.0),
        ("$4\\sqrt{2}$", "4\\sqrt(2)", 1.0),
        ("The answer is \u22125.", "-5", 1.0),
        ("答案是 \uff11\uff15\u3002", "15", 1.0),
        ("\\boxed{7} no, wait: it is \\boxed{", "7", 0.0),
        ("Put it into \\boxed. It is $7$.", "7", 1.0),
        ("\\boxed{7}", "We count $1, 2, \\ldots, 7$, so... it is $\\boxed{7}$.", 1.0),
    ],
)
def test_what_people_reported_of_verifiers_of_mathematics(
    text: str, answer: str, expected: float, values: Values
) -> None:
    """Numbers that rounding makes equal, formulas read by half, boxes torn off, and the signs of other scripts."""
    assert values("math", [text], columns={"answer": [answer]}) == [expected]


@pytest.mark.parametrize(
    "answer", ["1, 2, \\ldots, n", "$1:2:3:\\dots$", "\\boxed{2, 4, 6, ...}", "1 + 2 + \\cdots + n"]
)
def test_a_right_answer_with_dots_is_not_compared_without_them(answer: str, scores: Scores) -> None:
    """The rest of 1, 2, ..., n is also that of other sequences."""
    (score,) = scores("math", ["$1, 3, 5, \\ldots, 2n-1$"], columns={"answer": [answer]})
    assert score.value is None
    assert "no mathematics" in str(score.error)


def test_only_the_box_counts_where_that_is_asked_for(values: Values) -> None:
    """A number elsewhere is no answer."""
    columns = {"answer": ["42", "42", "42"]}
    texts = ["It is 42.", "\\boxed{42}", "\\boxed{42}, or rather \\boxed{4"]
    assert values("math", texts, {"boxed": True}, columns=columns) == [0.0, 1.0, 0.0]


@pytest.mark.timeout(120)
def test_a_hostile_formula_costs_its_time_and_nothing_else(values: Values) -> None:
    """The row gets 0 within the limit, and those after it are verified."""
    bomb = "$\\boxed{" + "9^{" * 6 + "9" + "}" * 6 + "}$"
    nested = "$" + "\\frac{1}{" * 2000 + "x" + "}" * 2000 + "$"
    texts = [bomb, nested, "\\boxed{7}"]
    assert values("math", texts, {"seconds": 1}, columns={"answer": ["7"] * 3}) == [0.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ("text", "picked"),
    [
        ("B", "B"),
        ("b", "B"),
        ("(B)", "B"),
        ("**B**", "B"),
        ("B) Paris", "B"),
        ("The answer is B.", "B"),
        ("The correct answer is: (B) Paris", "B"),
        ("Answer: B", "B"),
        ("\\boxed{B}", "B"),
        ("<answer>B</answer>", "B"),
        ("Not (A). The answer is (B).", "B"),
        ("Final answer: option B", "B"),
        ("It may be (A) or (B).", None),
        ("A good question.", None),
        ("I think so.", None),
        ("The answer is unclear.", None),
        ("The answer is A or so they say; Answer: B", "B"),
        ("", None),
        ("答案：B", "B"),
        ("所以答案是B。", "B"),
        ("正解は（Ｂ）です。", "B"),
        ("정답: B", "B"),
        ("答案是A或B", None),
    ],
)
def test_which_letter_is_picked(text: str, picked: str | None, values: Values) -> None:
    """As people and models write it; a letter that is a word is none."""
    columns = {"answer": ["A", "B"]}
    found = values("multiple_choice", [text, text], columns=columns)
    assert found == [float(picked == "A"), float(picked == "B")]


def test_choices_of_a_row_make_places_and_texts_right_answers(values: Values) -> None:
    """As ARC, MMLU and others have them: a letter, a place from 0, or the text itself."""
    params = {"choices_column": "choices"}
    columns = {"answer": ["C", 2, "Oslo", "Oslo"], "choices": [["Rome", "Bern", "Oslo"]] * 4}
    assert values("multiple_choice", ["C", "(C)", "The answer is C", "Oslo."], params, columns=columns) == [1.0] * 4
    assert values("multiple_choice", ["A", "Rome", "Lima", ""], params, columns=columns) == [0.0] * 4


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"n": 3}', 1.0),
        ('Here it is:\n```json\n{"n": 3}\n```\n', 1.0),
        ('Here it is: {"n": 3}', 0.0),
        ('```json\n{"n": 3}\n```\n```json\n{"n": "x"}\n```', 0.0),
        ('{"n": 3.5}', 0.0),
        ('{"n": 3, "n": 4}', 0.0),
        ('{"n": NaN}', 0.0),
        ('{"n": 1e999}', 0.0),
        ("[" * 100_000, 0.0),
        ('{"n": 3} trailing', 0.0),
    ],
)
def test_json_is_strict(text: str, expected: float, values: Values) -> None:
    """One value, no doubled name, no NaN; a bomb of brackets is no JSON."""
    schema = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}
    assert values("json_schema", [text], {"json_schema": schema}) == [expected]


def test_the_reason_of_a_schema_names_the_place(scores: Scores) -> None:
    """So that `explain` and a person can follow."""
    schema = {"properties": {"age": {"minimum": 0}}}
    (score,) = scores("json_schema", ['{"age": -1}'], columns={"schema": [json.dumps(schema)]})
    assert score.reason == "$.age: -1 is less than the minimum of 0"


@pytest.mark.parametrize(
    ("made", "params", "expected"),
    [
        ([("weather", {"city": "Oslo", "days": 2})], {}, 1.0),
        ([("weather", {"days": 2.0, "city": "Oslo"})], {}, 1.0),
        ([("weather", {"city": "Oslo", "days": True})], {}, 0.0),
        ([("weather", {"city": "Oslo", "days": 2, "unit": "C"})], {}, 0.0),
        ([("weather", {"city": "Oslo", "days": 2, "unit": "C"})], {"arguments": "contain"}, 1.0),
        ([("weather", {})], {"arguments": "ignore"}, 1.0),
        ([("weather", {"city": "Oslo", "days": 2})] * 2, {}, 0.0),
        ([("weather", {"city": "Oslo", "days": 2})] * 2, {"scoring": "f1"}, 2 / 3),
        ([("forecast", {"city": "Oslo", "days": 2})], {"scoring": "f1"}, 0.0),
        ([], {"scoring": "f1"}, 0.0),
    ],
)
def test_tool_calls_are_matched_by_name_and_arguments(
    made: Any, params: Mapping[str, Any], expected: float, values: Values
) -> None:
    """Each expected call once, and no other."""
    completion = calls(*made) if made else "I call nothing."
    assert values("tool_calls", [completion], params, columns={"tool_calls": [[CALL]]}) == pytest.approx([expected])


def test_arguments_with_a_name_twice_match_nothing(values: Values) -> None:
    """A tool may take the first of them, and a policy could say the wrong and the right one."""
    completion = calls(("weather", {}))
    for arguments, expected in (('"city": "Oslo"', 1.0), ('"city": "Rome", "city": "Oslo"', 0.0)):
        completion[0]["tool_calls"][0]["function"]["arguments"] = f'{{{arguments}, "days": 2}}'
        found = values("tool_calls", [completion], columns={"tool_calls": [[CALL]]})
        assert found == [expected]


def test_the_order_of_calls_counts_where_that_is_asked_for(values: Values) -> None:
    """The longest run in order."""
    wanted = [[{"name": name, "arguments": {}} for name in "abc"]]
    turned = calls(("c", {}), ("a", {}), ("b", {}))
    assert values("tool_calls", [turned], columns={"tool_calls": wanted}) == [1.0]
    assert values("tool_calls", [turned], {"order": True}, columns={"tool_calls": wanted}) == [0.0]
    found = values("tool_calls", [turned], {"order": True, "scoring": "f1"}, columns={"tool_calls": wanted})
    assert found == pytest.approx([2 / 3])


def test_no_call_can_be_what_is_asked_for(values: Values) -> None:
    """An empty list: an answer without calls is right, one with a call is not."""
    columns = {"tool_calls": [[], []]}
    assert values("tool_calls", ["Hello.", calls(("a", {}))], columns=columns) == [1.0, 0.0]


def test_the_language_of_code_and_addresses_is_not_looked_at(values: Values) -> None:
    """They are English in any language."""
    text = (
        "So geht es:\n```python\nwhile the_list_is_not_empty:\n    take_one_element()\n```\nDanach ist die Liste leer."
    )
    assert values("language", [text, "ok", "123"], {"language": "de"}) == [1.0, None, 0.0]


@pytest.mark.timeout(60)
def test_languages_are_named_as_data_sets_name_them(values: Values) -> None:
    """In capitals, and with a region, of which nothing can be told."""
    text = "今天天气很好，我们去公园散步，看看花和树，听听鸟叫声，真是愉快。"
    columns = {"language": ["zh-CN", "zh_Hans", "ZH", "en-US"]}
    assert values("language", [text] * 4, columns=columns) == [1.0, 1.0, 1.0, 0.0]


def test_no_text_takes_the_checks_long(values: Values) -> None:
    """Marks that are opened and never closed, by the ten thousand."""
    texts = ["<answer>" * 20_000, "\\boxed{" * 20_000, "####" * 40_000, "(A" * 50_000, "{" * 100_000]
    for name, params in (("exact_match", {"place": place}) for place in ("tag", "boxed", "hashes", "last_line")):
        assert values(name, texts, params, columns={"answer": ["x"] * 5}) == [0.0] * 5
    for name, params in (("multiple_choice", {}), ("json_schema", {"json_schema": {"type": "object"}})):
        columns = {"answer": ["B"] * 5}
        assert values(name, texts, params, columns=columns) == [0.0] * 5
    assert values("format", texts, {"form": "think_answer"}) == [0.0] * 5


def test_a_pattern_that_a_text_makes_slow_fails_the_row_and_no_other(scores: Scores) -> None:
    """A row of a candidate's making ends no run."""
    evil = "a" * 60 + "!"
    slow, right = scores("format", [evil, "aaa"], {"pattern": "(a|aa|a+)+$"})
    assert right.value == 1.0
    assert slow.value == 0.0 or "more than" in str(slow.error)


_DOUBLING = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(40)}


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"x": {"pattern": "^(a|aa|a+)+$"}}},
        {"patternProperties": {"^(a|aa|a+)+$": {"type": "string"}}},
        {"patternProperties": {"^(a|aa|a+)+$": True}, "additionalProperties": False},
        {"$defs": {**_DOUBLING, "d40": {"type": "object"}}, "$ref": "#/$defs/d0"},
    ],
)
def test_a_schema_that_takes_for_ever_costs_its_row_a_second(schema: Any, scores: Scores) -> None:
    """Whether its pattern meets a text made for it or its references double: no answer holds up a run, or scores 0 for it."""
    evil = "a" * 60 + "!"
    slow, right = scores("json_schema", [json.dumps({"x": evil, evil: ""}), "{}"], columns={"schema": [schema, {}]})
    assert right.value == 1.0
    assert slow.value is not None or "more than 1 s" in str(slow.error)


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"patternProperties": {"^n": {"type": "integer"}}}, [1.0, 0.0, 1.0]),
        ({"patternProperties": {"^n": {}}, "additionalProperties": False}, [1.0, 1.0, 0.0]),
        ({"patternProperties": {"^n": {}}, "additionalProperties": {"type": "string"}}, [1.0, 1.0, 0.0]),
        ({"properties": {"no": {"pattern": "^[0-9]+$"}}}, [1.0, 0.0, 1.0]),
    ],
)
def test_patterns_of_a_schema_are_kept_to(schema: Any, expected: list[float], values: Values) -> None:
    """In values and in names, whichever keyword has them."""
    assert values("json_schema", ['{"no": 3}', '{"no": "é"}', '{"yes": 3}'], {"json_schema": schema}) == expected


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("format", {}, "either 'form' or 'pattern'"),
        ("format", {"form": "think", "pattern": "x"}, "either 'form' or 'pattern'"),
        ("format", {"pattern": "("}, "no regular expression"),
        ("format", {"pattern": ".*"}, "matches an empty text"),
        ("format", {"form": "think_code"}, "needs 'language'"),
        ("overlong", {"max_tokens": 10, "buffer": 20}, "must not exceed"),
        ("length", {"shape": "cosine"}, "needs 'max_length'"),
        ("length", {"shape": "cosine", "max_length": 9, "target": 3}, "target: of another shape"),
        ("length", {"shape": "target", "target": 3, "width": 2, "longest": 1}, "longest: of another shape"),
        ("length", {"shape": "target", "target": 3}, "needs 'width', and 'target' or 'column'"),
        ("length", {"shape": "target", "target": 3, "column": "c", "width": 2}, "'target' or 'column'"),
        ("length", {"shape": "group", "max_length": 9}, "max_length: of another shape"),
        ("length", {"shape": "cosine", "max_length": 9, "shortest": float("nan")}, "finite"),
    ],
)
def test_parameters_that_check_nothing_are_refused(name: str, params: Mapping[str, Any], message: str) -> None:
    """Before anything is scored."""
    with pytest.raises(ValidationError, match=message):
        SPECS[name].build(params)


@pytest.mark.parametrize("wanted", ["long", True, -1, float("nan"), [3]])
def test_a_length_that_is_none_fails_its_row(wanted: Any, scores: Scores) -> None:
    """The column is named; the other rows are scored."""
    params = {"shape": "target", "column": "wanted", "width": 10}
    broken, right = scores("length", ["x", "x"], params, columns={"wanted": [wanted, 1]}, completion_ids=[[1], [1]])
    assert "the column 'wanted' has" in str(broken.error)
    assert right.value == 0.0


def test_right_answers_are_compared_with_each_other_only(scores: Scores) -> None:
    """Under a condition the group is of those that meet it; one that has no other is not compared."""
    shorter = {
        "use": "length",
        "params": {"shape": "group"},
        "when": {"reward": "exact_match", "min": 1},
        "otherwise": 0,
    }
    ids = [[1] * length for length in (10, 1, 30, 20, 5, 7)]
    answers = ["yes", "no", "yes", "yes", "yes", "no"]
    batch = RewardBatch(
        ["?"] * 6, answers, completion_ids=ids, columns={"answer": ["yes"] * 6}, group=[0, 0, 0, 0, 1, 1]
    )
    config = {"rewards": {"exact_match": {"weight": 1}, "shorter": shorter}}
    with Composer.from_config(config) as composer:
        column = composer.compose(batch).rewards["shorter"]
    assert column.normalized[:4].tolist() == [0.5, 0.0, -0.5, 0.0]
    assert [column.status(row) for row in range(6)] == [
        "scored",
        "not asked",
        "scored",
        "scored",
        "abstained",
        "not asked",
    ]
    (lone,) = scores("length", ["x"], {"shape": "group"}, group=[None], completion_ids=[[1]])
    assert lone.value is None


def test_right_and_wrong_answers_have_a_length_rule_each() -> None:
    """open-r1's cosine reward, composed: two conditions that shut each other out, over one check."""
    cosine = {"use": "length", "otherwise": 0}
    rewards = {
        "exact_match": {"weight": 0},
        "right": {
            **cosine,
            "params": {"shape": "cosine", "max_length": 100},
            "when": {"reward": "exact_match", "min": 1},
        },
        "wrong": {
            **cosine,
            "params": {"shape": "cosine", "max_length": 100, "shortest": -1, "longest": -0.5},
            "when": {"reward": "exact_match", "max": 0},
        },
    }
    ids = [[1] * 25, [1] * 75, [1] * 25, [1] * 75, [1]]
    batch = RewardBatch(
        ["?"] * 5, ["yes", "yes", "no", "no", "yes"], completion_ids=ids, columns={"answer": [*["yes"] * 4, None]}
    )
    with Composer.from_config({"rewards": rewards}) as composer:
        composition = composer.compose(batch)
    assert composition.to_list() == pytest.approx([0.92678, 0.57322, -0.92678, -0.57322, 0.0], abs=1e-5)
    assert composition.rewards["right"].reason(4) == "needs exact_match >= 1, and exact_match abstained"


def test_a_composition_of_checks_explains_itself() -> None:
    """The rewards are found by name, and the reasons come through."""
    config = {"rewards": {"math": {"weight": 1.0}, "format": {"weight": 0.2, "params": {"form": "think"}}}}
    with Composer.from_config(config) as composer:
        batch = RewardBatch(["2+2?"], ["<think>4</think>\\boxed{4}"], columns={"answer": ["4"]})
        composition = composer.compose(batch)
    assert composition.to_list() == pytest.approx([1.2])
    assert "4 is" in str(composition.explain(0))
