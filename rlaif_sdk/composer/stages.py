"""Stages: the order in which rewards are asked, which follows from the conditions that look at other rewards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from graphlib import CycleError, TopologicalSorter

from rlaif_sdk.composer.component import Component
from rlaif_sdk.composer.conditions import ColumnCondition, RewardCondition
from rlaif_sdk.composer.constraints import Constraint
from rlaif_sdk.composer.gates import Gate
from rlaif_sdk.exceptions import BatchError, ConfigError
from rlaif_sdk.rewards import require_columns
from rlaif_sdk.statistics.arrays import is_finite_number
from rlaif_sdk.types import RewardBatch


def rewards_looked_at(component: Component) -> list[str]:
    """The rewards that a reward's conditions look at."""
    return [condition.reward for condition in component.when if isinstance(condition, RewardCondition)]


def columns_looked_at(components: Mapping[str, Component]) -> list[str]:
    """The columns that conditions look at, sorted."""
    conditions = [condition for part in components.values() for condition in part.when]
    return sorted({condition.column for condition in conditions if isinstance(condition, ColumnCondition)})


def in_order(components: Mapping[str, Component]) -> list[str]:
    """The rewards, each after those that its conditions look at, and otherwise in the order given.

    Raises:
        ConfigError: A condition names no reward, or its own; or conditions go in a circle.
    """
    for name, part in components.items():
        for index, condition in enumerate(part.when):
            if isinstance(condition, ColumnCondition) or condition.reward in components.keys() - {name}:
                continue
            known = ", ".join(other for other in components if other != name) or "none"
            problem = "the reward itself" if condition.reward == name else f"{condition.reward!r}"
            raise ConfigError(
                f"a condition looks at {problem}; there are {known}", key=f"rewards.{name}.when.{index}.reward"
            )
    sorter = TopologicalSorter({name: rewards_looked_at(part) for name, part in components.items()})
    try:
        return [*sorter.static_order()]
    except CycleError as error:
        circle = error.args[1]
        raise ConfigError(
            f"the conditions go in a circle: {' waits for '.join(reversed(circle))}", key=f"rewards.{circle[0]}.when"
        ) from None


def check_columns(parts: Mapping[str, Component], batch: RewardBatch) -> None:
    """Check that a batch has the columns that rewards and their conditions read.

    Raises:
        BatchError: One is missing; the message names the reward.
    """
    for name, part in parts.items():
        require_columns(part.reward, batch, name, part.columns, place=part.place)
        for column in columns_looked_at({name: part}):
            if column not in batch.columns:
                who = f"{part.place}: reward {name!r}" if part.place else f"reward {name!r}"
                present = ", ".join(sorted(batch.columns)) or "only the prompt and the completion"
                raise BatchError(
                    f"{who}: the column {column!r} is missing, which 'when' looks at",
                    hint=f"columns present: {present}",
                )


def check_conditions(
    components: Mapping[str, Component], gates: Sequence[Gate], constraints: Sequence[Constraint]
) -> None:
    """Check that conditions fit a composition.

    Raises:
        ConfigError: Its ``when`` or ``otherwise`` is refused, or a gate or constraint would leave every row unscored that
            its reward is not asked about.
    """
    in_order(components)
    for name, part in components.items():
        key = f"rewards.{name}.otherwise"
        if part.otherwise is not None and not part.when:
            raise ConfigError("'otherwise' goes with 'when': every row is asked about", key=key)
        if part.otherwise not in {None, "abstain"} and not is_finite_number(part.otherwise):
            raise ConfigError(f"a finite number or 'abstain', not {part.otherwise!r}", key=key)
        if part.otherwise is None and rewards_looked_at(part):
            raise ConfigError(
                "'when' looks at a reward, so 'otherwise' must say what a row gets that is not asked about",
                key=f"rewards.{name}.when",
                hint="'otherwise: 0' is a score in the reward's own units; with 'otherwise: abstain' the other weights are "
                "scaled up, and a row may gain by not meeting the condition",
            )
    for index, gate in enumerate(gates):
        if gate.on_missing == "unscored" and _abstains(components.get(gate.reward)):
            raise ConfigError(
                f"{gate.reward!r} is not asked about every row, and the others would get no total",
                key=f"gates.{index}",
                hint=f"write 'on_missing: pass' or 'floor', or 'otherwise: NUMBER' under {gate.reward!r}",
            )
    for index, constraint in enumerate(constraints):
        if _abstains(components.get(constraint.reward)):
            raise ConfigError(
                f"{constraint.reward!r} is not asked about every row, and the others would get no total",
                key=f"constraints.{index}",
                hint=f"write 'otherwise: NUMBER' under {constraint.reward!r}",
            )


def _abstains(part: Component | None) -> bool:
    """Whether a reward has no score where it is not asked."""
    return part is not None and bool(part.when) and part.otherwise_value is None
