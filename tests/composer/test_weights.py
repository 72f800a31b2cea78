from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif_sdk import Composer, ConfigError, Progress, Registry, RewardBatch, reward
from rlaif_sdk.composer.weights import Cosine, Crossing, Curve, Linear, Piecewise, Schedule, Step
from rlaif_sdk.exceptions import StateError

finite = st.floats(-1e6, 1e6)
positions = st.floats(-10, 2000)


@reward
def quality(prompts: list, completions: list, value: list) -> list:
    return value


@reward
def one(prompts: list, completions: list) -> list:
    return [1.0] * len(completions)


def batch(values: list[float | None], *, step: int = 0, training: bool = True) -> RewardBatch:
    rows = len(values)
    return RewardBatch(
        ["p"] * rows, ["c"] * rows, columns={"value": values}, progress=Progress(step), training=training
    )


def weight_over(composer: Composer, batches: list[RewardBatch]) -> list[float]:
    return [composer.compose(each).metrics()["reward/one/weight"] for each in batches]


def scheduled(schedule: Schedule) -> Composer:
    return Composer({"quality": quality, "one": one}, weights={"quality": 0.0, "one": schedule})


def test_a_linear_schedule_goes_from_one_weight_to_the_other_and_stays() -> None:
    """Before the start the first weight holds, after the end the last."""
    curve = Linear(start_value=0.0, end_value=1.0, start=100, end=300)
    assert [curve.at(step) for step in (0, 100, 150, 200, 300, 10**9)] == [0.0, 0.0, 0.25, 0.5, 1.0, 1.0]


def test_a_cosine_schedule_is_slow_at_both_ends() -> None:
    """It passes the middle at half time, and moves 1 - cos(pi / 4) halves in the first quarter."""
    curve = Cosine(start_value=1.0, end_value=0.0, end=400)
    assert curve.at(200) == pytest.approx(0.5)
    assert curve.at(100) == pytest.approx(1 - (1 - math.cos(math.pi / 4)) / 2)
    assert (curve.at(0), curve.at(400)) == (1.0, 0.0)


def test_a_piecewise_schedule_joins_its_points_by_straight_lines() -> None:
    """It is flat before the first point and after the last."""
    curve = Piecewise([(10, 1.0), (20, 3.0), (40, 0.0)])
    assert [curve.at(step) for step in (0, 10, 15, 20, 30, 40, 50)] == [1.0, 1.0, 2.0, 3.0, 1.5, 0.0, 0.0]


def test_a_step_schedule_changes_at_its_points() -> None:
    """The point itself already has the new weight."""
    curve = Step(1.0, [(10, 0.5), (20, 0.1)])
    assert [curve.at(step) for step in (-math.inf, 0, 9.5, 10, 19, 20, 99)] == [1.0, 1.0, 1.0, 0.5, 0.5, 0.1, 0.1]


@st.composite
def curves(draw: st.DrawFn) -> Curve:
    start = draw(st.floats(0, 500))
    end = start + draw(st.floats(1, 1000))
    points = sorted(draw(st.dictionaries(st.floats(0, 1000), finite, min_size=1, max_size=5)).items())
    return draw(
        st.sampled_from(
            [
                Linear(draw(finite), draw(finite), end, start),
                Cosine(draw(finite), draw(finite), end, start),
                Piecewise(points),
                Step(draw(finite), points),
            ]
        )
    )


@given(curves(), positions)
def test_a_weight_never_leaves_the_bounds_that_were_checked_at_load(curve: Curve, position: float) -> None:
    """What an aggregator was told of a schedule holds at every position."""
    low, high = curve.bounds
    slack = 1e-9 * max(abs(low), abs(high), 1.0)
    assert low - slack <= curve.at(position) <= high + slack


def test_the_weight_in_force_follows_the_optimiser_step_and_is_logged() -> None:
    """A change of the reward is in the log beside what it does to the total."""
    with scheduled(Schedule(Linear(0.0, 1.0, end=10))) as composer:
        composition = composer.compose(batch([0.0], step=4))
        assert composition.metrics()["reward/one/weight"] == pytest.approx(0.4)
        assert composition.totals.tolist() == pytest.approx([0.4])
        assert [step.weight for step in composition.explain(0).steps] == [0.0, pytest.approx(0.4)]


def test_episodes_are_the_rows_composed_before_in_training() -> None:
    """A batch's own rows do not count for it, and evaluation rows never do."""
    with scheduled(Schedule(Linear(0.0, 1.0, end=10), by="episode")) as composer:
        batches = [batch([0.0] * 2), batch([0.0] * 5, training=False), batch([0.0] * 3), batch([0.0])]
        assert weight_over(composer, batches) == pytest.approx([0.0, 0.2, 0.2, 0.5])


def test_a_schedule_waits_for_a_metric_with_patience_and_then_keeps_going() -> None:
    """The crossing takes effect on the next batch, needs batches in a row, and is latched."""
    crossing = Crossing("quality", above=0.5, patience=2)
    with scheduled(Schedule(Step(0.0, [(0, 1.0)]), trigger=crossing)) as composer:
        means = [0.6, 0.4, 0.6, 0.7, 0.0, 0.0]
        assert weight_over(composer, [batch([mean], step=9) for mean in means]) == [0.0, 0.0, 0.0, 0.0, 1.0, 1.0]


def test_positions_count_from_the_crossing() -> None:
    """A ramp that a metric sets off begins then, not at the start of training, and never again."""
    crossing = Crossing("quality", below=0.0)
    with scheduled(Schedule(Linear(0.0, 1.0, end=10), trigger=crossing)) as composer:
        batches = [batch([-1.0], step=step) for step in (50, 50, 55, 60)]
        assert weight_over(composer, batches) == [0.0, 0.0, 0.5, 1.0]


def test_a_batch_without_scores_neither_helps_nor_resets_a_crossing() -> None:
    """An outage says nothing about the metric."""
    crossing = Crossing("quality", above=0.5, patience=2)
    with scheduled(Schedule(Step(0.0, [(0, 1.0)]), trigger=crossing)) as composer:
        assert weight_over(composer, [batch([value]) for value in (1.0, None, 1.0, 0.0)]) == [0.0, 0.0, 0.0, 1.0]


def test_evaluation_does_not_set_a_schedule_off() -> None:
    """What is only measured changes nothing."""
    with scheduled(Schedule(Step(0.0, [(0, 1.0)]), trigger=Crossing("quality", above=0.5))) as composer:
        assert weight_over(composer, [batch([1.0], training=False), batch([0.0]), batch([0.0])]) == [0.0, 0.0, 0.0]


def test_a_schedule_goes_on_from_a_checkpoint() -> None:
    """Episodes, patience and the crossing survive, as JSON."""
    schedule = lambda: Schedule(  # noqa: E731 - two of the same
        Linear(0.0, 1.0, end=10), by="episode", trigger=Crossing("quality", above=0.5, patience=2)
    )
    batches = [batch([value] * 2) for value in (1.0, 1.0, 0.0, 0.0, 0.0)]
    with scheduled(schedule()) as composer:
        expected = weight_over(composer, batches)
    for cut in range(len(batches)):
        with scheduled(schedule()) as first, scheduled(schedule()) as second:
            before = weight_over(first, batches[:cut])
            second.load_state_dict(json.loads(json.dumps(first.state_dict())))
            assert before + weight_over(second, batches[cut:]) == expected


def test_the_state_of_another_schedule_is_refused() -> None:
    """The message has both."""
    short, long = (scheduled(Schedule(Linear(0.0, 1.0, end=end))) for end in (10, 20))
    both = r"weight 'one': saved with weight .*end=10.*now .*end=20"
    with short, long, pytest.raises(StateError, match=both):
        long.load_state_dict(short.state_dict())


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: Linear(0.0, 1.0, end=5, start=5), "must end after its start"),
        (lambda: Cosine(0.0, math.nan, end=5), "finite numbers"),
        (lambda: Piecewise([]), "at least one point"),
        (lambda: Piecewise([(1, 0.0), (1, 1.0)]), "in order"),
        (lambda: Step(math.inf, [(1, 0.0)]), "finite numbers"),
        (lambda: Crossing("quality"), "'above' or 'below'"),
        (lambda: Crossing("quality", above=1.0, below=0.0), "not both"),
        (lambda: Crossing("quality", above=1.0, patience=0), "'patience' must be at least 1"),
        (lambda: scheduled(Schedule(Linear(0, 1, end=5), trigger=Crossing("nobody", above=1.0))), "waits for 'nobody'"),
    ],
)
def test_an_ill_formed_schedule_is_refused_in_python(make: Callable[[], object], problem: str) -> None:
    """Before the first batch."""
    with pytest.raises(ConfigError, match=problem):
        make()


REWARDS = """
    rewards:
      quality: {{use: "./scores.py:quality"}}
      one:
        use: ./scores.py:one
        weight: {weight}
"""
SCORES = """
    def quality(prompts, completions):
        return [1.0] * len(prompts)
    one = quality
"""


@pytest.mark.parametrize(
    ("text", "weight"),
    [
        ("0.5", 0.5),
        ("{schedule: linear, from: 0, to: 1, start: 0, end: 1000, by: step}", 0.25),
        ("{schedule: cosine, from: 1, to: 0, end: 250}", 0.0),
        ("{schedule: piecewise, points: [[0, 1], [500, 3]]}", 2.0),
        ("{schedule: step, from: 1, points: [[100, 0.5], [1000, 0.1]]}", 0.5),
        ("{schedule: linear, from: 0, to: 1, end: 1000, by: episode}", 0.0),
        ("{schedule: linear, from: 0.125, to: 1, end: 10, trigger: {reward: quality, above: 5, patience: 3}}", 0.125),
    ],
)
def test_a_config_gives_a_constant_or_a_schedule(
    text: str, weight: float, write: Callable[[str, str], Path], registry: Registry
) -> None:
    """At step 250 of the first batch."""
    write("scores.py", SCORES)
    with Composer.from_config(write("c.yaml", REWARDS.format(weight=text)), registry=registry) as composer:
        composition = composer.compose(RewardBatch(["p"], ["c"], progress=Progress(250)))
    assert composition.rewards["one"].weight == pytest.approx(weight)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{schedule: linear, from: 0, to: 1}", "one.weight.end: is missing"),
        ("{schedule: linear, from: 0, to: 1, start: 9, end: 9}", "one.weight.end: must be greater than 'start', 9"),
        ("{schedule: linear, from: .nan, to: 1, end: 9}", "one.weight.from: input should be a finite number"),
        ("{schedule: linear, from: '0', to: 1, end: 9}", "one.weight.from: input should be a valid number"),
        ("{schedule: linear, from: true, to: 1, end: 9}", "one.weight.from: input should be a valid number"),
        ("{schedule: lnear, from: 0, to: 1, end: 9}", "one.weight.schedule: no schedule is called 'lnear'"),
        ("{from: 0, to: 1, end: 9}", "one.weight: a weight is a number, or a mapping with 'schedule'"),
        ("{schedule: cosine, from: 0, to: 1, end: 9, by: epoch}", "one.weight.by: input should be 'step' or 'episode'"),
        ("{schedule: cosine, from: 0, to: 1, ned: 9}", "one.weight.end: is missing"),
        ("{schedule: piecewise, points: []}", "one.weight.points"),
        ("{schedule: piecewise, points: [[1, 0], [0, 1]]}", "one.weight.points.1: the points must be in order"),
        ("{schedule: step, points: [[1, 0]]}", "one.weight.from: is missing"),
        (
            "{schedule: linear, from: 0, to: 1, end: 9, trigger: {reward: quality}}",
            "one.weight.trigger: a crossing needs",
        ),
        ("{schedule: linear, from: 0, to: 1, end: 9, trigger: {reward: x, above: 1}}", "one.weight: .*waits for 'x'"),
        ("true", "one.weight: input should be a valid number"),
        ("'1'", "one.weight: input should be a valid number"),
        ("[1]", "one.weight: input should be a valid number"),
    ],
)
def test_an_ill_formed_weight_is_refused_at_load_with_its_line(
    text: str, problem: str, write: Callable[[str, str], Path], registry: Registry
) -> None:
    """The message names the file, the line and the key."""
    write("scores.py", SCORES)
    path = write("c.yaml", REWARDS.format(weight=text))
    with pytest.raises(ConfigError, match=rf"c\.yaml:6: rewards\.{problem}"):
        Composer.from_config(path, registry=registry)
