"""What can be set about the judge in a config."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rlaif_sdk import JudgeModelParams


class JudgeParams(JudgeModelParams):
    """Settings of the judge.

    Those that are None keep the default of the SDK or of the backend. A setting that the backend in use does not know
    is refused.
    """

    model: str
    """Hub name or local folder of a causal language model, or the model's name at the server."""
    criteria: str = "helpfulness"
    """What makes an answer good: ``helpfulness``, ``harmlessness``, ``summarisation``, or a text of your own."""
    mode: Literal["likelihood", "rating"] = "likelihood"
    """``likelihood``: the mean of the scale's scores under the judge's own probabilities. ``rating``: the judge writes
    a justification, which becomes the score's reason, and a rating with two decimals."""
    scale: tuple[int, int] | None = None
    """The least and the greatest score: by default [1, 10] in likelihood mode, [1, 5] in rating mode."""
    labels: Literal["letters", "numbers"] = "letters"
    """How the judge names a score in likelihood mode. ``numbers`` needs a local model."""
    preamble: str | None = None
    """What the judge is told first."""
    template: str | None = None
    """The whole prompt: a text with {preamble}, {criteria}, {prompt}, {answer} and {verdict}."""
    max_chars: int | None = Field(default=None, ge=1)
    """The most characters of a prompt, and of an answer: 24,000 by default."""
    overlong: Literal["error", "keep_start", "keep_end"] = "error"
    """What becomes of a longer one: unscored, or cut and flagged."""
    max_new_tokens: int | None = Field(default=None, ge=1)
    """The longest reply in rating mode: 256 tokens by default."""
