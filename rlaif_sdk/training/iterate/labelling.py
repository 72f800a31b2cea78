"""Labels of a round's pairs by a judge that compares them, in the place of their composed rewards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rlaif_sdk.config.documents import validate
from rlaif_sdk.io.tables import read_rows, write_table
from rlaif_sdk.preferences import LabelJob, run_labeling
from rlaif_sdk.preferences.label_job import LabelConfig
from rlaif_sdk.training.config import with_policy
from rlaif_sdk.training.iterate.config import IterateRun

PAIRS_FILE = "pairs.jsonl"
LABELS_FOLDER = "labels"


def label_job(run: IterateRun, policy: str, folder: Path) -> LabelJob:
    """The job that labels the pairs in a round's folder, with ``$policy`` for the policy that made them.

    Raises:
        ConfigError: The settings under ``label`` are refused.
    """
    pairs = {"file": str((folder / PAIRS_FILE).resolve()), "response_1": "chosen", "response_2": "rejected"}
    settings = run.document.at("label")
    output = str((folder / LABELS_FOLDER).resolve())
    document = replace(settings, data={**with_policy(settings.data, policy), "pairs": pairs, "output": output})
    return LabelJob(validate(LabelConfig, document), document)


def labelled_rows(
    run: IterateRun, policy: str, folder: Path, pairs: Sequence[Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    """The pairs with the judge's labels; what was labelled before a kill is not asked again, unless it was asked otherwise.

    Raises:
        JudgeError: The judge cannot be used, or fails on too many pairs.
    """
    write_table(
        ({name: pair[name] for name in ("prompt", "chosen", "rejected")} for pair in pairs), folder / PAIRS_FILE
    )
    result = run_labeling(label_job(run, policy, folder), allow_changed=run.allow_changed)
    return [*read_rows(result.labels)]
