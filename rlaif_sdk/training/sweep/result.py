"""What came of a sweep: the mean of every reward at every point, and which points are on the frontier."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rlaif_sdk.evaluation import hypervolume, mean_interval, nondominated
from rlaif_sdk.io.files import write_json
from rlaif_sdk.io.tables import write_table
from rlaif_sdk.training.sweep.config import Weights

RESULT_FILE = "sweep.json"
TABLE_FILE = "points.csv"


@dataclass(frozen=True, slots=True)
class PointResult:
    """One combination of weights.

    Attributes:
        weights: The weights that were varied.
        by_seed: For each reward its mean over the held-out prompts, one a seed, in the reward's own units; NaN where
            no prompt has a score.
    """

    weights: Weights
    by_seed: Mapping[str, Sequence[float]]

    def interval(self, reward: str) -> tuple[float, float]:
        """A reward's mean over the seeds, and the half-width of its 95% interval (Student's t); NaN of one seed."""
        return mean_interval(self.by_seed[reward])

    @property
    def label(self) -> str:
        """The weights in one line."""
        return ", ".join(f"{name}={weight:.4g}" for name, weight in self.weights.items())


@dataclass(frozen=True, slots=True)
class SweepResult:
    """All points of a sweep.

    Attributes:
        objectives: The rewards that are compared, with True where higher is better.
        points: The points in the order of the sweep.
        seeds: The seeds.
        reference: What the hypervolume is measured from, in the rewards' own units; None takes the worst of each.
    """

    objectives: Mapping[str, bool]
    points: Sequence[PointResult]
    seeds: Sequence[int]
    reference: Mapping[str, float] | None = None

    @property
    def frontier(self) -> list[bool]:
        """For each point whether no other is at least as good in every objective and better in one, by the means."""
        on: list[bool] = nondominated(self._oriented()).tolist()
        return on

    def hypervolume(self) -> tuple[float, dict[str, float]]:
        """The volume that the frontier dominates, and the reference that it is measured from, in own units.

        Without a given reference it is the worst mean of each objective: only sweeps over the same points compare.
        """
        oriented_PM = self._oriented()
        signs_M = self._signs()
        if self.reference is not None:
            reference_M = signs_M * np.array([self.reference[name] for name in self.objectives])
        elif np.isnan(oriented_PM).all(axis=0).any():
            return math.nan, {}
        else:
            reference_M = np.nanmin(oriented_PM, axis=0)
        own = dict(zip(self.objectives, (signs_M * reference_M).tolist(), strict=True))
        return hypervolume(oriented_PM, reference_M), own

    def _signs(self) -> Any:
        return np.array([1.0 if higher else -1.0 for higher in self.objectives.values()])

    def _oriented(self) -> Any:
        """(P, M) means, higher being better."""
        means = [[point.interval(name)[0] for name in self.objectives] for point in self.points]
        return np.array(means, dtype=np.float64).reshape(len(self.points), -1) * self._signs()

    def rows(self) -> Iterator[dict[str, Any]]:
        """One JSON-ready mapping a point: weights, means with half-widths, whether it is on the frontier."""
        for point, on in zip(self.points, self.frontier, strict=True):
            rewards = {}
            for name, values in point.by_seed.items():
                mean, half = point.interval(name)
                rewards[name] = {"mean": _json(mean), "ci95": _json(half), "by_seed": [_json(v) for v in values]}
            yield {"weights": dict(point.weights), "frontier": on, "rewards": rewards}

    def write(self, folder: Path) -> None:
        """Write ``sweep.json`` and ``points.csv``."""
        volume, reference = self.hypervolume()
        write_json(
            folder / RESULT_FILE,
            {
                "objectives": dict(self.objectives),
                "seeds": list(self.seeds),
                "hypervolume": _json(volume),
                "hypervolume_reference": reference,
                "points": list(self.rows()),
            },
        )
        write_table(map(_flat, self.rows()), folder / TABLE_FILE)


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {f"weight/{name}": weight for name, weight in row["weights"].items()}
    for name, figures in row["rewards"].items():
        flat |= {name: figures["mean"], f"{name}/ci95": figures["ci95"]}
    return {**flat, "frontier": row["frontier"]}


def _json(value: float) -> float | None:
    return None if math.isnan(value) else value
