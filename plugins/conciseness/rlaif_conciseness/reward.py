"""The reward ``conciseness``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rlaif_conciseness.length import Band
from rlaif_conciseness.params import ConcisenessParams
from rlaif_conciseness.redundancy import repeated_share
from rlaif_conciseness.units import TokenCounter, has_word, plain_words, words
from rlaif_sdk import Reward, RewardBatch, RewardError, Score

PROMPT = "prompt"
_OTHER_TOKENS = (
    "completion_ids holds more than the text that is measured (thinking, calls or tools' results): name a 'tokenizer' "
    "in the parameters"
)


class ConcisenessReward(Reward):
    """Full marks within the wanted length, fewer the farther from it and the more the text repeats itself.

    ::

        score = marks(length) * (1 - redundancy * repeated)

    `marks` is `Band.marks` and `repeated` is `repeated_share`. While ``redundancy`` is above 0, repeated n-grams do
    not help a short answer reach its target either, so that repeating a text never raises its score. An answer
    without a letter or a digit gets 0, the lowest score; every other answer gets more. Where the policy called a tool
    and said nothing, the reward abstains.
    """

    name = "conciseness"
    version = "2"
    range = (0.0, 1.0)

    def __init__(self, params: ConcisenessParams) -> None:
        self.params = params
        self.columns = () if params.relative_to in (None, PROMPT) else (str(params.relative_to),)
        self._counter = TokenCounter(params.tokenizer) if params.tokenizer is not None else None

    def setup(self) -> None:
        """Load the tokenizer, if one is named."""
        if self._counter is not None:
            _ = self._counter.tokenizer

    def score(self, batch: RewardBatch) -> list[Score]:
        """Score a batch of B rows.

        Raises:
            RewardError: Tokens are to be counted, and there are neither token ids nor a tokenizer.
        """
        texts = self.params.texts(batch)
        ids = self._token_ids(batch, texts) if self.params.unit == "tokens" else None
        targets = self._targets(batch)
        scores = []
        for row, (text, target) in enumerate(zip(texts, targets, strict=True)):
            if text is None:
                scores.append(Score.no_words())
            elif isinstance(target, Score):
                scores.append(target)
            elif not has_word(text):
                scores.append(Score(0.0, reason="no words: the answer is empty or only punctuation"))
            elif ids is None:
                scores.append(self._score_row(len(words(text)), text, target))
            elif (tokens := ids[row]) is None:
                scores.append(Score.failed(_OTHER_TOKENS))
            elif not len(tokens):
                scores.append(Score.failed("completion_ids has no token for an answer that has text"))
            else:
                scores.append(self._score_row(len(tokens), tokens, target))
        return scores

    def _score_row(self, length: int, content: str | Sequence[int], band: Band) -> Score:
        repeated = 0.0
        if self.params.redundancy:
            repeated = repeated_share(plain_words(content) if isinstance(content, str) else content, self.params.ngram)
        value = band.marks(length, length * (1 - repeated)) * (1 - self.params.redundancy * repeated)
        reason = f"{length} {self.params.unit}, target {band}"
        if repeated:
            reason += f", {repeated:.0%} repeated"
        return Score(
            value,
            reason=reason,
            details={"length": length, "low": band.low, "high": band.high, "repeated": repeated},
        )

    def _band(self, target: float) -> Band:
        params = self.params
        return Band.around(
            target, tolerance=params.tolerance, half_at=params.half_at, only_long=params.penalise == "long"
        )

    def _token_ids(self, batch: RewardBatch, texts: Sequence[str | None]) -> Sequence[Sequence[int] | None]:
        """The tokens of each text: the batch's own where the text is the whole completion, else the tokenizer's.

        None where neither is there.
        """
        known: list[Sequence[int] | None] = [None] * len(batch)
        if batch.completion_ids is not None:
            wholes = batch.views("transcript", thinking="keep")
            known = [
                ids if text == whole else None
                for ids, text, whole in zip(batch.completion_ids, texts, wholes, strict=True)
            ]
            if self._counter is None:
                return known
        if self._counter is None:
            raise RewardError(
                "the batch has no completion_ids to count tokens by",
                hint="name a 'tokenizer' in the parameters, or count words",
            )
        counted = self._counter.ids([text or "" for text in texts])
        return [own if own is not None else ids for own, ids in zip(known, counted, strict=True)]

    def _targets(self, batch: RewardBatch) -> list[Band | Score]:
        """For each row the band to score it by, or the score of a row that has none."""
        params = self.params
        if params.target is not None:
            return [self._band(params.target)] * len(batch)
        source = str(params.relative_to)
        measured: Sequence[Any] = batch.prompt_texts if source == PROMPT else batch.column(source)
        what = "the prompt" if source == PROMPT else f"the column {source!r}"
        return [self._relative_target(text, what) for text in measured]

    def _relative_target(self, text: Any, what: str) -> Band | Score:
        if text is not None and not isinstance(text, str):
            return Score.failed(f"{what} holds {type(text).__name__}, not text")
        if text is None or not has_word(text):
            return Score(None, reason=f"{what} is empty, so the answer has no target length")
        length = len(words(text)) if self._counter is None else len(self._counter.ids([text])[0])
        return self._band(length * self.params.ratio)
