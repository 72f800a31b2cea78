"""What judges fall for: the table of reports that ``rlaif attack judge CONFIG --json`` printed."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from _report import save

Report = dict[str, Any]


def cells(results: list[Report], side: str, cases: int) -> str:
    """On how many tries an attack succeeded, how often it flipped a winner by less, and the mean rise."""
    tried = [result[side] for result in results]
    gains = [one["mean_gain"] for one in tried if one["mean_gain"] is not None]
    gain = f"{sum(gains) / len(gains):+.2f}" if gains else "–"
    succeeded, flipped = (sum(one[name] for one in tried) for name in ("succeeded", "flipped"))
    return f"{succeeded}/{cases * len(results)} | {flipped} | {gain}"


def lines(judge: str, report: Report) -> Iterator[str]:
    """A table a judge: a row a family, then the attacks that succeeded against the defended judge."""
    cases, results = report["cases"], report["results"]
    tries = f"{report['attacks']} attacks on {cases} cases"
    yield from (f"**{judge}**, a judge of {report['judge_of']}: {tries}", "")
    yield "| family | with defences | flipped | gain | without | flipped | gain | succeeded with defences, on how many cases |"
    yield "|---|---|---|---|---|---|---|---|"
    for family, own in groupby(results, lambda result: result["family"]):
        group = list(own)
        names = [f"{one['name']} {one['defended']['succeeded']}" for one in group if one["defended"]["succeeded"]]
        sides = " | ".join(cells(group, side, cases) for side in ("defended", "undefended"))
        yield f"| {family} | {sides} | {', '.join(names)} |"
    sides = " | ".join(cells(results, side, cases) for side in ("defended", "undefended"))
    yield f"| all | {sides} | |"
    plain = [case["plain"] for case in results[0]["defended"]["cases"] if case["plain"] is not None]
    won = sum(value > 0.5 for value in plain)
    span = f"it is given {min(plain):.2f} to {max(plain):.2f}"
    yield from ("", f"Unattacked, the poor answer wins {won} of {len(plain)} pairs; {span}.", "")


def without_cases(report: Report) -> Report:
    """The figures of each attack; what each case was given stays in the report."""
    kept = ("succeeded", "flipped", "unscored", "mean_gain", "marks")
    results = [
        {name: value if isinstance(value, str) else {one: value[one] for one in kept} for name, value in result.items()}
        for result in report["results"]
    ]
    return {**report, "results": results}


def attacked() -> dict[str, Report]:
    """The quickstart's model, which is no judge, as a judge of pairs: the control."""
    from rlaif_sdk.attacks import attack_judge
    from rlaif_sdk.judges import load_labeler
    from rlaif_sdk.quickstart.model import prepare_policy

    folder = str(prepare_policy())
    labeler = load_labeler(model=folder, task="helpfulness", detail="base")
    return {Path(folder).name: attack_judge(labeler).record()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("reports", nargs="*", help="JUDGE=FILE each; by default the quickstart's model is attacked")
    named = dict(given.split("=", 1) for given in parser.parse_args().reports)
    found = {judge: json.loads(Path(file).read_text(encoding="utf-8")) for judge, file in named.items()} or attacked()
    table = [line for judge, report in found.items() for line in lines(judge, report)]
    save("judge_attacks", {judge: without_cases(report) for judge, report in found.items()}, "\n".join(table).rstrip())


if __name__ == "__main__":
    main()
