"""``rlaif label``: pairs of responses in, soft preference labels by a judge out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlaif_sdk.cli.exits import CheckOption, end_check, interruptible, tell_left_out
from rlaif_sdk.cli.options import (
    ActorGpusOption,
    ActorsOption,
    Engine,
    EngineOption,
    JobOption,
    JudgeOverrides,
    QuietOption,
    RayAddressOption,
    SplitOption,
    SubsetOption,
    table_config,
    table_option,
    workers,
)
from rlaif_sdk.cli.output import print_table, progress_bar

if TYPE_CHECKING:
    from rlaif_sdk.preferences import LabelResult


def label(
    config: JobOption,
    overrides: JudgeOverrides = None,
    pairs: Annotated[
        Path | None,
        table_option("The pairs, in place of the config's: a table as rlaif score takes it; - for standard input."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Where the labels go: .jsonl, .json, .csv, .parquet or .arrow; - for standard output (JSONL); by default "
            "into the job's folder, which keeps all else.",
        ),
    ] = None,
    split: SplitOption = None,
    subset: SubsetOption = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Label the first N pairs.")] = None,
    sample: Annotated[
        int | None, typer.Option(min=1, help="Label N pairs drawn at random, the same ones each time.")
    ] = None,
    quiet: QuietOption = False,
    engine: EngineOption = Engine.local,
    actors: ActorsOption = None,
    actor_gpus: ActorGpusOption = 0.0,
    ray_address: RayAddressOption = None,
    check: CheckOption = False,
) -> None:
    """Label pairs of responses with a judge.

    A job that was stopped is resumed when it is started again. The labels are what `rlaif train
    reward-model` and `rlaif train dpo` take.
    """
    from rlaif_sdk.io.files import is_same_path
    from rlaif_sdk.io.tables import STANDARD_INPUT
    from rlaif_sdk.preferences import load_label_job, run_labeling
    from rlaif_sdk.preferences.label_job import check_labeling

    asked = workers(engine, actors, actor_gpus, ray_address)
    if pairs is None and (split or subset):
        raise typer.BadParameter("say which table of --pairs: give that too", param_hint="--split, --subset")
    given: dict[str, str | int | None] = {} if pairs is None else {**table_config(pairs, subset, split)}
    given |= {name: number for name, number in (("rows", limit), ("sample", sample)) if number is not None}
    changes = [f"pairs.{name}={json.dumps(value)}" for name, value in given.items()]
    job = load_label_job(config, overrides=[*(overrides or ()), *changes])
    if output is not None and is_same_path(output, job.pairs.path) and str(output) != STANDARD_INPUT:
        raise typer.BadParameter("the output would overwrite the pairs", param_hint="--output")
    if check:
        end_check(lambda: check_labeling(job, output))
    counts = (0, 0)

    def what_is_left() -> str:
        done = f"{counts[0]} of {counts[1]} pairs are labelled" if counts[1] else "no pair was asked about"
        return f"{done}, and each label so far is kept in {job.output}"

    def tell(done: int, count: int) -> None:
        nonlocal counts
        counts = done, count
        progress(done, count)

    with interruptible(what_is_left), progress_bar("labelling", quiet=quiet) as progress:
        if asked is None:
            result = run_labeling(job, output=output, progress=tell)
        else:
            from rlaif_sdk.scale import label_with_actors

            result = label_with_actors(job, workers=asked, output=output, progress=tell)
    _print(result, err=str(output) == STANDARD_INPUT)


def _print(result: LabelResult, *, err: bool) -> None:
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
    print_table((), rows.items(), err=err)
    for warning in summary.warnings:
        typer.echo(f"warning: {warning}", err=True)
    typer.echo(f"wrote {'standard output' if err else result.labels}", err=err)
    tell_unlabelled(result)


def tell_unlabelled(result: LabelResult) -> None:
    """Say how many pairs have no label, as `tell_left_out` does."""
    summary = result.summary
    rest = f"each pair's reason is in {result.failures}; start again to ask about them"
    tell_left_out(summary.failed, summary.pairs, "pairs are unlabelled", summary.first_unlabelled, rest)
