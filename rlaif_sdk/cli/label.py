"""``rlaif label``: pairs of responses in, soft preference labels by a judge out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from rlaif_sdk.cli.exits import ExitCode, interruptible
from rlaif_sdk.cli.options import (
    ActorGpusOption,
    ActorsOption,
    Engine,
    EngineOption,
    JobOption,
    JudgeOverrides,
    QuietOption,
    RayAddressOption,
    workers,
)
from rlaif_sdk.cli.output import print_table, progress_bar

if TYPE_CHECKING:
    from rlaif_sdk.preferences import LabelResult


def label(
    config: JobOption,
    overrides: JudgeOverrides = None,
    quiet: QuietOption = False,
    engine: EngineOption = Engine.local,
    actors: ActorsOption = None,
    actor_gpus: ActorGpusOption = 0.0,
    ray_address: RayAddressOption = None,
) -> None:
    """Label pairs of responses with a judge.

    A job that was stopped is resumed when it is started again. The labels are what `rlaif train
    reward-model` and `rlaif train dpo` take.
    """
    from rlaif_sdk.preferences import load_label_job, run_labeling

    asked = workers(engine, actors, actor_gpus, ray_address)
    job = load_label_job(config, overrides=overrides or ())
    kept = interruptible(lambda: f"each label so far is kept in {job.output}")
    with kept, progress_bar("labelling", quiet=quiet) as progress:
        if asked is None:
            result = run_labeling(job, progress=progress)
        else:
            from rlaif_sdk.scale import label_with_actors

            result = label_with_actors(job, workers=asked, progress=progress)
    _print(result)


def _print(result: LabelResult) -> None:
    summary = result.summary
    usage = summary.usage
    twice = summary.asked_twice
    rows = {
        "pairs": f"{summary.pairs}",
        "labelled": f"{summary.labelled} ({summary.ties} ties, {summary.hard} hard, {summary.flagged} flagged)",
        "asked in this run": f"{result.asked} in {result.seconds:.1f} s",
    }
    if summary.flip_rate is not None:
        places = f"first {summary.first_wins / twice:.3f}, second {summary.second_wins / twice:.3f}"
        rows |= {"flip rate": f"{summary.flip_rate:.3f} of {twice}", "position bias": places}
    if summary.mean_mass is not None:
        rows["label mass"] = f"{summary.mean_mass:.3f} on average, {summary.least_mass:.3f} at the least"
    rows["usage"] = (
        f"{usage.calls} calls ({usage.retries} retries), {usage.input_tokens} tokens in, {usage.output_tokens} out"
    )
    if usage.cost is not None:
        rows["cost"] = f"{usage.cost:.4f}"
    print_table((), rows.items())
    for warning in summary.warnings:
        typer.echo(f"warning: {warning}", err=True)
    if result.failures is not None:
        typer.echo(f"{summary.failed} pairs failed, see {result.failures}; start again to ask about them", err=True)
    typer.echo(f"wrote {result.labels}")
    if summary.failed:
        raise typer.Exit(ExitCode.ROWS_LEFT_OUT)
