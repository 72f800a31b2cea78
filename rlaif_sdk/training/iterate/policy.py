"""A policy held for as long as it is used, and how far it is from another one."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

from rlaif_sdk.training.config import Run
from rlaif_sdk.training.heldout import Answers
from rlaif_sdk.training.models import load_policy
from rlaif_sdk.training.policy_checks import prompt_ids

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    Policy: TypeAlias = AbstractContextManager[tuple[PreTrainedModel, PreTrainedTokenizerBase]]


@contextmanager
def held_policy(run: Run) -> Iterator[tuple[PreTrainedModel, PreTrainedTokenizerBase]]:
    """The model that a run starts from, with its tokenizer, on the GPU where there is one; let go of at the end.

    Raises:
        ConfigError: It cannot be loaded.
    """
    import torch

    model, tokenizer = load_policy(run)
    placed: Any = model
    if torch.cuda.is_available():
        placed.to("cuda")
    try:
        yield model, tokenizer
    finally:
        del model, placed
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def answer_logprobs(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    answers: Answers,
    *,
    temperature: float,
    batch_size: int,
    template_arguments: dict[str, Any],
) -> list[float]:
    """The log-probability of each of B answers, in nats, its tokens summed, at a temperature."""
    import torch

    from rlaif_sdk.training.ppo.logprobs import token_logprobs

    sums: list[float] = []
    policy: Any = model
    policy.eval()
    for start in range(0, len(answers.prompts), batch_size):
        rows = range(start, min(start + batch_size, len(answers.prompts)))
        prompts = [prompt_ids(answers.prompts[row], tokenizer, template_arguments) for row in rows]
        completions = [answers.completion_ids[row] for row in rows]
        ids_BS, attention_BS, answered_BS = _padded(prompts, completions, tokenizer.pad_token_id or 0)
        inputs = {"input_ids": ids_BS.to(model.device), "attention_mask": attention_BS.to(model.device)}
        with torch.no_grad():
            logits_BSV = policy(**inputs).logits
        logprobs_BT, _ = token_logprobs(logits_BSV[:, :-1], inputs["input_ids"][:, 1:], temperature=temperature)
        sums += (logprobs_BT * answered_BS[:, 1:].to(model.device)).sum(dim=1).tolist()
    return sums


def _padded(prompts: Sequence[list[int]], completions: Sequence[list[int]], pad_id: int) -> tuple[Any, Any, Any]:
    """Token ids padded on the right, the mask of the real ones, and of those that belong to answers; each (B, S)."""
    import torch

    width = max(len(prompt) + len(completion) for prompt, completion in zip(prompts, completions, strict=True))
    shape = (len(prompts), width)
    ids_BS, attention_BS, answered_BS = torch.full(shape, pad_id), torch.zeros(shape).long(), torch.zeros(shape)
    for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        end = len(prompt) + len(completion)
        ids_BS[row, :end] = torch.tensor([*prompt, *completion])
        attention_BS[row, :end] = 1
        answered_BS[row, len(prompt) : end] = 1
    return ids_BS, attention_BS, answered_BS
