"""Verdicts in words: a justification, then a rating with two decimals."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rlaif_sdk.exceptions import JudgeResponseError
from rlaif_sdk.judges.backends import GeneratedText, JudgeBackend, RowError, charged
from rlaif_sdk.judges.prompts import Scale
from rlaif_sdk.types import Conversation, Score

_VERDICT = re.compile(
    r"[\s>#*_`-]*(?:final\s+)?rating[\s*_`]*:[\s*_`]*(-?[0-9]{1,3}(?:\.[0-9]{1,2})?)[\s*_`]*\.?[\s*_`]*",
    re.IGNORECASE,
)
_THOUGHTS_END = "</think>"


class RatingVerdict:
    """Asks for a justification and a rating, and reads the rating strictly.

    Args:
        scale: The least and greatest rating.
        max_new_tokens: The longest reply; one that is cut off there is no verdict.
    """

    version = "1"

    def __init__(self, scale: Scale, max_new_tokens: int = 256) -> None:
        self._scale = scale
        self._max_new_tokens = max_new_tokens
        self.instruction = (
            "First justify your verdict in one or two sentences. Then end with a line of its own: 'Rating: ' and a "
            f"number with two decimals from {scale.low:.2f} (worst) to {scale.high:.2f} (best)."
        )

    async def ask(self, backend: JudgeBackend, requests: Sequence[Conversation]) -> list[Score | RowError]:
        """The scores of B requests, each in [-1, 1] with the justification as its reason."""
        replies = await backend.generate(requests, max_new_tokens=self._max_new_tokens)
        return [charged(self._score(reply), reply) if isinstance(reply, GeneratedText) else reply for reply in replies]

    def _score(self, reply: GeneratedText) -> Score | RowError:
        if reply.truncated:
            return JudgeResponseError(
                f"the judge's reply is cut off after {self._max_new_tokens} tokens", hint="raise max_new_tokens"
            )
        try:
            rating, justification = parse_rating(reply.text, self._scale)
        except JudgeResponseError as error:
            return error
        return Score(
            value=self._scale.to_unit(rating),
            reason=justification or None,
            details={"rating": rating, "flags": list(reply.flags), "usage": reply.usage.record()},
        )


def parse_rating(reply: str, scale: Scale) -> tuple[float, str]:
    """The rating and the justification in a judge's reply.

    The rating is the judge's last word: the last line that is not empty, ``Rating: 3.50`` and nothing more, with
    ASCII digits. A rating that the judge quotes before is part of the justification.

    Raises:
        JudgeResponseError: The last line is no rating, or lies outside the scale.
    """
    lines = reply.rpartition(_THOUGHTS_END)[2].strip().splitlines()
    last = lines[-1] if lines else ""
    match = _VERDICT.fullmatch(last)
    if not match:
        raise JudgeResponseError(f"the judge's last line is no rating: {last[:80]!r}")
    rating = float(match[1])
    if not scale.low <= rating <= scale.high:
        raise JudgeResponseError(f"the judge's rating {match[1]} is not from {scale.low} to {scale.high}")
    return rating, "\n".join(lines[:-1]).strip()
