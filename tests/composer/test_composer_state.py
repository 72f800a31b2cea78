from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from rlaif_sdk import Composer, Registry, RewardBatch
from rlaif_sdk.composer import Component
from rlaif_sdk.composer.constraints import Constraint
from rlaif_sdk.composer.normalizers import Limited, LimitParams, Quantile, QuantileParams, ZScore, ZScoreParams
from rlaif_sdk.exceptions import StateError
from rlaif_sdk.testing import FixedReward

BATCH = RewardBatch(["p"] * 3, ["c"] * 3)


def composer(**options: object) -> Composer:
    component = {"weight": 1.0, "normalizer": ZScore(), "params": {"model": "x", "key": "s3cret"}, **options}
    reward = FixedReward([1.0, 2.0, 4.0])
    reward.version = str(component.pop("version", "1"))
    return Composer({"a": Component(reward, **component)})


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"version": "2"}, r"reward 'a': saved with version '1', now '2'"),
        ({"weight": 0.5}, r"weight 'a': saved with weight 1\.0, now 0\.5"),
        ({"normalizer": Quantile()}, r"reward 'a': saved with normalizer 'ZScore', now 'Quantile'"),
        ({"normalizer": ZScore(ZScoreParams(clip=3))}, r"saved with normalizer\.clip 10\.0, now 3\.0"),
        ({"normalizer": Limited(ZScore(), LimitParams(clip=1))}, r"saved with normalizer 'ZScore', now 'Limited'"),
        ({"params": {"model": "y", "key": "s3cret"}}, r"reward 'a': saved with another value of params\.model"),
        ({"params": {"model": "x"}}, r"reward 'a': saved with another value of params\.key"),
    ],
)
def test_state_of_another_reward_is_refused_and_what_differs_is_named(options: dict, problem: str) -> None:
    """Statistics belong to the reward, its version, its parameters and its normalizer."""
    with composer() as saved, composer(**options) as other:
        saved.compose(BATCH)
        before = other.state_dict()
        with pytest.raises(StateError, match=problem) as refusal:
            other.load_state_dict(json.loads(json.dumps(saved.state_dict())))
        assert "s3cret" not in str(refusal.value)
        assert other.state_dict() == before


def test_state_says_nothing_of_the_values_of_parameters() -> None:
    """They may be secrets; a digest tells them apart."""
    with composer() as saved:
        assert "s3cret" not in json.dumps(saved.state_dict())


def test_every_difference_is_in_one_message() -> None:
    """So that they are mended at once."""
    both = r"version '1', now '2'; weight 'a': saved with weight 1\.0, now 2\.0"
    with composer() as saved, composer(version="2", weight=2.0) as other, pytest.raises(StateError, match=both):
        other.load_state_dict(saved.state_dict())


@pytest.mark.parametrize(
    "spoil",
    [
        lambda state: state.clear(),
        lambda state: state["rewards"].clear(),
        lambda state: state.update(rewards=None),
        lambda state: state["rewards"]["a"].pop("of"),
        lambda state: state["rewards"]["a"].pop("state"),
        lambda state: state["rewards"]["a"]["state"].pop("mean"),
        lambda state: state["rewards"]["a"]["state"].update(mean="high"),
        lambda state: state["rewards"]["a"]["state"].update(mean=math.nan),
        lambda state: state["rewards"]["a"]["state"].update(mean=1e300),
        lambda state: state["rewards"]["a"]["state"].update(mean=10**400),
        lambda state: state["rewards"]["a"]["state"].update(m2=-1.0),
        lambda state: state["rewards"]["a"]["state"].update(m2=math.inf),
        lambda state: state["rewards"]["a"]["state"].update(count=-1),
        lambda state: state["rewards"]["a"]["state"].update(count=10**400),
        lambda state: state["weights"].clear(),
        lambda state: state["constraints"].update({"b/max": {}}),
    ],
)
def test_a_damaged_state_is_refused_and_nothing_of_it_is_loaded(spoil: Callable[[dict], object]) -> None:
    """A StateError, never a KeyError in the middle of a run, and never half a state."""
    with composer() as saved, composer() as other:
        saved.compose(BATCH)
        state = json.loads(json.dumps(saved.state_dict()))
        spoil(state)
        before = other.state_dict()
        with pytest.raises(StateError):
            other.load_state_dict(state)
        assert other.state_dict() == before


def test_a_part_that_does_not_fit_undoes_the_parts_before_it() -> None:
    """All or nothing, over several rewards."""

    def two() -> Composer:
        rewards = {name: Component(FixedReward([1.0, 2.0, 4.0]), normalizer=ZScore()) for name in "ab"}
        return Composer(rewards, constraints=[Constraint("a", max=0.0)])

    with two() as saved, two() as other:
        saved.compose(BATCH)
        state = saved.state_dict()
        state["constraints"]["a/max"]["state"] = {"lambda": 1.0}
        before = other.state_dict()
        with pytest.raises(StateError, match=r"constraint 'a/max': a constraint's state has its multiplier"):
            other.load_state_dict(state)
        assert other.state_dict() == before


def test_the_parameters_of_a_config_are_part_of_a_state(write: Callable[[str, str], Path], registry: Registry) -> None:
    """A toxicity model's running mean is not another model's."""
    write("scores.py", "def score(prompts, completions, *, model='small'): return [1.0] * len(prompts)")
    text = 'rewards: {{a: {{use: "./scores.py:score", params: {{model: {model}}}, normalize: zscore}}}}'
    composers = [
        Composer.from_config(write("c.yaml", text.format(model=model)), registry=registry)
        for model in ("small", "large", "small")
    ]
    small, large, again = composers
    small.compose(BATCH)
    again.load_state_dict(small.state_dict())
    with pytest.raises(StateError, match=r"another value of params\.model"):
        large.load_state_dict(small.state_dict())
    for each in composers:
        each.close()


def test_a_stranger_s_normalizer_is_told_apart_by_its_parameters() -> None:
    """Whatever it calls ``params`` counts."""

    class Mine(Quantile):
        pass

    first = composer(normalizer=Mine(QuantileParams(capacity=5)))
    other = composer(normalizer=Mine(QuantileParams(capacity=6)))
    with first, other, pytest.raises(StateError, match=r"normalizer\.capacity 5, now 6"):
        other.load_state_dict(first.state_dict())


def test_a_version_that_is_known_after_setup_only_does_not_keep_state_out():
    """State that was saved after a reward had loaded its weights fits a fresh composer that has loaded nothing."""

    class Learns(FixedReward):
        def setup(self):
            self.version = "weights-1"

    def fresh():
        return Composer({"learns": Component(Learns(1.0), normalizer=ZScore())})

    with fresh() as used, fresh() as resumed:
        used.compose(RewardBatch(["p"], ["c"]))
        state = used.state_dict()
        resumed.load_state_dict(state)
        assert resumed.state_dict() == state
