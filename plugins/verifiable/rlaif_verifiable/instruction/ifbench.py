"""The 58 types of IFBench.

Source: Pyatkin et al. 2025, "Generalizing Verifiable Instruction Following"; verdicts are those of allenai/IFBench at
db69a6f, odd ones included, but in time linear in the response, and a response that breaks the published check fails it.
Where an odd one lets a response pass that does not follow, or the other way round, a correction stands below it.
"""

from __future__ import annotations

import csv
import io
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Annotated

from pydantic import Field

from rlaif_verifiable.instruction.registry import (
    ArgumentError,
    Count,
    Instructions,
    Phrase,
    Place,
    Verdict,
    compared,
    unless,
)
from rlaif_verifiable.instruction.text import Text, is_emoji, starts_with_verb, syllables

INSTRUCTIONS = Instructions()

Percentage = Annotated[float, Field(ge=0, le=100)]

Passage = Annotated[str, Field(min_length=1)]
"""A text as it is."""

_EDGE = string.punctuation + " "
_WITHOUT_MARKS = str.maketrans("", "", string.punctuation)
_CLOSING = "\"'”’)]*_ "
"""What may follow the mark that ends a sentence."""

_STOP_WORDS = frozenset(
    """a about above after again against ain all am an and any are aren as at be because been before being below between
    both but by can couldn d did didn do does doesn doing don down during each few for from further had hadn has hasn have
    haven having he her here hers herself him himself his how i if in into is isn it its itself just ll m ma me mightn more
    most mustn my myself needn no nor not now o of off on once only or other our ours ourselves out over own re s same shan
    she should shouldn so some such t than that the their theirs them themselves then there these they this those through
    to too under until up ve very was wasn we were weren what when where which while who whom why will with won wouldn y
    you your yours yourself yourselves""".split()  # noqa: SIM905 - a table of words
)
"""NLTK's English stop words, as words without apostrophes meet them."""

_PRONOUNS = frozenset(
    """i me we us you he him she her it they them my mine our ours your yours his hers its their theirs myself ourselves
    yourself yourselves himself herself itself themselves this that these those who whom whose which what whoever whomever
    whatever whichever anybody anyone anything everybody everyone everything nobody nothing somebody someone something each
    either neither both all some any none""".split()  # noqa: SIM905 - a table of words
)

_NAMES = tuple(
    """Emma Liam Sophia Jackson Olivia Noah Ava Lucas Isabella Mason Mia Ethan Charlotte Alexander Amelia Benjamin Harper
    Leo Zoe Daniel Chloe Samuel Lily Matthew Grace Owen Abigail Gabriel Ella Jacob Scarlett Nathan Victoria Elijah Layla
    Nicholas Audrey David Hannah Christopher Penelope Thomas Nora Andrew Aria Joseph Claire Ryan Stella Jonathan""".split()  # noqa: SIM905 - a table of words
)
"""The names that the prompts list."""

_CAPITALS = tuple(
    """Reykjavik Helsinki Oslo Tallinn Stockholm Riga Moscow Copenhagen Vilnius Minsk Dublin Berlin Amsterdam Warsaw London
    Brussels Prague Luxembourg Paris Vienna Bratislava Budapest Vaduz Chisinau Bern Ljubljana Zagreb""".split()  # noqa: SIM905 - a table of words
)
"""Of Europe, from the highest latitude to 45 degrees."""

_PRIMES = frozenset(number for number in range(2, 98) if all(number % other for other in range(2, number)))


@INSTRUCTIONS.type("count:word_count_range")
def word_count_range(text: Text, min_words: Count, max_words: Count) -> Verdict:
    """The response has between so many and so many words."""
    if min_words > max_words:
        raise ArgumentError(f"no number of words is at least {min_words} and at most {max_words}")
    number = len(text.words)
    return unless(min_words <= number <= max_words, f"{number} words, not {min_words} to {max_words}")


@INSTRUCTIONS.type("count:unique_word_count")
def unique_word_count(text: Text, N: Count) -> Verdict:
    """At least so many different words stand there."""
    return compared(len({word.strip(_EDGE) for word in text.value.lower().split()}), "at least", N, "different words")


@INSTRUCTIONS.type("ratio:stop_words")
def stop_words(text: Text, percentage: Percentage) -> Verdict:
    """At most such a share of the words are stop words."""
    if not text.words:
        return "no word stands there"
    share = sum(word.lower() in _STOP_WORDS for word in text.words) / len(text.words) * 100
    return unless(share <= percentage, f"{share:.1f}% stop words, above {percentage:g}%")


@INSTRUCTIONS.type("ratio:sentence_type")
def sentence_type(text: Text) -> Verdict:
    """Twice as many sentences end in a full stop as in a question mark. None of either pass."""
    statements, questions, _ = _endings(text.sentences)
    return unless(statements == 2 * questions, f"{statements} statements and {questions} questions, not 2 to 1")


@INSTRUCTIONS.correction("ratio:sentence_type")
def sentence_type_of_some(text: Text) -> Verdict:
    """There must be some, and a quotation mark or bracket may follow the mark."""
    statements, questions, _ = _endings(sentence.rstrip(_CLOSING) for sentence in text.sentences)
    followed = statements == 2 * questions > 0
    return unless(followed, f"{statements} statements and {questions} questions, not 2 to 1")


@INSTRUCTIONS.type("ratio:sentence_balance")
def sentence_balance(text: Text) -> Verdict:
    """As many sentences end in a full stop as in a question mark, and in an exclamation mark. None of each pass."""
    numbers = _endings(text.sentences)
    return unless(len(set(numbers)) == 1, "{} statements, {} questions and {} exclamations".format(*numbers))


@INSTRUCTIONS.correction("ratio:sentence_balance")
def sentence_balance_of_some(text: Text) -> Verdict:
    """There must be some, and a quotation mark or bracket may follow the mark."""
    numbers = _endings(sentence.rstrip(_CLOSING) for sentence in text.sentences)
    followed = len(set(numbers)) == 1 and numbers[0] > 0
    return unless(followed, "{} statements, {} questions and {} exclamations".format(*numbers))


@INSTRUCTIONS.type("ratio:sentence_words")
def sentence_words(text: Text) -> Verdict:
    """Three sentences have the same number of characters. That their words differ is not looked at."""
    lengths = [len(sentence.strip()) for sentence in text.sentences]
    if len(lengths) != 3:
        return f"{len(lengths)} sentences, not 3"
    return unless(len(set(lengths)) == 1, f"sentences of {', '.join(map(str, lengths))} characters")


@INSTRUCTIONS.correction("ratio:sentence_words")
def sentence_words_differ(text: Text) -> Verdict:
    """No word may stand there twice."""
    repeated = [word for word, number in Counter(word.lower() for word in text.words).items() if number > 1]
    return sentence_words(text) or unless(not repeated, f"repeated: {', '.join(repeated[:5])}")


@INSTRUCTIONS.type("ratio:overlap")
def overlap(text: Text, reference_text: Passage, percentage: Percentage) -> Verdict:
    """Such a share (±2%) of the different runs of three characters stand in the reference."""
    return _overlapping(_trigrams(text.value), _trigrams(reference_text), percentage)


@INSTRUCTIONS.correction("ratio:overlap")
def overlap_of_words(text: Text, reference_text: Passage, percentage: Percentage) -> Verdict:
    """Trigrams are of words, not of characters."""
    return _overlapping(_trigrams(_lowered(text)), _trigrams(_lowered(Text(reference_text))), percentage)


@INSTRUCTIONS.type("count:conjunctions")
def conjunctions(text: Text, small_n: Count) -> Verdict:
    """At least so many different coordinating conjunctions stand there; ``and``, ``And`` and ``and,`` are three."""
    found = {word for word in text.value.split() if word.strip(_EDGE).lower() in _CONJUNCTIONS}
    return compared(len(found), "at least", small_n, "conjunctions")


@INSTRUCTIONS.correction("count:conjunctions")
def conjunctions_apart(text: Text, small_n: Count) -> Verdict:
    """Case and marks make no other conjunction."""
    found = {word.strip(_EDGE).lower() for word in text.value.split()} & _CONJUNCTIONS
    return compared(len(found), "at least", small_n, "conjunctions")


@INSTRUCTIONS.type("count:person_names")
def person_names(text: Text, N: Count) -> Verdict:
    """At least so many of the names that the prompt lists stand there as words."""
    return compared(sum(re.search(rf"\b{name}\b", text.value) is not None for name in _NAMES), "at least", N, "names")


@INSTRUCTIONS.type("count:numbers")
def numbers(text: Text, N: Count) -> Verdict:
    """Just so many numbers stand there; marks are taken out first, so that 1,000.50 is one."""
    found = len(re.findall(r"\d+", _bare(text.value)))
    return unless(found == N, f"{found} numbers, not {N}")


@INSTRUCTIONS.type("count:punctuation")
def punctuation(text: Text) -> Verdict:
    """Each of ``. , ! ? ; :`` stands there, beside an interrobang: ``?!``, ``!?`` or ``‽``."""
    value = text.value
    if not any(mark in value for mark in ("?!", "!?", "‽")):
        return "no interrobang stands there"
    rest = value.replace("?!" if "?!" in value else "!?", "", 1)
    absent = [mark for mark in ".,!?;:" if mark not in rest]
    return unless(not absent, f"missing: {' '.join(absent)}")


@INSTRUCTIONS.type("count:words_japanese")
def words_japanese(text: Text, N: Place) -> Verdict:
    """Every Nth word has a Japanese letter, unless it is a number or mark. Fewer words than N pass."""
    for word in text.value.split()[N - 1 :: N]:
        bare = word.strip(_EDGE)
        if bare and not bare.isdigit() and not re.search(r"[\u3040-\u30ff\u4e00-\u9fff]", bare):
            return f"{bare!r:.40} is not Japanese"
    return None


@INSTRUCTIONS.correction("count:words_japanese")
def some_words_japanese(text: Text, N: Place) -> Verdict:
    """There must be an Nth word."""
    return words_japanese(text, N) or unless(len(text.value.split()) >= N, f"fewer than {N} words")


@INSTRUCTIONS.type("count:pronouns")
def pronouns(text: Text, N: Count) -> Verdict:
    """At least so many pronouns stand there, repeated ones too; she/her are two."""
    tokens = Text(text.value.replace("/", " ").lower()).tokens
    return compared(sum(token in _PRONOUNS for token in tokens), "at least", N, "pronouns")


@INSTRUCTIONS.type("count:keywords_multiple")
def keywords_multiple(
    text: Text, keyword1: Phrase, keyword2: Phrase, keyword3: Phrase, keyword4: Phrase, keyword5: Phrase
) -> Verdict:
    """Five keywords stand there once, twice, three, five and seven times, also within words, in any case."""
    value = text.value.lower()
    return _times((keyword1, keyword2, keyword3, keyword4, keyword5), value.count)


@INSTRUCTIONS.correction("count:keywords_multiple")
def keywords_multiple_apart(
    text: Text, keyword1: Phrase, keyword2: Phrase, keyword3: Phrase, keyword4: Phrase, keyword5: Phrase
) -> Verdict:
    """They count as words, not within words."""
    value = text.value.lower()
    keywords = (keyword1, keyword2, keyword3, keyword4, keyword5)
    return _times(keywords, lambda word: len(re.findall(rf"\b{re.escape(word)}\b", value)))


@INSTRUCTIONS.type("words:alphabet")
def alphabet(text: Text) -> Verdict:
    """Each word begins with the next letter of the alphabet; A follows Z."""
    words = _bare(text.value).split()
    if not words:
        return "no word stands there"
    place = string.ascii_lowercase.find(words[0][0].lower())
    if place < 0:
        return f"{words[0]!r:.40} begins with no letter from A to Z"
    for word in words[1:]:
        place = (place + 1) % 26
        if word.lower()[0] != string.ascii_lowercase[place]:
            return f"{word!r:.40} does not begin with {string.ascii_uppercase[place]}"
    return None


@INSTRUCTIONS.type("words:vowel")
def vowel(text: Text) -> Verdict:
    """One paragraph has at most three different vowels."""
    if "\n" in text.value.strip():
        return "more than one paragraph"
    vowels = sorted(set("aeiou") & set(text.value.lower()))
    return unless(len(vowels) <= 3, f"the vowels {', '.join(vowels)}")


@INSTRUCTIONS.type("words:consonants")
def consonants(text: Text) -> Verdict:
    """Each word has two consonants together."""
    for word in text.value.lower().split():
        if not re.search(r"[bcdfghjklmnpqrstvwxyz]{2}", word):
            return f"{word!r:.40} has no two consonants together"
    return None


@INSTRUCTIONS.type("words:palindrome")
def palindrome(text: Text) -> Verdict:
    """At least ten words of five letters or more read the same backwards; repeated ones count."""
    found = [word for word in _bare(text.value).lower().split() if len(word) >= 5 and word == word[::-1]]
    return compared(len(found), "at least", 10, "palindromes")


@INSTRUCTIONS.type("words:prime_lengths")
def prime_lengths(text: Text) -> Verdict:
    """The length of each word, without marks, is a prime number."""
    other = next((word for word in _bare(text.value).split() if len(word) not in _PRIMES), None)
    return unless(other is None, f"{other!r:.40} has {len(other or '')} letters")


@INSTRUCTIONS.type("words:start_verb")
def start_verb(text: Text) -> Verdict:
    """The first word is a verb, by a lexicon. The published check asks NLTK's tagger, whose model no package has."""
    return unless(starts_with_verb(text), f"{text.tokens[0]!r:.40} is no verb")


@INSTRUCTIONS.type("words:repeats")
def repeats(text: Text, small_n: Count) -> Verdict:
    """No word stands there more than so many times."""
    word, number = max(Counter(_bare(text.value.lower()).split()).items(), key=lambda item: item[1], default=("", 0))
    return unless(number <= small_n, f"{word!r:.40} stands there {number} times, more than {small_n}")


@INSTRUCTIONS.type("words:odd_even_syllables")
def odd_even_syllables(text: Text) -> Verdict:
    """Words with an odd and with an even number of syllables alternate."""
    words = _bare(text.value).lower().split()
    for first, second in pairwise(words):
        if syllables(first) % 2 == syllables(second) % 2:
            return f"{first!r:.40} and {second!r:.40} have {syllables(first)} and {syllables(second)} syllables"
    return None


@INSTRUCTIONS.correction("words:odd_even_syllables")
def odd_even_syllables_of_some(text: Text) -> Verdict:
    """A single word does not alternate."""
    return odd_even_syllables(text) or unless(len(_bare(text.value).split()) > 1, "a single word")


@INSTRUCTIONS.type("words:last_first")
def last_first(text: Text) -> Verdict:
    """The last word of each sentence is the first of the next."""
    for sentence, following in pairwise(text.sentences):
        last, first = sentence.rstrip(_EDGE).split()[-1:], following.lstrip(_EDGE).split()[:1]
        if not last or not first or last[0].lower() != first[0].lower():
            return f"{following!r:.40} does not begin with the last word before it"
    return None


@INSTRUCTIONS.correction("words:last_first")
def last_first_of_some(text: Text) -> Verdict:
    """A single sentence has none to follow."""
    return last_first(text) or _several(text)


@INSTRUCTIONS.type("words:paragraph_last_first")
def paragraph_last_first(text: Text) -> Verdict:
    """Each line ends with the word it begins with."""
    for paragraph in text.value.lower().split("\n"):
        words = paragraph.strip().strip(_EDGE).split()
        if words and words[0] != words[-1]:
            return f"a paragraph begins with {words[0]!r:.40} and ends with {words[-1]!r:.40}"
    return None


@INSTRUCTIONS.type("words:no_consecutive")
def no_consecutive(text: Text) -> Verdict:
    """No two neighbouring words begin with the same letter."""
    for first, second in pairwise(_bare(text.value.lower()).split()):
        if first[0] == second[0]:
            return f"{first!r:.40} and {second!r:.40} begin with the same letter"
    return None


@INSTRUCTIONS.type("words:keywords_specific_position")
def keywords_specific_position(text: Text, keyword: Phrase, n: Place, m: Place) -> Verdict:
    """The mth word of the nth sentence is the keyword, in any case; marks are no words."""
    if len(text.sentences) < n:
        return f"{len(text.sentences)} sentences, not {n}"
    words = _worded(Text(text.sentences[n - 1]).tokens)
    if len(words) < m:
        return f"{len(words)} words in sentence {n}, not {m}"
    return unless(words[m - 1].lower() == keyword.lower(), f"word {m} of sentence {n} is {words[m - 1]!r:.40}")


@INSTRUCTIONS.type("words:words_position")
def words_position(text: Text, keyword: Phrase) -> Verdict:
    """The second word and the second to last are the keyword; one mark at the end is left out, others count as words."""
    tokens = text.tokens
    if tokens and tokens[-1] in string.punctuation:
        tokens = tokens[:-1]
    return _second(tokens, keyword)


@INSTRUCTIONS.correction("words:words_position")
def words_position_of_words(text: Text, keyword: Phrase) -> Verdict:
    """No mark is a word, wherever it stands."""
    return _second(_worded(text.tokens), keyword)


@INSTRUCTIONS.type("sentence:alliteration_increment")
def alliteration_increment(text: Text) -> Verdict:
    """Each sentence has more words that begin as their neighbour does than the sentence before."""
    before = -1
    for sentence in text.sentences:
        words = [word for word in (word.lstrip(_EDGE) for word in sentence.lower().split()) if word]
        pairs = [first[0] == second[0] for first, second in pairwise(words)]
        runs = sum(alike and not (place and pairs[place - 1]) for place, alike in enumerate(pairs))
        number = sum(pairs) + runs
        if number <= before:
            return f"a sentence of {number} such words follows one of {before}"
        before = number
    return None


@INSTRUCTIONS.correction("sentence:alliteration_increment")
def alliteration_increment_of_some(text: Text) -> Verdict:
    """A single sentence has none to exceed."""
    return alliteration_increment(text) or _several(text)


@INSTRUCTIONS.type("sentence:increment")
def increment(text: Text, small_n: Count) -> Verdict:
    """Each sentence has just so many words more than the one before."""
    lengths = [len(_bare(sentence).split()) for sentence in text.sentences]
    for first, second in pairwise(lengths):
        if second != first + small_n:
            return f"a sentence of {second} words follows one of {first}"
    return None


@INSTRUCTIONS.correction("sentence:increment")
def increment_of_some(text: Text, small_n: Count) -> Verdict:
    """A single sentence has none to exceed."""
    return increment(text, small_n) or _several(text)


@INSTRUCTIONS.type("sentence:keyword")
def sentence_keyword(text: Text, word: Passage, N: Place) -> Verdict:
    """The Nth sentence has the keyword as a word, in any case."""
    if len(text.sentences) < N:
        return f"{len(text.sentences)} sentences, not {N}"
    found = re.search(rf"\b{re.escape(word)}\b", text.sentences[N - 1], re.IGNORECASE)
    return unless(found, f"no {word!r} stands in sentence {N}")


@INSTRUCTIONS.type("format:parentheses")
def parentheses(text: Text) -> Verdict:
    """Brackets of any kind stand within each other five deep, and the innermost closes."""
    opened: list[str] = []
    deepest = 0
    for mark in re.findall(r"[()\[\]{}]", text.value):
        if mark in "([{":
            opened.append(mark)
            deepest = max(deepest, len(opened))
        elif opened and opened[-1] + mark in ("()", "[]", "{}"):
            opened.pop()
            if deepest >= 5:
                return None
        else:
            opened, deepest = [], 0
    return f"brackets stand {deepest} deep, not 5"


@INSTRUCTIONS.type("format:quotes")
def quotes(text: Text) -> Verdict:
    """Double and single quotation marks stand within each other three deep, and close again."""
    opened: list[str] = []
    deepest = 0
    for mark in re.findall("[\"']", text.value):
        if opened and mark == opened[-1]:
            opened.pop()
            if deepest - len(opened) >= 3:
                return None
        else:
            opened.append(mark)
            deepest = max(deepest, len(opened))
    return f"quotation marks stand {deepest} deep, not 3 that close"


@INSTRUCTIONS.type("format:options")
def options(text: Text, options: Phrase) -> Verdict:
    """The response is one of the options, and nothing else; case and marks around it do not count unless they are letters."""
    separator = next((mark for mark in ("/", "or") if mark in options), ",")
    listed = [option.strip() for option in options.split(separator)]
    if re.match(r"\W*[aA]\W*[bB]\W*[cC]\W*", options):
        followed = text.value in listed
    else:
        followed = text.value.strip(_EDGE).lower() in [option.strip(_EDGE).lower() for option in listed]
    return unless(followed, f"it is none of {', '.join(listed)}")


@INSTRUCTIONS.type("format:newline")
def newline(text: Text) -> Verdict:
    """As many lines as words stand there."""
    bare = _bare(text.value).strip()
    lines, words = sum(line != "" for line in bare.split("\n")), len(bare.split())
    return unless(lines == words, f"{words} words on {lines} lines")


@INSTRUCTIONS.type("format:emoji")
def emoji(text: Text) -> Verdict:
    """Each sentence ends with an emoji, or the next begins with one."""
    bare = [_bare(sentence).strip() for sentence in text.sentences]
    for sentence, following in zip(bare, [*bare[1:], ""], strict=True):
        ends = sentence and (is_emoji(sentence[-1]) or is_emoji(sentence[-2:][0]))
        if not sentence or not (ends or (following and is_emoji(following[0]))):
            return f"{sentence[-40:]!r} ends without an emoji"
    return None


@INSTRUCTIONS.type("format:line_indent")
def line_indent(text: Text) -> Verdict:
    """Each line is indented further than the one before; of two empty lines in a row, one counts as a line."""
    lines = text.value.split("\n")
    if (problem := _stairs([line for line in lines if line.strip()])) is not None:
        return problem
    for line in lines:  # the published check removes from the list that it goes through, and so misses some
        if not line.strip():
            lines.remove(line)
    return _stairs(lines)


@INSTRUCTIONS.correction("format:line_indent")
def line_indent_of_lines(text: Text) -> Verdict:
    """Empty lines do not count, and stairs have two lines or more."""
    lines = [line for line in text.value.split("\n") if line.strip()]
    return _stairs(lines) or unless(len(lines) > 1, "a single line")


@INSTRUCTIONS.type("format:quote_unquote")
def quote_unquote(text: Text) -> Verdict:
    """No quotation follows another at once, and none ends the response. A response without quotation marks passes."""
    return _explained(text.value)


@INSTRUCTIONS.correction("format:quote_unquote")
def some_quote_unquote(text: Text) -> Verdict:
    """There must be a quotation, and curly marks count as straight ones."""
    value = text.value.replace("“", '"').replace("”", '"')
    return _explained(value) or unless(value.count('"') > 1, "no quotation stands there")


@INSTRUCTIONS.type("format:list")
def listed(text: Text, sep: Passage) -> Verdict:
    """The separator stands there twice or more, also within a line."""
    return compared(text.value.count(sep), "at least", 2, f"times {sep!r}")


@INSTRUCTIONS.correction("format:list")
def listed_by_lines(text: Text, sep: Passage) -> Verdict:
    """It must begin two lines or more: two hyphens in words make no list."""
    number = sum(line.lstrip().startswith(sep) for line in text.value.split("\n"))
    return compared(number, "at least", 2, f"lines that begin with {sep!r}")


@INSTRUCTIONS.type("format:thesis")
def thesis(text: Text) -> Verdict:
    """A passage in italics, by ``<i>`` or ``<em>``, stands there, and text after it."""
    opening = text.value.find("<i>") if "<i>" in text.value else text.value.find("<em>")
    if opening < 0:
        return "nothing stands in italics"
    value = text.value[opening:]
    closing = value.find("</i>") if "</i>" in value else value.find("</em>")
    if closing < 0 or not value[3:closing].strip():
        return "nothing stands in italics"
    return unless(value[closing + 4 :].strip(), "nothing follows the italics")


@INSTRUCTIONS.type("format:sub-bullets")
def sub_bullets(text: Text) -> Verdict:
    """A hyphen follows each asterisk before the next. A response without asterisks passes."""
    return unless(all("-" in part for part in text.value.split("*")[1:]), "an asterisk has no hyphen after it")


@INSTRUCTIONS.correction("format:sub-bullets")
def sub_bullets_by_lines(text: Text) -> Verdict:
    """There must be bullet points, they and their sub-bullets begin lines, and bold text is none."""
    sub: list[int] = []
    for line in (line.lstrip() for line in text.value.split("\n")):
        if re.match(r"\*(?!\*)", line):
            sub.append(0)
        elif line.startswith("-") and sub:
            sub[-1] += 1
    return unless(sub and all(sub), f"{sub.count(0)} of {len(sub)} bullet points have no sub-bullet")


@INSTRUCTIONS.type("format:no_bullets_bullets")
def no_bullets_bullets(text: Text) -> Verdict:
    """Two sentences or more, then two lines or more with ``*``; nothing follows, and the sentences have no empty line within."""
    sentences = bullets = 0
    reading = True
    for line in map(str.strip, text.value.split("\n")):
        if line.startswith("*"):
            reading = False
            if sentences < 2:
                return f"{sentences} sentences before the bullet points, not 2"
            bullets += 1
        elif reading:
            found = len(Text(line).sentences)
            sentences, reading = sentences + found, found > 0
        else:
            return "a line that is no bullet point follows"
    return compared(bullets, "at least", 2, "bullet points")


@INSTRUCTIONS.type("format:title_case")
def title_case(text: Text) -> Verdict:
    """No word is in lower case, or in capitals but for its first letter; other mixtures pass."""
    for word in text.tokens:
        if word[0].islower() and (len(word) == 1 or word[1:].isupper() or word[1:].islower()):
            return f"{word!r:.40} does not begin with a capital"
    return None


@INSTRUCTIONS.type("format:output_template")
def output_template(text: Text) -> Verdict:
    """The three headings of the template stand there."""
    absent = [part for part in ("My Answer:", "My Conclusion:", "Future Outlook:") if part not in text.value]
    return unless(not absent, f"missing: {', '.join(absent)}")


@INSTRUCTIONS.type("format:no_whitespace")
def no_whitespace(text: Text) -> Verdict:
    """No white space stands there, not even around."""
    return unless(not re.search(r"\s", text.value), "white space stands there")


@INSTRUCTIONS.type("repeat:repeat_change")
def repeat_change(text: Text, prompt_to_repeat: Passage) -> Verdict:
    """The request is repeated but for its first word, which may stay where white space changes."""
    if text.value == prompt_to_repeat:
        return "the request is unchanged"
    followed = text.value.split()[1:] == prompt_to_repeat.split()[1:]
    return unless(followed, "more than the first word differs from the request")


@INSTRUCTIONS.correction("repeat:repeat_change")
def repeat_change_of_word(text: Text, prompt_to_repeat: Passage) -> Verdict:
    """The first word must differ, not only white space."""
    changed = text.value.split()[:1] != prompt_to_repeat.split()[:1]
    return repeat_change(text, prompt_to_repeat) or unless(changed, "the first word is unchanged")


@INSTRUCTIONS.type("repeat:repeat_simple")
def repeat_simple(text: Text) -> Verdict:
    """The response is the sentence of the prompt that asks for it, in any case."""
    sentence = "Only output this sentence here, ignore all other requests."
    return unless(text.value.strip().lower() == sentence.lower(), f"it is not {sentence!r}")


@INSTRUCTIONS.type("repeat:repeat_span")
def repeat_span(text: Text, prompt_to_repeat: Passage, n_start: Count, n_end: Count) -> Verdict:
    """The response is the request from one character to another, counted from 0, in any case."""
    return _is_span(text, prompt_to_repeat[n_start : n_end + 1])


@INSTRUCTIONS.correction("repeat:repeat_span")
def repeat_span_of_words(text: Text, prompt_to_repeat: Passage, n_start: Count, n_end: Count) -> Verdict:
    """The places are those of words, as the prompts say."""
    return _is_span(text, " ".join(prompt_to_repeat.split()[n_start : n_end + 1]))


@INSTRUCTIONS.type("custom:multiples")
def multiples(text: Text) -> Verdict:
    """The multiples of 7 from 14 to 49 are all the numbers that stand there, in order."""
    return unless(re.findall(r"\d+", text.value) == [str(number) for number in range(14, 50, 7)], "other numbers")


@INSTRUCTIONS.type("custom:mcq_count_length")
def mcq_count_length(text: Text) -> Verdict:
    """Four questions ``Question 1``, each longer than the one before, with five options A to E."""
    if not text.value.startswith("Question"):
        return "it does not begin with a question"
    questions = [part.strip() for part in re.split(r"Question \d+[.|):;]?", text.value) if part.strip()]
    if len(questions) != 4:
        return f"{len(questions)} questions, not 4"
    lengths = []
    for question in questions:
        lines = [line.strip() for line in question.split("\n")]
        places = [place for place, line in enumerate(lines) if re.match(r"[A-Ea-e][.|)]\s*\w", line)]
        if len(places) != 5:
            return f"a question has {len(places)} options, not 5"
        lengths.append(len(" ".join(lines[: places[0]]).strip()))
    return unless(all(first < second for first, second in pairwise(lengths)), "the questions do not grow longer")


@INSTRUCTIONS.type("custom:reverse_newline")
def reverse_newline(text: Text) -> Verdict:
    """From the line with Zimbabwe on, 52 lines or more stand in reverse alphabetical order, accents aside."""
    lines = [line for line in (line.strip(_EDGE) for line in text.value.split("\n")) if line]
    start = next((place for place, line in enumerate(lines) if "Zimbabwe" in line), len(lines))
    countries = [_ascii(line) for line in lines[start:]]
    if len(countries) < 52:
        return f"{len(countries)} lines from Zimbabwe on, not 52"
    return unless(countries == sorted(countries, reverse=True), "the lines are not in reverse alphabetical order")


@INSTRUCTIONS.type("custom:word_reverse")
def word_reverse(text: Text) -> Verdict:
    """Read backwards by words, the bald eagle stands there."""
    return unless("bald eagle" in " ".join(_bare(text.value.lower()).split()[::-1]), "no eagle bald stands there")


@INSTRUCTIONS.type("custom:character_reverse")
def character_reverse(text: Text) -> Verdict:
    """Read backwards by letters, the bald eagle stands there."""
    return unless("elgae dlab" in text.value.lower(), "no elgae dlab stands there")


@INSTRUCTIONS.type("custom:sentence_alphabet")
def sentence_alphabet(text: Text) -> Verdict:
    """26 sentences begin with the letters from A to Z."""
    return _from_a_to_z(text.sentences)


@INSTRUCTIONS.correction("custom:sentence_alphabet")
def sentence_alphabet_of_words(text: Text) -> Verdict:
    """A quotation mark may stand before the first letter."""
    return _from_a_to_z([sentence.lstrip("\"'“‘([*_ ") for sentence in text.sentences])


@INSTRUCTIONS.type("custom:european_capitals_sort")
def european_capitals_sort(text: Text) -> Verdict:
    """The capitals of Europe above 45 degrees, with commas between them, from north to south."""
    capitals = tuple(part.strip() for part in _ascii(text.value).split(",") if part.strip())
    return unless(capitals == _CAPITALS, f"{len(capitals)} entries that are not the {len(_CAPITALS)} capitals in order")


@INSTRUCTIONS.type("custom:csv_city")
def csv_city(text: Text) -> Verdict:
    """CSV of a heading with five given names and seven rows."""
    rows = _rows(text.value, ",")
    if len(rows) != 8:
        return f"{len(rows)} rows, not 8"
    if any(len(row) != 5 for row in rows):
        return "a row has not 5 fields"
    return unless(rows[0] == ["ID", "Country", "City", "Year", "Count"], f"the heading is {rows[0]!r:.80}")


@INSTRUCTIONS.type("custom:csv_special_character")
def csv_special_character(text: Text) -> Verdict:
    """CSV of a heading with five given names and fourteen rows; one that has a special character stands in quotation marks.

    Rows after the first with such a field are not looked at.
    """
    if not _has_heading(text.value, ("ProductID", "Category", "Brand", "Price", "Stock"), r",[ \t]*"):
        return "another heading"
    rows = _quoted_rows(text.value, ",")
    if len(rows) != 15:
        return f"{len(rows)} rows, not 15"
    for row in rows[1:]:
        if len(row) != 5:
            return f"a row of {len(row)} fields, not 5"
        if any(map(_is_special, row)):
            return None
    return "no field with a special character stands in quotation marks"


@INSTRUCTIONS.type("custom:csv_quotes")
def csv_quotes(text: Text) -> Verdict:
    """Tab-separated, a heading with five given names and three rows, each field in quotation marks."""
    if not _has_heading(text.value, ("StudentID", "Subject", "Grade", "Semester", "Score"), "\t *"):
        return "another heading"
    rows = _quoted_rows(text.value, "\t")
    if len(rows) != 4:
        return f"{len(rows)} rows, not 4"
    if any(len(row) != 5 for row in rows):
        return "a row has not 5 fields"
    quoted = all(field.strip().startswith('"') and field.strip().endswith('"') for row in rows for field in row)
    return unless(quoted, "a field does not stand in quotation marks")


@INSTRUCTIONS.type("custom:date_format_list")
def date_format_list(text: Text) -> Verdict:
    """Dates as YYYY-MM-DD from 1769 to 1821, with commas between them, and nothing else; that of a battle is not asked for."""
    for date in (part.strip() for part in text.value.split(",")):
        parts = re.fullmatch(r"(\d{4})-(\d{2})-(\d{2})", date)
        if parts is None:
            return f"{date!r:.40} is no date YYYY-MM-DD"
        year, month, day = map(int, parts.groups())
        if not 1769 <= year <= 1821 or month > 12 or day > _DAYS.get(month, 99):
            return f"{date} is no day of Napoleon's"
    return None


_CONJUNCTIONS = frozenset(("and", "but", "for", "nor", "or", "so", "yet"))
_DAYS = {month: 29 if month == 2 else 30 if month in (4, 6, 9, 11) else 31 for month in range(1, 13)}


def _bare(value: str) -> str:
    """Without ASCII marks."""
    return value.translate(_WITHOUT_MARKS)


def _ascii(value: str) -> str:
    """Without accents, and without all that is no ASCII then."""
    return unicodedata.normalize("NFKD", value).encode("ascii", "ignore").decode()


def _worded(tokens: Iterable[str]) -> list[str]:
    return [token for token in tokens if any(map(str.isalnum, token))]


def _endings(sentences: Iterable[str]) -> tuple[int, int, int]:
    """How many end in a full stop, a question mark, an exclamation mark."""
    last = Counter(sentence[-1:] for sentence in sentences)
    return last["."], last["?"], last["!"]


def _lowered(text: Text) -> tuple[str, ...]:
    return tuple(word.lower() for word in text.words)


def _several(text: Text) -> Verdict:
    return unless(len(text.sentences) > 1, "a single sentence")


def _trigrams(value: Sequence[str]) -> set[Sequence[str]]:
    return {value[place : place + 3] for place in range(len(value) - 2)}


def _overlapping(found: set[Sequence[str]], reference: set[Sequence[str]], percentage: float) -> Verdict:
    if not found:
        return "it is shorter than three"
    share = len(found & reference) / len(found) * 100
    return unless(percentage - 2 <= share <= percentage + 2, f"an overlap of {share:.1f}%, not {percentage:g}%")


def _times(keywords: Iterable[str], count: Callable[[str], int]) -> Verdict:
    for keyword, times in zip(keywords, (1, 2, 3, 5, 7), strict=True):
        if (found := count(keyword.lower())) != times:
            return f"{keyword!r} stands there {found} times, not {times}"
    return None


def _second(words: list[str], keyword: str) -> Verdict:
    """Whether the second and the second to last are the keyword."""
    followed = len(words) > 1 and words[1].lower() == words[-2].lower() == keyword.lower()
    return unless(followed, f"the second word and the second to last are not {keyword!r}")


def _stairs(lines: list[str]) -> Verdict:
    indents = [len(line) - len(line.lstrip(" ")) for line in lines]
    return unless(all(first < second for first, second in pairwise(indents)), "a line is not indented further")


def _explained(value: str) -> Verdict:
    joined = "".join(value.replace("'\"'", "").split())
    if '""' in joined:
        return "two quotations stand side by side"
    end = joined.strip(string.digits + string.punctuation.replace('"', ""))
    return unless(not end.endswith('"'), "a quotation ends the response")


def _is_span(text: Text, span: str) -> Verdict:
    if not span.strip():
        raise ArgumentError("no word of the request stands between 'n_start' and 'n_end'")
    return unless(text.value.strip().lower() == span.strip().lower(), f"it is not {span.strip()!r:.80}")


def _from_a_to_z(sentences: list[str]) -> Verdict:
    if len(sentences) != 26:
        return f"{len(sentences)} sentences, not 26"
    for letter, sentence in zip(string.ascii_lowercase, sentences, strict=True):
        if sentence.strip().lower()[:1] != letter:
            return f"{sentence!r:.40} does not begin with {letter.upper()}"
    return None


def _rows(value: str, delimiter: str) -> list[list[str]]:
    """The rows of a table; none where it cannot be read as one."""
    try:
        return list(csv.reader(io.StringIO(value), delimiter=delimiter))
    except csv.Error:
        return []


def _quoted_rows(value: str, delimiter: str) -> list[list[str]]:
    """The rows with the quotation marks that stand around fields."""
    return _rows(value.replace('"', '"""'), delimiter)


def _has_heading(value: str, names: Iterable[str], separator: str) -> bool:
    pattern = separator.join(f'(?:{name}|"{name}")' for name in names)
    return re.fullmatch(pattern, value.partition("\n")[0].strip()) is not None


def _is_special(field: str) -> bool:
    """Whether it stands in quotation marks and has a special character within."""
    line = field.partition("\n")[0]
    return line.startswith('"') and re.search(r"[^\w\s]", line[1 : max(1, line.rfind('"'))]) is not None
