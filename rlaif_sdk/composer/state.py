"""Saved state that knows what it belongs to, and is refused by anything else."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from rlaif_sdk.composer.component import Component
from rlaif_sdk.composer.constraints import Constraint
from rlaif_sdk.composer.weights import Weight
from rlaif_sdk.exceptions import StateError
from rlaif_sdk.io.digests import json_digest


class Learner(Protocol):
    """Something that learns during training: a normalizer, a schedule, a multiplier."""

    def state_dict(self) -> dict[str, Any]:
        """What must survive a checkpoint, as JSON values."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from a saved state, or raise a `StateError`."""


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A part of a composition that has state.

    Attributes:
        of: What the state belongs to, as flat JSON values: state saved with others is refused.
        learner: What holds the state, or None where nothing is learned.
    """

    of: Mapping[str, Any]
    learner: Learner | None


Parts = Mapping[str, Mapping[str, Part]]
"""The parts of a composition, by kind (``reward``, say) and name."""


def save(parts: Parts) -> dict[str, Any]:
    """The state of all parts, as JSON values."""
    return {
        f"{kind}s": {
            name: {"of": dict(part.of), "state": part.learner.state_dict() if part.learner else {}}
            for name, part in named.items()
        }
        for kind, named in parts.items()
    }


def load(parts: Parts, state: Mapping[str, Any]) -> None:
    """Load a saved state into all parts, or none of them.

    Raises:
        StateError: The state is of other parts, or of parts that were configured otherwise; the message names what
            differs.
    """
    problems = [problem for kind in parts for problem in _differences(kind, parts[kind], state.get(f"{kind}s", {}))]
    if problems:
        raise StateError(
            "the saved state does not fit: " + "; ".join(problems),
            hint="resume with what it was saved with, or start with fresh statistics",
        )
    before = save(parts)
    try:
        _restore(parts, state)
    except StateError:
        _restore(parts, before)
        raise


def _restore(parts: Parts, state: Mapping[str, Any]) -> None:
    for kind, named in parts.items():
        for name, part in named.items():
            if part.learner is None:
                continue
            try:
                learned = state[f"{kind}s"][name]["state"]
                _check_finite(learned)
                part.learner.load_state_dict(learned)
            except (StateError, KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
                problem = error.message if isinstance(error, StateError) else f"{type(error).__name__}: {error}"
                raise StateError(f"{kind} {name!r}: {problem}") from error


def _check_finite(value: Any) -> None:
    """Refuse numbers that nothing has learned: one that is NaN or no double would be in every total from here on."""
    if isinstance(value, (int, float)):
        if not math.isfinite(value):  # OverflowError of a whole number beyond all doubles
            raise StateError(f"{value} cannot have been learned")
    elif isinstance(value, (Mapping, list)):
        for item in value.values() if isinstance(value, Mapping) else value:
            _check_finite(item)


def _differences(kind: str, own: Mapping[str, Part], saved: Any) -> list[str]:
    if not isinstance(saved, Mapping) or saved.keys() != own.keys():
        names = sorted(saved) if isinstance(saved, Mapping) else saved
        return [f"it is of the {kind}s {names}, and these are {sorted(own)}"]
    problems = []
    for name, part in own.items():
        then = saved[name].get("of") if isinstance(saved[name], Mapping) else None
        if not isinstance(then, Mapping):
            problems.append(f"{kind} {name!r}: nothing says what it was saved with")
            continue
        changed = [key for key in {**then, **part.of} if then.get(key, _NONE) != part.of.get(key, _NONE)]
        problems += [f"{kind} {name!r}: {_change(key, then, part.of)}" for key in changed]
    return problems


def _change(key: str, then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    if key.startswith("params."):
        return f"saved with another value of {key}"
    return f"saved with {key} {then.get(key)!r}, now {now.get(key)!r}"


def of_reward(component: Component, version: str) -> dict[str, Any]:
    """What the running statistics of a reward belong to.

    Its parameters are told apart by digests, since they may hold a secret.

    Args:
        component: The reward and its normalizer.
        version: Its version before setup: some know the revision of their weights only after it, and state is loaded
            before.
    """
    described = component.normalizer.describe()
    return {
        "version": version,
        **{f"params.{key}": json_digest(value, default=repr) for key, value in component.params.items()},
        "normalizer": described.pop("kind"),
        **{f"normalizer.{key}": value for key, value in described.items()},
        **({"when": " and ".join(map(repr, component.when))} if component.when else {}),
        **({"ask": repr(component.ask)} if component.ask else {}),
    }


def of_weight(weight: Weight) -> dict[str, Any]:
    """What a weight's state belongs to."""
    return {"weight": weight if isinstance(weight, (int, float)) else repr(weight)}


def of_constraint(constraint: Constraint) -> dict[str, Any]:
    """What a multiplier belongs to."""
    return asdict(constraint)


_NONE = object()
