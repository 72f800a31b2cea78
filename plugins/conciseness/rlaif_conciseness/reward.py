"""The reward ``conciseness``."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

from rlaif_conciseness.length import Band
from rlaif_conciseness.params import ConcisenessParams
from rlaif_conciseness.redundancy import new_units
from rlaif_conciseness.units import TokenCounter, read_text
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

    `marks` is `Band.marks` and `repeated` is the share of the units that are not new (`new_units`). What is no word (symbols, tags, empty lines) makes an
    answer longer and never helps a short one. While ``redundancy`` is above 0, words that it has had do not help it
    either, so that repeating a text, in any order, never raises its score. An answer without a
    letter or a digit gets 0, the lowest score; every other answer gets more. Where the policy called a tool and said
    nothing, the reward abstains.
    """

    name = "conciseness"
    version = "3"
    range = (0.0, 1.0)
    ends = ("padded", "concise")

    def __init__(self, params: ConcisenessParams) -> None:
        self.params = params
        self.columns = () if params.relative_to in (None, PROMPT) else (str(params.relative_to),)
        self.inputs = self.columns if params.unit == "words" else (*self.columns, "completion_ids")
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
            elif not (measured := read_text(text)).words:
                scores.append(Score(0.0, reason="no words: the answer is empty or only punctuation"))
            elif ids is None:
                scores.append(self._score_row(measured.length, measured.words, target))
            elif (tokens := ids[row]) is None:
                scores.append(Score.failed(_OTHER_TOKENS))
            elif not len(tokens):
                scores.append(Score.failed("completion_ids has no token for an answer that has text"))
            else:
                scores.append(self._score_row(len(tokens), tokens, target))
        return scores

    def _score_row(self, length: int, units: Sequence[Hashable], band: Band) -> Score:
        new = new_units(units, self.params.ngram) if self.params.redundancy else len(units)
        repeated = 1 - new / len(units)
        value = band.marks(length, new) * (1 - self.params.redundancy * repeated)
        reason = f"{len(units)} {self.params.unit}"
        if length > len(units):
            reason += f" and {length - len(units)} for symbols and blanks"
        reason += f", target {band}"
        if repeated:
            reason += f", {repeated:.0%} repeated"
        return Score(
            value,
            reason=reason,
            details={"length": length, "low": band.low, "high": band.high, "repeated": repeated, "new": new},
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
        words = 0 if text is None else len(read_text(text).words)
        if text is None or not words:
            return Score(None, reason=f"{what} is empty, so the answer has no target length")
        length = words if self._counter is None else len(self._counter.ids([text])[0])
        return self._band(length * self.params.ratio)
