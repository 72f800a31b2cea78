"""``rlaif make``: data for training from models: candidates, pairs, the best, revisions, rubrics, merged labels."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlaif_sdk.cli.exits import ExitCode, interruptible, tell_left_out
from rlaif_sdk.cli.options import (
    ConfigCommand,
    JobOption,
    SplitOption,
    SubsetOption,
    config_option,
    overriding,
    table_config,
)
from rlaif_sdk.cli.output import print_table, progress_bar

if TYPE_CHECKING:
    from rlaif_sdk.preferences.pipeline import MakeResult, OutputConfig

make_app = typer.Typer(
    help="Make preference data with models. A job that was stopped is resumed when it is started again.",
    no_args_is_help=True,
)

SetOption = Annotated[list[str] | None, overriding("policy.model=NAME")]


@make_app.command(cls=ConfigCommand)
def candidates(config: JobOption, overrides: SetOption = None) -> None:
    """Let one or several models answer each prompt several times."""
    from rlaif_sdk.preferences.candidates import CandidatesConfig, make_candidates

    _run(make_candidates, _job(CandidatesConfig, config, overrides))


@make_app.command(cls=ConfigCommand)
def contrastive(
    config: JobOption,
    overrides: SetOption = None,
    margin: Annotated[
        bool, typer.Option("--margin", help="Add DLMA's self-rewarding score and margin; needs a local model.")
    ] = False,
) -> None:
    """Make pairs from two contrasting prompts: one asks for a virtue, one for its opposite (RLCD, DLMA)."""
    from rlaif_sdk.preferences.contrastive import ContrastiveConfig, make_contrastive

    job = _job(ContrastiveConfig, config, overrides)
    if margin and job.config.margin is None:
        job = _job(ContrastiveConfig, config, [*(overrides or ()), "margin={}"])
    _run(make_contrastive, job)


@make_app.command(cls=ConfigCommand)
def revisions(config: JobOption, overrides: SetOption = None) -> None:
    """Let a model criticise and revise its answers by a constitution: rows to imitate, and pairs."""
    from rlaif_sdk.preferences.revisions import RevisionsConfig, make_revisions

    _run(make_revisions, _job(RevisionsConfig, config, overrides))


@make_app.command(cls=ConfigCommand)
def rubrics(config: JobOption, overrides: SetOption = None) -> None:
    """Let a model write rubrics from questions and answers that are known to be good, and check each criterion."""
    from rlaif_sdk.preferences.rubrics import RubricsConfig, make_rubrics

    _run(make_rubrics, _job(RubricsConfig, config, overrides))


ScoredConfigOption = Annotated[Path | None, config_option("The job, in place of its parts", short=False)]
CandidatesOption = Annotated[Path | None, typer.Option("--candidates", help="A table of candidates.")]
ScorerOption = Annotated[Path | None, typer.Option("--composition", "-c", help="What scores them.")]
FolderOption = Annotated[Path | None, typer.Option("--output", "-o", help="The folder of the results.")]


@make_app.command(cls=ConfigCommand)
def pairs(
    config: ScoredConfigOption = None,
    overrides: SetOption = None,
    file: CandidatesOption = None,
    composition: ScorerOption = None,
    output: FolderOption = None,
    split: SplitOption = None,
    subset: SubsetOption = None,
) -> None:
    """Pair candidates by the totals of a composition: best against worst, by a threshold, or all."""
    given = _scored_parts(config, overrides, file, composition, output, split, subset)
    from rlaif_sdk.preferences.composed import ComposedPairsConfig, make_composed_pairs

    _run(make_composed_pairs, _scored_job(ComposedPairsConfig, config, overrides, given))


@make_app.command(cls=ConfigCommand)
def best(
    config: ScoredConfigOption = None,
    overrides: Annotated[list[str] | None, overriding("temperature=0.5")] = None,
    file: CandidatesOption = None,
    composition: ScorerOption = None,
    output: FolderOption = None,
    keep: Annotated[int | None, typer.Option(min=1, help="How many completions of each prompt.")] = None,
    split: SplitOption = None,
    subset: SubsetOption = None,
) -> None:
    """Keep the best candidates by the totals of a composition, to imitate: best of n, or rejection sampling."""
    given = _scored_parts(config, overrides, file, composition, output, split, subset)
    from rlaif_sdk.preferences.composed import BestConfig, make_best

    if keep is not None:
        given["keep"] = keep
    _run(make_best, _scored_job(BestConfig, config, overrides, given))


def _scored_parts(
    config: Path | None,
    overrides: list[str] | None,
    file: Path | None,
    composition: Path | None,
    output: Path | None,
    split: str | None,
    subset: str | None,
) -> dict[str, Any]:
    """The parts of a job's config that the command line gives."""
    if config is None and not overrides and (file is None or composition is None):
        raise typer.BadParameter("give the config of a job, or --candidates and --composition")
    parts = {"composition": composition, "output": output}
    given: dict[str, Any] = {name: str(path.resolve()) for name, path in parts.items() if path is not None}
    if file is not None:
        given["candidates"] = table_config(file, subset, split)
    return given


def _scored_job(
    model: type[OutputConfig], config: Path | None, overrides: list[str] | None, given: dict[str, Any]
) -> Any:
    from rlaif_sdk.preferences.pipeline import load_make_job

    source = given if config is None else config
    changes = () if config is None else [f"{name}={json.dumps(value)}" for name, value in given.items()]
    return load_make_job(model, source, overrides=[*(overrides or ()), *changes])


@make_app.command(cls=ConfigCommand)
def merge(config: JobOption, overrides: SetOption = None) -> None:
    """Merge labels of people and models, by precedence or by weight, and mix sources in proportions."""
    from rlaif_sdk.preferences.merge import MergeConfig, merge_preferences

    result = merge_preferences(_job(MergeConfig, config, overrides))
    print_table((), [(name, str(count)) for name, count in result.counts.items()])
    for path in (result.pairs, result.card):
        typer.echo(f"wrote {path}")


def _job(model: type[OutputConfig], config: Path, overrides: Sequence[str] | None) -> Any:
    from rlaif_sdk.preferences.pipeline import load_make_job

    return load_make_job(model, config, overrides=overrides or ())


def _run(make: Callable[..., MakeResult], job: Any) -> None:
    with interruptible(lambda: f"each step so far is kept in {job.output}"), progress_bar("making") as progress:
        result = make(job, progress=progress)
    _print(result)


def _print(result: MakeResult) -> None:
    from rlaif_sdk.io.tables import read_rows

    usage = result.usage
    rows = {name: f"{value:.4g}" if isinstance(value, float) else str(value) for name, value in result.counts.items()}
    rows["steps_run"] = f"{result.steps_run} in {result.seconds:.1f} s"
    if usage.calls:
        rows["usage"] = f"{usage.calls} calls, {usage.input_tokens} tokens in, {usage.output_tokens} tokens out"
    if usage.cost is not None:
        rows["cost"] = f"{usage.cost:.4f}"
    print_table((), rows.items())
    for path in (*result.tables.values(), result.card):
        typer.echo(f"wrote {path}")
    counts = result.counts
    if result.failures is not None:
        failure = next(iter(read_rows(result.failures)))
        first = (failure["row"], failure["error"])
        rest = f"each row's reason is in {result.failures}; start again to try them again"
        tell_left_out(counts["rows_failed"], counts["rows_read"], "rows failed", first, rest)
    if not any(counts[name] for name in result.tables):
        typer.echo("nothing came of any row: the counts say why each was left out", err=True)
        raise typer.Exit(ExitCode.NOT_IN_ORDER)
