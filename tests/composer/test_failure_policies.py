from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rlaif_sdk import BatchError, Composer, ConfigError, RewardBatch, RewardError, Score
from rlaif_sdk.composer import Component, FailurePolicy
from rlaif_sdk.config import ExecutionConfig
from rlaif_sdk.testing import FailingReward, FixedReward
from tests.patient import PATIENT

FAILED = Score.failed("outage")


def compose(rewards: dict, rows: int, group: list | None = None):
    batch = RewardBatch(prompts=["a"] * rows, completions=["b"] * rows, group=group)
    with Composer(rewards) as composer:
        return composer.compose(batch)


def test_a_failed_reward_is_unscored_and_the_weights_of_the_others_are_scaled_up() -> None:
    """A row with an outage stays on the scale of its neighbours, and is no 0."""
    composition = compose(
        {"a": Component(FixedReward([1.0, 1.0]), weight=3.0), "b": Component(FixedReward([1.0, FAILED]), weight=1.0)}, 2
    )
    assert composition.to_list() == [4.0, 4.0]
    assert composition.rewards["b"].failures == {1: "outage"}
    assert composition.rewards["a"].weighted.tolist() == [3.0, 4.0]
    assert math.isnan(composition.rewards["b"].weighted[1])


def test_a_row_on_which_every_reward_failed_is_unscored() -> None:
    """Nothing stands in for nothing."""
    composition = compose({"a": FixedReward([FAILED, 2.0]), "b": FixedReward([None, 1.0])}, 2)
    assert composition.to_list() == [None, 3.0]
    assert composition.explain(0).note == "no reward with a weight has a score"


def test_a_reward_without_weight_is_recorded_and_cannot_score_a_row() -> None:
    """An observed reward neither moves nor makes a total."""
    composition = compose({"a": FixedReward([1.0, None]), "seen": Component(FixedReward([7.0, 7.0]), weight=0.0)}, 2)
    assert composition.to_list() == [1.0, None]
    assert composition.rewards["seen"].raw.tolist() == [7.0, 7.0]


def test_policy_raise_ends_the_run_and_names_reward_and_row() -> None:
    """For rewards that training makes no sense without."""
    with pytest.raises(RewardError, match=r"reward 'a': failed on 1 of 3 rows, first on row 2 of the batch: outage"):
        compose({"a": Component(FixedReward([1.0, FAILED, None]), failure=FailurePolicy("raise"))}, 3)


def test_policy_raise_lets_a_reward_abstain() -> None:
    """Abstaining is no failure."""
    assert compose({"a": Component(FixedReward([1.0, None]), failure=FailurePolicy("raise"))}, 2).to_list() == [
        1.0,
        None,
    ]


def test_policy_default_uses_the_stated_value_and_says_so() -> None:
    """The default is in the reward's own units, and only for failures."""
    component = Component(FixedReward([FAILED, None, 1.0]), failure=FailurePolicy("default", value=0.25))
    composition = compose({"a": component, "b": FixedReward(1.0)}, 3)
    assert composition.to_list() == [1.25, 2.0, 2.0]
    assert [composition.rewards["a"].status(row) for row in range(3)] == ["default", "abstained", "scored"]
    assert composition.rewards["a"].failures == {0: "outage"}


def test_policy_drop_leaves_the_row_without_a_total() -> None:
    """Trainers mask such rows."""
    component = Component(FixedReward([FAILED, None, 1.0]), failure=FailurePolicy("drop"))
    composition = compose({"a": component, "b": FixedReward(1.0)}, 3)
    assert composition.to_list() == [None, 2.0, 2.0]
    assert composition.explain(0).note == "dropped: a failed"


@pytest.mark.parametrize(
    ("mask_group", "masked"),
    [("never", [0, 0, 0, 0, 0, 0]), ("failed", [1, 0, 0, 0, 0, 0]), ("missing", [1, 0, 1, 0, 0, 0])],
)
def test_a_failure_masks_the_reward_for_its_whole_group(mask_group: str, masked: list[int]) -> None:
    """No completion gets an advantage from its neighbour's outage."""
    scores = [5.0, FAILED, 5.0, None, 5.0, 5.0]
    component = Component(FixedReward(scores), failure=FailurePolicy(mask_group=mask_group))
    composition = compose({"a": component, "b": FixedReward(1.0)}, 6, group=["x", "x", "y", "y", "z", "z"])
    column = composition.rewards["a"]
    assert column.masked.tolist() == [bool(value) for value in masked]
    assert [column.status(row) == "masked" for row in range(6)] == [bool(value) for value in masked]
    assert composition.totals[4] == 6.0
    assert (composition.totals[0] == 2.0) == bool(masked[0])


def test_without_groups_a_failure_masks_nothing() -> None:
    """Rows are then independent."""
    assert compose({"a": FixedReward([5.0, FAILED]), "b": FixedReward(1.0)}, 2).to_list() == [6.0, 2.0]


@given(
    values=st.lists(st.floats(-100, 100), min_size=4, max_size=4),
    failed=st.sets(st.integers(0, 3)),
    other=st.lists(st.floats(-100, 100), min_size=4, max_size=4),
)
def test_a_masked_reward_moves_no_difference_within_its_group(values, failed, other) -> None:
    """Within a struck group the totals differ only by the other rewards."""
    assume(failed)
    scores = [FAILED if row in failed else value for row, value in enumerate(values)]
    composition = compose(
        {"a": Component(FixedReward(scores), failure=PATIENT), "b": FixedReward(other)}, 4, group=[0] * 4
    )
    np.testing.assert_allclose(composition.totals, 2 * np.array(other))


def test_a_plugin_that_raises_fails_on_every_row_and_leaves_the_others_alone() -> None:
    """Isolated, named, handled by its policy."""
    composition = compose(
        {"a": Component(FailingReward(RuntimeError("no GPU")), failure=PATIENT), "b": FixedReward(2.0)}, 2
    )
    assert composition.to_list() == [4.0, 4.0]
    assert composition.rewards["a"].failures == dict.fromkeys(range(2), "raised RuntimeError: no GPU")
    assert composition.metrics()["reward/a/failed"] == 2


@pytest.mark.parametrize("leaving", [SystemExit(1), GeneratorExit(), KeyError("x"), RecursionError(), MemoryError()])
def test_no_exception_of_a_plugin_ends_the_run(leaving: BaseException) -> None:
    """`sys.exit` in a plugin is a failed reward like any other."""
    rewards = {"a": Component(FailingReward(leaving), failure=PATIENT), "b": FixedReward(2.0)}
    assert compose(rewards, 1).to_list() == [4.0]


def typo(completions):
    return [lenght(text) for text in completions]  # noqa: F821 - the fault


def lost(completions):
    return [{}["score"] for _ in completions]


@pytest.mark.parametrize(
    ("broken", "problem"),
    [
        (
            typo,
            "failed on 2 of 2 rows before it ever scored one, first on row 1 of the batch: raised NameError: name 'lenght'",
        ),
        (lost, "raised KeyError: 'score'"),
        (lambda completions: len(2.0), "raised TypeError"),
        (lambda completions: [1.0], "returned 1 scores for 2 rows"),
        (lambda completions: "scores", "returned str"),
        (lambda completions: [float("nan")] * 2, "returned nan"),
        (FailingReward(RuntimeError("no GPU")), "raised RuntimeError: no GPU"),
        (FixedReward(FAILED), "outage"),
    ],
)
@pytest.mark.parametrize("policy", ["abstain", "drop", "default"])
def test_a_reward_that_fails_altogether_before_it_answered_once_ends_the_run(broken, problem, policy) -> None:
    """Trained to the end, the others' weights would grow, and nothing but a count would tell."""
    failure = FailurePolicy(policy, value=0.0 if policy == "default" else None)
    with pytest.raises(RewardError, match=problem) as raised:
        compose({"a": Component(broken, failure=failure), "b": FixedReward(2.0)}, 2)
    assert raised.value.reward == "a"
    assert "fail_fast: false" in str(raised.value)


def test_the_error_of_a_broken_reward_leads_to_its_line() -> None:
    """The cause is chained, so that the traceback ends where the fault is."""
    with pytest.raises(RewardError) as raised:
        compose({"a": typo, "b": FixedReward(2.0)}, 2)
    assert isinstance(raised.value.__cause__.__cause__, NameError)


@pytest.mark.parametrize("timeout", [None, 60.0])
def test_the_message_names_the_line_of_a_broken_reward(timeout: float | None) -> None:
    """In the caller's thread and in one of its own; the line is in the reward's file, not in a library that it called."""

    def long(completions):
        return [np.asarray("word").astype(float) for _ in completions]

    for broken in (typo, long):
        line = broken.__code__.co_firstlineno + 1
        with pytest.raises(RewardError, match=rf"at .*test_failure_policies\.py:{line} \(a reward must"):
            compose({"a": Component(broken, timeout=timeout)}, 2)


def test_no_line_is_named_where_nothing_was_raised() -> None:
    """A reward that returns the wrong number of rows has none."""
    with pytest.raises(
        RewardError, match=r"returned 1 scores for 2 rows \(return one entry a row, None to abstain\) \(a reward"
    ):
        compose({"a": lambda completions: [1.0]}, 2)


def test_no_line_is_named_of_another_row_than_the_first_that_failed() -> None:
    """The row that is told of failed for a reason of its own, and raised nowhere."""

    def partly(completions):
        return [FAILED] if completions == ["one"] else [{}["score"]]

    part = Component(partly, execution=ExecutionConfig(chunk=1))
    batch = RewardBatch(prompts=["a"] * 2, completions=["one", "two"])
    with (
        Composer({"a": part, "b": FixedReward(2.0)}) as composer,
        pytest.raises(RewardError, match=r"first on row 1 of the batch: outage \(a reward must"),
    ):
        composer.compose(batch)


def test_a_reward_that_has_answered_once_is_left_to_its_policy() -> None:
    """An outage in the middle of a run is none of the program's faults."""
    answers = iter([[1.0, 2.0], RuntimeError("outage"), KeyError("score")])

    def flaky(completions):
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    batch = RewardBatch(prompts=["a"] * 2, completions=["b"] * 2)
    with Composer({"a": flaky, "b": FixedReward(2.0)}) as composer:
        assert [composer.compose(batch).to_list() for _ in range(3)] == [[3.0, 4.0], [4.0, 4.0], [4.0, 4.0]]


def test_a_reward_that_abstains_has_answered() -> None:
    """A reward may have nothing to say for long."""
    batch = RewardBatch(prompts=["a"], completions=["b"])
    answers = iter([[None], [FAILED]])
    with Composer({"a": lambda completions: next(answers), "b": FixedReward(2.0)}) as composer:
        assert [composer.compose(batch).to_list() for _ in range(2)] == [[4.0], [4.0]]


@pytest.mark.parametrize(("error", "ends"), [(KeyError("score"), True), (RuntimeError("busy"), False)])
def test_of_a_first_batch_that_failed_in_part_only_a_wrong_program_ends_the_run(error, ends) -> None:
    """A call of several may time out; a missing key on some of them is a fault of the program."""

    def partly(completions):
        if completions == ["two"]:
            raise error
        return [1.0]

    part = Component(partly, execution=ExecutionConfig(chunk=1))
    batch = RewardBatch(prompts=["a"] * 2, completions=["one", "two"])
    with Composer({"a": part, "b": FixedReward(2.0)}) as composer:
        if ends:
            with pytest.raises(RewardError, match=r"failed on 1 of 2 rows before it ever scored one, first on row 2"):
                composer.compose(batch)
        else:
            assert composer.compose(batch).to_list() == [3.0, 4.0]


@pytest.mark.parametrize(("error", "most"), [(RuntimeError("busy"), 3), (KeyError("score"), 0)])
def test_rows_that_come_one_by_one_may_fail_a_few_times(error, most) -> None:
    """One of several may be bad; four in a row are a batch. A wrong program needs no second look."""
    batch = RewardBatch(prompts=["a"], completions=["b"])
    with Composer({"a": FailingReward(error), "b": FixedReward(2.0)}) as composer:
        for _ in range(most):
            assert composer.compose(batch).to_list() == [4.0]
        with pytest.raises(RewardError, match=rf"failed on {most + 1} of {most + 1} rows before it ever scored one"):
            composer.compose(batch)


def test_rows_that_cannot_be_read_are_no_fault_of_the_reward() -> None:
    """They fail with every reward, and it was not asked."""
    batch = RewardBatch(prompts=["a"], completions=[42])
    with Composer({"a": FixedReward(1.0)}) as composer:
        assert [composer.compose(batch).to_list() for _ in range(5)] == [[None]] * 5
    batch = RewardBatch(prompts=["a"] * 3, completions=[42, "b", "c"])
    with (
        Composer({"a": FailingReward(RuntimeError("no GPU"))}) as composer,
        pytest.raises(RewardError, match="failed on 2 of 2 rows before it ever scored one, first on row 2"),
    ):
        composer.compose(batch)


def test_failures_and_abstentions_are_counted_apart() -> None:
    """A log shows an outage as an outage."""
    metrics = compose({"a": FixedReward([FAILED, None, None, 1.0])}, 4).metrics()
    assert (metrics["reward/a/failed"], metrics["reward/a/abstained"]) == (1, 2)
    assert metrics["reward/total/unscored"] == 0.75
    assert metrics["reward/a/raw_mean"] == 1.0


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"policy": "abstein"}, "policy is one of raise, abstain, default, drop"),
        ({"mask_group": "always"}, "mask_group is one of"),
        ({"policy": "default"}, "a finite 'value'"),
        ({"policy": "default", "value": math.nan}, "a finite 'value'"),
        ({"value": 1.0}, "a finite 'value'"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused_in_python_too(fields: dict, problem: str) -> None:
    """What the config refuses, the class refuses."""
    with pytest.raises(ConfigError, match=problem):
        FailurePolicy(**fields)


def test_group_labels_must_be_hashable() -> None:
    """The message says what to use."""
    with pytest.raises(BatchError, match="a group label must be hashable"):
        compose({"a": FixedReward(1.0)}, 1, group=[["x"]])
