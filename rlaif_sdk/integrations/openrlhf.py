"""A composed reward in OpenRLHF (0.6 to 0.11): a file of two lines for ``--reward.remote_url``.

The file, say ``reward.py``::

    from rlaif_sdk.integrations.openrlhf import reward_function

    reward_func = reward_function("rewards.yaml")
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rlaif_sdk.conversations.special_tokens import starts, without_end
from rlaif_sdk.exceptions import DataError
from rlaif_sdk.integrations.host import Rewards, host
from rlaif_sdk.integrations.samples import Sample, Scored

_LEAST_OVERLAP = 16
"""So many letters of a prompt that was cut must be left to know it by."""
_TAIL = 64
"""By so many of its last letters a prompt is found that decoding has changed, if they stand in the query once."""

RewardFunction = Callable[[Sequence[str], Sequence[str], Sequence[Any]], dict[str, Any]]


def reward_function(
    rewards: Rewards,
    *,
    label_column: str = "label",
    end_tokens: Sequence[str] = (),
    state: str | None = None,
    unscored: float | None = None,
) -> RewardFunction:
    """A ``reward_func(queries, prompts, labels)`` for OpenRLHF.

    It returns ``rewards`` and ``scores``, the totals, and ``extra_logs``: each reward's own scores and ``unscored``. All
    are tensors of shape (B,), under the same names always, as OpenRLHF's batches want. A reward without a score is 0 there
    and 1 under ``NAME/missing``.

    Args:
        rewards: A config or a composer; see `rlaif_sdk.integrations.Host`.
        label_column: The column that a sample's label becomes.
        end_tokens: What ends a completion and is cut off, with the white space after it, besides the special tokens of
            all families, which are known by their shape (`rlaif_sdk.conversations.special_tokens.without_end`).
        state: A file with what the composer learned elsewhere.
        unscored: What OpenRLHF gets for an unscored completion. None, the default, raises: OpenRLHF logs why, goes on
            without a reward, and ends where it makes a batch of those that have one and those that have none.

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
        columns = composition.rewards
        numbers_LB = np.array([*(column.raw for column in columns.values()), composition.totals], dtype=np.float32)
        missing_LB = np.isnan(numbers_LB)
        numbers_LB[missing_LB] = 0.0
        if missing_LB[-1].any():  # `number` raises where there is no fallback
            numbers_LB[-1] = [Scored(composition, row).number(unscored) for row in range(len(samples))]
        told_LB = np.concatenate([numbers_LB, missing_LB], dtype=np.float32, casting="unsafe")
        logs = [*torch.from_numpy(told_LB).unbind()]
        rewards_B = logs.pop(len(columns))
        extra_logs = dict(zip([*columns, *(f"{name}/missing" for name in columns), "unscored"], logs, strict=True))
        return {"rewards": rewards_B, "scores": rewards_B.clone(), "extra_logs": extra_logs}

    return reward_func


def completion_of(query: str, prompt: str, end_tokens: Sequence[str] = ()) -> str:
    """The completion in a query, which is a prompt and its completion as one text with the special tokens.

    The prompt is looked for at the front, behind whatever pads and beginnings stand there; it may have been cut at its
    beginning, and its white space may differ, as decoding changes it.

    Args:
        query: Prompt and completion.
        prompt: The prompt.
        end_tokens: What ends a completion, besides the special tokens that are known by their shape.

    Raises:
        DataError: The query does not begin with the prompt, so that nothing tells where the completion begins.
    """
    completion = query[_prompt_length(query, prompt) :]
    while True:
        bare = without_end(completion)
        stripped = bare.rstrip()
        further = next((token for token in end_tokens if token and stripped.endswith(token)), None)
        if further is None:
            return bare
        completion = stripped.removesuffix(further)


def _prompt_length(query: str, prompt: str) -> int:
    """How much of a query is its prompt, with what stands before it.

    Raises:
        DataError: That is not to be told.
    """
    beginnings = starts(query)
    for start in beginnings:
        if query.startswith(prompt, start):
            return start + len(prompt)
    # Decoding changes white space, and a cut may leave half a character: both are passed over.
    places = [place for place, letter in enumerate(query) if not letter.isspace()]
    letters, wanted = "".join(query.split()), "".join(prompt.split())
    bare = "".join(prompt[starts(prompt)[-1] :].split())
    offsets = [bisect.bisect_left(places, start) for start in beginnings]
    offsets = [offset + len(letters[offset:]) - len(letters[offset:].lstrip("\ufffd")) for offset in offsets]
    for offset in offsets:
        for whole in filter(None, (wanted, bare)):
            if letters.startswith(whole, offset):
                return _past(query, places[offset + len(whole) - 1] + 1, prompt)
    for offset in offsets:
        if (length := _overlap(wanted, letters[offset : offset + len(wanted)])) >= _LEAST_OVERLAP:
            return _past(query, places[offset + length - 1] + 1, prompt)
    tail = wanted[-_TAIL:]
    if len(tail) >= _LEAST_OVERLAP and letters.count(tail) == 1:
        return _past(query, places[letters.index(tail) + len(tail) - 1] + 1, prompt)
    raise DataError(
        f"the query does not begin with its prompt, which ends with {prompt[-40:]!r}",
        hint="the tokenizer must give the prompt back as it was",
    )


def _past(query: str, at: int, prompt: str) -> int:
    """Past the white space with which the prompt ends, as far as the query has it."""
    for space in prompt[len(prompt.rstrip()) :]:
        if query[at : at + 1] != space:
            break
        at += 1
    return at


def _overlap(wanted: str, told: str) -> int:
    """How many letters of the longest end of ``wanted`` the text ``told`` begins with (Knuth, Morris and Pratt)."""
    text = f"{told}\0{wanted}"
    border = [0] * len(text)
    for at in range(1, len(text)):
        length = border[at - 1]
        while length and text[at] != text[length]:
            length = border[length - 1]
        border[at] = length + (text[at] == text[length])
    return border[-1] if wanted else 0
