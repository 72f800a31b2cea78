"""``rlaif attack``: what a judge falls for, and what a composition overpays, before a policy finds out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlaif_sdk.cli.evaluate import (
    CompletionOption,
    PromptOption,
    ReportOption,
    RewardSetOption,
    StateOption,
    measured_composer,
)
from rlaif_sdk.cli.exits import CheckOption, ExitCode, end_check, tell_unmeasured
from rlaif_sdk.cli.options import (
    AsJson,
    CompositionOption,
    ConfigCommand,
    JudgeOverrides,
    SplitOption,
    SubsetOption,
    config_option,
    table_argument,
    table_option,
)
from rlaif_sdk.cli.output import progress_bar
from rlaif_sdk.exceptions import DataError

if TYPE_CHECKING:
    from rlaif_sdk.composer.check import Check
    from rlaif_sdk.io.tables import TableSource

attack_app = typer.Typer(help="Try what a policy would find out in training.", no_args_is_help=True)


@attack_app.callback()
def _attack() -> None:
    pass


@attack_app.command(cls=ConfigCommand)
def judge(
    config: Annotated[Path, config_option("A labelling job, or a composition with a judge")],
    reward: Annotated[str | None, typer.Option(help="Which reward of a composition, if several are judges.")] = None,
    attacks: Annotated[Path | None, typer.Option(help="Your own attacks: a YAML or JSON file.")] = None,
    cases: Annotated[Path | None, typer.Option(help="Your own prompts with poor and good answers, likewise.")] = None,
    family: Annotated[list[str] | None, typer.Option(help="Try only this family of attacks. Repeatable.")] = None,
    most_cases: Annotated[int | None, typer.Option("--most-cases", min=1, help="Use so many cases at most.")] = None,
    threshold: Annotated[float, typer.Option(help="By how much a value from 0 to 1 must rise for a success.")] = 0.1,
    undefended: Annotated[
        bool, typer.Option(help="Ask the same judge without its defences too, for comparison.")
    ] = True,
    fail_on_success: Annotated[
        bool, typer.Option("--fail-on-success", help="Exit with 1 if an attack succeeds against the defended judge.")
    ] = False,
    answers: Annotated[
        list[Path] | None,
        table_option("A table of real answers: say how many of them the judge's defences refuse. Repeatable."),
    ] = None,
    answers_column: Annotated[
        list[str] | None, typer.Option(help="A column with them; completion by default. Repeatable.")
    ] = None,
    as_json: AsJson = False,
    overrides: JudgeOverrides = None,
) -> None:
    """Attack a judge with the tricks that policies learn.

    Poor answers are dressed up: master keys, spoofed verdicts, instructions, delimiters, special tokens, role markers,
    invisible characters, template code, verbosity, position.
    """
    from rich.console import Console

    from rlaif_sdk.attacks import attack_judge, load_attacked, load_attacks, load_cases, measure_refusals
    from rlaif_sdk.reporting.attack_table import attack_table

    tried = load_attacks(attacks)
    if unknown := set(family or ()) - {attack.family for attack in tried}:
        known = ", ".join(dict.fromkeys(attack.family for attack in tried))
        raise typer.BadParameter(f"{min(unknown)!r}; there are {known}", param_hint="--family")
    attacked = load_attacked(config, reward=reward, overrides=overrides or ())
    columns = answers_column or ["completion"]
    refusals = {str(file): measure_refusals(attacked, _answers(file, columns)) for file in answers or ()}
    try:
        report = attack_judge(
            attacked,
            attacks=[attack for attack in tried if not family or attack.family in family],
            cases=load_cases(cases)[:most_cases],
            threshold=threshold,
            undefended=undefended,
        )
    finally:
        attacked.backend.close()
    if as_json:
        costs = {file: found.record() for file, found in refusals.items()}
        typer.echo(json.dumps({**report.record(), "refusals": costs}, indent=2, allow_nan=False))
    else:
        Console().print(attack_table(report))
        tries = len(report.defended) * len(report.cases)
        flipped = f"; {report.flipped} flipped a winner by a smaller rise" if report.flipped else ""
        typer.echo(f"{report.successes} of {tries} tries succeeded against the judge with its defences{flipped}")
        for file, found in refusals.items():
            typer.echo(f"{file}: {found}")
    if fail_on_success and report.successes:
        raise typer.Exit(ExitCode.NOT_IN_ORDER)


@attack_app.command(cls=ConfigCommand)
def rewards(
    file: Annotated[Path, table_argument("A table of real answers: a prompt and a completion a row.")],
    config: CompositionOption,
    witness: Annotated[
        str | None,
        typer.Option(help="A reward of weight 0 whose word is taken for what an answer is worth. Name one if you can."),
    ] = None,
    edit: Annotated[
        list[str] | None,
        typer.Option(help="An edit of your own: ./file.py:function of prompt and answer. Repeatable."),
    ] = None,
    only: Annotated[list[str] | None, typer.Option(help="Try only this edit, by its name. Repeatable.")] = None,
    depth: Annotated[int, typer.Option(min=1, help="How many edits may be made one after the other.")] = 2,
    limit: Annotated[
        int, typer.Option(min=1, help="Edit the answers to N prompts, drawn at random, the same ones for each seed.")
    ] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Of what is drawn.")] = 0,
    group_column: Annotated[str, typer.Option(help="The column that is equal for answers to one prompt.")] = "group",
    prompt_column: PromptOption = "prompt",
    completion_column: CompletionOption = "completion",
    state: StateOption = None,
    split: SplitOption = None,
    subset: SubsetOption = None,
    fail_on_success: Annotated[
        bool, typer.Option("--fail-on-success", help="Exit with 1 if the composition overpays something.")
    ] = False,
    report: ReportOption = None,
    plot: Annotated[Path | None, typer.Option(help="Draw what was found to this PNG file.")] = None,
    as_json: AsJson = False,
    overrides: RewardSetOption = None,
    check: CheckOption = False,
) -> None:
    """Find what a composition overpays, and what would close it.

    Real answers are edited in ways that make none better: padding, repetition, keywords, refusals, flattery, format,
    language, copies of the prompt, empty structure. An edit is a finding where the total rises by it, and by more than the
    witness, beyond chance. Each comes with an example and with changes of the composition that are measured against it.
    """
    from rich.console import Console

    from rlaif_sdk.attacks import RewardAttack, load_edits
    from rlaif_sdk.io.tables import TableSource
    from rlaif_sdk.reporting.attack_table import attack_cost, print_reward_attack

    edits = load_edits(edit or (), only or ())
    source = TableSource(file, subset, split)
    with (
        measured_composer(config, None, state, [*(overrides or ()), *(["ledger=false"] if check else [])]) as composer,
        progress_bar("scoring") as progress,
    ):
        attack = RewardAttack(
            composer,
            source,
            witness=witness,
            edits=edits,
            depth=depth,
            limit=limit,
            seed=seed,
            prompt=prompt_column,
            completion=completion_column,
            group=group_column,
            learn=state is None,
            progress=progress,
        )
        typer.echo(attack_cost(attack), err=True)
        if witness is None:
            typer.echo("warning: without --witness any rise of the total is a finding, deserved or not", err=True)
        if not check:
            found = attack.run()
    if check:
        end_check(lambda: _check_rewards(config, overrides, source, prompt_column, completion_column))
    if as_json:
        typer.echo(json.dumps(found.record(), indent=2, allow_nan=False))
    else:
        print_reward_attack(found, Console())
    if report is not None:
        from rlaif_sdk.reporting.attack_page import write_reward_attack_page

        write_reward_attack_page(found, report, source=str(source))
        typer.echo(f"wrote {report}", err=True)
    if plot is not None:
        from rlaif_sdk.reporting.plots import plot_reward_attack

        plot_reward_attack(found, plot)
        typer.echo(f"wrote {plot}", err=True)
    if fail_on_success and found.overpays:
        raise typer.Exit(ExitCode.NOT_IN_ORDER)
    tell_unmeasured(found.unscored, found.unscored + found.answers, "answers", found.reason)


def _check_rewards(
    config: Path, overrides: Sequence[str] | None, source: TableSource, prompt: str, completion: str
) -> Check:
    from rlaif_sdk.composer.check import check_table
    from rlaif_sdk.composer.tables import TableLayout
    from rlaif_sdk.config.overrides import overridden
    from rlaif_sdk.io.tables import read_rows, survey

    table = survey(source)
    layout = TableLayout(prompt, completion)
    document = overridden(config, overrides or ())
    return check_table(document, read_rows(source), layout, columns=table.columns, rows=table.rows, file=str(source))


def _answers(file: Path, columns: Sequence[str]) -> Iterator[Any]:
    from rlaif_sdk.io.tables import read_rows

    for number, row in enumerate(read_rows(file), start=1):
        for column in columns:
            if row.get(column) is None:
                raise DataError(
                    f"has no {column!r}", file=str(file), row=number, hint=f"--answers-column: {', '.join(row)}"
                )
            yield row[column]
