"""``rlaif eval``: what labels, policies and rewards are worth, with intervals."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlaif_sdk.cli.exits import interruptible, tell_unmeasured
from rlaif_sdk.cli.label import tell_unlabelled
from rlaif_sdk.cli.options import (
    AsJson,
    CompositionOption,
    ConfigCommand,
    SplitOption,
    SubsetOption,
    config_option,
    overriding,
    table_argument,
)
from rlaif_sdk.cli.output import progress_bar

if TYPE_CHECKING:
    from rich.table import Table

    from rlaif_sdk.composer import Composer
    from rlaif_sdk.io.tables import TableSource
    from rlaif_sdk.preferences.label_job import LabelResult
    from rlaif_sdk.statistics.estimates import Estimate

eval_app = typer.Typer(help="Measure what labels, policies and rewards are worth.", no_args_is_help=True)

ReportOption = Annotated[Path | None, typer.Option(help="Write a web page with plots to this file.")]
PromptOption = Annotated[str, typer.Option(help="The tables' column of prompts.")]
CompletionOption = Annotated[str, typer.Option(help="The tables' column of completions.")]
JudgeOption = Annotated[
    Path | None,
    typer.Option(help="Who compares: the config of a labelling job, whose pairs and output may be left out."),
]
OutputOption = Annotated[
    Path, typer.Option("--output", "-o", help="The judge's pairs and labels; started again, it asks for the missing.")
]
NameOption = Annotated[
    list[str] | None, typer.Option("--name", help="A policy's name, in the order of the files. Repeatable.")
]
SetOption = Annotated[list[str] | None, overriding("judge.model=NAME", "a key of the judge")]
ConfigOption = Annotated[Path | None, config_option("The composition to measure")]
RewardOption = Annotated[
    str | None,
    typer.Option("--reward", help="One reward to measure: its name, package.module:attribute or ./file.py:attribute."),
]
RewardSetOption = Annotated[
    list[str] | None, overriding("rewards.toxicity.params.threshold=0.5", "a key of the composition")
]
StateOption = Annotated[
    Path | None,
    typer.Option(
        help="A composer's saved state (JSON); its running statistics are then frozen. Without it they learn from FILE."
    ),
]
CategoryOption = Annotated[str | None, typer.Option(help="A column by which accuracies and errors are told apart.")]


@eval_app.command(cls=ConfigCommand)
def labels(
    file: Annotated[Path, table_argument("What rlaif label wrote, or rlaif review exported.")],
    human: Annotated[
        str | None,
        typer.Option(
            help='The column of what people prefer: 1, 2, "tie", or null where nobody was asked; '
            "by default the verdicts in an export of rlaif review."
        ),
    ] = None,
    split: SplitOption = None,
    subset: SubsetOption = None,
    report: ReportOption = None,
    as_json: AsJson = False,
) -> None:
    """Compare an AI labeler's labels with those of people: alignment, kappa, position bias, calibration, cost.

    An export of `rlaif review` holds both: the judge's labels are compared with the verdicts in it.
    """
    from rlaif_sdk.evaluation import evaluate_labels
    from rlaif_sdk.io.tables import TableSource
    from rlaif_sdk.reporting.evaluation_page import write_label_page
    from rlaif_sdk.reporting.evaluation_tables import label_tables

    found = evaluate_labels(TableSource(file, subset, split), human=human)
    _show(found.record(), lambda: label_tables(found), as_json=as_json)
    _warn_of_flips(found.flip_rate)
    _report(report, lambda page: write_label_page(found, page, source=file.name))


@eval_app.command("win-rate", cls=ConfigCommand)
def win_rate(
    files: Annotated[
        list[Path],
        table_argument("Two tables of completions, with --judge; or what rlaif label wrote about such pairs."),
    ],
    judge: JudgeOption = None,
    output: OutputOption = Path("win-rate"),
    name: NameOption = None,
    prompt_column: PromptOption = "prompt",
    completion_column: CompletionOption = "completion",
    split: SplitOption = None,
    subset: SubsetOption = None,
    report: ReportOption = None,
    as_json: AsJson = False,
    overrides: SetOption = None,
) -> None:
    """Measure how often the first policy's answers are preferred to the second's, also at equal length."""
    from rlaif_sdk.evaluation import win_rate as compare
    from rlaif_sdk.evaluation.policies import policy_names
    from rlaif_sdk.io.tables import TableSource
    from rlaif_sdk.reporting.evaluation_page import write_win_rate_page
    from rlaif_sdk.reporting.evaluation_tables import estimates_table, win_rate_estimates

    _check_files(files, judge, 2)
    tables = [TableSource(file, subset, split) for file in files]
    judged = None
    if judge is None:
        if name and len(name) != 2:
            raise typer.BadParameter("two policies have two names", param_hint="--name")
        found = compare(tables[0], name or ("response_1", "response_2"))
    else:
        names = policy_names(tables, name or ())
        layout = {"prompt_column": prompt_column, "completion_column": completion_column}
        judged = _judged(tables, judge, output, names, overrides, **layout)
        found = compare(judged.labels, names)
    _show(found.record(), lambda: [estimates_table(win_rate_estimates(found), "Win rate")], as_json=as_json)
    _warn_of_flips(found.flip_rate)
    _report(report, lambda page: write_win_rate_page(found, page))
    if judged is not None:
        tell_unlabelled(judged)


@eval_app.command(cls=ConfigCommand)
def rank(
    files: Annotated[
        list[Path],
        table_argument("A table of completions a policy, with --judge; or what rlaif label wrote about them."),
    ],
    judge: JudgeOption = None,
    output: OutputOption = Path("ranking"),
    name: NameOption = None,
    policy_columns: Annotated[tuple[str, str], typer.Option(help="The labels' columns with the policies' names.")] = (
        "policy_1",
        "policy_2",
    ),
    prompt_column: PromptOption = "prompt",
    completion_column: CompletionOption = "completion",
    split: SplitOption = None,
    subset: SubsetOption = None,
    report: ReportOption = None,
    as_json: AsJson = False,
    overrides: SetOption = None,
) -> None:
    """Rank policies by the pairs that they won: Bradley and Terry's strengths with intervals, and Elo's ratings."""
    from rlaif_sdk.evaluation import rank_policies
    from rlaif_sdk.evaluation.policies import POLICY_COLUMNS, policy_names
    from rlaif_sdk.io.tables import TableSource
    from rlaif_sdk.reporting.evaluation_page import write_ranking_page
    from rlaif_sdk.reporting.evaluation_tables import ranking_table, ranking_warnings

    _check_files(files, judge, None)
    tables = [TableSource(file, subset, split) for file in files]
    judged = None
    if judge is None:
        found = rank_policies(tables[0], columns=policy_columns)
    else:
        names = policy_names(tables, name or ())
        layout = {"prompt_column": prompt_column, "completion_column": completion_column}
        judged = _judged(tables, judge, output, names, overrides, **layout)
        found = rank_policies(judged.labels, columns=POLICY_COLUMNS)
    _show(found.record(), lambda: [ranking_table(found)], as_json=as_json)
    for warning in ranking_warnings(found):
        typer.echo(f"warning: {warning}", err=True)
    _report(report, lambda page: write_ranking_page(found, page))
    if judged is not None:
        tell_unlabelled(judged)


@eval_app.command(cls=ConfigCommand)
def answers(
    files: Annotated[list[Path], table_argument("A table of completions; or two of the same prompts.")],
    config: CompositionOption,
    threshold: Annotated[
        list[str] | None, typer.Option(help="From which score on a completion passes: toxicity=0.5. Repeatable.")
    ] = None,
    prompt_column: PromptOption = "prompt",
    completion_column: CompletionOption = "completion",
    split: SplitOption = None,
    subset: SubsetOption = None,
    report: ReportOption = None,
    as_json: AsJson = False,
) -> None:
    """Measure answers by rewards, before and after training: toxicity, harmless rate, anything composed.

    The change is paired over the prompts. The share of completions that pass a threshold is the harmless rate where
    the reward is one of harmlessness.
    """
    from rlaif_sdk.composer import Composer
    from rlaif_sdk.composer.tables import TableLayout
    from rlaif_sdk.evaluation import evaluate_answers
    from rlaif_sdk.io.tables import TableSource
    from rlaif_sdk.reporting.evaluation_page import write_measures_page
    from rlaif_sdk.reporting.evaluation_tables import measures_table

    if len(files) > 2:
        raise typer.BadParameter("give one table, or two", param_hint="FILES")
    layout = TableLayout(prompt_column, completion_column)
    with Composer.from_config(config) as composer:
        tables = [TableSource(file, subset, split) for file in files]
        found = evaluate_answers(tables, composer, layout=layout, thresholds=_thresholds(threshold or ()))
    record = {reward: measure.record() for reward, measure in found.items()}
    _show(record, lambda: [measures_table(found)], as_json=as_json)
    _report(report, lambda page: write_measures_page(found, page, files=[path.name for path in files]))


@eval_app.command(cls=ConfigCommand)
def reward(
    file: Annotated[
        Path, table_argument("A table of chosen and rejected completions; or, with --label, of labelled ones.")
    ],
    config: ConfigOption = None,
    reward_name: RewardOption = None,
    label: Annotated[str | None, typer.Option(help="The column of labels: true, 1, a word, or a list of them.")] = None,
    good: Annotated[
        str, typer.Option(help="The label of good completions; false where labels say what is bad.")
    ] = "true",
    category: CategoryOption = None,
    prompt_column: PromptOption = "prompt",
    completion_column: CompletionOption = "completion",
    mistakes: Annotated[int, typer.Option(min=0, help="How many of its mistakes to explain.")] = 3,
    state: StateOption = None,
    split: SplitOption = None,
    subset: SubsetOption = None,
    report: ReportOption = None,
    as_json: AsJson = False,
    overrides: RewardSetOption = None,
) -> None:
    """Measure a composition, or one reward, before a policy is trained on it: does it prefer what people prefer?

    Against labels: AUC, average precision, calibration, the best threshold, errors by category. Against pairs: accuracy,
    also at equal length and by category. Of a composition: what each reward adds, how far rewards agree, and the
    mistakes with their explanations. Every completion is scored once.
    """
    from rich.console import Console

    from rlaif_sdk.evaluation import evaluate_reward
    from rlaif_sdk.io.tables import TableSource
    from rlaif_sdk.reporting.evaluation_page import write_reward_page
    from rlaif_sdk.reporting.evaluation_tables import reward_tables

    source = TableSource(file, subset, split)
    with (
        measured_composer(config, reward_name, state, overrides) as composer,
        progress_bar("scoring") as progress,
    ):
        found = evaluate_reward(
            composer,
            source,
            label=label,
            good=good,
            category=category,
            prompt=prompt_column,
            completion=completion_column,
            learn=state is None,
            mistakes=mistakes,
            progress=progress,
        )
    _show(found.record(), lambda: reward_tables(found), as_json=as_json)
    if not as_json:
        for mistake in found.mistakes:
            typer.echo(f"\nrow {mistake.row}: wrong by {mistake.margin:.4g}")
            for name, explanation in mistake.explanations.items():
                typer.echo(name)
                Console().print(explanation)
    _report(report, lambda page: write_reward_page(found, page, source=str(source)))
    tell_unmeasured(found.metrics["total"].unscored, found.rows, "rows", found.reason)


@eval_app.command(cls=ConfigCommand)
def benchmark(
    name: Annotated[
        str,
        typer.Argument(
            help="reward-bench-1, reward-bench-2, rm-bench, judge-bench, or pairs for any chosen/rejected table."
        ),
    ],
    file: Annotated[Path, table_argument("The benchmark's rows, as they are published.")],
    config: ConfigOption = None,
    reward_name: RewardOption = None,
    category: CategoryOption = None,
    state: StateOption = None,
    split: SplitOption = None,
    subset: SubsetOption = None,
    report: ReportOption = None,
    as_json: AsJson = False,
    overrides: RewardSetOption = None,
) -> None:
    """Measure a reward on a published benchmark, by the benchmark's own rules, which are named.

    Without a reward, the rows hold its scores, or a judge's verdicts in both orders, as the benchmark's own code or
    `rlaif label` wrote them.
    """
    from contextlib import nullcontext

    from rlaif_sdk.evaluation import find_benchmark, run_benchmark
    from rlaif_sdk.io.tables import TableSource
    from rlaif_sdk.reporting.evaluation_page import write_benchmark_page
    from rlaif_sdk.reporting.evaluation_tables import benchmark_table

    find_benchmark(name)
    if category is not None and name != "pairs":
        raise typer.BadParameter(f"{name} has categories of its own", param_hint="--category")
    given = config is not None or reward_name is not None
    measured = measured_composer(config, reward_name, state, overrides) if given else nullcontext(None)
    source = TableSource(file, subset, split)
    with measured as composer, progress_bar("scoring") as progress:
        found = run_benchmark(name, source, composer, category=category, learn=state is None, progress=progress)
    _show(found.record(), lambda: [benchmark_table(found)], as_json=as_json)
    _report(report, lambda page: write_benchmark_page(found, page, source=str(source)))
    tell_unmeasured(found.unscored, found.items + found.unscored, "items", found.reason)


@eval_app.command("best-of", cls=ConfigCommand)
def best_of(
    file: Annotated[Path, table_argument("A table of candidates: several completions of each prompt, one a row.")],
    config: CompositionOption,
    witness: Annotated[
        str | None, typer.Option(help="A reward of weight 0 that the chosen completions are measured by too.")
    ] = None,
    most: Annotated[
        int | None, typer.Option(min=2, help="The greatest n; by default what every prompt has completions for.")
    ] = None,
    group_column: Annotated[
        str, typer.Option(help="The column that is equal for completions to one prompt.")
    ] = "group",
    prompt_column: PromptOption = "prompt",
    completion_column: CompletionOption = "completion",
    state: StateOption = None,
    split: SplitOption = None,
    subset: SubsetOption = None,
    report: ReportOption = None,
    as_json: AsJson = False,
    overrides: RewardSetOption = None,
) -> None:
    """Measure best of n by a composition: its total, a witness, and the KL over n, before a policy is trained on it.

    Where the witness falls while the total still rises, the composition is over-optimised.
    """
    from rlaif_sdk.evaluation import evaluate_best_of
    from rlaif_sdk.io.tables import TableSource
    from rlaif_sdk.reporting.evaluation_page import write_best_of_page
    from rlaif_sdk.reporting.evaluation_tables import best_of_table

    source = TableSource(file, subset, split)
    with measured_composer(config, None, state, overrides) as composer, progress_bar("scoring") as progress:
        found = evaluate_best_of(
            composer,
            source,
            witness=witness,
            most=most,
            prompt=prompt_column,
            completion=completion_column,
            group=group_column,
            learn=state is None,
            progress=progress,
        )
    _show(found.record(), lambda: [best_of_table(found)], as_json=as_json)
    _report(report, lambda page: write_best_of_page(found, page, source=str(source)))
    tell_unmeasured(found.unscored, found.rows, "rows", found.reason)


def measured_composer(
    config: Path | None, name: str | None, state: Path | None, overrides: list[str] | None
) -> Composer:
    """The composition of a config file, or of one reward, with what it has learned in training, if a state is given."""
    from rlaif_sdk.composer import Composer
    from rlaif_sdk.config.overrides import overridden
    from rlaif_sdk.integrations.host import load_state

    if (config is None) == (name is None):
        raise typer.BadParameter("give the composition, or the name of one reward", param_hint="--config, --reward")
    source = config if config is not None else {"rewards": {"reward" if ":" in str(name) else name: {"use": name}}}
    composer = Composer.from_config(overridden(source, overrides or ()))
    if state is not None:
        composer.load_state_dict(load_state(state))
    return composer


def _check_files(files: list[Path], judge: Path | None, most: int | None) -> None:
    if judge is None and len(files) != 1:
        raise typer.BadParameter("tables of completions need a --judge; labels are one file", param_hint="FILES")
    if judge is not None and (len(files) < 2 or len(files) > (most or len(files))):
        wanted = f"{most} tables" if most else "two tables or more"
        raise typer.BadParameter(f"a judge compares {wanted} of completions", param_hint="FILES")


def _judged(
    files: list[TableSource],
    judge: Path,
    output: Path,
    names: list[str],
    overrides: list[str] | None,
    **layout: str,
) -> LabelResult:
    from rlaif_sdk.evaluation import judge_policies

    with interruptible(lambda: f"each label so far is kept in {output}"), progress_bar("judging") as progress:
        return judge_policies(files, judge, output, names=names, overrides=overrides or (), progress=progress, **layout)


def _thresholds(given: list[str] | tuple[str, ...]) -> dict[str, float]:
    found = {}
    for assignment in given:
        name, _, value = assignment.partition("=")
        try:
            found[name] = float(value)
        except ValueError:
            raise typer.BadParameter(f"write NAME=NUMBER, not {assignment!r}", param_hint="--threshold") from None
    return found


def _show(record: dict[str, Any], tables: Callable[[], list[Table]], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(record, indent=2, allow_nan=False))
        return
    from rich.console import Console

    for table in tables():
        Console().print(table)


def _warn_of_flips(rate: Estimate | None) -> None:
    if rate is not None and rate.value > 0.5:
        typer.echo(
            f"warning: {rate.value:.0%} of the winners change with the order: the judge follows the place", err=True
        )


def _report(page: Path | None, write: Callable[[Path], None]) -> None:
    if page is not None:
        write(page)
        typer.echo(f"wrote {page}", err=True)
