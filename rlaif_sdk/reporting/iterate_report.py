"""The report of a closed loop: a table of its rounds, ``rounds.json`` and ``curves.png`` in its folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rlaif_sdk.io.files import without_nan, write_json
from rlaif_sdk.reporting.live_view import live_view, reporter
from rlaif_sdk.reporting.plots import plot_curves
from rlaif_sdk.reporting.runs import ROUNDS_FILE
from rlaif_sdk.reporting.tables import format_estimate, format_number, text_table
from rlaif_sdk.reporting.training_report import TOTAL
from rlaif_sdk.statistics.estimates import SampleMean

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from rlaif_sdk.training.iterate import IterateResult, IterateRun

LENGTH = "length_tokens"


def watch_iterate(run: IterateRun, console: Console, *, resume: bool = False) -> IterateResult:
    """`run_iterate` with a progress display and a line a round, followed by `report_iterate`.

    Args:
        run: The loaded config.
        console: Where to print.
        resume: Resume the loop in the output folder.

    Raises:
        RlaifError: As `run_iterate`.
    """
    from rlaif_sdk.training.iterate import run_iterate

    with live_view(console) as (display, report):

        def tell(number: int, evaluation: Mapping[str, Any]) -> None:
            total = format_estimate(SampleMean.from_dict(evaluation[TOTAL]))
            report(f"round {number}: composed reward {total}, KL {format_number(evaluation['kl']['mean'])}")

        result = run_iterate(run, display=display, report=report, on_round=tell, resume=resume)
    report_iterate(result, console)
    return result


def report_iterate(result: IterateResult, console: Console) -> None:
    """Print what the rounds brought, and write ``rounds.json`` and ``curves.png`` to the loop's folder.

    Args:
        result: What came of the loop.
        console: Where to print.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    console.print(rounds_table(result.evaluations, result.best))
    say = reporter(console)
    say(f"The loop ended: {result.end}.")
    say(f"The best model is that of round {result.best}. Load it with")
    say(f'    AutoModelForCausalLM.from_pretrained("{result.model}")')
    rounds = [
        {name: value for name, value in evaluation.items() if name != "totals"} for evaluation in result.evaluations
    ]
    summary = {"end": result.end, "best": result.best, "model": result.model, "rounds": rounds}
    write_json(result.output / ROUNDS_FILE, without_nan(summary))
    history = [curve_points(number, evaluation) for number, evaluation in enumerate(result.evaluations)]
    rewards = list(result.evaluations[0]["rewards"])
    panels = {
        TOTAL: {TOTAL: TOTAL},
        "each reward, in its own units": {f"reward/{name}": name for name in rewards},
        "divergence from the starting model (nats an answer)": {"kl": "KL"},
        LENGTH: {LENGTH: "length"},
    }
    title = "Held-out prompts over the rounds"
    plot_curves(history, panels, result.output / "curves.png", title=title, steps="round")


def rounds_table(evaluations: Sequence[Mapping[str, Any]], best: int) -> Table:
    """One row a round: the composed reward and its change since the start, each reward, divergence and length."""
    caption = "mean ± standard error; the best round is in bold, round 0 is the starting model"
    headings, *rows = round_rows(evaluations)
    table = text_table(headings, rows, title="Rounds, on the held-out prompts", caption=caption, words=())
    table.rows[best].style = "bold"
    return table


def round_rows(evaluations: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, ...]]:
    """The headings, and a row a round."""
    rewards = list(evaluations[0]["rewards"])
    yield ("round", TOTAL, "change", *rewards, "KL (nats)", "tokens")
    for number, evaluation in enumerate(evaluations):
        yield (
            str(number),
            format_estimate(SampleMean.from_dict(evaluation[TOTAL])),
            format_estimate(SampleMean.from_dict(evaluation["change"]), signed=True) if number else "",
            *(format_number(evaluation["rewards"][name]["mean"]) for name in rewards),
            format_number(evaluation["kl"]["mean"]) if number else "",
            format_number(evaluation["health"][LENGTH]["mean"], digits=1),
        )


def curve_points(number: int, evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """What is drawn of a round's evaluation."""
    return {
        "step": number,
        TOTAL: evaluation[TOTAL]["mean"],
        "kl": evaluation["kl"]["mean"],
        **{f"reward/{name}": reward["mean"] for name, reward in evaluation["rewards"].items()},
        **{name: measure["mean"] for name, measure in evaluation["health"].items()},
    }
