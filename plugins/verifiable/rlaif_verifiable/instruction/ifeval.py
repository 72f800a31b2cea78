"""The 25 types of IFEval.

Source: Zhou et al. 2023, "Instruction-Following Evaluation for Large Language Models"; verdicts are those of
google-research's ``instruction_following_eval`` at 3f357bd, odd ones included, in time linear in the response.
Where an odd one lets a response pass that does not follow, or the other way round, a correction stands below it.
"""

from __future__ import annotations

import json
import re
from typing import Annotated

from pydantic import AfterValidator, Field

from rlaif_verifiable.instruction.registry import (
    ArgumentError,
    Count,
    Instructions,
    Phrase,
    Phrases,
    Place,
    Relation,
    Verdict,
    compared,
    unless,
)
from rlaif_verifiable.instruction.text import Text, languages

INSTRUCTIONS = Instructions()

Letter = Annotated[str, Field(min_length=1, max_length=1, pattern=r"\S")]


def _known(language: str) -> str:
    if language not in languages():
        raise ValueError(f"langdetect knows {', '.join(languages())}")
    return language


Language = Annotated[str, AfterValidator(_known)]


@INSTRUCTIONS.type("keywords:existence")
def existence(text: Text, keywords: Phrases) -> Verdict:
    """Each keyword stands in the response, also within a word, in any case."""
    absent = [word for word in keywords if not _found(word, text.value)]
    return unless(not absent, f"missing: {', '.join(sorted(absent))}")


@INSTRUCTIONS.type("keywords:frequency")
def frequency(text: Text, keyword: Phrase, frequency: Count, relation: Relation) -> Verdict:
    """A keyword stands there less than, or at least, so many times, also within words, in any case."""
    number = len(re.findall(re.escape(keyword), text.value, re.IGNORECASE))
    return compared(number, relation, frequency, f"times {keyword!r}")


@INSTRUCTIONS.type("keywords:forbidden_words")
def forbidden_words(text: Text, forbidden_words: Phrases) -> Verdict:
    """No forbidden word stands there as a word, in any case."""
    present = [word for word in forbidden_words if re.search(rf"\b{re.escape(word)}\b", text.value, re.IGNORECASE)]
    return unless(not present, f"forbidden: {', '.join(sorted(present))}")


@INSTRUCTIONS.type("keywords:letter_frequency")
def letter_frequency(text: Text, letter: Letter, let_frequency: Count, let_relation: Relation) -> Verdict:
    """A letter or mark stands there less than, or at least, so many times, in any case."""
    return compared(text.value.lower().count(letter.lower()), let_relation, let_frequency, f"times {letter!r}")


@INSTRUCTIONS.type("language:response_language")
def response_language(text: Text, language: Language) -> Verdict:
    """The response is in a language (langdetect). A response without a letter passes."""
    return unless(_in_language(text, language) is not False, f"the language is {text.language}, not {language}")


@INSTRUCTIONS.correction("language:response_language")
def response_language_read(text: Text, language: Language) -> Verdict:
    """Digits and marks alone are in no language, and do not pass."""
    return unless(_in_language(text, language), f"the language is {text.language or 'not to be told'}, not {language}")


@INSTRUCTIONS.type("length_constraints:number_sentences")
def number_sentences(text: Text, num_sentences: Count, relation: Relation) -> Verdict:
    """The response has less than, or at least, so many sentences."""
    return compared(len(text.sentences), relation, num_sentences, "sentences")


@INSTRUCTIONS.type("length_constraints:number_paragraphs")
def number_paragraphs(text: Text, num_paragraphs: Count) -> Verdict:
    """The response has just so many paragraphs with ``***`` between them; one may stand before the first and after the last."""
    paragraphs = re.split(r"\s?\*\*\*\s?", text.value)
    if not all(paragraph.strip() for paragraph in paragraphs[1:-1]):
        return "nothing stands between two dividers ***"
    number = sum(bool(paragraph.strip()) for paragraph in paragraphs)
    return unless(number == num_paragraphs, f"{number} paragraphs, not {num_paragraphs}")


@INSTRUCTIONS.type("length_constraints:number_words")
def number_words(text: Text, num_words: Count, relation: Relation) -> Verdict:
    """The response has less than, or at least, so many words."""
    return compared(len(text.words), relation, num_words, "words")


@INSTRUCTIONS.type("length_constraints:nth_paragraph_first_word")
def nth_paragraph_first_word(text: Text, num_paragraphs: Count, nth_paragraph: Place, first_word: Phrase) -> Verdict:
    """The response has just so many paragraphs with an empty line between them, and one of them begins with a word.

    Empty paragraphs do not count, but do where the one that begins with the word is looked for.
    """
    return _begins(text.value.split("\n\n"), num_paragraphs, nth_paragraph, first_word)


@INSTRUCTIONS.correction("length_constraints:nth_paragraph_first_word")
def nth_paragraph_with_words(text: Text, num_paragraphs: Count, nth_paragraph: Place, first_word: Phrase) -> Verdict:
    """Empty paragraphs count nowhere: three line ends in a row put no paragraph between two."""
    paragraphs = [paragraph for paragraph in text.value.split("\n\n") if paragraph.strip()]
    return _begins(paragraphs, num_paragraphs, nth_paragraph, first_word)


@INSTRUCTIONS.type("detectable_content:number_placeholders")
def number_placeholders(text: Text, num_placeholders: Count) -> Verdict:
    """At least so many placeholders in square brackets stand there."""
    number = 0
    for line in text.value.split("\n"):
        opening = line.find("[")
        while opening >= 0 and (closing := line.find("]", opening)) >= 0:
            number += 1
            opening = line.find("[", closing)
    return compared(number, "at least", num_placeholders, "placeholders")


@INSTRUCTIONS.type("detectable_content:postscript")
def postscript(text: Text, postscript_marker: Phrase) -> Verdict:
    """A postscript with its marker stands somewhere; white space within ``P.S.`` and ``P.P.S`` may be left out or put in."""
    pattern = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}.get(
        postscript_marker, re.escape(postscript_marker.lower())
    )
    return unless(re.search(pattern, text.value.lower()), f"no {postscript_marker} stands there")


@INSTRUCTIONS.type("detectable_format:number_bullet_lists")
def number_bullet_lists(text: Text, num_bullets: Count) -> Verdict:
    """Just so many lines begin with ``*``, but not ``**``, or with ``-``."""
    stars = re.findall(r"^[^\S\n]*+\*[^*].*$", text.value, re.MULTILINE)
    dashes = re.findall(r"^[^\S\n]*+-", text.value, re.MULTILINE)
    number = len(stars) + len(dashes)
    return unless(number == num_bullets, f"{number} bullet points, not {num_bullets}")


@INSTRUCTIONS.type("detectable_format:constrained_response")
def constrained_response(text: Text) -> Verdict:
    """One of three answers stands in the response."""
    options = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
    return unless(any(option in text.value for option in options), f"none of {', '.join(options)} stands there")


@INSTRUCTIONS.type("detectable_format:number_highlighted_sections")
def number_highlighted_sections(text: Text, num_highlights: Count) -> Verdict:
    """At least so many ``*passages*`` or ``**passages**`` are highlighted."""
    single = [passage.strip("*") for passage in re.findall(r"\*[^\n*]*\*", text.value)]
    double = [passage[2:-2] for passage in re.findall(r"\*\*[^\n*]*\*\*", text.value)]
    number = sum(bool(passage.strip()) for passage in single + double)
    return compared(number, "at least", num_highlights, "highlighted passages")


@INSTRUCTIONS.type("detectable_format:multiple_sections")
def multiple_sections(text: Text, section_spliter: Phrase, num_sections: Count) -> Verdict:
    """At least so many sections begin with their word and a number."""
    number = len(re.findall(rf"{re.escape(section_spliter)}\s?\d+", text.value))
    return compared(number, "at least", num_sections, f"sections with {section_spliter!r} and a number")


@INSTRUCTIONS.type("detectable_format:json_format")
def json_format(text: Text) -> Verdict:
    """The response is JSON, also within one fenced block."""
    value = text.value.strip()
    for opening in ("```json", "```Json", "```JSON", "```"):
        value = value.removeprefix(opening)
    try:
        json.loads(value.removesuffix("```").strip())
    except (ValueError, RecursionError) as error:
        return f"no JSON: {error}"
    return None


@INSTRUCTIONS.type("detectable_format:title")
def title(text: Text) -> Verdict:
    """A title in double angular brackets stands on a line."""
    for line in text.value.split("\n"):
        opening, closing = line.find("<<"), line.rfind(">>")
        if opening >= 0 and closing > opening + 2 and line[opening : closing + 2].lstrip("<").rstrip(">").strip():
            return None
    return "no <<title>> stands there"


@INSTRUCTIONS.type("combination:two_responses")
def two_responses(text: Text) -> Verdict:
    """Two different responses with ``******`` between them; before the first and after the second may stand one too."""
    parts = text.value.split("******")
    if not all(part.strip() for part in parts[1:-1]):
        return "nothing stands between two dividers ******"
    responses = [part.strip() for part in parts if part.strip()]
    if len(responses) != 2:
        return f"{len(responses)} responses, not 2"
    return unless(responses[0] != responses[1], "both responses are the same")


@INSTRUCTIONS.type("combination:repeat_prompt")
def repeat_prompt(text: Text, prompt_to_repeat: Phrase) -> Verdict:
    """The response begins with the request, in any case."""
    return unless(text.value.strip().lower().startswith(prompt_to_repeat.lower()), "it does not begin with the request")


@INSTRUCTIONS.type("startend:end_checker")
def end_checker(text: Text, end_phrase: Phrase) -> Verdict:
    """The response ends with a phrase, in any case; a quotation mark may follow."""
    ending = text.value.strip().strip('"').lower()
    return unless(ending.endswith(end_phrase.lower()), f"it does not end with {end_phrase!r}")


@INSTRUCTIONS.type("startend:quotation")
def quotation(text: Text) -> Verdict:
    """The whole response stands in double quotation marks."""
    value = text.value.strip()
    return unless(len(value) > 1 and value[0] == value[-1] == '"', "it does not stand in double quotation marks")


@INSTRUCTIONS.type("change_case:capital_word_frequency")
def capital_word_frequency(text: Text, capital_frequency: Count, capital_relation: Relation) -> Verdict:
    """Less than, or at least, so many words are all in capitals; one with a hyphen is one."""
    number = sum(token.isupper() for token in text.tokens)
    return compared(number, capital_relation, capital_frequency, "words in capitals")


@INSTRUCTIONS.type("change_case:english_capital")
def english_capital(text: Text) -> Verdict:
    """The response is in capitals, and in English (langdetect)."""
    if not text.value.isupper():
        return "it is not all in capitals"
    return unless(_in_language(text, "en") is not False, f"the language is {text.language}, not en")


@INSTRUCTIONS.type("change_case:english_lowercase")
def english_lowercase(text: Text) -> Verdict:
    """The response is in lower case, and in English (langdetect)."""
    if not text.value.islower():
        return "it is not all in lower case"
    return unless(_in_language(text, "en") is not False, f"the language is {text.language}, not en")


@INSTRUCTIONS.type("punctuation:no_comma")
def no_comma(text: Text) -> Verdict:
    """No comma stands there."""
    commas = text.value.count(",")
    return unless(not commas, f"{commas} commas")


def _found(word: str, value: str) -> bool:
    return re.search(re.escape(word), value, re.IGNORECASE) is not None


def _in_language(text: Text, language: Language) -> bool | None:
    """None where no letter tells a language."""
    return None if text.language is None else text.language == language


def _begins(paragraphs: list[str], number: int, place: int, first_word: str) -> Verdict:
    """Whether just so many paragraphs have words, and the one at a place begins with a word."""
    if place > number:
        raise ArgumentError(f"there is no paragraph {place} of {number}")
    counted = sum(bool(paragraph.strip()) for paragraph in paragraphs)
    if counted != number:
        return f"{counted} paragraphs, not {number}"
    words = paragraphs[place - 1].split(maxsplit=1) if place <= counted else []
    begins = re.split(r"[.,?!'\"]", words[0].lstrip("'").lstrip('"'))[0].lower() if words else ""
    return unless(begins == first_word.lower(), f"paragraph {place} begins with {begins!r}, not {first_word!r}")
