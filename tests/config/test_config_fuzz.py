"""Whatever stands in a composition's file: an error that names file and line, or a composer, and nothing else."""

from __future__ import annotations

import json
import random
import string
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlaif_sdk import Composer, ConfigError, PluginError
from rlaif_sdk.config import CompositionConfig

QUIET = settings(
    deadline=None, max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
WHOLE = """\
rewards:
  brevity:
    use: ./r.py:brevity
    params: {per_letter: 0.5}
    weight: 2.0
    normalize: {kind: zscore}
    timeout: 5
    setup_timeout: 60
    on_failure: {policy: default, value: -1.0}
    fallback: second
  fixed: {use: "./r.py:fixed", weight: 1, columns: {label: answer}, execution: {chunk: 4, concurrency: 2}}
fallbacks:
  second: {use: "./r.py:fixed"}
groups:
  both: {members: [brevity, fixed], aggregate: minimum}
aggregate: weighted_sum
gates:
  - {reward: brevity, min: -100, floor: -5}
constraints:
  - {reward: fixed, max: 0.5, step_size: 1e-2}
gate_order: lexicographic
"""
REWARDS = """
def brevity(completions, *, per_letter: float = 1.0):
    return [-per_letter * len(text) for text in completions]

def fixed(completions):
    return [0.0] * len(completions)
"""


def check(file: Path) -> None:
    """Compose of a file, or be refused with its name and line."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        refusal: Exception | None = None
        try:
            Composer.from_config(file).close()
        except (ConfigError, PluginError) as error:
            refusal = error
    if isinstance(refusal, ConfigError):
        assert refusal.file == str(file), repr(refusal)
        assert refusal.line is not None or refusal.message.startswith(("cannot be read", "is no text")), repr(refusal)
    elif refusal is not None:
        assert f"{file}:" in str(refusal), repr(refusal)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "r.py").write_text(REWARDS)
    return tmp_path


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=10),
    st.sampled_from(
        ["./r.py:brevity", "./r.py:gone", "./gone.py:x", "zscore", "brevity", "abstain", "auto", "1e400", ":"]
    ),
)


def names(model: Any = CompositionConfig) -> list[str]:
    """The keys of a composition, at any depth."""
    schema = json.dumps(model.model_json_schema())
    found: set[str] = set()

    def walk(part: Any) -> None:
        if isinstance(part, dict):
            found.update(part.get("properties", {}) if isinstance(part.get("properties"), dict) else {})
            for inner in part.values():
                walk(inner)
        elif isinstance(part, list):
            for inner in part:
                walk(inner)

    walk(json.loads(schema))
    return sorted(found - {"ledger"})  # which would be made wherever a text leads


keys = st.sampled_from([*names(), "brevity", "fixed", "second"]) | st.text(max_size=6)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4), max_leaves=12
)


@QUIET
@given(st.dictionaries(keys, values, max_size=5))
def test_any_mapping_is_composed_or_refused_in_its_place(folder: Path, data: Any) -> None:
    """In YAML and in JSON."""
    (folder / "c.json").write_text(json.dumps(data))
    check(folder / "c.json")
    (folder / "c.yaml").write_text(yaml.safe_dump(data, allow_unicode=True), encoding="utf-8", errors="replace")
    check(folder / "c.yaml")


def places(data: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [at, *(place for key, value in inner for place in places(value, (*at, key)))]


@QUIET
@given(st.data())
def test_a_whole_config_with_some_values_changed_is_composed_or_refused_in_its_place(folder: Path, data: Any) -> None:
    """Values of the wrong type, odd numbers, keys too many or too few."""
    config = yaml.safe_load(WHOLE)
    for _ in range(data.draw(st.integers(1, 3))):
        *way, last = data.draw(st.sampled_from(places(config)[1:]))
        holder = config
        for key in way:
            holder = holder[key]
        change = data.draw(st.sampled_from(["value", "delete", "add"]))
        if change == "delete":
            del holder[last]
        elif change == "value" or not isinstance(holder, dict):
            holder[last] = data.draw(values)
        else:
            holder[data.draw(keys)] = data.draw(values)
        if len(places(config)) == 1:
            break
    (folder / "c.yaml").write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8", errors="replace")
    check(folder / "c.yaml")


@QUIET
@given(st.integers(0, 2**32), st.integers(1, 12))
def test_a_whole_config_with_some_characters_changed_is_composed_or_refused_in_its_place(
    folder: Path, seed: int, changes: int
) -> None:
    """Of the text itself: indentation, colons, quotes, anchors, tags, control characters."""
    draw = random.Random(seed)
    text = list(WHOLE)
    alphabet = string.printable + "&*!|>%@`{}[]:#'\"\x00\x07\x85\u2028\ufeff😀"
    for _ in range(changes):
        place = draw.randrange(len(text))
        text[place : place + draw.randrange(3)] = draw.choices(alphabet, k=draw.randrange(3))
    (folder / "c.yaml").write_text("".join(text), encoding="utf-8")
    check(folder / "c.yaml")


@QUIET
@given(st.binary(max_size=200))
def test_any_bytes_are_composed_or_refused_in_their_place(folder: Path, data: bytes) -> None:
    """Both forms."""
    for name in ("c.yaml", "c.json"):
        (folder / name).write_bytes(data)
        check(folder / name)


def test_the_whole_config_is_composed(folder: Path) -> None:
    """So that what is changed is right before."""
    (folder / "c.yaml").write_text(WHOLE)
    check(folder / "c.yaml")
    Composer.from_config(folder / "c.yaml").close()
