"""What a training command shows while it runs: a progress display, and a line for each stage."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from rich.console import Console

from rlaif_sdk.exceptions import needs_extra
from rlaif_sdk.io.files import read_json
from rlaif_sdk.io.text import printable
from rlaif_sdk.training.methods import get_method, resolve, train
from rlaif_sdk.training.ranks import first_process

if TYPE_CHECKING:
    from pathlib import Path

    from rlaif_sdk.reporting.progress import TrainingProgress
    from rlaif_sdk.training.config import Run

Reporter = Callable[[str], None]


def reporter(console: Console) -> Reporter:
    """Prints lines of text as they are, so that paths can be copied; no control character in them acts."""
    return lambda line: console.print(printable(line), markup=False, highlight=False, soft_wrap=True)


@contextmanager
def live_view(console: Console, *, quiet: str = "") -> Iterator[tuple[TrainingProgress, Reporter]]:
    """A progress display for the trainer and a reporter for its stages, while training runs.

    Args:
        console: Where to print.
        quiet: A pattern of modules whose FutureWarnings are left out: they are the libraries' own affair, and nothing
            that the reader of a progress display could mend. Empty means all modules.

    Raises:
        MissingExtraError: The extra ``train`` is not installed.
    """
    with needs_extra("train"):
        from rlaif_sdk.reporting.progress import TrainingProgress

    with TrainingProgress(console) as display, warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, module=quiet)
        yield display, reporter(console)


def watch_run(run: Run, console: Console, *, resume: bool = False) -> Any:
    """`rlaif_sdk.training.methods.train` with a progress display, followed by the method's report.

    Args:
        run: The loaded config.
        console: Where to print; under a launcher only the first process does.
        resume: Resume from the last checkpoint in the output folder.

    Returns:
        What came of the run.

    Raises:
        RlaifError: As `rlaif_sdk.training.methods.train`.
    """
    reports = first_process()
    console = console if reports else Console(quiet=True)
    method = get_method(run.method)
    on_result = partial(resolve(method.report), console=console)
    # A composition is the reader's own, and what its rewards warn of too.
    quiet = r"transformers\." if method.learns_from == "prompts" else ""
    with live_view(console, quiet=quiet) as (display, report):
        result = train(run.method, run, display=display, report=report, on_result=on_result, resume=resume)
    if reports:  # the others may be done before the model is saved
        print_location(console, result.output, result.model_folder, method.model_class)
    return result


def print_location(console: Console, output: Path, model_folder: Path, loader: str = "AutoModelForCausalLM") -> None:
    """Say where the results are, and how the model is loaded."""
    say = reporter(console)
    if read_json(model_folder / "config.json").get("is_encoder_decoder"):
        loader = "AutoModelForSeq2SeqLM"
    say(f"\nEverything is in {output}. Load the model with")
    say(f'    {loader}.from_pretrained("{model_folder}")')
