"""A reward that compares the completions to one prompt gets whole groups, however a batch is cut."""

from __future__ import annotations

import asyncio
from itertools import product
from typing import Any

import pytest

from rlaif_sdk import BatchError, Composer, ConfigError, Reward, RewardBatch, RewardError, RewardSpec, Score, reward
from rlaif_sdk.composer import Component, Ledger
from rlaif_sdk.composer.conditions import RewardCondition
from rlaif_sdk.composer.tables import TableLayout, score_records
from rlaif_sdk.config import ExecutionConfig
from rlaif_sdk.integrations import Host, Sample
from rlaif_sdk.integrations.openrlhf import reward_function
from rlaif_sdk.testing import FixedReward, check_reward_contract

TEXTS = ["a", "bbb", "cc", "d", "ee", "fff", "g", "hhhh", "ii"]
LABELS: list[Any] = [0, 1, 0, 2, 1, 2, None, 0, None]
SHARES = [0.0, 1.0, 0.5, 0.0, 0.0, 1.0, None, 1.0, None]
"""How many of the others of its group are shorter, of all others; None where there is no other."""


class LongerThan(Reward):
    """The share of the other completions of its group that are shorter; notes which groups it sees."""

    scope = "group"
    range = (0.0, 1.0)
    inputs = ()

    def __init__(self) -> None:
        self.seen: list[list[str]] = []

    def score(self, batch: RewardBatch) -> list[float]:
        texts, shares = batch.completion_texts, [0.0] * len(batch)
        for rows in batch.groups():
            self.seen.append([texts[row] for row in rows])
            for row in rows:
                shorter = sum(len(texts[other]) < len(texts[row]) for other in rows)
                shares[row] = shorter / (len(rows) - 1)
        return shares


class AsyncLongerThan(LongerThan):
    async def score(self, batch: RewardBatch) -> list[float]:
        await asyncio.sleep(0)
        return super().score(batch)


@reward(scope="group", range=(0, 1))
def longer_than(completion_texts: list[str]) -> list[float]:
    """The same, called once a group."""
    return [sum(len(b) < len(a) for b in completion_texts) / (len(completion_texts) - 1) for a in completion_texts]


@reward(scope="group", range=(0, 1))
async def async_longer_than(completion_texts: list[str]) -> list[float]:
    await asyncio.sleep(0)
    return list(longer_than(completion_texts))


def grouped(texts: list[str] = TEXTS, group: list[Any] | None = LABELS, **fields: Any) -> RewardBatch:
    return RewardBatch(["p"] * len(texts), texts, group=group, **fields)


@pytest.mark.parametrize("made", [LongerThan, AsyncLongerThan, lambda: longer_than, lambda: async_longer_than])
@pytest.mark.parametrize("execution", [{}, {"chunk": 1}, {"chunk": 2, "concurrency": 3}, {"chunk": 5}])
def test_no_chunk_cuts_a_group(made: Any, execution: dict[str, int]) -> None:
    """Each row has the score of its whole group, in its place; a row that is alone abstains and says why."""
    one = made()
    with Composer({"longer": Component(one, execution=ExecutionConfig(**execution))}) as composer:
        composition = composer.compose(grouped())
        assert composer.submit(grouped()).result().to_list() == SHARES
    assert composition.to_list() == SHARES
    column = composition.rewards["longer"]
    assert [column.status(row) for row in (5, 6)] == ["scored", "abstained"]
    assert "alone in its group" in str(column.reason(6))
    if isinstance(one, LongerThan):
        assert sorted(one.seen) == sorted([["a", "cc", "hhhh"], ["bbb", "ee"], ["d", "fff"]] * 2)


def test_a_row_that_cannot_be_read_leaves_its_group() -> None:
    """The others are compared among themselves, and one that is left alone abstains."""
    broken: Any = [{"role": "assistant", "content": 7}]
    with Composer({"longer": LongerThan()}) as composer:
        batch = RewardBatch(["p"] * 5, ["a", "bb", broken, broken, "c"], group=[0, 0, 0, 1, 1])
        column = composer.compose(batch).rewards["longer"]
    assert column.raw.tolist()[:2] == [0.0, 1.0]
    assert "alone" in str(column.reason(4))


def test_rows_that_do_not_meet_its_conditions_leave_the_group() -> None:
    """The others are compared among themselves; where one is left it is alone."""
    conditions = (RewardCondition("short", min=1.0),)
    rewards = {
        "short": lambda completion_texts: [float(len(text) < 4) for text in completion_texts],
        "longer": Component(LongerThan(), when=conditions, otherwise="abstain"),
    }
    with Composer(rewards) as composer:
        column = composer.compose(grouped(["a", "bbbb", "cc", "d", "eeee"], [0, 0, 0, 1, 1])).rewards["longer"]
    assert column.raw.tolist()[::2][:2] == [0.0, 1.0]
    assert sorted(column.not_asked) == [1, 4]
    assert "alone in its group" in str(column.reason(3))


def test_groups_that_nobody_told_are_refused_while_training() -> None:
    """Where each row may be a group of its own, nothing would ever be compared; evaluation may answer each prompt once."""
    with Composer({"longer": LongerThan()}) as composer:
        with pytest.raises(BatchError, match=r"'longer' compares the completions to one prompt.*--group-column"):
            composer.compose(grouped(group=None))
        composition = composer.compose(grouped(group=None, training=False))
    assert composition.to_list() == [None] * 9
    assert "nothing tells" in str(composition.rewards["longer"].reason(0))


def test_a_function_that_answers_too_few_of_a_group_has_failed() -> None:
    """Its scores are not spread over other groups."""
    short = reward(scope="group")(lambda completions: [1.0])
    with (
        Composer({"short": short}) as composer,
        pytest.raises(RewardError, match="returned 1 scores for a group of 2 rows"),
    ):
        composer.compose(grouped(["a", "b"], [0, 0]))


def test_a_table_is_cut_between_groups() -> None:
    """Chunks of a table, and a group that stands apart."""
    order = sorted(range(7), key=lambda row: str(LABELS[row]))
    rows = [{"prompt": "p", "completion": TEXTS[row], "g": LABELS[row]} for row in order]
    with Composer({"longer": LongerThan()}) as composer:
        scored = score_records(composer.compose, rows, TableLayout(group="g"), chunk=1)
        totals = [total for _, composition in scored for total in composition.to_list()]
    alone = grouped([TEXTS[row] for row in order], [LABELS[row] for row in order])
    with Composer({"longer": LongerThan()}) as composer:
        assert totals == composer.compose(alone).to_list()


class TestLedger:
    """A score among a group is of that group."""

    def test_a_group_is_known_again_in_any_order_and_not_with_another_member(self, tmp_path) -> None:
        """A row's score is never taken from another group that it was in."""
        with Ledger(tmp_path / "ledger.sqlite") as ledger:
            one = LongerThan()
            one.seen = seen = []
            with Composer({"longer": Component(one)}, ledger=ledger) as composer:
                first = composer.compose(grouped(["a", "bb"], [0, 0]))
                again = composer.compose(grouped(["bb", "a", "a", "bb"], [7, 7, 8, 8]))
                more = composer.compose(grouped(["a", "bb", "ccc"], [0, 0, 0]))
                less = composer.compose(grouped(["bb", "ccc"], [0, 0]))
        assert seen == [["a", "bb"], ["a", "bb", "ccc"], ["bb", "ccc"]]
        assert [first.to_list(), again.to_list()] == [[0, 1], [1, 0, 0, 1]]
        assert again.rewards["longer"].cached.tolist() == [True] * 4
        assert [more.to_list(), less.to_list()] == [[0, 0.5, 1], [0, 1]]

    def test_equal_groups_of_a_batch_are_asked_once(self, tmp_path) -> None:
        """As equal rows are."""
        with Ledger(tmp_path / "ledger.sqlite") as ledger:
            one = LongerThan()
            with Composer({"longer": Component(one)}, ledger=ledger) as composer:
                composition = composer.compose(grouped(["a", "bb", "bb", "a"], [0, 0, 1, 1]))
        assert one.seen == [["a", "bb"]]
        assert composition.to_list() == [0, 1, 1, 0]

    def test_a_group_of_which_a_row_failed_is_asked_again_whole(self, tmp_path) -> None:
        """Scores of two askings are not mixed."""

        class Flaky(LongerThan):
            def score(self, batch: RewardBatch) -> list[Any]:
                answer: list[Any] = super().score(batch)
                return [Score.failed("an outage"), *answer[1:]] if len(self.seen) == 2 else answer

        with Ledger(tmp_path / "ledger.sqlite") as ledger:
            one = Flaky()
            with Composer({"longer": Component(one)}, ledger=ledger) as composer:
                composer.compose(grouped(["x", "yy"], [0, 0]))
                composer.compose(grouped(["a", "bb", "ccc"], [0, 0, 0]))
                composition = composer.compose(grouped(["a", "bb", "ccc"], [0, 0, 0]))
        assert one.seen[1:] == [["a", "bb", "ccc"]] * 2
        assert composition.to_list() == [0, 0.5, 1]


def test_a_worker_process_gets_whole_groups(tmp_path) -> None:
    """Isolation and chunks at once."""
    (tmp_path / "longer.py").write_text(
        "from rlaif_sdk import reward\n"
        "@reward(scope='group')\n"
        "def longer(completion_texts):\n"
        "    return [float(sum(len(b) < len(a) for b in completion_texts)) for a in completion_texts]\n"
    )
    execution = {"isolation": "process", "chunk": 2}
    config = {"rewards": {"longer": {"use": f"{tmp_path}/longer.py:longer", "execution": execution}}}
    with Composer.from_config(config) as composer:
        assert composer.compose(grouped()).to_list() == [0, 1, 1, 0, 0, 1, None, 2, None]


def test_a_stack_that_asks_row_by_row_is_refused_at_once() -> None:
    """Before a completion is sampled, with the reason."""
    with Composer({"longer": LongerThan()}) as composer:
        with pytest.raises(
            ConfigError, match=r"'longer' compares the completions to one prompt, which OpenRLHF"
        ) as said:
            reward_function(composer)
        assert said.value.key == "rewards.longer"
        hosted = Host(composer, "a test", grouped=True)
        scored = hosted.score([Sample("p", text, {}, group) for text, group in zip(TEXTS, LABELS, strict=True)])
        assert [one.total for one in scored] == SHARES
        with pytest.raises(BatchError, match="rows of one group must have the same columns"):
            hosted.score([Sample("p", "a", {"x": 1}, 0), Sample("p", "b", {}, 0)])


def test_it_is_no_fallback() -> None:
    """A fallback is asked only about the rows that failed, which are no group."""
    failing = Component(FixedReward(range=(0.0, 1.0)), fallback="longer")
    with pytest.raises(ConfigError, match="asked only about those that failed"):
        Composer({"failing": failing}, fallbacks={"longer": LongerThan()})


class OfTheBatch(LongerThan):
    """Takes the batch for one group."""

    def score(self, batch: RewardBatch) -> list[float]:
        return [len(text) / (1 + max(map(len, batch.completion_texts))) for text in batch.completion_texts]


class ByPlace(LongerThan):
    """Gives the first row of a group more."""

    def score(self, batch: RewardBatch) -> list[float]:
        first = {rows[0] for rows in batch.groups()}
        return [float(row in first) for row in range(len(batch))]


@pytest.mark.parametrize("good", [LongerThan, AsyncLongerThan, longer_than, async_longer_than])
def test_the_contract_holds_for_groups(good: Any) -> None:
    """Rows within groups, and whole groups, in any order; each group alone as among others."""
    assert None not in check_reward_contract(good)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (OfTheBatch, "scores a group differently when it is alone"),
        (ByPlace, "when the rows are in another order"),
        (
            RewardSpec(name="longer", description="Longer.", factory=lambda _: LongerThan(), range=(0.0, 1.0)),
            "declares the scope row, its reward group",
        ),
    ],
)
def test_a_broken_contract_is_told(bad: Any, said: str) -> None:
    """What depends on other groups, or on the order of rows, is no reward of groups."""
    with pytest.raises(AssertionError, match=said):
        check_reward_contract(bad)


def test_groups_of_a_batch() -> None:
    """Labels of any kind; None, and no labels at all, make groups of one."""
    assert grouped().groups() == [[0, 2, 7], [1, 4], [3, 5], [6], [8]]
    assert grouped(group=None).groups() == [[row] for row in range(9)]
    assert grouped([], []).groups() == []
    for labels in product([None, "x", 1.5], repeat=3):
        rows = grouped(["a", "b", "c"], list(labels)).groups()
        assert sorted(row for part in rows for row in part) == [0, 1, 2]
