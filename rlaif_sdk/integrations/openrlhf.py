"""A composed reward in OpenRLHF (0.6 to 0.11): a file of two lines for ``--reward.remote_url``.

The file, say ``reward.py``::

    from rlaif_sdk.integrations.openrlhf import reward_function

    reward_func = reward_function("rewards.yaml")
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rlaif_sdk.exceptions import DataError
from rlaif_sdk.integrations.host import Rewards, host
from rlaif_sdk.integrations.samples import Sample, Scored

END_TOKENS = ("<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>")
"""What the chat formats in use end an answer with; OpenRLHF leaves it in the text."""

RewardFunction = Callable[[Sequence[str], Sequence[str], Sequence[Any]], dict[str, Any]]


def reward_function(
    rewards: Rewards,
    *,
    label_column: str = "label",
    end_tokens: Sequence[str] = END_TOKENS,
    state: str | None = None,
    unscored: float | None = None,
) -> RewardFunction:
    """A ``reward_func(queries, prompts, labels)`` for OpenRLHF.

    It returns ``rewards`` and ``scores``, the totals, and ``extra_logs``: each reward's own scores and ``unscored``.
    All are tensors of shape (B,).

    Args:
        rewards: A config or a composer; see `rlaif_sdk.integrations.Host`.
        label_column: The column that a sample's label becomes.
        end_tokens: What is cut off the end of a completion, with the space after it.
        state: A file with what the composer learned elsewhere.
        unscored: What OpenRLHF gets for an unscored completion. None, the default, raises: OpenRLHF logs that, and
            its sample has no reward.

    Raises:
        ConfigError: The composition's numbers would depend on how OpenRLHF cuts its calls.
    """
    hosted = host(rewards, "OpenRLHF's reward_func", state=state)

    def reward_func(queries: Sequence[str], prompts: Sequence[str], labels: Sequence[Any]) -> dict[str, Any]:
        import torch

        samples = [
            Sample(prompt, completion_of(query, prompt, end_tokens), {label_column: label})
            for query, prompt, label in zip(queries, prompts, labels, strict=True)
        ]
        if not samples:
            return {"rewards": torch.zeros(0), "scores": torch.zeros(0), "extra_logs": {}}
        composition = hosted.compose(samples)
        names, columns = list(composition.rewards), composition.rewards.values()
        missing_B = np.isnan(composition.totals)
        totals_B = composition.totals
        if missing_B.any():  # `number` raises where nothing stands in
            totals_B = np.array([Scored(composition, row).number(unscored) for row in range(len(samples))])
        figures = np.array([totals_B, *(column.raw for column in columns), missing_B], dtype=np.float32)
        rewards_B, *logs = torch.from_numpy(figures).unbind()
        extra_logs = dict(zip([*names, "unscored"], logs, strict=True))
        return {"rewards": rewards_B, "scores": rewards_B.clone(), "extra_logs": extra_logs}

    return reward_func


def completion_of(query: str, prompt: str, end_tokens: Sequence[str] = END_TOKENS) -> str:
    """The completion in a query, which is a prompt and its completion as one text with the special tokens.

    Raises:
        DataError: The query does not contain the prompt's end, so that nothing tells where the completion begins.
    """
    start = len(prompt) if query.startswith(prompt) else _after_the_end_of(prompt, query)
    completion, ends = query[start:], tuple(end_tokens)
    while (bare := completion.rstrip()).endswith(ends):
        completion = next(bare.removesuffix(token) for token in ends if bare.endswith(token))
    return completion


def _after_the_end_of(prompt: str, query: str) -> int:
    """Where the completion begins in a query whose prompt was cut at its beginning, or got a token before it."""
    tail = prompt[-64:]
    place = query.find(tail)
    if not tail or place < 0:
        raise DataError(
            f"the query does not contain its prompt, which ends with {prompt[-40:]!r}",
            hint="the tokenizer must give the prompt back as it was",
        )
    return place + len(tail)
