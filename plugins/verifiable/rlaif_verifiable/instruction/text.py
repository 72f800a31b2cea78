"""A response as the checks read it: its words, sentences, tokens and language, each found once.

Each is found with the library that the published checks use, from data that its package ships, so that verdicts are theirs
and nothing is downloaded.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache, cached_property
from importlib.resources import files
from typing import Any

LIBRARIES = ("emoji", "langdetect", "nltk", "punkt", "syllapy", "textblob")
"""What the extra ``instruction`` installs; loaded when first needed."""

_WORD = re.compile(r"\w+")


class Text:
    """A response, or a variant of it."""

    def __init__(self, value: str) -> None:
        self.value = value

    @cached_property
    def words(self) -> list[str]:
        """Runs of letters, digits and underscores."""
        return _WORD.findall(self.value)

    @cached_property
    def sentences(self) -> list[str]:
        """Sentences by Punkt with its English model, as NLTK's ``sent_tokenize`` splits them."""
        sentences: list[str] = _sentence_splitter().tokenize(self.value)
        return sentences

    @cached_property
    def tokens(self) -> list[str]:
        """Words and marks, as NLTK's ``word_tokenize`` splits them: ``don't.`` is ``do``, ``n't``, ``.``."""
        split = _word_splitter()
        tokens = {sentence: split(sentence) for sentence in dict.fromkeys(self.sentences)}
        return [token for sentence in self.sentences for token in tokens[sentence]]

    @cached_property
    def language(self) -> str | None:
        """The likeliest language by langdetect, such as ``en`` or ``zh-cn``; None where no letter tells one.

        langdetect draws at random; here always the same, so that a text has one verdict.
        """
        from langdetect.lang_detect_exception import LangDetectException

        detector = _languages().create()
        detector.append(self.value)
        try:
            language: str = detector.detect()
        except LangDetectException:
            return None
        return language


def languages() -> list[str]:
    """The codes that `Text.language` can have."""
    codes: list[str] = _languages().get_lang_list()
    return sorted(codes)


def starts_with_verb(text: Text) -> bool:
    """Whether the first word is most often a verb, by the lexicon that TextBlob ships; a word that it has not is none."""
    lexicon = _lexicon()
    first = next(iter(text.tokens), "")
    return lexicon.get(first, lexicon.get(first.lower(), "")).startswith("VB")


def is_emoji(character: str) -> bool:
    """Whether a character is an emoji."""
    from emoji import is_emoji

    found: bool = is_emoji(character)
    return found


def syllables(word: str) -> int:
    """The number of syllables of an English word, by syllapy; 0 where it has a digit."""
    from syllapy import count

    number: int = count(word)
    return number


@cache
def _sentence_splitter() -> Any:
    from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer
    from punkt.data import english  # the model that NLTK downloads, as a package

    parameters = PunktParameters()
    parameters.abbrev_types = set(english.ABBREV_TYPES)
    parameters.collocations = set(english.COLLOCATIONS)
    parameters.sent_starters = set(english.SENT_STARTERS)
    parameters.ortho_context.update(english.ORTHO_CONTEXT)
    return PunktSentenceTokenizer(parameters)


@cache
def _word_splitter() -> Callable[[str], list[str]]:
    from nltk.tokenize.destructive import NLTKWordTokenizer

    split: Callable[[str], list[str]] = NLTKWordTokenizer().tokenize
    return split


@cache
def _lexicon() -> dict[str, str]:
    """Words and their most frequent part of speech, as the Penn Treebank writes it."""
    lines = (files("textblob") / "en" / "en-lexicon.txt").read_text(encoding="utf-8").splitlines()
    entries = (line.split() for line in lines if line and not line.startswith(";;;"))
    return {word: tag for word, tag, *_ in entries}


@cache
def _languages() -> Any:
    from langdetect.detector_factory import PROFILES_DIRECTORY, DetectorFactory

    factory = DetectorFactory()
    factory.load_profile(PROFILES_DIRECTORY)
    factory.set_seed(0)
    return factory
