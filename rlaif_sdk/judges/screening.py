"""What happens to text before a judge sees it: invisible tricks undone, contentless answers refused."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from rlaif_sdk.io.text import SURROGATES, safe_text

_INVISIBLE = re.compile(
    "[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f"  # controls other than tab, newline, return
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\u3164\ufeff"
    "\ufff9-\ufffb\U000e0000-\U000e0fff]"
    # Joiners have a use between letters of some scripts and between emoji, and none beside ASCII.
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

MASTER_KEYS = frozenset(
    {
        "answer",
        "final answer",
        "let me think",
        "let me think step by step",
        "let s solve this problem step by step",
        "let s think step by step",
        "reasoning",
        "respuesta",
        "solution",
        "step by step",
        "the answer is",
        "the final answer is",
        "thinking process",
        "thought process",
        "かいせつ",
        "答案",
        "解",
        "解析",
    }
)
"""Openings without content that judges reward when nothing follows them (Zhao et al. 2025, arXiv 2507.08794, and their
near relatives), in lower case without punctuation."""


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


def screen(text: str) -> Screened:
    """Normalise what people cannot see or tell apart; everything else stays as it is."""
    flags = []
    for flag, step in _STEPS.items():
        normalised = step(text)
        if normalised != text:
            flags.append(flag)
        text = normalised
    return Screened(text, tuple(flags))


def contentless(text: str) -> str | None:
    """Why an answer has no content to judge, or None when it has some.

    Bare punctuation, and the "master keys" that make judges reward an empty answer, have none. One letter, one
    digit, one emoji or one mathematical sign beyond ASCII is content.
    """
    if not any(map(_is_content, text)):
        return "it has no words, numbers or symbols"
    bare = " ".join(re.findall(r"\w+", text.casefold().replace("_", " ")))
    return f"it is only an opening ({bare!r})" if bare in MASTER_KEYS else None


def _is_content(character: str) -> bool:
    return character.isalnum() or (not character.isascii() and unicodedata.category(character) in ("So", "Sm"))


def _compatible(match: re.Match[str]) -> str:
    return unicodedata.normalize("NFKC", match[0])


def _unmixed(match: re.Match[str]) -> str:
    word = match[0]
    if word.isascii() or not _LATIN.search(word):
        return word
    return "".join(_LATIN_LOOKALIKES.get(letter, letter) for letter in word)


def _remove_invisible(text: str) -> str:
    return _INVISIBLE.sub("", text)


def _replace_lookalikes(text: str) -> str:
    if text.isascii():
        return text
    return _WORD.sub(_unmixed, _ASCII_LOOKALIKE.sub(_compatible, text))


_STEPS: Mapping[str, Callable[[str], str]] = {
    SURROGATES: safe_text,
    "invisible": _remove_invisible,
    "lookalikes": _replace_lookalikes,
}
