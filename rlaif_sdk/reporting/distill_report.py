"""The report of distilled RLAIF: a table on the terminal, ``report.md`` and ``report.json`` in its folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.markdown import Markdown

from rlaif_sdk.io.files import without_nan, write_json, write_text
from rlaif_sdk.reporting.live_view import live_view, print_location
from rlaif_sdk.reporting.runs import STAGES_FILE
from rlaif_sdk.reporting.tables import format_estimate, format_number
from rlaif_sdk.reporting.training_report import report_offline, report_online
from rlaif_sdk.statistics.estimates import SampleMean

if TYPE_CHECKING:
    from rich.console import Console

    from rlaif_sdk.training.distill import DistillResult, DistillRun
    from rlaif_sdk.training.online import PolicyResult

RELIABILITY = {
    "accuracy": "accuracy",
    "agreement": "agreement with the labels",
    "cross_entropy": "cross-entropy (nats a pair)",
    "ece": "expected calibration error",
    "label_distance": "distance from the labels",
}


def watch_distill(run: DistillRun, console: Console, *, resume: bool = False) -> DistillResult:
    """`run_distill` with a progress display, each training's own report, and `report_distill` at the end.

    Args:
        run: The loaded config.
        console: Where to print.
        resume: Resume the run in the output folder.

    Raises:
        RlaifError: As `run_distill`.
    """
    from rlaif_sdk.training.distill import run_distill
    from rlaif_sdk.training.preferences import PreferenceResult

    with live_view(console) as (display, report):

        def tell(result: PreferenceResult | PolicyResult) -> None:
            if isinstance(result, PreferenceResult):
                report_offline(result, console)
            else:
                report_online(result, console)

        result = run_distill(run, display=display, report=report, on_result=tell, resume=resume)
    report_distill(result, console)
    print_location(console, result.output, result.policy)
    return result


def report_distill(result: DistillResult, console: Console) -> None:
    """Print what each stage came to, and write ``report.md`` and ``report.json`` to the run's folder."""
    text = "\n".join(_lines(result.stages)) + "\n"
    write_text(result.output / "report.md", text)
    write_json(result.output / STAGES_FILE, without_nan(result.stages))
    console.print(Markdown(text))


def _lines(stages: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    candidates, labels = stages["candidates"], stages["labels"]
    model, policy, compared = stages["reward_model"], stages["policy"], stages["comparison"]
    yield "# Distilled RLAIF"
    yield "\n## Labels\n"
    yield f"- {candidates['completions']} completions of {candidates['prompts']} prompts: {candidates['pairs']} pairs"
    yield f"- {labels['labelled']} labelled, {labels['failed']} failed, {labels['ties']} ties"
    yield f"- flip rate {format_number(labels['flip_rate'])}, mean confidence {format_number(labels['mean_confidence'])}"
    yield f"\n## Reward model, on {model['held_out_pairs']} held-out pairs\n"
    yield "| | before | after |\n|---|---:|---:|"
    yield from map(_line, reliability_rows(model))
    yield "\n## Policy, on held-out prompts\n"
    yield "| | before | after | change |\n|---|---:|---:|---:|"
    yield from map(_line, policy_rows(policy))
    yield f"\nDivergence from the starting model: {format_number(policy['kl_per_answer'])} nats an answer in the last rollout."
    yield "\n## The labelling judge on the answers after against those before\n"
    yield f"- the answer after wins: {format_estimate(SampleMean.from_dict(compared['win_rate']))} of {compared['win_rate']['n']}"
    yield f"- mean probability that it is better: {format_estimate(SampleMean.from_dict(compared['mean_probability']))}"
    yield f"- flip rate {format_number(compared['flip_rate'])}, {compared['ties']} ties, {compared['failed']} failed"


def reliability_rows(model: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """What the reward model's stage says of its probabilities, before and after training."""
    for key, name in RELIABILITY.items():
        if key in model["after"]:
            yield name, format_number(model["before"][key]), format_number(model["after"][key])


def policy_rows(policy: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """What the policy's stage has measured on held-out prompts: before, after, and the change."""
    for prefix, key in (("", "rewards"), ("not trained on: ", "evaluation"), ("", "health")):
        for name, entry in policy[key].items():
            before, after = (format_estimate(SampleMean.from_dict(entry[part])) for part in ("before", "after"))
            yield f"{prefix}{name}", before, after, format_estimate(SampleMean.from_dict(entry["change"]), signed=True)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
