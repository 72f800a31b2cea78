"""The reward ``format``: whether a completion has the form that was asked for."""

from __future__ import annotations

from typing import Literal, Self

import regex
from pydantic import Field, model_validator

from rlaif_sdk import Credit, CreditSpan, Reward, RewardBatch, Score, ViewParams
from rlaif_verifiable.extraction import PATTERN_SECONDS, Pattern

Form = Literal["think", "think_answer", "think_code", "tags"]

_PATTERNS = {
    "think": r"<think>(?!.*<think>).*?</think>.*",
    "think_answer": r"\s*<think>(?:(?!</?think>|</?answer>).)*</think>\s*<answer>(?:(?!</?think>|</?answer>).)*</answer>\s*",
}
_TAGS = ("<think>", "</think>", "<answer>", "</answer>")


class FormatParams(ViewParams):
    """Which form is asked for: one of `form` by its name, or one's own `pattern`."""

    view: Literal["answer", "assistant", "transcript"] = "assistant"
    """What of a completion is checked; see the other rewards."""

    thinking: Literal["drop", "keep"] = "keep"
    """Thinking is kept: its tags are what is checked. Thinking in a field of its own counts as written in tags."""

    form: Form | None = None
    """``think``: thinking in tags, opened once, then anything (TRL's ``think_format_reward``); ``think_answer``:
    thinking in tags and an answer in tags and nothing else (open-r1's ``format_reward``, which also takes further tags
    within); ``think_code``: the same, with a fenced block of `language` in the answer (open-r1's code format);
    ``tags``: a quarter for each of the four tags that stands there just once (open-r1's ``tag_count_reward`` asks for
    line ends around them as well)."""

    language: str | None = Field(default=None, pattern=r"^[\w+#-]+$")
    """What a block is fenced as, with ``form: think_code``."""

    pattern: Pattern | None = None
    """A regular expression that the whole text must match; ``.`` matches line ends too."""

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if (self.form is None) == (self.pattern is None):
            raise ValueError("give either 'form' or 'pattern'")
        if (self.form == "think_code") != (self.language is not None):
            raise ValueError("'form: think_code' needs 'language', and nothing else takes one")
        return self


class FormatReward(Reward):
    """1 where the text has the form, else 0; with ``form: tags`` a quarter for each tag, which is its credit.

    A row whose text makes one's own pattern run for more than a second fails.
    """

    name = "format"
    version = "2"
    range = (0.0, 1.0)
    ends = ("another form", "the form")
    inputs = ()

    def __init__(self, params: FormatParams) -> None:
        self.params = params

    def score(self, batch: RewardBatch) -> list[Score]:
        """Score a batch of B rows."""
        return [Score.no_words() if text is None else self._row(text) for text in self.params.texts(batch)]

    def _row(self, text: str) -> Score:
        form = self.params.form
        if form == "tags":
            right = [tag for tag in _TAGS if text.count(tag) == 1]
            wrong = [f"{tag} {text.count(tag)} times" for tag in _TAGS if tag not in right]
            places = [(text.index(tag), tag) for tag in right]
            spans = tuple(CreditSpan(start, start + len(tag), 1 / len(_TAGS)) for start, tag in places)
            credit = Credit(spans=spans, view=self.params.view, thinking=self.params.thinking)
            return Score(len(right) / len(_TAGS), ", ".join(wrong) or "each tag once", credit=credit)
        if form == "think_code":
            matches = matches_whole(_PATTERNS["think_answer"], text) and self._has_block(text.rpartition("<answer>")[2])
        else:
            try:
                matches = matches_whole(self.params.pattern or _PATTERNS[str(form)], text)
            except TimeoutError:
                return Score.failed(f"the pattern runs for more than {PATTERN_SECONDS:g} s on this text")
        return Score(
            float(matches), reason=f"{'has' if matches else 'has not'} the form {form or self.params.pattern!r}"
        )

    def _has_block(self, answer: str) -> bool:
        return (
            regex.search(rf"```{regex.escape(str(self.params.language))}[ \t]*\n.*?\S.*?```", answer, regex.DOTALL)
            is not None
        )


def matches_whole(pattern: str, text: str) -> bool:
    """Whether all of a text matches.

    Raises:
        TimeoutError: It takes more than `PATTERN_SECONDS`.
    """
    return regex.fullmatch(pattern, text, flags=regex.DOTALL, timeout=PATTERN_SECONDS) is not None
