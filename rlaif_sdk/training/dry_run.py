"""A run checked and not started: ``rlaif train … --check``."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from rlaif_sdk.exceptions import MissingExtraError
from rlaif_sdk.training.config import ComposedRun, PPORun, Run
from rlaif_sdk.training.online import OnlineRun
from rlaif_sdk.training.preferences import load_pairs, preference_settings
from rlaif_sdk.training.preflight import Preflight, check_run
from rlaif_sdk.training.run_folder import starting_point
from rlaif_sdk.training.sft import load_sft_rows, sft_settings

if TYPE_CHECKING:
    from datasets import Dataset


def dry_run(run: Run, method: str) -> Preflight:
    """Check everything about a run that can be checked without loading a model; nothing is written.

    Args:
        run: The loaded config.
        method: ``ppo``, ``grpo``, ``rloo``, ``dpo``, ``reward_model`` or ``sft``.

    Returns:
        What was found; what is wrong is among its problems.

    Raises:
        MissingExtraError: The extra ``train`` is not installed.
    """
    found = Preflight()
    settings: Any = None
    composer = None
    tables: dict[str, Dataset] = {}
    with found.noting():
        starting_point(run, method, resume=False)
    try:
        with found.noting():
            settings = trainer_settings(run, method)
        with found.noting():
            tables = dict(zip(("train", "held_out"), read_tables(run, method), strict=True))
    except ModuleNotFoundError as error:
        raise MissingExtraError(str(error.name), extra="train") from error
    if isinstance(run, ComposedRun):
        with warnings.catch_warnings(record=True) as caught, found.noting():
            warnings.simplefilter("always")
            composer = run.composer(ledger=False)
        found.warnings += [str(warning.message) for warning in caught if issubclass(warning.category, UserWarning)]
    checked = check_run(run, method, settings, tables, composer)
    if composer is not None:
        composer.close()
    checked.problems[:0], checked.warnings[:0] = found.problems, found.warnings
    return checked


def trainer_settings(run: Run, method: str) -> Any:
    """The trainer's settings of a run.

    Raises:
        ConfigError: A key is unknown, belongs elsewhere, or its value is refused.
    """
    if isinstance(run, PPORun):
        return run.ppo_config()
    if isinstance(run, OnlineRun):
        return run.trainer_config()
    return (
        sft_settings(run) if method == "sft" else preference_settings("dpo" if method == "dpo" else "reward_model", run)
    )


def read_tables(run: Run, method: str) -> tuple[Dataset, Dataset]:
    """The rows that a run trains on, and the held-out ones.

    Raises:
        RlaifError: As `rlaif_sdk.training.data.load_split`, or a row is refused.
    """
    from rlaif_sdk.training.data import load_prompts

    if method == "sft":
        return load_sft_rows(run)
    if isinstance(run, ComposedRun):
        return load_prompts(run.config.data, run.folder, seed=run.config.seed)
    return load_pairs("dpo" if method == "dpo" else "reward_model", run)
