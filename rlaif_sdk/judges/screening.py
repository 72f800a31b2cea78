"""What happens to text before a judge sees it: invisible tricks undone, contentless answers refused."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from rlaif_sdk.conversations import Images, Thinking, View, view
from rlaif_sdk.io.text import SURROGATES, safe_text
from rlaif_sdk.judges.openings import EMOTICON, is_opening
from rlaif_sdk.types import Score, TextOrConversation

Overlong = Literal["error", "keep_start", "keep_end"]
NO_WORDS = "it has no words, numbers or symbols"
_REMEMBERED = 128
"""Of so many texts it is remembered what came of them: an answer stands in several pairs of its group."""
_UNSEEN = (
    "\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f"  # controls other than tab, newline, return
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\u3164\ufeff\uffa0"
    "\ufff9-\ufffb\U000e0000-\U000e0fff"
)
_SUSPECT = re.compile(f"[{_UNSEEN}\u200c\u200d\ufe00-\ufe0f]")
_INVISIBLE = re.compile(
    f"[{_UNSEEN}]"
    # Joiners have a use between letters of some scripts and between emoji, and none beside ASCII.
    "|(?<=[\u0000-\u007f])[\ufe00-\ufe0f]+(?!\u20e3)"  # nor has what chooses a form, but for the signs of a keypad
    "|(?:(?<=[\u0000-\u007f])|^)[\u200c\u200d]+|[\u200c\u200d]+(?=[\u0000-\u007f]|$)"
)
_ASCII_LOOKALIKE = re.compile("[\uff01-\uff5e\U0001d400-\U0001d7ff]")
_LATIN_LOOKALIKES = dict(
    zip(
        "\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0456\u0458\u0455"
        "\u0410\u0412\u0415\u041a\u041c\u041d\u041e\u0420\u0421\u0422\u0425"
        "\u0391\u0392\u0395\u0396\u0397\u0399\u039a\u039c\u039d\u039f\u03a1\u03a4\u03a5\u03a7\u03bf",
        "aeopcyxijsABEKMHOPCTXABEZHIKMNOPTYXo",
        strict=True,
    )
)
_WORD = re.compile(r"[^\W\d_]+")
_LATIN = re.compile("[A-Za-z]")

_EMPTY = re.compile(r"<([A-Za-z][\w-]*)>\s*</\1>|(`{3,8}|~{3,8})[\w+-]*\s*\2|\\[A-Za-z]+\s*\{\s*\}")
"""Markup around nothing: an empty pair of tags, fence of code, or command of TeX."""
_CONTENTLESS_SIGNS = re.compile("[\u2400-\u243f\u2500-\u259f\u2800\ufffc\ufffd]")
"""Signs for what is not there, and of which boxes are drawn: pictures of controls, the blank of braille, replacements."""


@dataclass(frozen=True, slots=True)
class Screened:
    """Text as a judge may see it.

    Attributes:
        text: The text, normalised.
        flags: What was done to it: ``surrogates`` replaced, ``invisible`` characters (zero-width, bidirectional,
            control) removed, ``lookalikes`` of Latin letters and ASCII signs replaced.
    """

    text: str
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PreparedText:
    """What a judge is to see of one text.

    Attributes:
        text: The text, normalised and, where it was too long, cut.
        flags: What was done to it, each with the text's name, such as ``answer_truncated``.
        contentless: Why there is nothing in it to judge, or None.
        overlong: That it is too long and is not to be cut, in words, or None.
    """

    text: str
    flags: tuple[str, ...] = ()
    contentless: str | None = None
    overlong: str | None = None


@dataclass(frozen=True, slots=True)
class PreparedRow:
    """What a judge is to see of a prompt and its answer.

    Attributes:
        prompt: The prompt.
        answer: The answer.
        flags: What was done to them.
        contentless: Why there is nothing in the answer to judge, or None.
        reference: The reference answer, or None.
        images: What the judge is to see beside them, as blocks of content.
    """

    prompt: str
    answer: str
    flags: tuple[str, ...] = ()
    contentless: str | None = None
    reference: str | None = None
    images: Images = ()


@dataclass(frozen=True, slots=True)
class Screening:
    """How a judge's texts are prepared.

    Attributes:
        max_chars: The most characters of a text.
        overlong: What becomes of a longer one.
        view: What of an answer is judged.
        thinking: Whether the policy's thinking is judged too.
    """

    max_chars: int
    overlong: Overlong
    view: View
    thinking: Thinking

    def of_answer(self, name: str, answer: TextOrConversation) -> PreparedText | None:
        """What the judge is to see of an answer; None where the policy called a tool and said nothing.

        Raises:
            ConversationError: It cannot be read.
        """
        text = view(answer, self.view, thinking=self.thinking)
        return None if text is None else self.of_text(name, text)

    def of_row(
        self, prompt: str, answer: str | None, reference: str | Score | None = None, images: Images = ()
    ) -> PreparedRow | Score:
        """What the judge is to see of a row; a score where there is nothing to ask it: no words, or too many.

        Args:
            prompt: The prompt, as text.
            answer: The answer, as text; None where the policy called a tool and said nothing.
            reference: An entry of `RewardBatch.references`.
            images: Of `RewardBatch.images`, where the judge sees them.
        """
        if answer is None:
            return Score.no_words()
        asked, given = self.of_text("prompt", prompt), self.of_text("answer", answer)
        if isinstance(reference, Score) and not given.contentless:
            return reference
        gold = self.of_text("reference", reference) if isinstance(reference, str) else None
        flags = (*asked.flags, *given.flags, *(gold.flags if gold else ()))
        row = PreparedRow(asked.text, given.text, flags, given.contentless, gold.text if gold else None, images)
        problem = None if row.contentless else asked.overlong or given.overlong or (gold.overlong if gold else None)
        return Score.failed(problem) if problem else row

    def of_text(self, name: str, text: str) -> PreparedText:
        """What the judge is to see of a text, which is called ``prompt``, ``answer`` or the like."""
        screened = screen(text)
        kept, flags, problem = screened.text, [f"{name}_{flag}" for flag in screened.flags], None
        if len(kept) > self.max_chars:
            if self.overlong == "error":
                problem = f"the {name} has {len(kept)} characters and the judge's max_chars is {self.max_chars}"
            else:
                kept = kept[: self.max_chars] if self.overlong == "keep_start" else kept[-self.max_chars :]
                flags.append(f"{name}_truncated")
        return PreparedText(kept, tuple(flags), contentless(kept), problem)


@functools.lru_cache(_REMEMBERED)
def screen(text: str) -> Screened:
    """Normalise what people cannot see or tell apart; everything else stays as it is."""
    flags = []
    for flag, step in _STEPS.items():
        normalised = step(text)
        if normalised != text:
            flags.append(flag)
        text = normalised
    return Screened(text, tuple(flags))


@functools.lru_cache(_REMEMBERED)
def contentless(text: str) -> str | None:
    """Why an answer has no content to judge, or None when it has some.

    Bare punctuation has none, nor has an answer whose every line announces something, in whatever language, with nothing
    after it: see `rlaif_sdk.judges.openings`. One letter, one digit, one emoji, one emoticon or one mathematical sign beyond
    ASCII is content.
    """
    text = _EMPTY.sub("", text)
    if not any(map(_is_content, text)) and not EMOTICON.search(text):
        return NO_WORDS
    lines = (line for line in map(str.strip, text.splitlines()) if EMOTICON.search(line) or any(map(_is_content, line)))
    last = ""
    for last in lines:
        if not is_opening(last):
            return None
    return f"it is only an opening ({last[:60]!r})"


def _is_content(character: str) -> bool:
    if character.isalnum():
        return unicodedata.category(character) != "Lm"
    return (
        not character.isascii()
        and unicodedata.category(character) in ("So", "Sm")
        and not _CONTENTLESS_SIGNS.match(character)
    )


def _compatible(match: re.Match[str]) -> str:
    return unicodedata.normalize("NFKC", match[0])


def _unmixed(match: re.Match[str]) -> str:
    word = match[0]
    if word.isascii() or not _LATIN.search(word):
        return word
    return "".join(_LATIN_LOOKALIKES.get(letter, letter) for letter in word)


def _remove_invisible(text: str) -> str:
    return _INVISIBLE.sub("", text) if _SUSPECT.search(text) else text  # most have nothing of it, which is seen at once


def _replace_lookalikes(text: str) -> str:
    if text.isascii():
        return text
    return _WORD.sub(_unmixed, _ASCII_LOOKALIKE.sub(_compatible, text))


_STEPS: Mapping[str, Callable[[str], str]] = {
    SURROGATES: safe_text,
    "invisible": _remove_invisible,
    "lookalikes": _replace_lookalikes,
}
