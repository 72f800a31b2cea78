from __future__ import annotations

import asyncio
import json
import math

import pytest

from rlaif_sdk import BatchError, Composer, ConfigError, RewardBatch, reward
from rlaif_sdk.composer import Component, Gate, Ledger, RewardGroup
from rlaif_sdk.composer.normalizers import Rank, ZScore
from rlaif_sdk.exceptions import StateError, UnknownPluginError
from rlaif_sdk.testing import FixedReward

BATCH = RewardBatch(
    prompts=["a", "a", "b"], completions=["x", "xyz", "xy"], columns={"answer": ["x", "y", "z"]}, group=[0, 0, 1]
)


def length(completions):
    return [float(len(text)) for text in completions]


def test_rewards_of_every_form_are_weighed_by_name() -> None:
    """Functions, objects and components side by side."""

    async def constant(completions):
        await asyncio.sleep(0)
        return [1.0] * len(completions)

    rewards = {"length": length, "constant": constant, "fixed": Component(FixedReward(2.0), weight=-0.5)}
    with Composer(rewards, weights={"length": 2.0, "constant": 10.0}) as composer:
        assert composer.weights == {"length": 2.0, "constant": 10.0, "fixed": -0.5}
        assert composer.compose(BATCH).to_list() == [11.0, 15.0, 13.0]


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("a\ud83d", r"'a\\ud83d' has half a character"),
        ("\udcff", "has half a character"),
        ("", "'' is no text"),
        (" \n", "is no text"),
        (1, "the name 1 is no text"),
        (None, "the name None is no text"),
        ("total", "rewards.total: metrics and reports call the sum of all rewards so"),
    ],
)
def test_a_name_that_ledgers_and_metrics_could_not_hold_is_refused(
    tmp_path, write, registry, name, problem: str
) -> None:
    """Before anything is scored: of a reward, a fallback and a group, in Python, a mapping and with `--set`."""
    with Ledger(tmp_path / "ledger.db") as ledger, pytest.raises(ConfigError, match=problem):
        Composer({name: length}, ledger=ledger)
    if name != "total":
        with pytest.raises(ConfigError, match="fallbacks"):
            Composer({"a": Component(length, fallback=name)}, fallbacks={name: length})
        with pytest.raises(ConfigError, match="groups"):
            Composer({"a": length}, groups={name: RewardGroup(["a"], weight=1.0)})
    if isinstance(name, str):
        file = write("r.py", "def length(completions):\n    return [0.0] * len(completions)\n")
        with pytest.raises(ConfigError, match=problem):
            Composer.from_config({"rewards": {name: {"use": f"{file}:length"}}}, registry=registry)


@pytest.mark.parametrize("weight", [math.nan, math.inf, True, "1", None, 10**400])
def test_a_weight_that_is_no_finite_number_is_refused(weight: object) -> None:
    """In Python as in a file, and by name."""
    with pytest.raises(ConfigError, match=r"rewards\.a\.weight: a weight must be a finite number"):
        Composer({"a": length, "b": length}, weights={"a": weight})  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("rewards", "options", "problem"),
    [
        ({}, {}, "needs at least one reward"),
        ({"a": length}, {"weights": {"b": 1.0}}, "a weight names 'b'; there are a"),
        ({"a": Component(length)}, {"weights": {"a": 2.0}}, "'a' is given a weight twice"),
        ({"a": length}, {"weights": {"a": 0.0}}, "every weight is 0"),
    ],
)
def test_what_cannot_be_meant_is_refused(rewards: dict, options: dict, problem: str) -> None:
    """A surplus weight is not dropped, and one that would be ignored is said."""
    with pytest.raises(ConfigError, match=problem):
        Composer(rewards, **options)


def test_what_is_no_reward_is_refused() -> None:
    """At once, not at the first batch."""
    with pytest.raises(TypeError, match="is no reward"):
        Composer({"a": 5})


def test_a_missing_column_ends_the_run_whatever_the_policy() -> None:
    """Every later batch would lack it too."""
    composer = Composer({"match": lambda completions, reference: [0.0] * len(completions)})
    with composer, pytest.raises(BatchError, match="reward 'match' needs the column 'reference'"):
        composer.compose(BATCH)


def test_a_mapped_column_that_is_missing_is_named_with_the_reward_and_the_key() -> None:
    """A misspelt column in ``columns:`` leads to the line that names it."""
    reward = Component(lambda completions, reference: [0.0] * len(completions), columns={"reference": "ansser"})
    problem = r"^reward 'match': the column 'ansser' is missing, which 'columns.reference' names \(columns present: "
    with Composer({"match": reward}) as composer, pytest.raises(BatchError, match=problem):
        composer.compose(BATCH)


def test_columns_are_mapped_for_one_reward_alone() -> None:
    """Two rewards may know one column by different names."""
    seen = {}

    @reward
    def match(prompts, completions, reference, **columns):
        seen.update(columns, reference=reference)
        return [0.0] * len(completions)

    with Composer({"match": Component(match, columns={"reference": "answer"}), "length": length}) as composer:
        composer.compose(BATCH)
    assert seen == {"reference": ["x", "y", "z"], "answer": ["x", "y", "z"]}


def test_an_empty_batch_gives_an_empty_composition() -> None:
    """A filtered batch is not an error, and teaches nothing."""
    with Composer({"a": Component(length, normalizer=ZScore()), "b": Component(length, normalizer=Rank())}) as composer:
        before = composer.state_dict()
        composition = composer.compose(BATCH.select([]))
        assert composition.to_list() == []
        assert composition.metrics()["reward/total/unscored"] == 0.0
        assert composer.state_dict() == before


def test_the_composition_says_everything_about_every_reward() -> None:
    """The breakdown is kept beside the total."""
    with Composer({"a": Component(length, weight=2.0, normalizer=Rank())}) as composer:
        column = composer.compose(BATCH).rewards["a"]
    assert column.raw.tolist() == [1.0, 3.0, 2.0]
    assert column.normalized.tolist() == [-1.0, 1.0, 0.0]
    assert column.weighted.tolist() == [-2.0, 2.0, 0.0]
    assert column.seconds >= 0


def test_observers_see_every_finished_composition() -> None:
    """Logging needs no change of the trainer."""
    seen = []
    with Composer({"a": length}, observers=[seen.append]) as composer:
        composition = composer.compose(BATCH)
    assert seen == [composition]


def test_state_of_other_rewards_versions_or_normalizers_is_refused_and_changes_nothing() -> None:
    """A checkpoint is never mixed into statistics that it does not fit."""

    def make(version: str = "1", normalizer: type = ZScore, name: str = "a") -> Composer:
        parts = {name: Component(FixedReward([1.0, 2.0, 3.0], version=version), normalizer=normalizer())}
        return Composer({**parts, "z": Component(FixedReward([1.0, 2.0, 4.0]), normalizer=ZScore())})

    with make() as saved:
        saved.compose(BATCH)
        state = json.loads(json.dumps(saved.state_dict()))
    for other, problem in (
        (make(version="2"), "version"),
        (make(normalizer=Rank), "normali[sz]er"),
        (make(name="b"), "'b'"),
    ):
        with other:
            before = other.state_dict()
            with pytest.raises(StateError, match=problem):
                other.load_state_dict(state)
            assert other.state_dict() == before
    state["rewards"]["z"]["state"] = {"mean": 1.0}
    with make() as fresh:
        before = fresh.state_dict()
        with pytest.raises(StateError):
            fresh.load_state_dict(state)
        assert fresh.state_dict() == before
        with pytest.raises(StateError):
            fresh.load_state_dict({"rewards": {"a": {}, "z": {}}})


def test_a_mapping_is_a_config(registry) -> None:
    """Sweeps build composers without files."""
    config = {"rewards": {"a": {"use": "nobody"}}}
    with pytest.raises(UnknownPluginError, match=r"rewards.a.use: no installed plugin offers the reward 'nobody'"):
        Composer.from_config(config, registry=registry)


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("rewards:\n  a:\n    use: './r.py:f'\n    normalize: zscor", 4, "did you mean 'zscore'"),
        ("rewards:\n  a:\n    use: './r.py:f'\n    normalize: {kind: zscore, clp: 1}", 4, "did you mean 'clip'"),
        (
            "rewards:\n  a:\n    use: './r.py:f'\n    normalize:\n      kind: zscore\n      clip: -1",
            6,
            "greater than 0",
        ),
        ("rewards:\n  a:\n    use: './r.py:f'\n    normalize: minmax", 4, "needs a finite declared range"),
        ("rewards:\n  a:\n    use: './r.py:f'\naggregate: weihted_sum", 4, "did you mean 'weighted_sum'"),
        ("rewards:\n  a:\n    use: nobody\n    weight: 2", 3, "no installed plugin offers the reward 'nobody'"),
    ],
)
def test_what_a_config_asks_for_in_vain_is_refused_with_file_and_line(write, registry, text, line, problem) -> None:
    """Whether the file, the registry or the composer itself finds it."""
    write("r.py", "def f(completions):\n    return [0.0] * len(completions)\n")
    config = write("c.yaml", text)
    with pytest.raises((ConfigError, UnknownPluginError), match=problem) as caught:
        Composer.from_config(config, registry=registry)
    assert str(caught.value).startswith(f"{config}:{line}: ")


@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_a_config_file_builds_the_whole_composer(write, registry, suffix: str) -> None:
    """YAML and JSON say the same."""
    write("r.py", "def f(completions, *, k: float = 1.0):\n    return [k * len(text) for text in completions]\n")
    data = {
        "rewards": {
            "long": {"use": "./r.py:f", "weight": 2, "params": {"k": 3}, "normalize": "none"},
            "seen": {"use": "./r.py:f", "weight": 0},
        },
        "gates": [{"reward": "seen", "max": 2, "floor": 0}],
    }
    config = write(f"c.{suffix}", json.dumps(data))
    with Composer.from_config(config, registry=registry) as composer:
        assert composer.compose(BATCH).to_list() == [6.0, 0.0, 12.0]


def test_gates_apply_in_order_over_the_sum() -> None:
    """The lowest floor of those that are closed counts."""
    gates = [Gate("a", floor=-1.0, max=2.0), Gate("a", floor=-5.0, max=2.5)]
    with Composer({"a": length}, gates=gates) as composer:
        assert composer.compose(BATCH).to_list() == [1.0, -5.0, 2.0]
