"""Fallbacks: another reward's scores on the rows where one has failed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from rlaif_sdk.composer.component import Component
from rlaif_sdk.composer.validation import Answer
from rlaif_sdk.exceptions import ConfigError


def check_fallbacks(components: Mapping[str, Component], fallbacks: Mapping[str, Component]) -> None:
    """Check that each fallback that a reward names is there and speaks in the same units.

    Raises:
        ConfigError: It is not, or does not; or nobody names it.
    """
    for name, component in components.items():
        if component.fallback is None:
            continue
        key = f"rewards.{name}.fallback"
        if component.fallback not in fallbacks:
            known = ", ".join(fallbacks) or "none"
            raise ConfigError(f"there is no fallback {component.fallback!r}", key=key, hint=f"fallbacks: {known}")
        own, other = component.reward, fallbacks[component.fallback].reward
        if (own.range, own.higher_is_better) != (other.range, other.higher_is_better):
            raise ConfigError(
                f"the range {own.range} and that of its fallback, {other.range}, or their directions differ",
                key=key,
                hint="a fallback's scores must mean the same",
            )
    for name in fallbacks:
        if name in components:
            raise ConfigError("a reward has the same name", key=f"fallbacks.{name}")
        if all(component.fallback != name for component in components.values()):
            raise ConfigError("no reward names this fallback", key=f"fallbacks.{name}")


def with_fallback(answer: Answer, rows: Sequence[int], other: Answer | None, fallback: str) -> Answer:
    """The answer in which a fallback's scores stand in.

    Args:
        answer: What the reward said of B rows.
        rows: The rows on which it failed.
        other: What the fallback said of those rows, in their order; None if there are none.
        fallback: The fallback's name.
    """
    if other is None:
        return replace(answer, stood_in={})
    raw = answer.raw.copy()
    failures = dict(answer.failures)
    stood_in: dict[int, str] = {}
    entries = list(answer.entries) or [None] * len(raw)
    tokens = dict(answer.tokens)
    for index, row in enumerate(rows):
        if not math.isnan(other.raw[index]):
            raw[row] = other.raw[index]
            entries[row] = other.entries[index]
            if index in other.tokens:
                tokens[row] = other.tokens[index]
            stood_in[row] = f"fallback {fallback!r}: {failures.pop(row)}"
        else:
            problem = other.failures.get(index, "abstains")
            failures[row] = f"{failures[row]}; its fallback {fallback!r}: {problem}"
    return replace(
        answer,
        raw=raw,
        failures=failures,
        entries=entries,
        error=answer.error if failures else None,
        stood_in=stood_in,
        tokens=tokens,
    )
