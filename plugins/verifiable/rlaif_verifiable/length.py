"""The rewards ``overlong`` and ``length``: what the length of a completion is worth."""

from __future__ import annotations

import math
from typing import Any, Literal, Self

from pydantic import Field, FiniteFloat, model_validator

from rlaif_sdk import Params, Reward, RewardBatch, RewardError, Score, ViewParams


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
        hint = "a trainer brings them; to score a table, use 'conciseness' with a tokenizer"
        return [self._of_length(length) for length in _token_counts(batch, hint)]

    def _of_length(self, length: int) -> Score:
        params = self.params
        over = length - (params.max_tokens - params.buffer)
        value = -max(0, over) / params.buffer
        return Score(max(-1.0, value) if params.clamp else value, reason=f"{length} tokens of {params.max_tokens}")


class LengthParams(ViewParams):
    """What is measured, and what it is worth."""

    shape: Literal["cosine", "target"]
    """``cosine``: from `shortest` at no length to `longest` at `max_length`, along half a cosine; ``target``: 0 at a
    length, -1 at `width` from it to either side, in straight lines."""

    unit: Literal["tokens", "characters"] = "tokens"
    """``tokens``: the batch's ``completion_ids``, thinking and calls included, as in TRL and ms-swift; ``characters`` of
    the view, as in open-r1."""

    max_length: int | None = Field(default=None, gt=0)
    """Of a cosine: the length at which `longest` stands."""

    shortest: FiniteFloat = 1.0
    """Of a cosine: the score of an empty completion."""

    longest: FiniteFloat = 0.5
    """Of a cosine: the score at `max_length`."""

    target: int | None = Field(default=None, ge=0)
    """Of a target: the length that is wanted of every completion."""

    column: str | None = Field(default=None, min_length=1)
    """Of a target: the batch column with the length that is wanted of each; a row with none abstains."""

    width: int | None = Field(default=None, gt=0)
    """Of a target: how far from it the score is -1."""

    clamp: bool = True
    """Whether the score stays beyond `max_length` or `width`, as in TRL. Otherwise the cosine turns back, as in open-r1
    and ms-swift, and the lines go on."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        of_cosine = {"max_length", "shortest", "longest"} & self.model_fields_set
        of_target = {"target", "column", "width"} & self.model_fields_set
        if others := of_target if self.shape == "cosine" else of_cosine:
            raise ValueError(f"{', '.join(sorted(others))}: of another shape than {self.shape!r}")
        if self.shape == "cosine" and self.max_length is None:
            raise ValueError("a cosine needs 'max_length'")
        if self.shape == "target" and ((self.target is None) == (self.column is None) or self.width is None):
            raise ValueError("a target needs 'width', and 'target' or 'column'")
        return self


class LengthReward(Reward):
    """What a completion's length L is worth.

    Two of them with opposite ``when`` conditions are a rule for right answers and one for wrong ones.

    - ``cosine``: ``longest + (shortest - longest) (1 + cos(pi L / max_length)) / 2``. Source: Yeo et al. 2025, "Demystifying
      Long Chain-of-Thought Reasoning in LLMs", the cosine reward; open-r1's and TRL's ``get_cosine_scaled_reward``.
    - ``target``: ``-|L - target| / width``. Source: Aggarwal and Welleck 2025, "L1", whose alpha is
      ``1 / width``.
    """

    name = "length"
    version = "1"
    ends = ("unwanted length", "wanted length")

    def __init__(self, params: LengthParams) -> None:
        self.params = params
        columns = () if params.column is None else (params.column,)
        self.columns = columns
        self.inputs = (*columns, "completion_ids") if params.unit == "tokens" else columns
        if params.shape == "cosine":
            self.range = min(params.shortest, params.longest), max(params.shortest, params.longest)
        else:
            self.range = (-1.0, 0.0) if params.clamp else None

    def score(self, batch: RewardBatch) -> list[Score]:
        """Score a batch of B rows.

        Raises:
            RewardError: Tokens are to be counted, and the batch has none.
        """
        params = self.params
        lengths: list[int | None]
        if params.unit == "tokens":
            lengths = [*_token_counts(batch, "a trainer brings them; count characters: 'unit: characters'")]
        else:
            lengths = [None if text is None else len(text) for text in params.texts(batch)]
        if params.shape == "cosine":
            return [Score.no_words() if length is None else self._on_cosine(length) for length in lengths]
        wanted = [params.target] * len(batch) if params.column is None else batch.column(params.column)
        return [
            Score.no_words() if length is None else self._near(length, target)
            for length, target in zip(lengths, wanted, strict=True)
        ]

    def _on_cosine(self, length: int) -> Score:
        params = self.params
        assert params.max_length is not None
        share = length / params.max_length
        swing = (1 + math.cos(math.pi * (min(share, 1.0) if params.clamp else share))) / 2
        value = params.longest + (params.shortest - params.longest) * swing
        return Score(value, reason=f"{length} {params.unit} of {params.max_length}")

    def _near(self, length: int, target: Any) -> Score:
        params = self.params
        if target is None:
            return Score(None, reason="no length is wanted")
        if isinstance(target, bool) or not isinstance(target, (int, float)) or not 0 <= target < math.inf:
            return Score.failed(f"the column {params.column!r} has {target!r:.40} where a length is wanted")
        assert params.width is not None
        value = 0.0 - abs(length - target) / params.width
        reason = f"{length} {params.unit}, and {target:g} are wanted"
        return Score(max(-1.0, value) if params.clamp else value, reason=reason)


def _token_counts(batch: RewardBatch, hint: str) -> list[int]:
    if batch.completion_ids is None:
        raise RewardError("the batch has no completion_ids to count tokens by", hint=hint)
    return [len(ids) for ids in batch.completion_ids]
