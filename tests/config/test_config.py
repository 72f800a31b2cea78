from __future__ import annotations

import jsonschema
import pytest

from rlaif_sdk import ConfigError
from rlaif_sdk.config import CompositionConfig, RewardConfig
from rlaif_sdk.config.documents import parse_document, validate

GOOD = """
rewards:
  toxicity:
    weight: -1e-1
    params: {model: x}
    normalize: {kind: zscore, clip: 5.0}
    on_failure: {policy: default, value: 0.5}
    timeout: null
  brevity:
    use: ./rewards.py:brevity
    normalize: rank
    on_failure: drop
    columns: {reference: answer}
gates:
  - {reward: toxicity, max: 0.5, floor: -1}
aggregate: weighted_sum
"""


def refusal(text: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        validate(CompositionConfig, parse_document(text, file="c.yaml"))
    return caught.value


def test_a_full_config_is_read() -> None:
    """Short forms stand for the long ones."""
    config = validate(CompositionConfig, parse_document(GOOD))
    assert config.rewards["toxicity"].weight == -0.1
    assert config.rewards["toxicity"].normalize.params == {"clip": 5.0}
    assert config.rewards["brevity"].normalize.kind == "rank"
    assert config.rewards["brevity"].on_failure.policy == "drop"


@pytest.mark.parametrize("weight", [".nan", "1e999", "-.inf", "true", "yes", "'1.0'", "heavy", "[1]", "9" * 400])
def test_a_weight_that_is_no_finite_number_is_refused_with_its_line(weight: str) -> None:
    """`true` is 1 and `1e999` is infinite to a careless reader."""
    error = refusal(f"rewards:\n  a:\n    weight: {weight}\n")
    assert (error.file, error.line, error.key) == ("c.yaml", 3, "rewards.a.weight")


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("rewards: {}", 1, "needs at least 1 entry"),
        ("rewards:\n  a:\n    weigth: 1", 3, r"unknown key \(did you mean 'weight'\?\)"),
        ("rewards:\n  a:\n    weight: 0\n", 1, "every weight is 0"),
        ("rewards:\n  a: {}\n  1: {}", 3, "valid string, found 1"),
        ("rewards:\n  a:\n    use: false", 3, "quote it"),
        ("rewards:\n  a:\n    timeout: 0", 3, "greater than 0"),
        ("rewards:\n  a:\n    timeout: true", 3, "valid number"),
        ("rewards:\n  a:\n    on_failure: zero", 3, "'raise', 'abstain', 'default' or 'drop'"),
        ("rewards:\n  a:\n    on_failure: default", 3, "'value' goes with policy 'default'"),
        ("rewards:\n  a:\n    on_failure: {policy: abstain, value: 0}", 3, "'value' goes with policy 'default'"),
        ("rewards:\n  a:\n    on_failure:\n      policy: default\n      value: .inf", 5, "finite"),
        ("rewards:\n  a:\n    columns:\n      prompts: x", 4, "reserved name"),
        (
            "rewards:\n  a: {}\ngates:\n  - reward: b\n    min: 0\n    floor: 0",
            4,
            "there is no reward .b.; there are a",
        ),
        ("rewards:\n  a: {}\ngates:\n  - reward: a\n    floor: 0", 4, "needs 'min', 'max' or both"),
        ("rewards:\n  a: {}\ngates:\n  - {reward: a, floor: 0, min: 2, max: 1}", 4, "nothing would pass"),
        ("rewards:\n  a: {}\ngates:\n  - {reward: a, min: 0}", 4, "floor: is missing"),
        (
            "rewards:\n  a:\n    execution: {limits: {tokens_per_minute: 200_000}}",
            3,
            r"valid integer, found '200_000' \(write 200000: YAML 1.2 has no underscores in numbers\)",
        ),
        ("rewards:\n  a: {timeout: 1_000}", 2, "write 1000"),
        ("rewards:\n  a: 0.4", 2, r"a: must be a mapping, found 0.4 \(its keys: .*on_failure.*weight"),
        (
            "rewards:\n  a:\n    execution:",
            3,
            r"execution: must be a mapping, found nothing \(write \{\} for the defaults",
        ),
        ("rewards: [a]", 1, r"rewards: must be a mapping, found \['a'\]"),
        ("rewards:\n  a: {params: 3}", 2, "params: must be a mapping, found 3"),
        ("rewards:\n  a: {}\nagregate: x", 3, "did you mean 'aggregate'"),
        ("rewards:\n  a: {}\nalarm: {watch: [a]}", 3, "watch.0: must be a mapping, found 'a'"),
        ("rewards:\n  a: {}\nalarm: {watch: [{witness: a, max: 0.1}]}", 3, "does not go with the others"),
        ("rewards:\n  a: {when: [{column: c, in_: [x]}], otherwise: 0}", 2, "unknown key .did you mean 'in'"),
    ],
)
def test_what_cannot_work_is_refused_at_load_with_its_line(text: str, line: int, problem: str) -> None:
    """Nothing is left to fail after hours of training."""
    with pytest.raises(ConfigError, match=problem) as caught:
        validate(CompositionConfig, parse_document(text, file="c.yaml"))
    assert caught.value.line == line


@pytest.fixture(scope="module")
def schema() -> dict:
    return CompositionConfig.model_json_schema()


def test_the_schema_for_editors_is_valid_and_documents_every_field(schema: dict) -> None:
    """Editors complete keys and show what they mean."""
    jsonschema.Draft202012Validator.check_schema(schema)
    models = [schema, *(part for part in schema["$defs"].values() if part.get("type") == "object")]
    undocumented = [
        (model["title"], name)
        for model in models
        for name, field in model.get("properties", {}).items()
        if "description" not in field
    ]
    assert not undocumented


def test_the_schema_accepts_what_the_loader_accepts(schema: dict) -> None:
    """An editor shows no error in a good file."""
    jsonschema.validate(parse_document(GOOD).data, schema)


@pytest.mark.parametrize(
    "text",
    [
        "rewards: {}",
        "rewards: {a: {weigth: 1}}",
        "rewards: {a: {weight: heavy}}",
        "rewards: {a: {weight: true}}",
        "rewards: {a: {on_failure: {policy: zero}}}",
        "rewards: {a: {timeout: 0}}",
        "rewards: {a: {}}\ngates: [{reward: a, min: 0}]",
        "agregate: weighted_sum",
    ],
)
def test_the_schema_rejects_what_the_loader_rejects(schema: dict, text: str) -> None:
    """An editor marks the mistake before anything runs."""
    refusal(text)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(parse_document(text).data, schema)


@pytest.mark.parametrize("text", ["rewards:\n  a:", "rewards:\n  a: null", "rewards: {a: }", "rewards:\n  a: ~"])
def test_the_name_of_a_reward_alone_has_every_default(text):
    """As people write it first."""
    assert validate(CompositionConfig, parse_document(text)).rewards == {"a": RewardConfig()}
