from __future__ import annotations

import json
import math
import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from rlaif_sdk import ConfigError
from rlaif_sdk.config.documents import Document, load_document, parse_document, validate


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    target: int
    name: str = ""
    api_key: str = ""


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")
    inner: Inner
    many: dict[str, Inner] = {}
    sizes: list[int | str] = []


def refusal(text: str, *, is_json: bool = False) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        validate(Outer, parse_document(text, file="c.yaml", is_json=is_json))
    return caught.value


def test_every_key_and_item_knows_its_line() -> None:
    """Errors found long after parsing can still point at their place."""
    document = parse_document("a:\n  b: 1\n  c:\n    - x\n    - {d: 2}\n")
    assert [document.line(where) for where in [("a",), ("a", "b"), ("a", "c", 1), ("a", "c", 1, "d")]] == [1, 2, 5, 5]
    assert document.line(("a", "c", "nowhere")) == 3
    assert document.at("a", "c").line((1,)) == 5


def test_json_knows_its_lines_too_and_may_be_indented_with_tabs() -> None:
    """Both formats are read with the same care."""
    document = parse_document('{\n\t"a": {\n\t\t"b": [1,\n\t\t2]\n\t}\n}', is_json=True)
    assert document.data == {"a": {"b": [1, 2]}}
    assert document.line(("a", "b", 1)) == 4


@pytest.mark.parametrize(
    ("is_json", "text"), [(False, "a: 1\nb:\n  x: 1\n  x: 2\n"), (True, '{"b":\n{"x": 1,\n "y": 1,\n "x": 2}}')]
)
def test_a_key_that_stands_twice_is_refused_with_both_lines(is_json: bool, text: str) -> None:
    """Parsers keep the last one without a word; half of a config would be lost."""
    error = refusal(text, is_json=is_json)
    assert error.line == 4
    assert "the key 'x' stands twice, first on line" in str(error)


@pytest.mark.parametrize("key", ["true", "False", "TRUE"])
def test_a_key_that_yaml_reads_as_a_truth_value_is_refused(key: str) -> None:
    """It would call the reward False."""
    error = refusal(f"many:\n  {key}: {{target: 1}}\n")
    assert (error.line, error.hint) == (2, "quote it")


def test_a_value_that_yaml_reads_as_a_truth_value_is_explained() -> None:
    """Where text is wanted."""
    error = refusal("inner:\n  target: 1\n  name: false\n")
    assert error.line == 3
    assert "YAML reads true and false as truth values: quote it" in str(error)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("False", False),
        ("TRUE", True),
        *(
            (word, word)
            for word in ("no", "Yes", "on", "OFF", "y", "n", "tRue", "2026-11-30", "=", "2001-01-01 10:00:00")
        ),
        ("null", None),
        ("~", None),
        ("", None),
    ],
)
def test_truth_values_and_text_are_those_of_yaml_1_2(text: str, value: object) -> None:
    """YAML 1.1 reads `no` as false (the Norway problem), a date as a date, and stumbles over `=`."""
    read = parse_document(f"x: {text}").data["x"]
    assert (read, type(read)) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "number"), [("1e-5", 1e-5), ("1E5", 1e5), ("-2e+3", -2e3), (".5e1", 5.0), ("3.", 3.0), ("12", 12)]
)
def test_numbers_with_an_exponent_are_numbers(text: str, number: float) -> None:
    """YAML 1.1 reads 1e-5 as text, so that learning rates fail or, worse, are compared as strings."""
    assert parse_document(f"x: {text}").data["x"] == number
    assert parse_document(f"x: '{text}'").data["x"] == text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1:30", "1:30"),
        ("190:20:30", "190:20:30"),
        ("1_000", "1_000"),
        ("0b11", "0b11"),
        ("010", 10),
        ("-010", -10),
        ("0o10", 8),
        ("0x1F", 31),
        ("+3", 3),
        (".inf", math.inf),
        ("-.INF", -math.inf),
        ("1.", 1.0),
        ("0.10", 0.1),
    ],
)
def test_numbers_are_those_of_yaml_1_2(text: str, value: object) -> None:
    """YAML 1.1 reads a weight of 1:30 as 90 and one of 010 as 8."""
    read = parse_document(f"x: {text}").data["x"]
    assert (read, type(read)) == (value, type(value))


def test_anchors_and_merge_keys_work_and_keep_their_lines() -> None:
    """A shared block is written once; what overrides it has its own line."""
    document = parse_document("base: &base\n  a: 1\n  b: 2\nuse:\n  <<: *base\n  b: 3\nalias: *base\n")
    assert document.data["use"] == {"a": 1, "b": 3}
    assert document.data["alias"] == {"a": 1, "b": 2}
    assert document.line(("use", "b")) == 6
    assert document.line(("use", "a")) == 4
    assert document.line(("alias",)) == 7


def test_aliases_that_expand_to_millions_of_values_are_refused_at_once() -> None:
    """Nine lines of nested aliases are a billion values."""
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]" for old, new in zip("abcdefgh", "bcdefghi", strict=True)]
    since = time.monotonic()
    assert "holds more than 100,000 values" in str(refusal("\n".join(lines)))
    assert time.monotonic() - since < 10


@pytest.mark.parametrize(
    "text",
    [
        "a: [" + "x, " * 200_000 + "]",
        "\n".join(f"k{number}: 1" for number in range(60_000)),
        "- {a: 1}\n" * 50_000,
        "[" * 90 + "x, " * 200_000,
    ],
)
def test_more_values_than_a_config_can_need_are_refused_before_they_are_composed(text: str) -> None:
    """However they are written."""
    since = time.process_time()
    error = refusal(text)
    assert "holds more than 100,000 values" in str(error)
    assert error.line
    assert time.process_time() - since < 60


@pytest.mark.parametrize(
    ("is_json", "text"), [(False, "[" * 3000), (True, "[" * 200_000 + "]" * 200_000), (False, "a: &a [*a]")]
)
def test_bottomless_nesting_is_refused(is_json: bool, text: str) -> None:
    """The parser's recursion limit is no crash of the host."""
    assert "nested too deeply" in str(refusal(text, is_json=is_json))


@pytest.mark.parametrize(
    ("text", "is_json", "line", "problem"),
    [
        ("a: b: c", False, 1, "mapping values are not allowed"),
        ("a:\n\t- b", False, 2, "cannot start any token"),
        ("a: 1\nb: \x07", False, 2, r"the character '\\x07'"),
        ("a: 1\n---\nb: 2", False, 2, "another document"),
        ("a: !!python/object/apply:os.system [ls]", False, 1, "the tag !!python/object/apply:os.system is not read"),
        ("a: 1\nb: !!binary aGk=", False, 2, "the tag !!binary is not read"),
        ("a:\n  b: !!set {x}", False, 2, "the tag !!set is not read"),
        ("a: !mine 1", False, 1, "the tag !mine is not read"),
        ("a: 1\nb: !!int x", False, 2, "'x' is no int"),
        ("a: !!float ''", False, 1, "'' is no float"),
        ("a: !!bool maybe", False, 1, "'maybe' is no bool"),
        ("a: " + "1" * 5000, False, 1, "is no int"),
        ('{"a": ' + "1" * 5000 + "}", True, 1, "no valid JSON: Exceeds the limit"),
        ("? [a]\n: 1", False, 1, "a key must be plain text"),
        ('{"a": 1,\n}', True, 2, "no valid JSON"),
        ("a: 1", True, 1, "no valid JSON"),
        ("", True, 1, "no valid JSON"),
        ("# nothing\n", False, 1, "is empty"),
        ('a: 1\n"b\\ud83d": 2', False, 2, r"half a character \(a lone surrogate\) in the key 'b"),
        ('a:\n  "\\ude00\\ud83d": 1', False, 2, "half a character"),
        ('a: |\n  x\nb:\n  - {"c\\ud83d\\ud83d\\ude00": 1}', False, 4, "half a character"),
        ('{"a": 1,\n"b\\udfff": 2}', True, 2, "half a character"),
    ],
)
def test_malformed_text_is_refused_with_its_line(text: str, is_json: bool, line: int | None, problem: str) -> None:
    """Nothing but a ConfigError comes out, and code in YAML is never run."""
    with pytest.raises(ConfigError, match=problem) as caught:
        parse_document(text, file="c.yaml", is_json=is_json)
    assert (caught.value.file, caught.value.line) == ("c.yaml", line)


def test_a_file_that_is_missing_or_no_text_is_refused(tmp_path) -> None:
    """The path is in the message."""
    with pytest.raises(ConfigError, match=r"gone.yaml: there is no such file"):
        load_document(tmp_path / "gone.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"binary.yaml: is no text"):
        load_document(tmp_path / "binary.yaml")


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("/dev/zero", "is a device, where a config is wanted"),
        (".", "is a folder"),
        ("pipe", "is a pipe"),
        ("long.yaml", "has 4194305 bytes"),
        ("a\0b.yaml", "embedded null"),
    ],
)
def test_what_is_no_config_file_is_refused_at_once(tmp_path, name: str, problem: str) -> None:
    """Reading it would wait or go on for ever."""
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "long.yaml").open("wb") as file:
        file.truncate(4 * 2**20 + 1)
    with pytest.raises(ConfigError, match=problem):
        load_document(tmp_path / name)


def test_a_byte_order_mark_is_no_part_of_a_config(tmp_path) -> None:
    """Editors on Windows write one, into JSON too."""
    for name, text in (("c.yaml", "a: 1"), ("c.json", '{"a": 1}')):
        (tmp_path / name).write_text(text, encoding="utf-8-sig")
        assert load_document(tmp_path / name).data == {"a": 1}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(json_values, st.sampled_from([None, 2, "\t"]), st.booleans())
def test_json_is_read_as_json(value: object, indent: int | str | None, ascii_only: bool) -> None:
    """Whatever the json module writes comes back the same, escapes and all."""
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    assert parse_document(text, is_json=True).data == value


@pytest.mark.parametrize(
    "key", ['"a"', '"a" ', '"a"\n', '"a"\n\n \t', f'"{"a" * 1100}"', '"' + r"\u00e9" * 300 + '"\n']
)
def test_a_key_of_json_has_any_length_and_its_colon_any_line(key: str) -> None:
    """Which YAML's have not; the lines are those of the keys."""
    text = "{\n" + key + ":1,\n" + '"b"\n:[{"c"\n:2}]}'
    document = parse_document(text, file="c", is_json=True)
    assert document.data == json.loads(text)
    first, lines = next(iter(document.data)), key.count("\n")
    assert [document.place(each) for each in ((first,), ("b",), ("b", 0, "c"))] == [
        "c:2",
        f"c:{3 + lines}",
        f"c:{4 + lines}",
    ]


@pytest.mark.parametrize("one", ["\x7f", "\x85", "\u2028", "\ufffe", "?"])
@pytest.mark.parametrize("other", ["\x80", "\u2029", "\uffff"])
def test_keys_of_characters_that_yaml_does_not_take_are_told_apart(one: str, other: str) -> None:
    """Each is a key of its own, and one that stands twice is named as it is."""
    text = json.dumps({one: 1, other: 2}, ensure_ascii=False, indent=1)
    assert parse_document(text, is_json=True).data == {one: 1, other: 2}
    with pytest.raises(ConfigError, match=r"line:3: the key .* stands twice, first on line 2"):
        parse_document(text.replace(other, one), is_json=True)


@pytest.mark.parametrize("is_json", [False, True])
def test_two_escapes_of_one_character_are_one(is_json: bool) -> None:
    """As JSON escapes what is beyond 16 bits, in keys and values, which have their lines."""
    text = '{"a\\ud83d\\ude00": ["\\ud835\\udd38b"],\n "\\ud83d\\ude01": 1}'
    document = parse_document(text, file="c", is_json=is_json)
    assert document.data == {"a\U0001f600": ["\U0001d538b"], "\U0001f601": 1}
    assert document.place(("\U0001f601",)) == "c:2"
    cut = parse_document('{"a": "\\ud83d \\ud83d\\ude00"}', is_json=is_json)
    assert cut.data == {"a": "\ud83d \U0001f600"}  # a value may be text to attack with


def test_an_unknown_key_is_refused_with_the_nearest_known_one() -> None:
    """A misspelt option is never ignored."""
    assert str(refusal("inner: {target: 1}\nmany:\n  a:\n    taget: 1\n    target: 1\n")) == (
        "c.yaml:4: many.a.taget: unknown key (did you mean 'target'?)"
    )
    assert "known keys: api_key, name, target" in str(refusal("inner: {target: 1, zzz: 1}"))


def test_a_missing_key_is_reported_where_it_belongs() -> None:
    """The line is that of the mapping that lacks it."""
    assert str(refusal("many: {}\ninner:\n  name: x\n")) == "c.yaml:2: inner.target: is missing"


def test_all_problems_are_listed_each_with_its_own_line_and_hint() -> None:
    """One run of the checker finds everything."""
    lines = str(refusal("inner:\n  target: x\n  nme: y\nsizes:\n  - 1\n  - [2]\n")).splitlines()
    assert lines[0].startswith("c.yaml:2: inner.target: input should be a valid integer")
    assert lines[1] == "  c.yaml:3: inner.nme: unknown key (did you mean 'name'?)"
    assert all(line.startswith("  c.yaml:6: sizes.1: ") for line in lines[2:])


def test_parameters_checked_apart_keep_the_place_where_they_stand() -> None:
    """A plugin's parameters are validated later, by its own model, and still point into the file."""
    document = parse_document("rewards:\n  a:\n    params:\n      target: x\n  b: {}\n", file="c.yaml")
    with pytest.raises(ConfigError, match=r"^c.yaml:4: rewards.a.params.target: "):
        validate(Inner, Document({"target": "x"}, document.file, document.lines), at=("rewards", "a", "params"))
    with pytest.raises(ConfigError, match=r"^c.yaml:5: rewards.b.params.target: is missing"):
        validate(Inner, Document({}, document.file, document.lines), at=("rewards", "b", "params"))


def test_a_refused_secret_is_not_printed() -> None:
    """Neither in the message nor in the chained traceback."""
    error = refusal("inner:\n  target: 1\n  api_key: [sk-12345]\n")
    assert error.key == "inner.api_key"
    assert "sk-12345" not in str(error)
    assert error.__suppress_context__


def test_a_missing_file_is_told_with_its_neighbours(tmp_path) -> None:
    """The hint has the name that was likely meant, the files that are there, or the folder that is missing too."""
    (tmp_path / "run.yaml").write_text("a: 1\n")
    with pytest.raises(ConfigError, match=r"rum\.yaml: there is no such file \(did you mean 'run\.yaml'\?\)"):
        load_document(tmp_path / "rum.yaml")
    with pytest.raises(ConfigError, match=r"no such file \(in .* there is run\.yaml\)"):
        load_document(tmp_path / "something-else")
    with pytest.raises(ConfigError, match=r"there is no folder .*gone either"):
        load_document(tmp_path / "gone" / "run.yaml")
