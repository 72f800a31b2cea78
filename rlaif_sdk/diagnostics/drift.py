"""Reward hacking: what training rewards rises while a reward that it does not see falls. T optimiser steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from rlaif_sdk.statistics.arrays import Array
from rlaif_sdk.statistics.estimates import student_t_quantile

TOTAL = "total"
WINDOWS = 4
"""The run is cut into so many windows, so that a rise before the fall, as in Gao et al. (2023), does not hide it."""
MIN_STEPS = 4 * WINDOWS
"""With fewer steps the error of a window's mean is not known well enough."""


@dataclass(frozen=True, slots=True)
class Change:
    """How a mean differs between two windows.

    Attributes:
        value: The later mean minus the earlier.
        error: Its standard error.
    """

    value: float
    error: float

    @property
    def t(self) -> float:
        """The change in standard errors."""
        if self.error == 0:
            return math.copysign(math.inf, self.value) if self.value else 0.0
        return self.value / self.error


@dataclass(frozen=True, slots=True)
class Drift:
    """The two windows between which a proxy rose and the held-out reward fell most clearly.

    Attributes:
        proxy: ``total``, or the reward that training sees.
        held_out: The reward that it is compared with.
        earlier: First and last step of the earlier window.
        later: Those of the later window.
        gain: How the proxy changed.
        loss: How the held-out reward changed, higher being better.
        critical: What `statistic` exceeds by chance in at most a stated share of runs.
    """

    proxy: str
    held_out: str
    earlier: tuple[int, int]
    later: tuple[int, int]
    gain: Change
    loss: Change
    critical: float

    @property
    def statistic(self) -> float:
        """The lesser of the proxy's rise and the held-out reward's fall, each in its standard errors."""
        return min(self.gain.t, -self.loss.t)

    @property
    def detected(self) -> bool:
        """Whether both changes are larger than chance explains."""
        return self.statistic > self.critical

    def __str__(self) -> str:
        proxy = "the total" if self.proxy == TOTAL else repr(self.proxy)
        windows = f"between steps {_span(self.earlier)} and {_span(self.later)}"
        changes = (
            f"{proxy} changed by {self.gain.value:+.3g} ± {self.gain.error:.2g} and {self.held_out!r} by "
            f"{self.loss.value:+.3g} ± {self.loss.error:.2g}"
        )
        limit = f"t = {self.statistic:.1f}, {'above' if self.detected else 'not above'} {self.critical:.1f}"
        verdict = f"{proxy} rises at its cost" if self.detected else "no sign of reward hacking"
        return f"{windows} {changes} ({limit}): {verdict}"


def find_drifts(
    steps_T: Sequence[int],
    proxies: Mapping[str, Array],
    held_out: Mapping[str, Array],
    *,
    level: float = 0.01,
) -> list[Drift]:
    """Look for drift between each proxy and each held-out reward.

    The total alone would not do: a normaliser that learns holds its mean in place while the rewards in it rise.

    Args:
        steps_T: The steps, ascending.
        proxies: (T,) means by name of what training sees, the total under ``total``; higher being better.
        held_out: (T,) means of the held-out rewards by name; higher being better.
        level: In what share of runs without drift one is found, at most, all comparisons together.

    Returns:
        One finding a held-out reward that there are steps enough for, significant or not: with the total if that is
        significant, else with the proxy that speaks for drift most clearly.
    """
    comparisons = len(proxies) * len(held_out)
    chosen = []
    for name, held_out_T in held_out.items():
        found = [
            find_drift(steps_T, proxy_T, held_out_T, names=(proxy, name), level=level, comparisons=comparisons)
            for proxy, proxy_T in proxies.items()
        ]
        drifts = [drift for drift in found if drift is not None]
        if drifts:
            chosen.append(max(drifts, key=lambda drift: (drift.detected, drift.proxy == TOTAL, drift.statistic)))
    return chosen


def find_drift(
    steps_T: Sequence[int],
    proxy_T: Array,
    held_out_T: Array,
    *,
    names: tuple[str, str],
    level: float = 0.01,
    comparisons: int = 1,
) -> Drift | None:
    """Look for a rise of a proxy together with a fall of a held-out reward.

    The steps are cut into `WINDOWS` windows, and each pair of them is compared. The error of a window's mean comes
    from the spread of its steps around it, pooled over the windows, on as many independent steps as their correlation
    r from one step to the next leaves: ``n (1 - r) / (1 + r)`` (Bartlett, 1935). Both changes must exceed the critical
    value, the lesser of the two is therefore the statistic (an intersection-union test: Berger, 1982); the critical
    value is Student's at ``level`` shared among the pairs and ``comparisons`` (Bonferroni).

    Args:
        steps_T: The steps, ascending.
        proxy_T: The mean of the proxy at each, higher being better.
        held_out_T: The mean of the held-out reward at each, higher being better.
        names: Of the proxy and of the held-out reward.
        level: In what share of runs without drift one is found, at most.
        comparisons: How many pairs of a proxy and a held-out reward are looked at.

    Returns:
        The most telling pair of windows, whether or not it is significant; None with fewer than `MIN_STEPS` steps
        where both are known.
    """
    known_T = ~np.isnan(proxy_T) & ~np.isnan(held_out_T)
    steps = np.asarray(steps_T)[known_T]
    if len(steps) < MIN_STEPS:
        return None
    windows = np.array_split(np.arange(len(steps)), WINDOWS)
    proxy, held_out = _Series(proxy_T[known_T], windows), _Series(held_out_T[known_T], windows)
    pairs = list(combinations(range(WINDOWS), 2))
    critical = student_t_quantile(1 - 2 * level / (len(pairs) * comparisons), min(proxy.freedom, held_out.freedom))
    found = [
        Drift(
            proxy=names[0],
            held_out=names[1],
            earlier=(int(steps[windows[first][0]]), int(steps[windows[first][-1]])),
            later=(int(steps[windows[second][0]]), int(steps[windows[second][-1]])),
            gain=proxy.change(first, second),
            loss=held_out.change(first, second),
            critical=critical,
        )
        for first, second in pairs
    ]
    return max(found, key=lambda drift: drift.statistic)


def drift_in_history(history: Sequence[Mapping[str, Any]]) -> list[Drift]:
    """Look for drift in what a trainer has logged: of the total and each reward with a weight from those without.

    A log is looked at again at every step, so the level is 0.001, see `find_drifts`.

    Args:
        history: Mappings with ``step`` and the numbers of `rlaif_sdk.Composition.metrics`. Entries without them are
            passed over.

    Returns:
        One finding a held-out reward that enough steps know of, significant or not.
    """
    entries = [entry for entry in history if "step" in entry and "reward/total/mean" in entry]
    proxies = {TOTAL: _logged(entries, "reward/total/mean"), **_all_logged(entries, "proxy/")}
    return find_drifts([entry["step"] for entry in entries], proxies, _all_logged(entries, "held_out/"), level=0.001)


def _all_logged(entries: Sequence[Mapping[str, Any]], prefix: str) -> dict[str, Array]:
    names = {key.removeprefix(prefix): None for entry in entries for key in entry if key.startswith(prefix)}
    return {name: _logged(entries, prefix + name) for name in names}


def _logged(entries: Sequence[Mapping[str, Any]], key: str) -> Array:
    """(T,) a logged number, NaN where it is missing."""
    return np.array([entry.get(key) for entry in entries], dtype=np.float64)


class _Series:
    """The means of a series in its windows, and what is known of their errors."""

    def __init__(self, values_T: Array, windows: Sequence[np.ndarray[tuple[int, ...], np.dtype[np.intp]]]) -> None:
        self._means = np.array([values_T[window].mean() for window in windows])
        residuals = [values_T[window] - mean for window, mean in zip(windows, self._means, strict=True)]
        squares = sum(float(part @ part) for part in residuals)
        products = sum(float(part[1:] @ part[:-1]) for part in residuals)
        correlation = min(max(products / squares, 0.0), 0.99) if squares > 0 else 0.0
        independent = (1.0 - correlation) / (1.0 + correlation)
        self._counts = np.array([len(window) for window in windows]) * independent
        self._variance = squares / (len(values_T) - len(windows))
        self.freedom = max(1.0, len(values_T) * independent - len(windows))

    def change(self, first: int, second: int) -> Change:
        error = math.sqrt(self._variance * (1.0 / self._counts[first] + 1.0 / self._counts[second]))
        return Change(float(self._means[second] - self._means[first]), error)


def _span(window: tuple[int, int]) -> str:
    return f"{window[0]}–{window[1]}"
