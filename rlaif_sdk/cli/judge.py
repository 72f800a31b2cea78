"""``rlaif judge``: look at a judge before it is put to work."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rlaif_sdk.cli.exits import ExitCode
from rlaif_sdk.cli.options import ConfigCommand, JudgeOverrides, config_option

judge_app = typer.Typer(help="Look at a judge before it is put to work.", no_args_is_help=True)


@judge_app.callback()
def _judge() -> None:
    pass


@judge_app.command(cls=ConfigCommand)
def probe(
    config: Annotated[Path, config_option("A labelling job")],
    overrides: JudgeOverrides = None,
) -> None:
    """Ask a judge small questions: does it answer, does it give log-probabilities, and does it favour a label?

    Exits with 1 if it cannot do what the config asks of it.
    """
    import asyncio

    from rlaif_sdk.judges import probe as ask
    from rlaif_sdk.preferences import load_label_job

    labeler = load_label_job(config, overrides=overrides or ()).labeler()
    try:
        found = asyncio.run(ask(labeler.backend))
    finally:
        labeler.backend.close()
    mass = "" if found.label_mass is None else f"; the labels 1 and 2 have {found.label_mass:.3f} of the probability"
    typer.echo(f"log-probabilities: {'yes' if found.logprobs else 'no'}{mass}")
    typer.echo(f"text: {found.reply!r}" if found.reply is not None else "text: no")
    usage = found.usage
    cost = "" if usage.cost is None else f", cost {usage.cost:.6f}"
    typer.echo(f"{found.seconds:.2f} s, {usage.input_tokens} tokens in, {usage.output_tokens} out{cost}")
    for problem in found.problems:
        typer.echo(f"problem: {problem}", err=True)
    if labeler.needs_logprobs and not found.logprobs:
        typer.echo("mode: likelihood needs log-probabilities; mode: verdict does without", err=True)
        raise typer.Exit(ExitCode.NOT_IN_ORDER)
    if found.reply is None and not labeler.needs_logprobs:
        raise typer.Exit(ExitCode.NOT_IN_ORDER)
