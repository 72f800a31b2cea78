"""Changes to a config from the command line."""

import pytest

from rlaif_sdk import ConfigError
from rlaif_sdk.config.documents import Document
from rlaif_sdk.config.overrides import with_overrides

DATA = {"ppo": {"learning_rate": 1.0}, "gates": [{"min": 0.1}, {"min": 0.2}], "seed": 1}


@pytest.mark.parametrize(
    ("assignment", "path", "value"),
    [
        ("seed=2", ("seed",), 2),
        ("ppo.learning_rate=1e-6", ("ppo", "learning_rate"), 1e-6),
        ("ppo.max_steps=5", ("ppo", "max_steps"), 5),
        ("model.lora.r=8", ("model", "lora", "r"), 8),
        ("gates.1.min=0.5", ("gates", 1, "min"), 0.5),
        ("output=a=b", ("output",), "a=b"),
        ("output=", ("output",), None),
        ("data.train=[a.jsonl, b.jsonl]", ("data", "train"), ["a.jsonl", "b.jsonl"]),
    ],
)
def test_an_assignment_sets_one_value_and_leaves_the_original(assignment, path, value):
    """The value is read as YAML and stands where the dotted key says; the document given is unchanged."""
    original = Document(DATA)
    changed = with_overrides(original, [assignment]).data
    for part in path:
        changed = changed[part]
    assert changed == value
    assert DATA == {"ppo": {"learning_rate": 1.0}, "gates": [{"min": 0.1}, {"min": 0.2}], "seed": 1}


@pytest.mark.parametrize("location", [("ppo", "learning_rate"), ("gates", 1), ("gates", 1, "min")])
def test_an_error_of_a_value_that_was_set_does_not_blame_the_file(location):
    """It points at the command line, in a part of the document too; what was not set keeps file and line."""
    lines = {(): 1, ("ppo",): 2, ("ppo", "learning_rate"): 3, ("gates",): 4, ("gates", 0): 5, ("gates", 1): 6}
    assignments = ["ppo.learning_rate=fast", "gates.1={min: x}", "judge.params.model=x"]
    document = with_overrides(Document(DATA, "run.yaml", lines), assignments)
    key = ".".join(map(str, location))
    assert str(document.error("is refused", location)) == f"--set: {key}: is refused"
    assert str(document.at(location[0]).error("is refused", location[1:])).startswith("--set: ")
    assert str(document.error("is refused", ("gates", 0))) == "run.yaml:5: gates.0: is refused"
    assert str(document.error("is refused", ("ppo",))) == "run.yaml:2: ppo: is refused"
    assert str(document.error("is refused", ("judge",))) == "--set: judge: is refused", "it was made for the value"


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("seed", "no key and value"),
        ("=3", "no key and value"),
        ("seed.x=1", "there is no 'x' to set, since what holds it is a number"),
        ("gates.7.min=1", "no entry '7'"),
        ("gates.x=1", "no entry 'x'"),
        ("seed=[1", "no valid YAML"),
    ],
)
def test_an_assignment_that_leads_nowhere_is_refused(assignment, message):
    """The message repeats the assignment or its key, and says what is wrong."""
    with pytest.raises(ConfigError, match=message):
        with_overrides(Document(DATA), [assignment])


def test_an_assignment_below_the_name_of_a_file_says_where_to_set_the_key():
    """A composition is often a file of its own; its keys are not the run's."""
    document = Document({"composition": "rewards.yaml"})
    with pytest.raises(ConfigError, match=r"is text \(if it names a file, set the key in that file\)"):
        with_overrides(document, ["composition.rewards.toxicity.weight=2"])


def test_a_key_below_nothing_is_set():
    """``toxicity:`` alone is null, and takes a weight all the same."""
    changed = with_overrides(Document({"rewards": {"toxicity": None}}), ["rewards.toxicity.weight=2"])
    assert changed.data == {"rewards": {"toxicity": {"weight": 2}}}
