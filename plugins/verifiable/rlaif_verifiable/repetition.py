"""The reward ``repetition``: the share of a completion's n-grams that it has had before."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Literal

from pydantic import Field

from rlaif_sdk import Reward, RewardBatch, RewardError, Score, ViewParams


class RepetitionParams(ViewParams):
    """What is counted."""

    ngram: int = Field(default=3, ge=1)
    """How many units in a row are compared."""

    unit: Literal["words", "tokens"] = "words"
    """``words``: runs of letters between white space, lower-cased, as in open-r1 and ms-swift; ``tokens``: the batch's
    ``completion_ids``, as in TRL."""


class RepetitionReward(Reward):
    """``different / all - 1`` over the n-grams: 0 where none comes twice, towards -1 the more do.

    A text of fewer than n units gets 0. It is TRL's and open-r1's ``get_repetition_penalty_reward`` with a greatest
    punishment of -1; another one is a weight.
    """

    name = "repetition"
    version = "1"
    range = (-1.0, 0.0)
    ends = ("repetitive", "varied")

    def __init__(self, params: RepetitionParams) -> None:
        self.params = params
        self.inputs = ("completion_ids",) if params.unit == "tokens" else ()

    def score(self, batch: RewardBatch) -> list[Score]:
        """Score a batch of B rows.

        Raises:
            RewardError: Tokens are to be counted, and the batch has none.
        """
        if self.params.unit == "tokens":
            if batch.completion_ids is None:
                raise RewardError("the batch has no completion_ids to count by", hint="count words: 'unit: words'")
            return [self._of(list(ids)) for ids in batch.completion_ids]
        texts = self.params.texts(batch)
        return [Score.no_words() if text is None else self._of(text.lower().split()) for text in texts]

    def _of(self, units: Sequence[Hashable]) -> Score:
        size = self.params.ngram
        total = max(0, len(units) - size + 1)
        different = len({tuple(units[start : start + size]) for start in range(total)})
        share = 1 - different / total if total else 0.0
        return Score(0.0 - share, reason=f"{share:.0%} of {total} runs of {size} {self.params.unit} come again")
