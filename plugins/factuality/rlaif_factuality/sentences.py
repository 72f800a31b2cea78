"""Cutting a text into sentences."""

from __future__ import annotations

import re

_ABBREVIATIONS = frozenset(
    [
        "adj",
        "al",
        "approx",
        "apr",
        "aug",
        "ave",
        "blvd",
        "bros",
        "ca",
        "capt",
        "cf",
        "ch",
        "cmdr",
        "co",
        "col",
        "corp",
        "dec",
        "dept",
        "dr",
        "ed",
        "e.g",
        "eq",
        "esp",
        "est",
        "fig",
        "figs",
        "feb",
        "ft",
        "gen",
        "gov",
        "hon",
        "i.e",
        "inc",
        "jan",
        "jr",
        "jul",
        "jun",
        "lt",
        "ltd",
        "maj",
        "mar",
        "mr",
        "mrs",
        "ms",
        "mt",
        "no",
        "nos",
        "nov",
        "oct",
        "op",
        "p",
        "pp",
        "ph.d",
        "prof",
        "pt",
        "rep",
        "rev",
        "sec",
        "sen",
        "sep",
        "sept",
        "sgt",
        "sr",
        "st",
        "vol",
        "vs",
    ]
)
_MARKER = re.compile(r"(?:[-*+\u2022\u2013>]|#{1,6}|\(?\d{1,3}[.)]|\(?[a-zA-Z]\))\s+")
_CLOSERS = r"[\"'\u201d\u2019)\]*_]*"
_END = rf"(?P<mark>[.!?\u2026]+){_CLOSERS}\s+"
_OTHER_ENDS = r"(?<=\s)(?P<spaced>[.!?]+)\s+(?=\S)|[\u3002\uff01\uff1f]+"
_BREAK = re.compile(rf"{_END}(?=[\"'\u201c\u2018(\[*_]*[^\W_a-z])|{_OTHER_ENDS}")
_BREAK_IN_SMALL_LETTERS = re.compile(rf"{_END}(?=\S)|{_OTHER_ENDS}")
_LONGEST_ABBREVIATION = 12
_LAST_WORD = re.compile(r"[^\W_]+(?:\.[^\W_]+)*$")
_INITIALS = re.compile(r"(?:[^\W\d_]\.)*[^\W\d_]$")
_WORD = re.compile(r"[^\W_]")


def split_sentences(text: str) -> list[str]:
    """The sentences of a text, in order, without list markers and headings' marks.

    A sentence ends at ``.``, ``!``, ``?`` or their CJK forms where a new one can begin (not after an abbreviation or
    an initial, nor inside a number), and at a line break before a blank line, a list item or after a finished line.
    A new one can begin with a small letter where the mark stands apart, as tokenizers leave it, and in a text without
    any capital.
    Pieces without a letter or a digit are left out.
    """
    return [
        sentence
        for paragraph in _paragraphs(text)
        for sentence in _split_paragraph(paragraph)
        if _WORD.search(sentence) is not None
    ]


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """Where each of `split_sentences` stands in the text: the places of its first character, and after its last."""
    spans = []
    start = 0
    for sentence in split_sentences(text):
        written = re.compile(
            r"\s+".join(map(re.escape, sentence.split()))
        )  # a sentence over several lines is one line there
        found = written.search(text, start)
        assert found is not None
        start = found.end()
        spans.append(found.span())
    return spans


def _paragraphs(text: str) -> list[str]:
    paragraphs: list[list[str]] = []
    joins = False
    for line in text.splitlines():
        stripped = line.strip()
        marker = _MARKER.match(stripped)
        content = stripped[marker.end() :] if marker else stripped
        if joins and content and not marker:
            paragraphs[-1].append(content)
        elif content:
            paragraphs.append([content])
        joins = bool(content) and not content.endswith((".", "!", "?", ":", ";")) and not stripped.startswith("#")
    return [" ".join(lines) for lines in paragraphs]


def _split_paragraph(paragraph: str) -> list[str]:
    sentences = []
    start = 0
    has_capitals = any(character.isupper() for character in paragraph)
    for match in (_BREAK if has_capitals else _BREAK_IN_SMALL_LETTERS).finditer(paragraph):
        mark = match["mark"] or match["spaced"]
        if mark == "." and _is_abbreviation(
            paragraph[max(start, match.start() - _LONGEST_ABBREVIATION) : match.start()].rstrip()
        ):
            continue
        sentences.append(paragraph[start : match.end()].strip())
        start = match.end()
    sentences.append(paragraph[start:].strip())
    return sentences


def _is_abbreviation(before: str) -> bool:
    """Whether the word that ``before`` ends with keeps a full stop without ending its sentence."""
    last = _LAST_WORD.search(before)
    if last is None:
        return False
    word = last.group()
    if word.casefold() in _ABBREVIATIONS:
        return True
    return _INITIALS.match(word) is not None and word not in ("I", "a") and (word[0].isupper() or "." in word)
