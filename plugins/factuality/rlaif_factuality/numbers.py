"""The numbers that a text states, as values that can be compared exactly."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal

_ONES = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_SMALL = {word: value for value, word in enumerate(_ONES)} | {word: 10 * (i + 2) for i, word in enumerate(_TENS)}
_SCALES = {"hundred": 100, "thousand": 1_000, "million": 1_000_000, "billion": 10**9, "trillion": 10**12, "dozen": 12}

_DIGITS = r"\d{1,3}(?:[,\u00a0\u2009\u202f]\d{3})+(?:\.\d+)?(?!\d)|\d+(?:\.\d+)?|\.\d+"
_SPELLED = "|".join(sorted([*_SMALL, *_SCALES], key=len, reverse=True))
_TERM = re.compile(
    rf"(?<![^\W_])(?:(?P<sign>(?<![\w.,)])[-\u2212])?(?P<digits>{_DIGITS})|(?P<word>{_SPELLED})(?![^\W_]))",
    re.IGNORECASE,
)
_SUFFIX = re.compile(r"\s*(?P<percent>%|percent\b|per cent\b|percentage points?\b)|(?P<decade>'?s\b)", re.IGNORECASE)
_RANGE = re.compile(r"\s*(?:-|\u2013|\u2014|to|or|and)\s*", re.IGNORECASE)
_JOINT = re.compile(r"\s*-?\s*(?:and\s+)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Number:
    """A number that a text states.

    Attributes:
        value: Its value.
        unit: ``%``, ``s`` for a decade such as the 1990s, or nothing.
        text: How the text writes it.
        vague: Whether it is a bare "one" or "zero", which is seldom meant as a count.
    """

    value: Decimal
    unit: str
    text: str
    vague: bool = False

    @property
    def key(self) -> tuple[Decimal, str]:
        """What must agree for two numbers to be the same."""
        return (self.value, self.unit)


def find_numbers(text: str) -> list[Number]:
    """The numbers of a text, in order.

    ``1,000`` and ``1000``, ``5%`` and ``five percent``, ``2.5 million`` and ``2,500,000``, ``twenty-one`` and
    ``21`` are the same; digits inside a name such as B12 are no number. Spelled ordinals (first, third) are not read.
    """
    terms = list(_TERM.finditer(text))
    numbers: list[Number] = []
    ends: list[tuple[int, int]] = []
    index = 0
    while index < len(terms):
        last = index
        while last + 1 < len(terms) and _continues(text, terms[last], terms[last + 1]):
            last += 1
        start, end = terms[index].start(), terms[last].end()
        value = _value(terms[index : last + 1])
        suffix = _SUFFIX.match(text, end)
        unit = "" if suffix is None else "%" if suffix["percent"] else "s"
        if unit == "s" and terms[last]["digits"] is None:
            unit = ""
        written = text[start : suffix.end() if suffix and unit else end]
        vague = index == last and (terms[index]["word"] or "").casefold() in ("one", "zero", *_SCALES)
        numbers.append(Number(value, unit, written.strip(), vague))
        ends.append((start, end))
        index = last + 1
    return _spread_percent(text, numbers, ends)


def _continues(text: str, term: re.Match[str], following: re.Match[str]) -> bool:
    """Whether two terms are one number: ``five hundred``, ``twenty-one``, ``2.5 million``."""
    between = text[term.end() : following.start()]
    joint = _JOINT.fullmatch(between)
    if joint is None or following["word"] is None or following["sign"]:
        return False
    word, next_word = (term["word"] or "").casefold(), following["word"].casefold()
    has_and = "and" in between.casefold()
    if next_word in _SCALES:
        return not has_and and (next_word != "dozen" or word not in _SCALES)
    if word in _SCALES and word != "dozen":
        return True
    return word in _TENS and not has_and and 0 < _SMALL[next_word] < 10


def _value(terms: list[re.Match[str]]) -> Decimal:
    total = group = Decimal(0)
    for term in terms:
        word = (term["word"] or "").casefold()
        if term["digits"]:
            group += Decimal(re.sub(r"[,\u00a0\u2009\u202f ]", "", term["digits"])) * (-1 if term["sign"] else 1)
        elif word in _SMALL:
            group += _SMALL[word]
        elif _SCALES[word] <= 100:
            group = (group or Decimal(1)) * _SCALES[word]
        else:
            total += (group or Decimal(1)) * _SCALES[word]
            group = Decimal(0)
    return (total + group).normalize()


def _spread_percent(text: str, numbers: list[Number], ends: list[tuple[int, int]]) -> list[Number]:
    """In ``5 to 10%`` the first number is a percentage as well."""
    for index in range(len(numbers) - 1, 0, -1):
        number, earlier = numbers[index], numbers[index - 1]
        between = text[ends[index - 1][1] : ends[index][0]]
        if number.unit == "%" and not earlier.unit and _RANGE.fullmatch(between):
            numbers[index - 1] = Number(earlier.value, "%", earlier.text, earlier.vague)
    return numbers
