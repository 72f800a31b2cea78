"""How long the rows of a table are beside what the trainer and the model take, before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from rlaif_sdk.conversations.templates import chat_ids
from rlaif_sdk.exceptions import DataError
from rlaif_sdk.training.policy_checks import longest_text, surely_shorter

if TYPE_CHECKING:
    from datasets import Dataset

_ANSWERS = ("chosen", "rejected", "completion", "messages", "text")


def check_lengths(name: str, rows: Dataset, method: str, settings: Any, tokenizer: Any, config: Any) -> Iterator[str]:
    """Whether the trainer takes the rows of a table, as TRL would encode them.

    Args:
        name: Of the table, for errors.
        rows: Pairs, or rows to imitate.
        method: ``dpo``, ``reward_model`` or ``sft``.
        settings: The trainer's settings.
        tokenizer: The model's tokenizer.
        config: The model's config, in transformers' form.

    Yields:
        How many rows are longer than ``max_length``, and what becomes of them.

    Raises:
        DataError: All are left out, or one is longer than the model takes.
    """
    max_length = settings.max_length
    positions = longest_text(config)
    if max_length is None and positions is None:
        return
    left_out = cut = 0
    limit = min(length for length in (max_length, positions) if length is not None)
    keeps_start = getattr(settings, "truncation_mode", "keep_start") == "keep_start"
    for number, row in enumerate(rows, start=1):
        if surely_shorter([row[column] for column in ("prompt", *_ANSWERS) if column in row], limit):
            continue
        longest = max(_tokens(row, answer, tokenizer) for answer in _ANSWERS if answer in row)
        if max_length is not None and longest > max_length:
            left = method == "reward_model" or (
                keeps_start and "prompt" in row and _tokens(row, None, tokenizer) >= max_length
            )
            left_out, cut = left_out + left, cut + (not left)
            if left:
                continue
        taken = longest if max_length is None else min(longest, max_length)
        if positions is not None and taken > positions:
            raise DataError(
                f"the row has {longest} tokens, and the model takes {positions}",
                file=name,
                row=number,
                hint=f"set {method}.max_length to {positions}",
            )
    if left_out == len(rows):
        raise DataError(
            f"all {left_out} rows are longer than max_length, {max_length} tokens, so that none is left",
            file=name,
            hint=f"raise {method}.max_length, or shorten the texts",
        )
    for count, what in ((left_out, "are left out"), (cut, "are cut")):
        if count:
            yield f"{name}: {count} of {len(rows)} rows are longer than max_length, {max_length} tokens, and {what}"


def _tokens(row: Mapping[str, Any], answer: str | None, tokenizer: Any) -> int:
    """Tokens of a row's prompt with one of its answers; of the prompt alone without one."""
    prompt, said = row.get("prompt"), row[answer] if answer else None
    whole = said if prompt is None else prompt if said is None else prompt + said
    if isinstance(whole, str):
        ends = answer is not None and not whole.endswith(tokenizer.eos_token or "\0")
        return len(tokenizer(whole + tokenizer.eos_token if ends and tokenizer.eos_token else whole)["input_ids"])
    return len(chat_ids(whole, tokenizer, add_generation_prompt=answer is None))
