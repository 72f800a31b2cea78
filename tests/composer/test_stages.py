"""Conditions of rewards: who is asked about what, in which order, and what becomes of the other rows."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from rlaif_sdk import Composer, Composition, Gate, Reward, RewardBatch, Score
from rlaif_sdk.composer import ColumnCondition, Component, Constraint, FailurePolicy, RewardCondition
from rlaif_sdk.composer.normalizers import GroupZScore, MinMax, Passthrough, Rank, ZScore
from rlaif_sdk.exceptions import BatchError, ConfigError, RewardError, StateError
from rlaif_sdk.training.preflight.checks import check_columns
from tests.composer.random_compositions import POLICIES, Reading

LASTING = FailurePolicy(fail_fast=False)
REWARDS = """
def format(completion_texts):
    return [float(text.startswith("<")) for text in completion_texts]

def math(completion_texts):
    return [float(text.endswith("4")) for text in completion_texts]

async def judge(completion_texts):
    return [len(text) / 10 for text in completion_texts]
"""
THREE_STAGES = """
rewards:
  judge:
    use: ./rewards.py:judge
    when:
      - {reward: math, min: 1}
      - {column: domain, in: [math, null]}
    otherwise: 0
  format: {use: "./rewards.py:format", weight: 0.1}
  math:
    use: ./rewards.py:math
    when: {reward: format, min: 1}
    otherwise: abstain
"""


class Asked(Reading):
    """Gives what stands in its column, and keeps the row numbers that it was asked about."""

    def __init__(self, column: str) -> None:
        super().__init__(column)
        self.rows: list[int] = []

    def score(self, batch: RewardBatch) -> list[Score | float | None]:
        self.rows += batch.column("row")
        return super().score(batch)


class AskedLater(Asked):
    """The same, as a coroutine."""

    async def score(self, batch: RewardBatch) -> list[Score | float | None]:  # type: ignore[override]
        await asyncio.sleep(0)
        return super().score(batch)


def batch_of(group: Sequence[int] | None = None, **columns: Sequence[Any]) -> RewardBatch:
    rows = len(next(iter(columns.values())))
    return RewardBatch(["p"] * rows, ["c"] * rows, columns={**columns, "row": [*range(rows)]}, group=group)


def staged(
    otherwise: Any = "abstain", *, judge: Reward | None = None, kind: type[Asked] = Asked, **settings: Any
) -> tuple[dict[str, Component], Reward]:
    """A judge that is asked where ``math`` is at least 1."""
    judge = judge or kind("judge")
    part = Component(judge, when=[RewardCondition("math", min=1)], otherwise=otherwise, failure=LASTING, **settings)
    return {"judge": part, "math": Component(kind("math"), failure=LASTING)}, judge


def compose(parts: dict[str, Component], batch: RewardBatch, **settings: Any) -> Composition:
    with Composer(parts, **settings) as composer:
        return composer.compose(batch)


@pytest.fixture
def config(tmp_path: Path) -> Callable[[str], Path]:
    (tmp_path / "rewards.py").write_text(REWARDS)

    def write(text: str) -> Path:
        (tmp_path / "composition.yaml").write_text(text)
        return tmp_path / "composition.yaml"

    return write


def test_three_stages_follow_from_their_conditions_whatever_the_order_in_the_file(config) -> None:
    """A row goes on as far as it passes, and each reward says why it was not asked about the others."""
    batch = RewardBatch(
        ["q"] * 5, ["<4", "4", "<5", "<44", "<4"], columns={"domain": ["math", "math", "math", "law", None]}
    )
    with Composer.from_config(config(THREE_STAGES)) as composer:
        composition = composer.compose(batch)
        later = composer.submit(batch).result()
        shown = composer._repr_html_()
    judge, answers = composition.rewards["judge"], composition.rewards["math"]
    assert [judge.status(row) for row in range(5)] == ["scored", "not asked", "not asked", "not asked", "scored"]
    assert judge.reason(1) == "needs math >= 1, and math was not asked"
    assert judge.reason(2) == "needs math >= 1, and math scored 0"
    assert judge.reason(3) == 'needs domain in "math", null, and it is "law"'
    assert answers.reason(1) == "needs format >= 1, and format scored 0"
    np.testing.assert_allclose(composition.totals, [1.3, 0.0, 0.1, 1.1, 1.3])
    np.testing.assert_array_equal(later.totals, composition.totals)
    assert "math is asked when format &gt;= 1; otherwise it abstains" in shown
    assert "otherwise it counts as 0" in shown


def test_explain_shows_who_was_not_asked_and_adds_up(config) -> None:
    """The stated value is a step of its own; an abstention scales the others up, as any other does."""
    batch = RewardBatch(["q"] * 2, ["<4", "4"], columns={"domain": ["math", "math"]})
    with Composer.from_config(config(THREE_STAGES)) as composer:
        composition = composer.compose(batch)
    explanation = composition.explain(1)
    steps = {step.reward: step for step in explanation.steps}
    assert steps["judge"].cells()[1] == "otherwise"
    assert "not asked; needs math >= 1, and math was not asked" in str(explanation)
    assert math.fsum(value for _, value in explanation.additions()) == pytest.approx(explanation.total)
    assert "math took no part" in explanation.scaling
    record = json.loads(json.dumps(composition.to_records()))[1]["rewards"]["judge"]
    assert record == {
        "raw": None,
        "normalized": 0.0,
        "weighted": 0.0,
        "status": "not asked",
        "reason": "needs math >= 1, and math was not asked",
    }
    assert [*composition.to_pandas()["judge/status"]] == ["scored", "not asked"]
    assert "<th>failed</th><th>not asked</th>" in composition._repr_html_()


def test_not_asked_is_counted_apart_from_abstentions_and_failures() -> None:
    """Three rows without a score, of three kinds; a reward without conditions has no such count."""
    parts, _ = staged()
    batch = batch_of(math=[0, 1, 1, 1], judge=[1.0, None, Score.failed("outage"), 0.5])
    metrics = compose(parts, batch).metrics()
    assert {key: metrics[f"reward/judge/{key}"] for key in ("not_asked", "abstained", "failed")} == {
        "not_asked": 1.0,
        "abstained": 1.0,
        "failed": 1.0,
    }
    assert "reward/math/not_asked" not in metrics
    assert metrics["reward/math/abstained"] == 0.0


@pytest.mark.parametrize("kind", [Asked, AskedLater])
def test_who_is_not_asked_is_not_paid_for(kind: type[Asked]) -> None:
    """The reward gets only the rows that pass, with their own columns and groups; for none it is not called."""
    parts, judge = staged(kind=kind)
    compose(parts, batch_of(math=[1, 0, 1, None], judge=[0.1, 0.2, 0.3, 0.4]))
    assert judge.rows == [0, 2]
    parts, judge = staged(kind=kind)
    composition = compose(parts, batch_of(math=[0, 0], judge=[0.1, 0.2]))
    assert judge.rows == []
    assert composition.rewards["judge"].seconds == 0.0


def test_a_reward_that_sees_groups_sees_the_rows_of_each_that_pass() -> None:
    """Labels go along, so that a comparison within a group is one of those who are compared."""

    class Places(Reward):
        def score(self, batch: RewardBatch) -> list[float]:
            return [float([*batch.group].count(label)) for label in batch.group]

    parts, _ = staged(judge=Places())
    composition = compose(parts, batch_of([7, 7, 7, 8, 8], math=[1, 0, 1, 1, 0]))
    np.testing.assert_array_equal(composition.rewards["judge"].raw, [2, np.nan, 2, 1, np.nan])


def test_a_reward_is_asked_as_soon_as_those_have_answered_that_it_waits_for() -> None:
    """A reward that nothing waits for holds no stage up: here it ends only after the later stage has begun."""
    begun = asyncio.Event()

    async def judge(completion_texts: list[str]) -> list[float]:
        begun.set()
        return [1.0] * len(completion_texts)

    async def patient(completion_texts: list[str]) -> list[float]:
        await begun.wait()
        return [1.0] * len(completion_texts)

    parts = {
        "patient": patient,
        "math": AskedLater("math"),
        "judge": Component(judge, when=[RewardCondition("math", min=1)], otherwise=0),
    }
    assert compose(parts, batch_of(math=[1, 0])).totals.tolist() == [3.0, 1.0]


def test_a_failure_is_not_taken_for_an_unmet_condition() -> None:
    """Where the reward failed that is looked at, the later one fails too: no stated value is paid for an outage."""
    parts, judge = staged(otherwise=0.0)
    parts["last"] = Component(Reading("last"), when=[RewardCondition("judge", min=0)], otherwise=-5, failure=LASTING)
    outage = Score.failed("outage")
    composition = compose(parts, batch_of([0, 0, 1, 1], math=[1, outage, 1, 0], judge=[0.5] * 4, last=[1.0] * 4))
    column = composition.rewards["judge"]
    assert [column.status(row) for row in range(4)] == ["masked", "failed", "scored", "not asked"]
    assert column.reason(1) == "not asked: needs math >= 1, and math failed: outage"
    assert composition.rewards["last"].failures == {
        1: f"not asked: needs judge >= 0, and judge failed: {column.reason(1)}"
    }
    assert judge.rows == [0, 2]
    np.testing.assert_array_equal(column.normalized, [np.nan, np.nan, 0.5, 0.0])
    alone = compose(parts, batch_of(math=[1, outage, 1, 0], judge=[0.5] * 4, last=[1.0] * 4))
    np.testing.assert_array_equal(alone.rewards["judge"].normalized, [0.5, np.nan, 0.5, 0.0])
    np.testing.assert_array_equal(alone.rewards["last"].normalized, [1.0, np.nan, 1.0, -5.0])


def test_a_failing_neighbour_takes_the_stated_value_with_it() -> None:
    """When a row of a group failed, no row of the group keeps the reward, asked or not."""
    parts, _ = staged(otherwise=0.0)
    composition = compose(parts, batch_of([0, 0, 0], math=[1, 1, 0], judge=[Score.failed("outage"), 1.0, 1.0]))
    assert [composition.rewards["judge"].status(row) for row in range(3)] == ["failed", "masked", "masked"]
    np.testing.assert_array_equal(composition.rewards["judge"].weighted, [np.nan] * 3)


def test_an_abstention_does_not_meet_a_condition_and_a_known_refusal_outweighs_a_failure() -> None:
    """Of several conditions one that is known not to hold decides, whatever else is unknown."""
    conditions = [RewardCondition("math", min=1), ColumnCondition("domain", in_=("math",))]
    parts, _ = staged(otherwise=0.0)
    parts["judge"] = Component(Reading("judge"), when=conditions, otherwise=0.0, failure=LASTING)
    outage = Score.failed("outage")
    batch = batch_of(math=[None, outage, outage], domain=["math", "law", "math"], judge=[1.0] * 3)
    column = compose(parts, batch).rewards["judge"]
    assert [column.status(row) for row in range(3)] == ["not asked", "not asked", "failed"]
    assert column.reason(0) == "needs math >= 1, and math abstained"
    assert column.reason(1) == 'needs domain in "math", and it is "law"'


def test_a_fallback_meets_conditions_for_its_reward_and_is_asked_only_about_rows_that_failed_when_asked() -> None:
    """Where the first stage falls back its score counts; what a condition kept away is not what a fallback is for."""
    outage = Score.failed("outage")
    spare_math, spare_judge = Asked("spare_math"), Asked("spare_judge")
    parts, judge = staged(fallback="spare_judge")
    parts["math"] = Component(Asked("math"), fallback="spare_math", failure=LASTING)
    batch = batch_of(
        math=[outage, outage, outage, 1, 0],
        spare_math=[1.0, 0.0, outage, 9.0, 9.0],
        judge=[outage, 1.0, 1.0, 0.5, 1.0],
        spare_judge=[0.25] * 5,
    )
    with Composer(parts, fallbacks={"spare_math": spare_math, "spare_judge": spare_judge}) as composer:
        for composition in (composer.compose(batch), composer.submit(batch).result()):
            column = composition.rewards["judge"]
            statuses = [column.status(row) for row in range(5)]
            assert statuses == ["fallback", "not asked", "failed", "scored", "not asked"]
            np.testing.assert_array_equal(column.raw, [0.25, np.nan, np.nan, 0.5, np.nan])
    assert judge.rows == [0, 3] * 2
    assert spare_judge.rows == [0] * 2


def test_statistics_learn_only_from_rows_that_were_asked_about() -> None:
    """The stated value is no observation, and is normalised as the scores are."""
    parts, _ = staged(otherwise=0.0, normalizer=ZScore())
    with Composer(parts) as composer:
        composition = composer.compose(batch_of(math=[1, 1, 0, 0], judge=[1.0, 3.0, 9.0, 9.0]))
    alone = {"judge": Component(Reading("judge"), normalizer=ZScore())}
    with Composer(alone) as composer:
        expected = composer.compose(batch_of(judge=[1.0, 3.0])).rewards["judge"].normalized
    np.testing.assert_allclose(composition.rewards["judge"].normalized[:2], expected)
    assert composition.rewards["judge"].normalized[2] == pytest.approx(-2 * expected[1])


def test_gates_and_constraints_look_at_the_stated_value() -> None:
    """As at the stated default of a failure."""
    parts, _ = staged(otherwise=0.0)
    gate = Gate("judge", min=0.5, floor=-1.0)
    batch = batch_of(math=[1, 0], judge=[1.0, 1.0])
    gated = compose(parts, batch, gates=[gate])
    assert gated.totals.tolist() == [2.0, -1.0]
    assert "not asked, does not pass: at most -1" in str(gated.explain(1))
    held = compose(parts, batch, constraints=[Constraint("judge", min=0.5, initial=2.0)])
    assert held.totals.tolist() == [2.0 + 1.0, 0.0 - 1.0]


def test_a_row_that_cannot_be_read_fails_for_every_reward() -> None:
    """Conditions are not asked of it."""
    unreadable = [{"role": "assistant", "content": 3}]
    batch = RewardBatch(
        ["p"] * 3, ["c", unreadable, "c"], columns={"math": [1, 1, 0], "judge": [0.5] * 3, "row": [0, 1, 2]}
    )
    parts, judge = staged(otherwise=0.0)
    composition = compose(parts, batch)
    column = composition.rewards["judge"]
    assert [column.status(row) for row in range(3)] == ["scored", "failed", "not asked"]
    assert "cannot be read" in (column.reason(1) or "")
    assert judge.rows == [0]


@pytest.mark.parametrize("kind", [Asked, AskedLater])
def test_an_error_that_ends_the_run_leaves_nobody_waiting(kind: type[Asked]) -> None:
    """Whether the reward that breaks is called here or on the event loop, the stages behind it are given up."""

    class Refused(kind):  # type: ignore[misc,valid-type]
        def score(self, batch: RewardBatch) -> Any:
            raise ConfigError("no such key")

    parts, judge = staged(judge=AskedLater("judge"))
    parts["math"] = Component(Refused("math"))
    batch = batch_of(math=[1, 1], judge=[1.0, 1.0])
    with Composer(parts) as composer:
        for _ in range(2):
            with pytest.raises(ConfigError, match="no such key"):
                composer.compose(batch)
            with pytest.raises(ConfigError, match="no such key"):
                composer.submit(batch).result(timeout=60)
    assert judge.rows == []


def test_a_reward_is_not_taken_for_broken_before_it_was_asked() -> None:
    """``fail_fast`` counts the rows that it was asked about, and names them by their place in the batch."""

    def broken(completion_texts: list[str]) -> list[float]:
        raise ConnectionError("no route")

    parts, _ = staged()
    parts["judge"] = Component(broken, when=[RewardCondition("math", min=1)], otherwise=0)
    with Composer(parts) as composer:
        assert composer.compose(batch_of(math=[0, 0])).totals.tolist() == [0.0, 0.0]
        with pytest.raises(RewardError, match=r"failed on 2 of 2 rows.*first on row 2 of the batch.*no route"):
            composer.compose(batch_of(math=[0, 1, 1]))


@pytest.mark.parametrize(
    ("values", "condition", "asked"),
    [
        ([1, 1.0, True, "1", None, [1], np.int64(1)], ColumnCondition("c", in_=(1,)), [0, 1, 6]),
        ([1, True, False, None], ColumnCondition("c", in_=(True, None)), [1, 3]),
        ([1, "a", None, {"a": 1}, math.nan], ColumnCondition("c", not_in=("a", None)), [0, 3]),
        ([math.nan, np.float64("nan"), None, 0.0, ""], ColumnCondition("c", in_=(None,)), [0, 1, 2]),
    ],
)
def test_values_of_columns_are_equal_as_in_json(values, condition, asked) -> None:
    """A number is not the text of it, nor is true 1; a missing value is null, which pandas writes as NaN."""
    seen = Asked("judge")
    parts = {"judge": Component(seen, when=[condition], failure=LASTING), "math": Reading("math")}
    compose(parts, batch_of(c=values, judge=[1.0] * len(values), math=[1.0] * len(values)))
    assert seen.rows == asked


@pytest.mark.parametrize("values", ["math", [["math"]], ["math", {}], [np.array([1])]])
def test_values_that_no_column_has_are_refused(values: Any) -> None:
    """They would keep every row away, and a text is no list of its letters."""
    with pytest.raises(ConfigError, match=r"compares it with texts, numbers, true, false or null, not with"):
        ColumnCondition("domain", in_=values)


@pytest.mark.parametrize(
    ("a", "problem"),
    [
        ("when: {reward: b, min: 1}, otherwise: 0", "the conditions go in a circle: a waits for b waits for a"),
        ("when: {reward: a, min: 1}, otherwise: 0", "looks at the reward itself"),
        ("when: {reward: x, min: 1}, otherwise: 0", "looks at 'x'; there are b"),
        ("when: [{column: d, in: [1]}, {reward: x, min: 1}], otherwise: 0", "looks at 'x'; there are b"),
        ("when: {reward: b, min: 1}", "'otherwise' must say what a row gets"),
        ("when: {reward: b}, otherwise: 0", "needs 'min', 'max' or both"),
        ("when: {reward: b, min: 2, max: 1}, otherwise: 0", "nothing would pass"),
        ("when: {column: d}", "needs values in 'in' or in 'not_in'"),
        ("when: {column: d, in: [x], not_in: [y]}", "and not both"),
        ("when: {column: d, in: [[x]]}", "rewards.a.when.in.0"),
        ("when: {reward: b, column: d, in: [x]}", "rewards.a.when.column: unknown key"),
        ("otherwise: 0", "goes with 'when'"),
        ("when: {column: d, in: [x]}, otherwise: .nan", "rewards.a.otherwise"),
        ("when: always", "rewards.a.when"),
    ],
)
def test_conditions_that_make_no_sense_are_refused_where_they_stand(config, a: str, problem: str) -> None:
    """File, line and what is wrong, before any reward is asked."""
    b = "when: {reward: a, min: 1}, otherwise: 0" if "circle" in problem else "weight: 2"
    file = config(f"rewards:\n  a: {{use: './rewards.py:math', {a}}}\n  b: {{use: './rewards.py:math', {b}}}\n")
    with pytest.raises(ConfigError) as refusal:
        Composer.from_config(file)
    assert refusal.value.file == str(file)
    assert refusal.value.line in {2, 3} if "circle" in problem else 2
    assert problem in str(refusal.value)


def test_a_gate_or_constraint_that_would_leave_rows_unscored_is_refused() -> None:
    """A reward that abstains where it is not asked would take the total of all these rows with it."""
    parts, _ = staged()
    with pytest.raises(ConfigError, match="the others would get no total") as refusal:
        Composer(parts, gates=[Gate("judge", min=0.5, floor=0.0)])
    assert refusal.value.key == "gates.0"
    with pytest.raises(ConfigError, match="the others would get no total"):
        Composer(parts, constraints=[Constraint("judge", min=0.5)])
    Composer(parts, gates=[Gate("judge", min=0.5, floor=0.0, on_missing="pass")]).close()


def test_a_column_that_is_missing_ends_the_run_with_the_line(config) -> None:
    """Nobody is asked: a misspelt column would otherwise keep every row away."""
    with (
        Composer.from_config(config(THREE_STAGES)) as composer,
        pytest.raises(BatchError, match=r"composition.yaml:\d+: reward 'judge': the column 'domain' is missing"),
    ):
        composer.compose(RewardBatch(["q"], ["<4"]))


def test_the_check_of_a_run_misses_the_column_too(config) -> None:
    """Before a model is loaded."""
    rows = Dataset.from_list([{"prompt": "q", "answer": "4"}])
    with (
        Composer.from_config(config(THREE_STAGES)) as composer,
        pytest.raises(BatchError, match=r"data.train: .*'judge': the column 'domain' is missing"),
    ):
        check_columns(composer, rows, "train")


def test_statistics_of_other_rows_are_refused() -> None:
    """What was learned from the rows of one condition is not what another's rows teach."""
    saved = Composer(staged(normalizer=ZScore())[0]).state_dict()
    parts = {**staged()[0], "judge": Component(Reading("judge"), normalizer=ZScore(), failure=LASTING)}
    with pytest.raises(
        StateError, match=r"saved with when .*RewardCondition\(reward='math', min=1, max=None\).*, now None"
    ):
        Composer(parts).load_state_dict(saved)


@pytest.mark.parametrize(
    ("condition", "other"),
    [
        (RewardCondition("math", min=0.1234567), RewardCondition("math", min=0.1234568)),
        (ColumnCondition("c", in_=tuple(range(30))), ColumnCondition("c", in_=(*range(29), 30))),
        (ColumnCondition("c", in_=("a" * 100,)), ColumnCondition("c", in_=("a" * 101,))),
    ],
)
def test_conditions_that_read_alike_are_told_apart(condition, other) -> None:
    """Words for people leave out digits and values."""
    parts = staged(normalizer=ZScore())[0]
    of = [{**parts, "judge": replace(parts["judge"], when=[when])} for when in (condition, other)]
    with pytest.raises(StateError, match="saved with when"):
        Composer(of[1]).load_state_dict(Composer(of[0]).state_dict())


def test_a_conditioned_reward_runs_in_a_process_of_its_own(config) -> None:
    """Isolation, chunks and retries see a batch of the rows that pass."""
    text = THREE_STAGES.replace(
        "use: ./rewards.py:judge", "use: ./rewards.py:judge\n    execution: {isolation: process, chunk: 1}"
    )
    batch = RewardBatch(["q"] * 3, ["<4", "4", "<44"], columns={"domain": ["math"] * 3})
    with Composer.from_config(config(text)) as composer:
        np.testing.assert_allclose(composer.compose(batch).rewards["judge"].raw, [0.2, np.nan, 0.3])


NAMES = ("a", "b", "c", "d")
entries = st.integers(-2, 2).map(float) | st.none() | st.just(Score.failed("outage"))


@st.composite
def cases(draw: st.DrawFn) -> tuple[dict[str, list[Any]], dict[str, FailurePolicy], RewardBatch]:
    """Conditions of four rewards, each on earlier ones or a column, and a batch."""
    rows = draw(st.integers(0, 6))
    order = draw(st.permutations(NAMES))
    conditions: dict[str, list[Any]] = {}
    for place, name in enumerate(order):
        possible: list[Any] = [st.sampled_from([ColumnCondition("k", in_=(1, 2)), ColumnCondition("k", not_in=(0,))])]
        if place:
            bounds = st.sampled_from([(None, 0.0), (0.0, None), (-1.0, 1.0)])
            possible.append(
                st.builds(lambda other, b: RewardCondition(other, *b), st.sampled_from(order[:place]), bounds)
            )
        conditions[name] = draw(st.lists(st.one_of(possible), max_size=2))
    columns = {name: draw(st.lists(entries, min_size=rows, max_size=rows)) for name in NAMES}
    columns["k"] = draw(st.lists(st.integers(0, 2), min_size=rows, max_size=rows))
    policies = {name: draw(st.sampled_from(POLICIES)) for name in NAMES}
    return conditions, policies, batch_of([row // 2 for row in range(rows)], **columns)


def slow_reference(conditions: dict[str, list[Any]], batch: RewardBatch) -> dict[str, list[str]]:
    """``asked``, ``not asked`` or ``failed`` for each reward and row, one row and condition at a time."""
    verdicts: dict[str, list[str]] = {}
    while len(verdicts) < len(conditions):
        for name, own in conditions.items():
            if name in verdicts or any(getattr(c, "reward", None) not in {None, *verdicts} for c in own):
                continue
            verdicts[name] = [_verdict(own, verdicts, batch, row) for row in range(len(batch))]
    return verdicts


def _verdict(own: list[Any], verdicts: dict[str, list[str]], batch: RewardBatch, row: int) -> str:
    holds: list[bool | None] = []
    for condition in own:
        if isinstance(condition, ColumnCondition):
            value = batch.columns["k"][row]
            holds.append(value in condition.in_ if condition.in_ else value not in condition.not_in)
            continue
        said, verdict = batch.columns[condition.reward][row], verdicts[condition.reward][row]
        if verdict == "failed" or (verdict == "asked" and isinstance(said, Score)):
            holds.append(None)
        elif verdict == "not asked" or said is None:
            holds.append(False)
        else:
            low = -math.inf if condition.min is None else condition.min
            high = math.inf if condition.max is None else condition.max
            holds.append(low <= said <= high)
    if False in holds:
        return "not asked"
    return "failed" if None in holds else "asked"


@given(cases(), st.booleans())
@settings(max_examples=60)
def test_asked_sets_are_those_of_a_slow_reference(case, later: bool) -> None:
    """Over random conditions, scores, abstentions and failures, here and on the event loop."""
    conditions, policies, batch = case
    rewards = {name: (AskedLater if later else Asked)(name) for name in NAMES}
    parts = {
        name: Component(
            rewards[name],
            when=conditions[name],
            otherwise="abstain" if conditions[name] else None,
            failure=policies[name],
        )
        for name in NAMES
    }
    composition = compose(parts, batch)
    for name, verdicts in slow_reference(conditions, batch).items():
        column = composition.rewards[name]
        assert sorted(rewards[name].rows) == [row for row, verdict in enumerate(verdicts) if verdict == "asked"]
        assert list(column.skipped) == [row for row, verdict in enumerate(verdicts) if verdict == "not asked"]
        kept = {row for row, verdict in enumerate(verdicts) if verdict == "failed"}
        assert kept == set(column.not_asked or ()) & column.failures.keys()
        assert column.abstained == sum(
            verdict == "asked" and batch.columns[name][row] is None for row, verdict in enumerate(verdicts)
        )


@given(
    st.lists(st.tuples(entries, entries), max_size=8),
    st.sampled_from([Passthrough, MinMax, ZScore, GroupZScore, Rank]),
    st.sampled_from(POLICIES),
)
@pytest.mark.filterwarnings("ignore:.*compares completions to the same prompt")
def test_conditions_that_all_rows_meet_change_nothing(rows, kind, policy) -> None:
    """Totals and every number behind them are those of the same composition without conditions, to the last bit."""
    batch = batch_of(
        [row // 3 for row in range(len(rows))],
        a=[1.0] * len(rows),
        b=[row[0] for row in rows],
        c=[row[1] for row in rows],
        k=[0] * len(rows),
    )

    def composed(*conditions: Any) -> Composition:
        parts = {
            "a": Component(Reading("a"), failure=policy),
            "b": Component(Reading("b"), normalizer=kind(), failure=policy),
            "c": Component(
                Reading("c"),
                normalizer=kind(),
                failure=policy,
                when=conditions,
                otherwise=-9.0 if conditions else None,
            ),
        }
        return compose(parts, batch)

    plain = composed()
    staged_ = composed(RewardCondition("a", min=1.0), ColumnCondition("k", in_=(0,)))
    np.testing.assert_array_equal(staged_.totals, plain.totals)
    assert staged_.to_records() == plain.to_records()
