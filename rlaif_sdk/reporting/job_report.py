"""The report of a job or a loop: what came of labelling, of scoring with Ray, of each round, point or stage."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rlaif_sdk.conversations import USER, shown
from rlaif_sdk.exceptions import DataError
from rlaif_sdk.io.files import write_text
from rlaif_sdk.io.jobs import FAILURES_FILE, flattened
from rlaif_sdk.io.tables import read_rows
from rlaif_sdk.reporting.distill_report import policy_rows, reliability_rows
from rlaif_sdk.reporting.iterate_report import curve_points, round_rows
from rlaif_sdk.reporting.page import Section, page, part
from rlaif_sdk.reporting.run_report.plots import COLOURS, Plot, histogram, logged_numbers
from rlaif_sdk.reporting.run_report.report import MOST_FAILURES, text
from rlaif_sdk.reporting.sweep_report import sweep_rows
from rlaif_sdk.training.sweep import SweepResult

if TYPE_CHECKING:
    from rlaif_sdk.reporting.runs import RecordedFolder

_MOST_PAIRS = 20
_EXCERPT = 110
_READ = ("prob_1", "flipped", "label_mass")
_SUMMARY = ("pairs", "labelled", "failed", "flip_rate", "position_bias", "ties", "hard", "flagged", "label_mass")


def write_job_report(output: str | Path, job: RecordedFolder) -> None:
    """Write a report of a job or a loop as one HTML file, which needs no network.

    Args:
        output: The HTML file.
        job: The job, whose results must be there.

    Raises:
        DataError: The job has not finished, or is of a kind without results to report.
        MissingExtraError: jinja2 or plotly is not installed.
    """
    if job.kind not in _SECTIONS:
        hint = f"there are reports of training runs, ledgers, and each {', '.join(_SECTIONS)}"
        raise DataError(f"is a {job.kind}, of which there is no report", file=str(job.folder), hint=hint)
    results = job.results()
    if results is None:
        hint = "start its command again: what is done is not done again"
        raise DataError(f"holds a {job.kind} that has not finished", file=str(job.folder), hint=hint)
    made_of = Section("job", "The job", "What it was made of.")
    made_of.add("table", ("", ""), flattened(job.record))
    title = f"{job.kind.capitalize()} {job.folder.resolve().name}"
    write_text(output, page(title, [*_SECTIONS[job.kind](job, results), made_of]))


def _labels(job: RecordedFolder, results: Mapping[str, Any]) -> Iterator[Section]:
    section = Section(
        "labels", "Labels", "The flip rate is the share of pairs whose winner changes with the order of the responses."
    )
    section.add("items", results["warnings"], "warnings")
    section.add("table", ("", ""), flattened({name: results[name] for name in _SUMMARY}))
    section.add("heading", "What it took")
    section.add("table", ("", ""), flattened({name: results[name] for name in ("judge", "usage", "cost_per_label")}))
    file = job.folder / (results["labels"] or "")
    rows = [*map(_typed, read_rows(file))] if file.is_file() else []
    if not file.is_file():
        where = results["labels"] or "standard output"
        section.add("paragraph", f"The labels went to {where} and are not there: no pair is shown.", "soft")
    yield section
    if rows:
        spread = Section(
            "spread", "How sure it is", "The probability that response 1 is better, by how many pairs; and, of labels read "
            "from probabilities, the mass that both labels had together."
        )  # fmt: skip
        spread.plot(_spread([row["prob_1"] for row in rows], "probability that response 1 is better"))
        if masses := [row["label_mass"] for row in rows if row["label_mass"] is not None]:
            spread.plot(_spread(masses, "mass of the labels"))
        yield spread
    failures = job.folder / FAILURES_FILE
    if failures.is_file():
        yield _failed_pairs([*read_rows(failures)])
    if rows:
        yield _doubtful_pairs(rows)


def _typed(row: Mapping[str, Any]) -> dict[str, Any]:
    """A label whose numbers are numbers in whatever form its table is: in CSV all values are text."""
    read = {name: json.loads(row[name] or "null") if isinstance(row[name], str) else row[name] for name in _READ}
    return {**row, **read}


def _failed_pairs(rows: Sequence[Mapping[str, Any]]) -> Section:
    section = Section("failures", "Pairs without a label", "Started again, the job asks about them once more.")
    counted = Counter((row["kind"] or "", row["error"] or "") for row in rows)
    first = {(row["kind"] or "", row["error"] or ""): row["row"] for row in reversed(rows)}
    shown_rows = [(kind, why, count, first[kind, why]) for (kind, why), count in counted.most_common(MOST_FAILURES)]
    section.add("table", ("kind", "why", "pairs", "first row"), shown_rows, "text")
    return section


def _doubtful_pairs(rows: Sequence[Mapping[str, Any]]) -> Section:
    section = Section("pairs", "The most doubtful pairs", "Those whose probability is nearest to one half.")
    for row in sorted(rows, key=lambda row: abs(row["prob_1"] - 0.5))[:_MOST_PAIRS]:
        prompt = shown(row["prompt"], role=USER)
        sides = [(part("heading", name.capitalize()), text(shown(row[name]))) for name in ("chosen", "rejected")]
        head = f"{row['prob_1']:.3f}{' · flipped' if row['flipped'] else ''}"
        parts = (part("heading", "Prompt"), text(prompt), part("columns", sides))
        section.add("details", head, " ".join(prompt.split())[:_EXCERPT], parts)
    return section


def _spread(values: Sequence[float], title: str) -> Plot:
    layout = {
        "xaxis": {"title": {"text": title}, "range": [0, 1]},
        "yaxis": {"title": {"text": "pairs"}},
        "height": 300,
    }
    return {"data": [histogram(np.array(values), (0, 1), title, COLOURS[0])], "layout": layout}


def _scores(_: RecordedFolder, results: Mapping[str, Any]) -> Iterator[Section]:
    section = Section("scores", "Scores", f"Of {results['rows']:,} rows {results['unscored']:,} are unscored.")
    if results["first_unscored"]:
        row, why = results["first_unscored"]
        section.add("paragraph", f"The first is row {row}: {why}.")
    numbers = ("mean", "std", "min", "max")
    rows = [
        (name, said["scored"], said["failed"], *(f"{said[key]:.4g}" if key in said else "–" for key in numbers))
        for name, said in results["rewards"].items()
    ]
    section.add("table", ("reward", "scored", "failed", *numbers), rows)
    yield section


def _rounds(_: RecordedFolder, results: Mapping[str, Any]) -> Iterator[Section]:
    end = f"The loop ended: {results['end']}. The best round is {results['best']}; round 0 is the starting model."
    section = Section("rounds", "Rounds, on the held-out prompts", end)
    headings, *rows = round_rows(results["rounds"])
    section.add("table", headings, rows)
    plot = logged_numbers([curve_points(number, each) for number, each in enumerate(results["rounds"])])
    if plot:
        section.plot(plot)
    yield section


def _points(_: RecordedFolder, results: Mapping[str, Any]) -> Iterator[Section]:
    volume = results["hypervolume"]
    known = "" if volume is None else f" Hypervolume {volume:.4g}."
    section = Section(
        "points",
        "Points",
        f"Means over the held-out prompts, with the half-width of the 95% interval over {len(results['seeds'])} seeds; * is "
        f"on the Pareto frontier.{known}",
    )
    headings, *rows = sweep_rows(SweepResult.from_dict(results))
    section.add("table", headings, rows)
    yield section


def _stages(_: RecordedFolder, results: Mapping[str, Any]) -> Iterator[Section]:
    for name in ("candidates", "labels"):
        section = Section(name, name.capitalize())
        section.add("table", ("", ""), flattened(results[name]))
        yield section
    model, policy = results["reward_model"], results["policy"]
    section = Section("reward-model", "Reward model", f"On {model['held_out_pairs']} held-out pairs.")
    section.add("table", ("", "before", "after"), [*reliability_rows(model)])
    yield section
    section = Section("policy", "Policy", "On held-out prompts, before and after training.")
    section.add("table", ("", "before", "after", "change"), [*policy_rows(policy)])
    yield section
    section = Section("comparison", "The judge on the answers after against those before")
    section.add("table", ("", ""), flattened(results["comparison"]))
    yield section


_SECTIONS: dict[str, Callable[[RecordedFolder, Mapping[str, Any]], Iterator[Section]]] = {
    "labelling job": _labels,
    "scoring job": _scores,
    "loop": _rounds,
    "sweep": _points,
    "distillation": _stages,
}
