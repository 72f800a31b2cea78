"""The reward ``overlap``: ROUGE, BLEU and chrF of an answer against references."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import regex
from pydantic import Field

from rlaif_sdk import MissingExtraError, Score
from rlaif_verifiable.checks import AnswerParams, AnswerReward, quoted

Metric = Literal["rouge1", "rouge2", "rougeL", "rougeLsum", "bleu", "chrf"]

_READ_BY_ROUGE = regex.compile(r"[A-Za-z0-9]")


class OverlapParams(AnswerParams):
    """Which measure, and where the references are."""

    column: str = Field(default="reference", min_length=1)
    """The batch column with a row's reference, a text, or a list of them. A row with none abstains."""

    metric: Metric = "rougeL"
    """``rouge1``, ``rouge2``, ``rougeL``, ``rougeLsum``: the F measure, the best over references (rouge-score); ``bleu``,
    ``chrf``: sacrebleu's of a sentence, over 100, against all references at once."""

    stemmer: bool = False
    """Whether ROUGE compares stems of English words."""


class OverlapReward(AnswerReward[OverlapParams]):
    """How much an answer and its references share, in [0, 1], by the library of each measure.

    rouge-score reads the letters a to z and digits only: a row whose references have none of them fails.
    """

    name = "overlap"
    ends = ("nothing shared", "the same")

    def __init__(self, params: OverlapParams) -> None:
        super().__init__(params)
        self._measure: Callable[[str, Sequence[str]], float] | None = None

    def setup(self) -> None:
        """Load the library.

        Raises:
            MissingExtraError: It is not installed.
        """
        try:
            self._measure = (
                _sacrebleu(self.params.metric) if self.params.metric in ("bleu", "chrf") else _rouge(self.params)
            )
        except ImportError as error:
            raise MissingExtraError(str(error.name), extra="overlap", package="rlaif-verifiable") from None

    def compare(self, text: str, answers: Sequence[str]) -> Score:
        if self.params.metric.startswith("rouge") and not any(map(_READ_BY_ROUGE.search, answers)):
            return Score.failed(
                f"rouge-score reads no script but Latin, nothing of {quoted(answers[0])}; chrf reads all"
            )
        if self._measure is None:
            self.setup()
        assert self._measure is not None
        value = min(1.0, max(0.0, self._measure(text, answers)))
        return Score(
            value, reason=f"{self.params.metric} {value:.3f} against {len(answers)} reference{'s' * (len(answers) > 1)}"
        )


def _rouge(params: OverlapParams) -> Callable[[str, Sequence[str]], float]:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer([params.metric], use_stemmer=params.stemmer)
    return lambda text, references: max(
        float(scorer.score(right, text)[params.metric].fmeasure) for right in references
    )


def _sacrebleu(metric: str) -> Callable[[str, Sequence[str]], float]:
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    measure = BLEU(effective_order=True) if metric == "bleu" else CHRF()
    return lambda text, references: float(measure.sentence_score(text, list(references)).score) / 100
