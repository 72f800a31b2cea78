"""Tables of completions by several policies put into pairs, and labelled by a judge."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rlaif_sdk.config.documents import validate
from rlaif_sdk.config.overrides import overridden
from rlaif_sdk.evaluation.standings import POLICY_COLUMNS
from rlaif_sdk.exceptions import ConfigError, DataError
from rlaif_sdk.io.jsonl import Row
from rlaif_sdk.io.tables import read_rows, write_rows
from rlaif_sdk.preferences import LabelConfig, LabelJob, LabelResult, run_labeling
from rlaif_sdk.preferences.label_job import Progress
from rlaif_sdk.preferences.tables import check_text
from rlaif_sdk.types import TextOrConversation

PAIRS_FILE = "pairs.jsonl"
_NOTHING_DONE: Progress = lambda *_: None  # noqa: E731


def policy_names(files: Sequence[Path], names: Sequence[str] = ()) -> list[str]:
    """What the policies are called: as told, or like their files; with the folder where file names are equal.

    Raises:
        ConfigError: There are not as many names as files, or two are equal.
    """
    found = list(names) or [path.stem for path in files]
    if len(set(found)) < len(found) and not names:
        found = [f"{path.resolve().parent.name}/{path.stem}" for path in files]
    if len(found) != len(files) or len(set(found)) < len(found):
        raise ConfigError(
            f"{len(files)} policies need as many different names, not {', '.join(found)}",
            hint="give --name once for each file, in their order",
        )
    return found


def judge_policies(
    files: Sequence[Path],
    judge: Path | Mapping[str, Any],
    output: Path,
    *,
    names: Sequence[str] = (),
    prompt_column: str = "prompt",
    completion_column: str = "completion",
    overrides: Sequence[str] = (),
    progress: Progress = _NOTHING_DONE,
) -> LabelResult:
    """Let a judge compare every two policies on every prompt.

    The pairs and the labels are kept in a folder: stopped, the job goes on where it was when it is started again.

    Args:
        files: A table of prompts and completions for each policy; all of the same prompts.
        judge: The config of a labelling job; its ``pairs`` and ``output`` are not used and may be left out.
        output: The folder.
        names: What the policies are called; by default like their files.
        prompt_column: The tables' column of prompts.
        completion_column: Their column of completions.
        overrides: ``key=value`` each, for the judge's config.
        progress: Called with the pairs labelled so far and all pairs.

    Raises:
        ConfigError: The config is refused.
        DataError: The tables have different prompts, or lack a column.
        JudgeError: As `rlaif_sdk.preferences.run_labeling`.
    """
    named = policy_names(files, names)
    completions = [_by_prompt(path, prompt_column, completion_column) for path in files]
    pairs = output.resolve() / PAIRS_FILE
    _check_same_prompts(files, completions)
    job = _job(judge, pairs, output.resolve() / "labels", overrides)
    with write_rows(pairs) as writer:
        for pair in _pairs(named, completions):
            writer.write(pair)
    return run_labeling(job, progress=progress)


def _job(judge: Path | Mapping[str, Any], pairs: Path, output: Path, overrides: Sequence[str]) -> LabelJob:
    document = overridden(judge, overrides)
    if not isinstance(document.data, dict):
        raise document.error("is no mapping with a judge")
    data = {**document.data, "pairs": {"file": str(pairs)}, "output": str(output), "ties": "keep"}
    document = replace(document, data={**data, "format": "jsonl"})
    return LabelJob(validate(LabelConfig, document), document)


def _by_prompt(path: Path, prompt: str, completion: str) -> dict[tuple[str, int], Row]:
    """The rows by prompt, and by how often it came before."""
    found: dict[tuple[str, int], Row] = {}
    seen: dict[str, int] = {}
    for row, record in enumerate(read_rows(path), start=1):
        for column in (prompt, completion):
            check_text(record, column, path, row, named="with --prompt-column and --completion-column")
        key = json.dumps(record[prompt], sort_keys=True)
        seen[key] = seen.get(key, -1) + 1
        found[key, seen[key]] = {"prompt": record[prompt], "completion": record[completion]}
    if not found:
        raise DataError("has no rows", file=str(path))
    return found


def _check_same_prompts(files: Sequence[Path], completions: Sequence[Mapping[tuple[str, int], Row]]) -> None:
    first = completions[0]
    for path, own in zip(files, completions, strict=True):
        if odd := first.keys() ^ own.keys():
            prompt, times = min(odd)
            where = files[0] if (prompt, times) in first else path
            stands = f"is in {where} alone" if times == 0 else f"is more often in {where}"
            problem = f"the prompt {prompt[:80]} {stands}"
            raise DataError(
                f"{files[0]} and {path} have different prompts: {problem}", hint="let both answer the same ones"
            )


def _pairs(
    names: Sequence[str], completions: Sequence[Mapping[tuple[str, int], Row]]
) -> Iterator[dict[str, TextOrConversation]]:
    first = completions[0]
    for key in first:
        for one, other in itertools.combinations(range(len(names)), 2):
            yield {
                "prompt": first[key]["prompt"],
                "response_1": completions[one][key]["completion"],
                "response_2": completions[other][key]["completion"],
                POLICY_COLUMNS[0]: names[one],
                POLICY_COLUMNS[1]: names[other],
            }
