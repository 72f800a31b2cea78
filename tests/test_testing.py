from __future__ import annotations

import asyncio
import math
import time

import pytest

from rlaif_sdk import Composer, Params, Reward, RewardBatch, RewardSpec, Score, reward
from rlaif_sdk.testing import FailingReward, FixedReward, check_reward_contract, sample_batch
from tests.patient import patient


def length(completions):
    """Prefer long answers."""
    return [float(len(text if isinstance(text, str) else text[0]["content"])) for text in completions]


async def async_length(completions):
    await asyncio.sleep(0)
    return length(completions)


class Abstains(Reward):
    def score(self, batch):
        return [Score(1.0, reason="said something") if text else None for text in batch.completion_texts]


class Declared(Params):
    k: float = 1.0
    """How much."""


class Undeclared(Params):
    k: float = 1.0


def spec(**changes) -> RewardSpec:
    fields = {
        "name": "length",
        "factory": lambda params: FixedReward(params.k),
        "params": Declared,
        "description": "always k",
        "example": {"weight": 2.0, "params": {"k": 3.0}},
    }
    return RewardSpec(**(fields | changes))


@pytest.mark.parametrize("good", [length, async_length, Abstains, Abstains(), FixedReward(0.5), reward(length), spec()])
def test_a_good_reward_passes(good: object) -> None:
    """Plain, async, abstaining, a class, an object, a function, a spec."""
    scores = check_reward_contract(good)
    assert len(scores) == len(sample_batch())


def test_the_scores_are_handed_back() -> None:
    """A test can go on to assert what they should be."""
    assert check_reward_contract(Abstains) == [1.0, None, 1.0, 1.0, 1.0]
    assert check_reward_contract(spec(), params={"k": 4}) == [4.0] * 5


def by_position(batch):
    return [float(row) for row in range(len(batch))]


def by_neighbours(batch):
    return [float(len(batch))] * len(batch)


def needs_text(batch):
    return [float(len(text)) if isinstance(text, str) else 0.0 for text in batch.completions]


def counts_calls():
    calls = iter(range(100))
    return lambda batch: [float(next(calls))] * len(batch)


def fails_when_empty(batch):
    return [0.0] * len(batch) if len(batch) else [0.0]


@pytest.mark.parametrize(
    ("behaviour", "declared", "problem"),
    [
        (RuntimeError("no GPU"), {}, "raised RuntimeError: no GPU"),
        (lambda batch: [0.0], {}, "returned 1 scores for 5 rows"),
        (lambda batch: 0.5, {}, "returned float where a list of 5 scores is wanted"),
        (lambda batch: [math.nan] * len(batch), {}, "row 1: returned nan"),
        (lambda batch: [math.inf] * len(batch), {}, "row 1: returned inf"),
        (lambda batch: [True] * len(batch), {}, "row 1: returned bool"),
        (lambda batch: ["1"] * len(batch), {}, "row 1: returned str"),
        (lambda batch: [2.0] * len(batch), {"range": (0, 1)}, "outside its declared range"),
        (lambda batch: [Score.failed("rate limit")] * len(batch), {}, "row 1: rate limit"),
        (by_position, {}, "in another order"),
        (by_neighbours, {}, "when it is alone"),
        (needs_text, {}, "scores conversations differently"),
        (counts_calls(), {}, "in another order"),
        (fails_when_empty, {}, "returned 1 scores for 0 rows"),
    ],
)
def test_a_reward_that_breaks_the_contract_is_caught_and_told_how(behaviour, declared, problem: str) -> None:
    """Each promise of the contract has a check that can fail."""
    with pytest.raises(AssertionError, match=problem):
        check_reward_contract(FailingReward(behaviour, **declared))


def test_a_reward_that_hangs_is_caught() -> None:
    """The check ends, whatever the reward does."""
    since = time.monotonic()
    with pytest.raises(AssertionError, match=r"scoring took longer than its limit of 0\.1 s"):
        check_reward_contract(FailingReward(lambda batch: time.sleep(3)), timeout=0.1)
    assert time.monotonic() - since < 1


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"description": ""}, "has no description"),
        ({"description": "two\nlines"}, "more than one line"),
        ({"params": Undeclared}, "'k' of 'length' has no docstring"),
        ({"range": (0, 1)}, r"declares \(0, 1\), its reward None"),
        ({"columns": ("answer",)}, "lists columns that its reward does not need"),
        ({"higher_is_better": False}, "differ in higher_is_better"),
    ],
)
def test_a_spec_that_misdescribes_its_reward_is_caught(changes: dict, problem: str) -> None:
    """What `rlaif rewards show` prints is true."""
    with pytest.raises(AssertionError, match=problem):
        check_reward_contract(spec(**changes))


@pytest.mark.parametrize("example", [{"weigth": 1.0}, {"params": {"j": 1}}])
def test_an_example_that_would_be_refused_is_caught(example: dict) -> None:
    """The example that users copy works."""
    with pytest.raises(ValueError, match=r"weigth|j"):
        check_reward_contract(spec(example=example))


def test_setup_runs_before_scoring_and_close_after() -> None:
    """The check leaves no model loaded."""
    calls = []

    class Counting(FixedReward):
        def setup(self):
            calls.append("setup")

        def close(self):
            calls.append("close")

    check_reward_contract(Counting(1.0))
    assert calls == ["setup", "close"]


def test_a_batch_of_the_author_s_own_is_used() -> None:
    """Rewards with columns of a special form bring their rows."""
    batch = RewardBatch(prompts=["a", "b"], completions=["c", "dd"], columns={"tests": [["x"], ["y"]]})

    def counts(completions, tests):
        return [float(len(test)) for test in tests]

    assert check_reward_contract(counts, batch=batch) == [1.0, 1.0]
    with pytest.raises(AssertionError, match="at least two rows"):
        check_reward_contract(counts, batch=batch.select([0]))


def test_the_doubles_work_in_a_composer() -> None:
    """They are ordinary rewards."""
    with Composer(
        {"fixed": FixedReward([1.0, None, Score(3.0)]), "failing": patient(FailingReward(ValueError("x")))}
    ) as composer:
        composition = composer.compose(RewardBatch(prompts=["a"] * 3, completions=["b"] * 3))
    assert composition.to_list() == [2.0, None, 6.0]
