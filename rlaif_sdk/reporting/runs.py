"""Runs side by side: which there are below a folder, what one was made of, and what two have otherwise."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlaif_sdk.exceptions import DataError
from rlaif_sdk.io.files import read_json
from rlaif_sdk.io.jobs import IDENTITY_FILE, SUMMARY_FILE, differences, shown
from rlaif_sdk.statistics.estimates import SampleMean
from rlaif_sdk.training.config import CHECKPOINTS
from rlaif_sdk.training.run_folder import MANIFEST_FILE, changes, last_checkpoint
from rlaif_sdk.training.sweep import RESULT_FILE

METRICS_FILE, ROUNDS_FILE, STAGES_FILE = "metrics.json", "rounds.json", "report.json"
"""What the report of a training run, of a closed loop and of a distillation writes into its folder."""
_RESULTS = {
    "labelling job": SUMMARY_FILE,
    "scoring job": SUMMARY_FILE,
    "loop": ROUNDS_FILE,
    "sweep": RESULT_FILE,
    "distillation": STAGES_FILE,
}
"""What each kind of job writes last."""


@dataclass(frozen=True, slots=True)
class RecordedFolder:
    """What a folder of results says of the run that made it.

    Attributes:
        folder: The folder.
        kind: The method that trained, or what the job is called.
        record: ``run.json`` of training; the identity of any other job.
        trained: Whether it is a training run.
    """

    folder: Path
    kind: str
    record: Mapping[str, Any]
    trained: bool

    @property
    def status(self) -> str:
        """As in ``run.json``; of a job whether its results are there, and empty where it is not known."""
        if self.trained:
            return str(self.record.get("status", ""))
        return ("finished" if self._results_file.is_file() else "unfinished") if self.kind in _RESULTS else ""

    @property
    def steps(self) -> int | None:
        """The optimiser steps that training has done; of a run that goes on or was killed, those of its last checkpoint."""
        if not self.trained:
            return None
        if (done := self.record.get("results", {}).get("steps")) is not None:
            return int(done)
        checkpoint = last_checkpoint(self.folder / CHECKPOINTS)
        return None if checkpoint is None else int(checkpoint.name.rpartition("-")[2])

    @property
    def _results_file(self) -> Path:
        return self.folder / _RESULTS[self.kind]

    def results(self) -> Mapping[str, Any] | None:
        """What came of a job; None if it has not finished, or is of a kind of which that is not known.

        Raises:
            DataError: The file of it cannot be read.
        """
        if self.kind not in _RESULTS or not self._results_file.is_file():
            return None
        found: Mapping[str, Any] = read_json(self._results_file)
        return found

    def held_out(self) -> dict[str, SampleMean]:
        """What was measured on held-out rows after training, by name; without standard errors where none are known.

        Of a closed loop it is what was measured of its best round, and of a distillation of its policy.

        Raises:
            DataError: ``metrics.json`` cannot be read.
        """
        results = None if self.trained else self.results()
        if results is not None and self.kind == "loop":
            best = results["rounds"][results["best"]]
            named = {"composed_reward": best["composed_reward"], **best["rewards"]}
            return {name: SampleMean.from_dict(each) for name, each in named.items()}
        if results is not None and self.kind == "distillation":
            return {name: SampleMean.from_dict(each["after"]) for name, each in results["policy"]["rewards"].items()}
        file = self.folder / METRICS_FILE
        measured = read_json(file).get("held_out", {}) if file.is_file() else {}
        after = measured.get("after")
        if isinstance(after, Mapping):
            return {name: SampleMean(value, math.nan, 1) for name, value in after.items() if _is_number(value)}
        return {name: SampleMean.from_dict(each["after"]) for name, each in measured.items() if "after" in each}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def recorded_run(folder: Path) -> RecordedFolder:
    """The run of a folder.

    Raises:
        DataError: The folder has none, or what it says of it cannot be read.
    """
    manifest, identity = folder / MANIFEST_FILE, folder / IDENTITY_FILE
    if manifest.is_file():
        record = _read(manifest, "method", "config", "data", "code", "models", "versions")
        return RecordedFolder(folder, str(record["method"]), record, trained=True)
    if identity.is_file():
        job = _read(identity, "kind", "identity")
        return RecordedFolder(folder, str(job["kind"]), job["identity"], trained=False)
    raise DataError(
        f"has no {MANIFEST_FILE} and no {IDENTITY_FILE}: it is no folder of a run",
        file=str(folder),
        hint="rlaif runs list FOLDER lists those below a folder",
    )


def _read(file: Path, *keys: str) -> dict[str, Any]:
    record = read_json(file)
    missing = [key for key in keys if not isinstance(record, dict) or key not in record]
    if missing:
        raise DataError(
            f"is no record of a run: it has no {', '.join(missing)}",
            file=str(file),
            hint="name a folder without it, or move it away",
        )
    return dict(record)


def find_runs(below: Path) -> list[RecordedFolder]:
    """The runs in a folder and below it, in the order of their names; checkpoints are none.

    Raises:
        DataError: There is no such folder, or a record cannot be read.
    """
    if not below.is_dir():
        raise DataError("there is no such folder", file=str(below), hint="name the folder in which the runs are")
    manifests = {file.parent for file in below.rglob(MANIFEST_FILE)}
    jobs = {file.parent.parent for file in below.rglob(IDENTITY_FILE)}
    return [recorded_run(folder) for folder in sorted(manifests | jobs) if not _is_checkpoint(folder)]


def _is_checkpoint(folder: Path) -> bool:
    return folder.parent.name == CHECKPOINTS and (folder.parent.parent / MANIFEST_FILE).is_file()


def what_differs(first: RecordedFolder, second: RecordedFolder) -> Iterator[str]:
    """What the second run has otherwise than the first, a line each: config, rows, code, models, then versions."""
    if first.trained and second.trained:
        yield from changes(first.record, second.record)
        for name, before, after in differences(first.record["versions"], second.record["versions"]):
            yield f"versions.{name}: {before} → {after}"
        return
    if first.kind != second.kind:
        yield f"kind: {first.kind} → {second.kind}"
    for key, before, after in differences(first.record, second.record):
        yield f"{key}: {shown(before)} → {shown(after)}"
    for key, before, after in differences(first.results() or {}, second.results() or {}):
        yield f"results.{key}: {shown(before)} → {shown(after)}"


def difference(first: SampleMean, second: SampleMean) -> SampleMean:
    """The second mean less the first, with the error of independent samples: of the same rows it is less, as a rule."""
    error = math.hypot(first.standard_error, second.standard_error)
    return SampleMean(second.mean - first.mean, error, min(first.n, second.n))
