"""Stages: the order in which rewards are asked, which follows from the conditions that look at other rewards."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter

from rlaif_sdk.composer.component import Component
from rlaif_sdk.composer.conditions import ColumnCondition, RewardCondition
from rlaif_sdk.composer.constraints import Constraint
from rlaif_sdk.composer.gates import Gate
from rlaif_sdk.exceptions import BatchError, ConfigError
from rlaif_sdk.rewards import require_columns
from rlaif_sdk.statistics.arrays import is_finite_number
from rlaif_sdk.types import RewardBatch


def rewards_looked_at(components: Mapping[str, Component]) -> dict[str, list[str]]:
    """The rewards that each reward waits for: those that its conditions look at, and all others if it has an ``ask``."""
    return {
        name: [other for other in components if other != name] if part.ask else _in_conditions(part)
        for name, part in components.items()
    }


def _in_conditions(component: Component) -> list[str]:
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
    sorter = TopologicalSorter(rewards_looked_at(components))
    try:
        return [*sorter.static_order()]
    except CycleError as error:
        circle = error.args[1]
        raise ConfigError(
            f"the conditions go in a circle: {' waits for '.join(reversed(circle))}", key=f"rewards.{circle[0]}.when"
        ) from None


def users_of(
    name: str,
    components: Mapping[str, Component],
    gates: Sequence[Gate],
    constraints: Sequence[Constraint],
    followed: Sequence[str],
) -> list[str]:
    """What needs a reward's scores whatever its weight, in words: gates, constraints, schedules, conditions of rewards.

    Args:
        name: The reward.
        components: All rewards by name.
        gates: The gates.
        constraints: The constraints.
        followed: The rewards whose means schedules follow.
    """
    users = [f"gate {gate}" for gate in gates if gate.reward == name]
    users += [f"constraint {constraint}" for constraint in constraints if constraint.reward == name]
    users += ["schedule of a weight"] if name in followed else []
    return users + [f"'when' of {other!r}" for other, part in components.items() if name in _in_conditions(part)]


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
        if part.otherwise is None and _in_conditions(part):
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


def check_ask(
    components: Mapping[str, Component],
    gates: Sequence[Gate],
    constraints: Sequence[Constraint],
    watched: Sequence[str],
    witnesses: Collection[str],
    *,
    is_sum: bool,
) -> None:
    """Check that a reward which is asked only where it matters can be.

    Args:
        components: The rewards by name.
        gates: The gates.
        constraints: The constraints.
        watched: The rewards whose means schedules follow.
        witnesses: The rewards that training must not see, and that tell it nothing of the costly one.
        is_sum: Whether the total is a weighted sum.

    Raises:
        ConfigError: It has no finite range, compares completions, is normalised by other scores, or is needed about every
            row; or there are several.
    """
    asking = [name for name, part in components.items() if part.ask]
    for name in asking:
        part = components[name]
        value_range, kind = part.reward.range, type(part.normalizer).__name__
        leave_out = "leave 'ask' out"
        followed = [*(constraint.reward for constraint in constraints), *watched]
        refusals = (
            (
                len(asking) > 1,
                f"{' and '.join(asking)} have one, and each waits for the other",
                "keep it on the costliest",
            ),
            (
                components.keys() <= {name, *witnesses},
                "there is no other reward, so every total hangs on its answer",
                leave_out,
            ),
            (
                value_range is None or not all(map(is_finite_number, value_range)),
                f"its range is {value_range}: an answer without bounds could change any order, and nothing can be saved safely",
                "declare a finite range in the reward, or leave 'ask' out",
            ),
            (
                part.reward.scope == "group",
                "it compares the completions to one prompt, and cannot be asked about some of them",
                "leave 'ask' out; 'tournament' chooses its pairs with 'scheme: information'",
            ),
            (
                not part.normalizer.by_itself,
                f"{kind} makes of a score what the others make of it, and those that are asked about are chosen",
                "normalize by none, minmax or fixed_zscore; an advantage is taken within its group anyway",
            ),
            (part.weight == 0, "its weight is 0, so no answer matters", leave_out),
            (not is_sum, "the total is no weighted sum, of which alone it is known what an answer changes", leave_out),
            (any(gate.reward == name for gate in gates), "a gate must know its score of every row", leave_out),
            (
                name in followed,
                "a constraint or a schedule follows its mean, and who is asked about is chosen",
                leave_out,
            ),
            (
                any(name in _in_conditions(other) for other in components.values()),
                "the condition of another reward must know its score of every row",
                leave_out,
            ),
        )
        for is_so, problem, hint in refusals:
            if is_so:
                raise ConfigError(problem, key=f"rewards.{name}.ask", hint=hint)


def _abstains(part: Component | None) -> bool:
    """Whether a reward has no score where it is not asked."""
    return part is not None and bool(part.when) and part.otherwise_value is None
