"""What a training command shows while it runs: a progress display, and a line for each stage."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console

from rlaif_sdk.exceptions import needs_extra
from rlaif_sdk.io.text import printable
from rlaif_sdk.training.ranks import first_process

if TYPE_CHECKING:
    from pathlib import Path

    from rlaif_sdk.reporting.progress import TrainingProgress

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


def console_of_the_first(console: Console) -> Console:
    """The console of the process that reports; under a launcher the others get one that says nothing."""
    return console if first_process() else Console(quiet=True)


def print_location(console: Console, output: Path, model_folder: Path, loader: str = "AutoModelForCausalLM") -> None:
    """Say where the results are, and how the model is loaded."""
    say = reporter(console)
    say(f"\nEverything is in {output}. Load the model with")
    say(f'    {loader}.from_pretrained("{model_folder}")')
