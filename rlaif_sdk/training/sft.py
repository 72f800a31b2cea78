"""Supervised fine-tuning: prompts with the wanted completions, whole conversations, or plain text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from pydantic import Field

from rlaif_sdk.conversations import ASSISTANT, aligned, prompt_problem, read
from rlaif_sdk.exceptions import DataError
from rlaif_sdk.io.arrow import to_dataset
from rlaif_sdk.io.text import listed
from rlaif_sdk.training.config import Run, RunConfig, TableSettings
from rlaif_sdk.training.data import check_prompt_column
from rlaif_sdk.training.methods import Method
from rlaif_sdk.training.models import load_policy
from rlaif_sdk.training.offline import OfflineResult, offline_defaults, train_offline
from rlaif_sdk.training.online import check_chat_template

if TYPE_CHECKING:
    from datasets import Dataset


class SFTDataSettings(TableSettings):
    """The rows to imitate, and those held out to see what was learnt.

    A row has a prompt and a completion (each text, or messages with role and content), or ``messages``, or ``text``.
    With a completion the loss is only over the completion, else over everything.
    """

    completion: str = "completion"
    """The column with the wanted answer."""


def sft_rows(dataset: Dataset, place: str, settings: SFTDataSettings) -> Dataset:
    """The columns that `trl.SFTTrainer` takes, every row known to be usable.

    Args:
        dataset: The rows as they were read.
        place: Where they come from, for errors.
        settings: The names of the columns.

    Returns:
        A data set with ``prompt`` and ``completion``, with ``messages``, or with ``text``.

    Raises:
        DataError: None of these columns is there, or a row is unusable; the message names it.
    """
    if settings.completion in dataset.column_names:
        check_prompt_column(dataset, settings.prompt, place)
        names = {settings.prompt: "prompt", settings.completion: "completion"}
        rows = dataset.select_columns([*names]).rename_columns({old: new for old, new in names.items() if old != new})
        problem_of = _pair_problem
    elif "messages" in dataset.column_names:
        rows, problem_of = dataset.select_columns(["messages"]), _conversation_problem
    elif "text" in dataset.column_names:
        rows, problem_of = dataset.select_columns(["text"]), _text_problem
    else:
        raise DataError(
            f"has no column {settings.completion!r}, 'messages' or 'text'",
            file=place,
            hint=f"columns present: {listed(dataset.column_names)}; name them under data.prompt and data.completion",
        )
    for number, row in enumerate(rows, start=1):
        problem = problem_of(row)
        if problem:
            raise DataError(problem, file=place, row=number)
    if problem_of is _pair_problem and any(_aligned_row(row) != row for row in rows):
        return to_dataset(map(_aligned_row, rows))
    return rows


def is_conversational(rows: Dataset) -> bool:
    """Whether the rows are messages, for which the tokenizer needs a chat template."""
    return not isinstance(next(iter(rows[0].values())), str)


def _pair_problem(row: Mapping[str, Any]) -> str | None:
    prompt, completion = row["prompt"], row["completion"]
    problem = prompt_problem(prompt)
    if problem:
        return problem
    answer_problem = prompt_problem(completion)
    if answer_problem:
        return answer_problem.replace("the prompt", "the completion")
    try:
        aligned(prompt, [completion])
    except ValueError as error:
        return str(error)
    return None


def _aligned_row(row: Mapping[str, Any]) -> dict[str, Any]:
    prompt, (completion,) = aligned(row["prompt"], [row["completion"]])
    return {"prompt": prompt, "completion": completion}


def _conversation_problem(row: Mapping[str, Any]) -> str | None:
    messages: Any = row["messages"]
    if isinstance(messages, (str, Mapping)):
        return "'messages' must be a list of messages with role and content"
    problem = prompt_problem(messages)
    if problem:
        return problem.replace("the prompt", "'messages'")
    roles = {turn.role for turn in read(messages)}
    return None if ASSISTANT in roles else "'messages' has no turn of the assistant to learn from"


def _text_problem(row: Mapping[str, Any]) -> str | None:
    return None if isinstance(row["text"], str) and row["text"].strip() else "'text' must be text, and not empty"


class SFTRunConfig(RunConfig):
    """Everything about a run of supervised fine-tuning."""

    data: SFTDataSettings
    """The rows to imitate."""
    sft: dict[str, Any] = Field(default_factory=dict)
    """Fields of `trl.SFTConfig`, which has those of `transformers.TrainingArguments` too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SFTResult(OfflineResult):
    """What came of a run.

    The evaluations measure ``loss`` in nats a token, ``mean_token_accuracy`` and ``entropy``, as TRL means them of a batch;
    batches weigh by their rows.
    """


def _result(_: Any, fields: dict[str, Any]) -> SFTResult:
    return SFTResult(**fields)


def _load_rows(run: Run, **options: Any) -> tuple[Dataset, Dataset]:
    from rlaif_sdk.training.data import load_split

    return load_split(run.config.data, run.folder, partial(sft_rows, settings=run.config.data), **options)


def _trainer(run: Run, train: Dataset) -> tuple[Any, Any, Any]:
    from trl.trainer.sft_trainer import SFTTrainer

    from rlaif_sdk.training.evaluation_means import over_rows

    model, tokenizer = load_policy(run)
    check_chat_template(run, tokenizer, needed=is_conversational(train))
    return over_rows(SFTTrainer), model, tokenizer


SFT = Method(
    name="sft",
    config=SFTRunConfig,
    run=Run,
    learns_from="completions",
    settings="trl.trainer.sft_config:SFTConfig",
    defaults=offline_defaults,
    load_rows=_load_rows,
    trainer=_trainer,
    train=partial(train_offline, result=_result),
    report="rlaif_sdk.reporting.training_report:report_offline",
)
