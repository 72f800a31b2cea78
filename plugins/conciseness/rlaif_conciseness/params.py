"""The parameters of the reward ``conciseness``."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from rlaif_sdk import ViewParams


class ConcisenessParams(ViewParams):
    """What length an answer should have, and how repetition is counted.

    Give either `target` or `relative_to`.
    """

    target: float | None = Field(default=None, gt=0)
    """Wanted length in units."""

    relative_to: str | None = Field(default=None, min_length=1)
    """`prompt`, or the name of a text column: the target is then `ratio` times the length of that text."""

    ratio: float = Field(default=1.0, gt=0)
    """Wanted length as a multiple of the text named by `relative_to`."""

    tolerance: float = Field(default=0.2, ge=0, lt=1)
    """Full marks from `target * (1 - tolerance)` to `target * (1 + tolerance)`."""

    half_at: float = Field(default=2.0, gt=1)
    """An answer this many times longer than the longest, or shorter than the shortest, with full marks gets half."""

    penalise: Literal["both", "long"] = "both"
    """`both`: too short and too long; `long`: only too long."""

    unit: Literal["words", "tokens"] = "words"
    """What length is counted in."""

    tokenizer: str | None = Field(default=None, min_length=1)
    """A `tokenizer.json`, a folder with one, or a name on the model hub. Counts tokens where the batch brings none."""

    redundancy: float = Field(default=0.5, ge=0, le=1)
    """How much of the score repetition can take away; 0 turns the check off."""

    ngram: int = Field(default=3, ge=1)
    """Length, in units, of the sequences whose repetition is counted."""

    @model_validator(mode="after")
    def _one_target(self) -> Self:
        if (self.target is None) == (self.relative_to is None):
            raise ValueError("give either 'target' (a length) or 'relative_to' (prompt, or a column), and not both")
        if self.relative_to is None and "ratio" in self.model_fields_set:
            raise ValueError("'ratio' needs 'relative_to'")
        if self.unit == "words" and self.tokenizer is not None:
            raise ValueError("'tokenizer' needs 'unit: tokens'")
        if self.unit == "tokens" and self.relative_to is not None and self.tokenizer is None:
            raise ValueError("'relative_to' with 'unit: tokens' needs a 'tokenizer' to measure the other text with")
        return self
