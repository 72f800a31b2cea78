"""The reward ``repetition``: the share of a completion's n-grams that it has had before."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from typing import Literal

from pydantic import Field

from rlaif_sdk import Credit, CreditSpan, Reward, RewardBatch, RewardError, Score, ViewParams

_WORD = re.compile(r"\S+")


class RepetitionParams(ViewParams):
    """What is counted."""

    ngram: int = Field(default=3, ge=1)
    """How many units in a row are compared."""

    unit: Literal["words", "tokens"] = "words"
    """``words``: runs of letters between white space, lower-cased, as in open-r1 and ms-swift; ``tokens``: the batch's
    ``completion_ids``, as in TRL."""


class RepetitionReward(Reward):
    """``different / all - 1`` over the n-grams: 0 where none comes twice, towards -1 the more do.

    The score's credit is on the n-grams that come again, wherever they do. A text of fewer than n units gets 0. It is TRL's and open-r1's ``get_repetition_penalty_reward`` with a greatest
    punishment of -1; another one is a weight.
    """

    name = "repetition"
    version = "2"
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
            return [self._of_tokens(list(ids)) for ids in batch.completion_ids]
        return [Score.no_words() if text is None else self._of_words(text) for text in self.params.texts(batch)]

    def _of_tokens(self, ids: Sequence[int]) -> Score:
        again, total = self._again(ids)
        if not again:
            return self._score(again, total, None)
        values = [0.0] * len(ids)
        for start in again:
            values[start + self.params.ngram - 1] = -1 / total
        return self._score(again, total, Credit(tokens=values))

    def _of_words(self, text: str) -> Score:
        again, total = self._again(text.lower().split())
        if not again:
            return self._score(again, total, None)
        words = [found.span() for found in _WORD.finditer(text)]
        spans = tuple(
            CreditSpan(words[start][0], words[start + self.params.ngram - 1][1], -1 / total) for start in again
        )
        return self._score(again, total, Credit(spans=spans, view=self.params.view, thinking=self.params.thinking))

    def _again(self, units: Sequence[Hashable]) -> tuple[list[int], int]:
        """Where n-grams begin that came before, and how many n-grams there are."""
        size = self.params.ngram
        total = max(0, len(units) - size + 1)
        seen: set[tuple[Hashable, ...]] = set()
        again = []
        for start in range(total):
            run = tuple(units[start : start + size])
            if run in seen:
                again.append(start)
            seen.add(run)
        return again, total

    def _score(self, again: Sequence[int], total: int, credit: Credit | None) -> Score:
        share = len(again) / total if total else 0.0
        reason = f"{share:.0%} of {total} runs of {self.params.ngram} {self.params.unit} come again"
        return Score(0.0 - share, reason, credit=credit)
