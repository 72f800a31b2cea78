"""The reward ``overlong``: nothing for what fits, a punishment that grows towards the greatest length."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from rlaif_sdk import Params, Reward, RewardBatch, RewardError, Score


class OverlongParams(Params):
    """Where the punishment begins and ends, in tokens."""

    max_tokens: int = Field(gt=0)
    """The greatest length: the full punishment, -1, stands here."""

    buffer: int = Field(gt=0)
    """The punishment begins so many tokens before `max_tokens`."""

    clamp: bool = True
    """Whether it stays at -1 beyond `max_tokens`, as in TRL, open-r1 and OpenRLHF; verl and ms-swift let it go on."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.buffer > self.max_tokens:
            raise ValueError("'buffer' must not exceed 'max_tokens'")
        return self


class OverlongReward(Reward):
    """0 up to ``max_tokens - buffer`` tokens L, then ``(max_tokens - buffer - L) / buffer``, -1 at ``max_tokens``.

    Source: soft overlong punishment, Yu et al. 2025, "DAPO", equation 13. Tokens are those of the batch's
    ``completion_ids``, thinking and calls included.
    """

    name = "overlong"
    version = "1"
    ends = ("too long", "fits")
    inputs = ("completion_ids",)

    def __init__(self, params: OverlongParams) -> None:
        self.params = params
        self.range = (-1.0, 0.0) if params.clamp else None

    def score(self, batch: RewardBatch) -> list[Score]:
        """Score a batch of B rows.

        Raises:
            RewardError: The batch has no token ids.
        """
        if batch.completion_ids is None:
            raise RewardError(
                "the batch has no completion_ids to count tokens by",
                hint="a trainer brings them; to score a table, use 'conciseness' with a tokenizer",
            )
        return [self._of_length(len(ids)) for ids in batch.completion_ids]

    def _of_length(self, length: int) -> Score:
        params = self.params
        over = length - (params.max_tokens - params.buffer)
        value = -max(0, over) / params.buffer
        return Score(max(-1.0, value) if params.clamp else value, reason=f"{length} tokens of {params.max_tokens}")
