"""The reward ``language``: whether an answer is written in the language that was asked for."""

from __future__ import annotations

from typing import Any

import regex
from pydantic import Field

from rlaif_sdk import MissingExtraError, Reward, RewardBatch, Score, ViewParams
from rlaif_verifiable.checks import is_missing, missed, nothing_to_check

_CODE = regex.compile(r"```.*?(?:```|$)|`[^`\n]*`|https?://\S+", regex.DOTALL)
_LETTER = regex.compile(r"\p{L}")


class LanguageParams(ViewParams):
    """Which language, and what is too short to tell."""

    language: str | None = Field(default=None, pattern=r"^[a-z]{2}$")
    """The language of every answer, as ISO 639-1 writes it: ``de``."""

    column: str = Field(default="language", min_length=1)
    """Without `language`: the batch column with it, in either case and with a region or not (``zh-CN``). A row with none
    abstains."""

    least_letters: int = Field(default=20, ge=1)
    """A text of fewer letters, code and addresses left out, is too short to tell: 0 without any letter, else an
    abstention."""


class LanguageReward(Reward):
    """1 where py3langid finds the answer most likely in that language, else 0; code and addresses are left out."""

    name = "language"
    version = "1"
    range = (0.0, 1.0)
    ends = ("another language", "the language")

    def __init__(self, params: LanguageParams) -> None:
        self.params = params
        self.columns = () if params.language is not None else (params.column,)
        self.inputs = self.columns
        self._identifier: Any = None

    def setup(self) -> None:
        """Load the identifier.

        Raises:
            MissingExtraError: py3langid is not installed.
        """
        try:
            from py3langid.langid import MODEL_FILE, LanguageIdentifier
        except ImportError:
            raise MissingExtraError("py3langid", extra="language", package="rlaif-verifiable") from None
        self._identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)

    def score(self, batch: RewardBatch) -> list[Score]:
        """Score a batch of B rows."""
        if self._identifier is None:
            self.setup()
        params = self.params
        wanted = [params.language] * len(batch) if params.language is not None else batch.column(params.column)
        return [self._row(text, language) for text, language in zip(params.texts(batch), wanted, strict=True)]

    def _row(self, text: str | None, wanted: Any) -> Score:
        if is_missing(wanted):
            return nothing_to_check(self.params.column)
        code = str(wanted).strip().lower().replace("_", "-").partition("-")[0]
        if code not in self._identifier.labels:
            return Score.failed(f"{wanted!r} is no language that py3langid knows, such as 'de'")
        if text is None:
            return Score.no_words()
        words = _CODE.sub(" ", text)
        letters = len(_LETTER.findall(words))
        if not letters:
            return missed("no letter stands there")
        if letters < self.params.least_letters:
            return Score(None, reason=f"{letters} letters are too few to tell a language by")
        language, probability = self._identifier.classify(words)
        return Score(float(language == code), reason=f"{language} with a probability of {probability:.2f}")
