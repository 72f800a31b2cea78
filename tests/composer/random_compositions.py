"""Random compositions that learn, and random runs of batches for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from hypothesis import strategies as st

from rlaif_chebyshev import Chebyshev, ChebyshevParams
from rlaif_robust import GroupRobust, Robust, RobustParams
from rlaif_sdk import Composer, Progress, Reward, RewardBatch, Score
from rlaif_sdk.composer import Component, FailurePolicy, Gate, RewardCondition
from rlaif_sdk.composer.aggregators import (
    Aggregator,
    Minimum,
    Product,
    ProductParams,
    RewardGroup,
    WeightedSum,
)
from rlaif_sdk.composer.all_gather import AllGather
from rlaif_sdk.composer.constraints import Constraint
from rlaif_sdk.composer.normalizers import (
    GroupCenter,
    GroupZScore,
    Limited,
    LimitParams,
    MinMax,
    Normalizer,
    Passthrough,
    Quantile,
    QuantileParams,
    Rank,
    ZScore,
)
from rlaif_sdk.composer.weights import Cosine, Crossing, Linear, Piecewise, Schedule, Step

NAMES = ("a", "b", "c", "d")

NORMALIZERS: tuple[Callable[[], Normalizer], ...] = (
    Passthrough,
    MinMax,
    ZScore,
    GroupZScore,
    GroupCenter,
    Rank,
    partial(Quantile, QuantileParams(capacity=8, seed=3)),
    partial(Robust, RobustParams(window=7)),
    GroupRobust,
    lambda: Limited(ZScore(), LimitParams(winsorize=0.1, clip=1.5)),
    lambda: Limited(Rank(), LimitParams(winsorize=(0.0, 0.8))),
)
AGGREGATORS: tuple[Callable[[], Aggregator], ...] = (
    WeightedSum,
    Minimum,
    partial(Product, ProductParams(mapping="sigmoid")),
    partial(Chebyshev, ChebyshevParams(ideal=2.0, augmentation=0.01)),
)
SCHEDULES: tuple[Callable[[], Schedule], ...] = (
    lambda: Schedule(Linear(0.2, 1.0, end=4)),
    lambda: Schedule(Cosine(1.0, 0.1, end=20), by="episode"),
    lambda: Schedule(Piecewise([(0, 0.5), (3, 2.0)]), trigger=Crossing("a", above=0.0)),
    lambda: Schedule(Step(0.0, [(0, 1.0), (9, 0.5)]), by="episode", trigger=Crossing("b", below=1.0, patience=2)),
)
CONDITIONS = {
    "b": (RewardCondition("a", min=-3.0),),
    "c": (RewardCondition("a", max=2.0), RewardCondition("b", min=0.0)),
    "d": (RewardCondition("c", max=5.0), RewardCondition("b", min=-8.0, max=8.0)),
}
POLICIES = (
    FailurePolicy(fail_fast=False),
    FailurePolicy(mask_group="never", fail_fast=False),
    FailurePolicy(mask_group="missing", fail_fast=False),
    FailurePolicy("drop", fail_fast=False),
    FailurePolicy("default", value=0.0, fail_fast=False),
)


class Reading(Reward):
    """Gives what stands in a column of the batch."""

    range = (-10.0, 10.0)
    ends = ("bad", "good")

    def __init__(self, column: str, *, cost: bool = False) -> None:
        self.columns = (column,)
        self.higher_is_better = not cost

    def score(self, batch: RewardBatch) -> list[Score | float | None]:
        return list(batch.column(self.columns[0]))


@dataclass
class Setup:
    """A random composition; `composer` makes it anew, without memory."""

    weights: dict[str, Callable[[], float | Schedule]]
    normalizers: dict[str, Callable[[], Normalizer]]
    policies: dict[str, FailurePolicy]
    costs: dict[str, bool]
    aggregator: Callable[[], Aggregator]
    inner: Callable[[], Aggregator] | None
    constraints: list[Constraint]
    gates: list[Gate]
    gate_order: str
    conditions: dict[str, list[RewardCondition]]
    otherwise: float

    def composer(self, *, all_gather: AllGather | None = None, names: list[str] | None = None) -> Composer:
        """The composition, with its rewards in the given order."""
        names = names or list(NAMES)
        return Composer(
            {
                name: Component(
                    Reading(name, cost=self.costs[name]),
                    weight=self.weights[name](),
                    normalizer=self.normalizers[name](),
                    failure=self.policies[name],
                    when=self.conditions[name],
                    otherwise=self.otherwise if self.conditions[name] else None,
                )
                for name in names
            },
            aggregator=self.aggregator(),
            groups={"inner": RewardGroup([name for name in names if name in "cd"], 0.5, self.inner())}
            if self.inner
            else {},
            constraints=self.constraints,
            gates=self.gates,
            gate_order=self.gate_order,
            all_gather=all_gather,
        )


def constant(weight: float) -> Callable[[], float]:
    return lambda: weight


@st.composite
def setups(draw: st.DrawFn) -> Setup:
    weights = [*map(constant, (0.5, 1.0, 2.0)), *SCHEDULES]
    bounds = draw(st.tuples(st.floats(-5, 5), st.floats(-5, 5)))
    constraints = [
        Constraint("d", max=bounds[0], step_size=0.3),
        Constraint("c", min=bounds[1], step_size=0.1, initial=0.5, ceiling=1.0),
    ]
    gates = [Gate("a", min=-2.0, floor=-30.0, on_missing="pass"), Gate("b", max=5.0, floor=-20.0)]
    per_name = lambda strategy: st.fixed_dictionaries(dict.fromkeys(NAMES, strategy))  # noqa: E731 - used thrice here
    return Setup(
        weights=draw(per_name(st.sampled_from(weights))),
        normalizers=draw(per_name(st.sampled_from(NORMALIZERS))),
        policies=draw(per_name(st.sampled_from(POLICIES))),
        costs=draw(per_name(st.booleans())),
        aggregator=draw(st.sampled_from(AGGREGATORS)),
        inner=draw(st.none() | st.sampled_from(AGGREGATORS)),
        constraints=draw(st.lists(st.sampled_from(constraints), unique=True, max_size=2)),
        gates=draw(st.sampled_from([[], gates, gates[:1]])),
        gate_order=draw(st.sampled_from(["independent", "lexicographic"])),
        conditions={"a": [], **{name: draw(st.lists(st.sampled_from(CONDITIONS[name]), max_size=1)) for name in "bcd"}},
        otherwise=draw(st.sampled_from([0.0, -3.0])),
    )


scores = st.floats(-10, 10) | st.integers(-10, 10).map(float) | st.none() | st.just(Score.failed("outage"))


@st.composite
def batches(draw: st.DrawFn, *, max_groups: int = 4, size: int = 2, step: int = 0) -> RewardBatch:
    """A batch of a few groups of ``size`` rows."""
    groups = draw(st.integers(0, max_groups))
    rows = groups * size
    columns = {name: draw(st.lists(scores, min_size=rows, max_size=rows)) for name in NAMES}
    return RewardBatch(
        [f"p{row // size}" for row in range(rows)],
        ["c"] * rows,
        columns=columns,
        group=[row // size for row in range(rows)],
        progress=Progress(step),
        training=draw(st.sampled_from([True, True, True, False])),
    )


@st.composite
def runs(draw: st.DrawFn, *, min_size: int = 1, max_size: int = 4) -> list[RewardBatch]:
    """Several batches, one an optimiser step."""
    return [draw(batches(step=step)) for step in range(draw(st.integers(min_size, max_size)))]
