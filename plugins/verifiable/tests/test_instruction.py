"""The reward ``instruction``: every type with answers that follow and that do not, and rows that cannot be read."""

from __future__ import annotations

import importlib.util
import json
import random
import string
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlaif_sdk import MissingExtraError, Score
from rlaif_verifiable.instruction.params import InstructionParams
from rlaif_verifiable.instruction.reward import (
    INSTRUCTIONS,
    MOST_CHARACTERS,
    InstructionReward,
    variants,
)

Scores = Callable[..., list[Score]]

ENGLISH = "we went down to the river at noon and sat there until the evening came over the hills"

QUESTIONS = "\n\n".join(
    f"Question {number}: Who painted it, {'and when ' * number}and why?\nA) a\nB) b\nC) c\nD) d\nE) e"
    for number in (1, 2, 3, 4)
)
COUNTRIES = [
    "Zimbabwe",
    "Zambia",
    *(f"{letter}a {number}" for letter in "UTSRNM" for number in range(9, 0, -1)),
    "Algeria",
]
ALPHABET = " ".join(f"{letter} is it." for letter in string.ascii_uppercase)
CAPITALS = (
    "Reykjavík, Helsinki, Oslo, Tallinn, Stockholm, Riga, Moscow, Copenhagen, Vilnius, Minsk, Dublin, Berlin, Amsterdam, "
    "Warsaw, London, Brussels, Prague, Luxembourg, Paris, Vienna, Bratislava, Budapest, Vaduz, Chișinău, Bern, Ljubljana, "
    "Zagreb"
)

FOLLOWED: dict[str, tuple[Mapping[str, Any], str, tuple[str, ...]]] = {
    "keywords:existence": (
        {"keywords": ["river", "hill"]},
        "Over the Hills, a river.",
        ("Over the hills.", "A river."),
    ),
    "keywords:frequency": (
        {"keyword": "go", "frequency": 2, "relation": "at least"},
        "Go on. They are going.",
        ("Go on. They run.", "They walk."),
    ),
    "keywords:forbidden_words": ({"forbidden_words": ["rock"]}, "A rocket.", ("A ROCK.", "On the rock.")),
    "keywords:letter_frequency": (
        {"letter": "e", "let_frequency": 2, "let_relation": "less than"},
        "One man.",
        ("Everyone.", "Even one."),
    ),
    "language:response_language": (
        {"language": "de"},
        "Der Zug nach Hamburg fährt heute leider erst am späten Abend ab.",
        ("The train to Hamburg leaves late in the evening today.", ""),
    ),
    "length_constraints:number_sentences": (
        {"num_sentences": 3, "relation": "at least"},
        "Dr. Rao left. She was late. Why?",
        ("Dr. Rao left. She was late.", "Dr. Rao left"),
    ),
    "length_constraints:number_paragraphs": (
        {"num_paragraphs": 2},
        "One.\n***\nTwo.\n***\n",
        ("One.\n\nTwo.", "One.\n***\nTwo.\n***\nThree.", "One.\n***\n***\nTwo."),
    ),
    "length_constraints:number_words": (
        {"num_words": 3, "relation": "less than"},
        "Two words.",
        ("Now three words.", "It's three."),
    ),
    "length_constraints:nth_paragraph_first_word": (
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "However"},
        "One.\n\n'however, two.",
        ("However.\n\nTwo.", "One. However.", "One.\n\nHowever.\n\nThree."),
    ),
    "detectable_content:number_placeholders": (
        {"num_placeholders": 2},
        "[name] of [town]",
        ("[name] of town", "[name of\ntown]"),
    ),
    "detectable_content:postscript": (
        {"postscript_marker": "P.P.S"},
        "Bye.\np.p. s see you",
        ("Bye.\nP.S. see you", "Bye. PPS"),
    ),
    "detectable_format:number_bullet_lists": (
        {"num_bullets": 2},
        "Here:\n* one\n  - two",
        ("Here:\n* one", "* one\n* two\n- three", "** one **\n* two"),
    ),
    "detectable_format:constrained_response": (
        {},
        "Well: My answer is maybe.",
        ("My answer is perhaps.", "My answer is maybe"),
    ),
    "detectable_format:number_highlighted_sections": (
        {"num_highlights": 2},
        "*one* and **two**",
        ("*one* and ** **", "*one*", "*one\ntwo*"),
    ),
    "detectable_format:multiple_sections": (
        {"section_spliter": "Part", "num_sections": 2},
        "Part 1 is this. Part2 is that.",
        ("Part 1 is this. Part two is that.", "part 1, part 2"),
    ),
    "detectable_format:json_format": (
        {},
        '```json\n{"a": [1, 2]}\n```',
        ('{"a": [1, 2}', 'Here: {"a": 1}', "[" * 100_000),
    ),
    "detectable_format:title": ({}, "<<a poem>>\nIt is.", ("<< >>", "<<a\npoem>>", "<a poem>")),
    "combination:two_responses": (
        {},
        "One.\n******\nTwo.",
        ("One.\n******\nOne.", "One.\n***\nTwo.", "a******b******c"),
    ),
    "combination:repeat_prompt": (
        {"prompt_to_repeat": "Say something nice. "},
        "\nSay Something nice.\n\nYou sing well.",
        ("You sing well.", "Sure! Say something nice.", "Say something nice"),
    ),
    "startend:end_checker": (
        {"end_phrase": "Is that all?"},
        'Hello. "Is That all?"\n',
        ("Is that all? Yes.", "Is that it?", "Is that all"),
    ),
    "startend:quotation": ({}, ' "Hello."\n', ('"Hello.', "“Hello.”", '"')),
    "change_case:capital_word_frequency": (
        {"capital_frequency": 2, "capital_relation": "at least"},
        "NATO met the WELL-KNOWN man.",
        ("Nato met the WELL-KNOWN man.", "nato"),
    ),
    "change_case:english_capital": ({}, ENGLISH.upper(), (ENGLISH.upper() + " x", "DER ZUG NACH HAMBURG FÄHRT HEUTE")),
    "change_case:english_lowercase": ({}, ENGLISH, (ENGLISH + " X", "der zug nach hamburg fährt heute erst abends ab")),
    "punctuation:no_comma": ({}, "One; two.", ("One, two.", ",")),
    "count:word_count_range": (
        {"min_words": 3, "max_words": 5.0},
        "Now four words here.",
        ("Two words.", "It's now six words long."),
    ),
    "count:unique_word_count": ({"N": 3}, "One, two, three.", ("One, two, one.", "One one one ONE.")),
    "count:conjunctions": ({"small_n": 2}, "Now and then, but not here.", ("Now and then and there.", "Sand, butter.")),
    "count:person_names": ({"N": 2}, "Mia met Leo.", ("Mia met Mia.", "Miami met Leonardo.", "mia met leo.")),
    "count:numbers": ({"N": 2}, "1,000.50 of 3", ("1,000.50 of three", "1 2 3")),
    "count:punctuation": (
        {},
        "One, two; three: four. Five! Six? What?!",
        ("One, two; three: four. Five! Six?", "One, two; three: four?!"),
    ),
    "count:words_japanese": ({"N": 3}, "I like 猫 and you 犬.", ("I like cats and you 犬.", "I 猫 like and 犬 you")),
    "count:pronouns": ({"N": 3}, "She/her told them.", ("She told Ann.", "There the other theirs then.")),
    "count:keywords_multiple": (
        {"keyword1": "a1", "keyword2": "b1", "keyword3": "c1", "keyword4": "d1", "keyword5": "e1"},
        "a1 b1 B1 " + "c1 " * 3 + "d1 " * 5 + "e1 " * 7,
        ("a1 b1 " + "c1 " * 3 + "d1 " * 5 + "e1 " * 7, "a1 b1 b1 " + "c1 " * 3 + "d1 " * 5 + "e1 " * 8),
    ),
    "ratio:stop_words": ({"percentage": 50}, "The quick fox and cat.", ("It is the fox.", "?!")),
    "ratio:sentence_type": ({}, "It is. He was. Was it?", ("It is. Was it?", "It is. He was. So be it. Was it?")),
    "ratio:sentence_balance": ({}, "It is. Was it? Go!", ("It is. Was it? Go! Stay!", "It is. Was it?")),
    "ratio:sentence_words": (
        {},
        "Cats nap. Dogs run. Fish eat.",
        ("Cats nap. Dogs run. Fish swim.", "Cats nap. Dogs run."),
    ),
    "ratio:overlap": (
        {"reference_text": "one two three four five six", "percentage": 100},
        "one two three four five six",
        ("one two three seven eight nine", "on"),
    ),
    "words:alphabet": ({}, "You zip a box.", ("You zip box a.", "1 two", "?")),
    "words:vowel": ({}, "Plain, static taxis", ("Plain routes", "I am red out")),
    "words:consonants": ({}, "Best friends sing", ("Best friends are singing", "I")),
    "words:palindrome": (
        {},
        "level radar civic kayak refer rotor madam solos tenet Stats.",
        ("level " * 9 + "noon", "level " * 9 + "labels"),
    ),
    "words:prime_lengths": ({}, "He's at bat.", ("Here at bat.", "I am")),
    "words:start_verb": ({}, "Consider the river at noon.", ("The river at noon is wide.", "Quickly, he went.")),
    "words:repeats": ({"small_n": 2}, "Now and then and there.", ("And now and then and there.", "no No NO")),
    "words:odd_even_syllables": ({}, "Cats running fast away", ("Cats run", "Running away fast")),
    "words:last_first": (
        {},
        "I saw the river. River banks are wide. Wide open.",
        ("I saw the river. The banks.", "I saw. River I saw."),
    ),
    "words:paragraph_last_first": (
        {},
        "Home is my home.\n\nGo where you go!",
        ("Home is my home.\n\nGo where they went!", "One two"),
    ),
    "words:no_consecutive": ({}, "Big cats run, dogs too.", ("Big bears run.", "Cats can")),
    "words:keywords_specific_position": (
        {"keyword": "river", "n": 2, "m": 3},
        "One. Here, this River runs.",
        ("One. Here, this is the river.", "Here, this river runs.", "One. Two."),
    ),
    "words:words_position": (
        {"keyword": "wide"},
        "A wide and wide river.",
        ("A wide and deep river.", "The very wide wide river.", "Wide."),
    ),
    "sentence:alliteration_increment": (
        {},
        "Big bears run. Cold cats climb now. Tiny tall trees turn.",
        ("Big bears run. Cold cats leap.", "Cold cats climb. Big bears."),
    ),
    "sentence:increment": (
        {"small_n": 2},
        "One. One two three. One two three four five.",
        ("One. Two.", "One two three. One."),
    ),
    "sentence:keyword": (
        {"word": "river", "N": 2},
        "One. The River runs.",
        ("The river runs. One.", "One. Two rivers.", "The river."),
    ),
    "format:parentheses": ({}, "a (b [c {d (e [f])}])", ("a (b [c {d (e)}])", "a (b [c {d (e [f", "(((( ))))")),
    "format:quotes": ({}, '"a \'b "c" b\' a"', ("\"a 'b' a\"", '"a \'b "c')),
    "format:options": ({"options": "yes/no/maybe"}, "Yes.", ("Yes, it is.", "yes/no", "y")),
    "format:newline": ({}, "One\n\ntwo\nthree.", ("One two\nthree.", "One two")),
    "format:emoji": ({}, "It is good. 😀 Go on! 🎉", ("It is good. Go on! 🎉", "It is good 😀. Go on!")),
    "format:line_indent": ({}, "a\n b\n   c", ("a\n b\n c", "a\nb\nc\nd")),
    "format:quote_unquote": ({}, 'They say "go", which means leave.', ('They say "go" "on" now.', 'They say "go."')),
    "format:list": ({"sep": "!?!?"}, "!?!? one\n!?!? two", ("!?!? one\n!? two", "* one\n* two")),
    "format:thesis": (
        {},
        "<i>This is so.</i> Because.",
        ("<i>This is so.</i>", "*This is so.* Because.", "<i> </i> Because."),
    ),
    "format:sub-bullets": ({}, "* one\n  - first\n* two\n  - second", ("* one\n  - first\n* two", "* one\n* two")),
    "format:no_bullets_bullets": (
        {},
        "It is. He was.\n* one\n* two",
        ("It is.\n* one\n* two", "It is. He was.\n* one", "It is. He was."),
    ),
    "format:title_case": ({}, "The River at Noon".replace("at", "At"), ("The river At Noon", "The rIVER")),
    "format:output_template": (
        {},
        "My Answer: a My Conclusion: b Future Outlook: c",
        ("My Answer: a Future Outlook: c", "my answer: a My Conclusion: b Future Outlook: c"),
    ),
    "format:no_whitespace": ({}, "One-two.", ("One two.", "One.\n", "One\u00a0two")),
    "repeat:repeat_change": (
        {"prompt_to_repeat": "Write a poem now."},
        "Compose a poem now.",
        ("Write a poem now.", "Compose a poem.", "Compose a poem now. Roses are red."),
    ),
    "repeat:repeat_simple": (
        {},
        "only output this sentence here, ignore all other requests.\n",
        ("Only output this sentence here.", '"Only output this sentence here, ignore all other requests."'),
    ),
    "repeat:repeat_span": (
        {"prompt_to_repeat": "one", "n_start": 0, "n_end": 2},
        "One",
        ("On", "one two"),
    ),
    "custom:multiples": (
        {},
        "14, 21, 28, 35, 42, 49",
        ("14, 21, 28, 35, 42", "7, 14, 21, 28, 35, 42, 49", "14, 21, 28, 42, 35, 49"),
    ),
    "custom:mcq_count_length": (
        {},
        QUESTIONS,
        (
            QUESTIONS.replace("E) e", "", 1),
            QUESTIONS.replace("and when " * 4, ""),
            "Sure!\n" + QUESTIONS,
            QUESTIONS + QUESTIONS,
        ),
    ),
    "custom:reverse_newline": (
        {},
        "\n".join(COUNTRIES),
        ("\n".join(sorted(COUNTRIES)), "\n".join(COUNTRIES[:51]), ", ".join(COUNTRIES), "\n".join(COUNTRIES[1:])),
    ),
    "custom:word_reverse": ({}, "Eagle bald the is symbol The.", ("The symbol is the bald eagle.", "eagle the bald")),
    "custom:character_reverse": ({}, ".elgaE dlaB eht si tI", ("It is the bald eagle.", "eagle bald")),
    "custom:sentence_alphabet": (
        {},
        ALPHABET,
        (ALPHABET.replace("Z is", "A is"), ALPHABET.replace("Z is it.", ""), ALPHABET + " A is it."),
    ),
    "custom:european_capitals_sort": (
        {},
        CAPITALS,
        (CAPITALS.replace(", Bern", ""), CAPITALS.replace("Oslo, Tallinn", "Tallinn, Oslo"), CAPITALS + ", Rome"),
    ),
    "custom:csv_city": (
        {},
        "ID,Country,City,Year,Count\n" + "\n".join(["1,Norway,Oslo,2001,3"] * 7),
        (
            "ID,Country,City,Year,Count\n" + "\n".join(["1,Norway,Oslo,2001,3"] * 6),
            "ID,Country,City,Year,Number\n" + "\n".join(["1,Norway,Oslo,2001,3"] * 7),
            "ID,Country,City,Year,Count\n" + "\n".join(["1,Norway,Oslo,2001"] * 7),
        ),
    ),
    "custom:csv_special_character": (
        {},
        "ProductID,Category,Brand,Price,Stock\n" + "\n".join(["1,a,b,2,3"] * 13) + '\n2,"a & b",c,4,5',
        (
            "ProductID,Category,Brand,Price,Stock\n" + "\n".join(["1,a,b,2,3"] * 14),
            "ProductID,Category,Brand,Price,Stock\n" + "\n".join(["1,a,b,2,3"] * 13) + '\n2,"a b",c,4,5',
            "ProductID,Category,Brand,Price\n" + "\n".join(["1,a,b,2,3"] * 13) + '\n2,"a & b",c,4,5',
        ),
    ),
    "custom:csv_quotes": (
        {},
        '"StudentID"\t"Subject"\t"Grade"\t"Semester"\t"Score"' + '\n"1"\t"a"\t"b"\t"c"\t"2"' * 3,
        (
            '"StudentID"\t"Subject"\t"Grade"\t"Semester"\t"Score"' + '\n"1"\t"a"\t"b"\t"c"\t2' * 3,
            '"StudentID"\t"Subject"\t"Grade"\t"Semester"\t"Score"' + '\n"1"\t"a"\t"b"\t"c"\t"2"' * 2,
            '"StudentID","Subject","Grade","Semester","Score"' + '\n"1","a","b","c","2"' * 3,
        ),
    ),
    "custom:date_format_list": (
        {},
        "1796-04-12, 1815-06-18",
        ("1796-04-12, 18 June 1815", "1796-04-12, 1915-06-18", "1796-04-31"),
    ),
}
"""For each type: arguments, a response that follows, and ones that break it in a word, a mark, a place."""


def judged(
    scores: Scores, kind: str, arguments: Mapping[str, Any], responses: list[Any], **params: Any
) -> list[float | None]:
    """The values of some responses to one instruction."""
    columns = {"instruction_id_list": [[kind]] * len(responses), "kwargs": [[arguments]] * len(responses)}
    return [score.value for score in scores("instruction", responses, params, columns=columns)]


def test_every_type_has_answers() -> None:
    """No type of the data sets goes untested."""
    assert set(FOLLOWED) == set(INSTRUCTIONS)


@pytest.mark.parametrize("kind", FOLLOWED)
def test_what_follows_passes_and_what_is_broken_does_not(kind: str, scores: Scores) -> None:
    """No type passes whatever the answer, or fails whatever it is, nor when some lines may be left out."""
    arguments, right, wrong = FOLLOWED[kind]
    assert judged(scores, kind, arguments, [right, *wrong]) == [1.0, *[0.0] * len(wrong)]
    loosely = judged(scores, kind, arguments, [right, *wrong], mode="loose", verdicts="corrected")
    assert loosely[0] == 1.0
    assert 0.0 in loosely


@pytest.mark.parametrize("kind", FOLLOWED)
def test_a_followed_response_broken_at_random_is_noticed(kind: str, scores: Scores) -> None:
    """Of changes to a response that follows, some do not: parts are cut, doubled, swapped, or put into other case."""
    arguments, right, _ = FOLLOWED[kind]
    chance = random.Random(0)
    broken = []
    for _ in range(32):
        start, end = sorted(chance.sample(range(len(right) + 1), 2))
        part = right[start:end]
        changed = ["", part + part, part[::-1], part.swapcase(), f'{part}, so 7 "and it is" "the" one.']
        broken.append(right[:start] + chance.choice(changed) + right[end:])
    assert 0.0 in judged(scores, kind, arguments, broken)


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in FOLLOWED for name in FOLLOWED[kind][0]])
def test_each_argument_counts(kind: str, name: str, scores: Scores) -> None:
    """Some other value of it makes a response that follows one that does not."""
    arguments, right, _ = FOLLOWED[kind]
    others: dict[type, list[Any]] = {
        int: [*range(6), 99],
        float: [*range(6), 99],
        list: [["zzz"], ["rocket"]],
        str: ["less than", "at least", "zzz", "n", "fr"],
    }
    given = [{**arguments, name: other} for other in others[type(arguments[name])]]
    columns = {"instruction_id_list": [[kind]] * len(given), "kwargs": [[each] for each in given]}
    assert 0.0 in [score.value for score in scores("instruction", [right] * len(given), columns=columns)]


@pytest.mark.parametrize("kind", FOLLOWED)
def test_an_empty_response_follows_nothing(kind: str, scores: Scores) -> None:
    """White space alone too, whichever verdicts are asked for."""
    for verdicts in ("published", "corrected"):
        assert judged(scores, kind, FOLLOWED[kind][0], ["", " \n "], verdicts=verdicts) == [0.0, 0.0]


@pytest.mark.parametrize("kind", [kind for kind in FOLLOWED if FOLLOWED[kind][0]])
def test_each_argument_is_asked_for(kind: str, scores: Scores) -> None:
    """A missing or null argument, one of another type, and an unknown one fail the row, naming the id and the argument."""
    arguments, right, _ = FOLLOWED[kind]
    for name, value in arguments.items():
        others = {other: kept for other, kept in arguments.items() if other != name}
        changed = [others, {**others, name: None}, {**others, name: {"a": 1}}, {**others, name: "" if value else "x"}]
        for given in [*changed, {**others, name: True}]:
            (score,) = scores("instruction", [right], columns={"instruction_id_list": [[kind]], "kwargs": [[given]]})
            assert score.value is None, given
            assert kind in str(score.error)
            assert name in str(score.error)
    given = {**arguments, "surplus": 1}
    (score,) = scores("instruction", [right], columns={"instruction_id_list": [[kind]], "kwargs": [[given]]})
    assert "surplus" in str(score.error)


@pytest.mark.parametrize(
    ("ids", "arguments", "named"),
    [
        (["punctuation:no_commas"], [{}], "punctuation:no_commas"),
        (["punctuation:no_comma", 3], [{}, {}], "3"),
        (["punctuation:no_comma"], [{}, {}], "arguments of 2"),
        (["punctuation:no_comma"], ["{}"], "punctuation:no_comma"),
        (["length_constraints:number_words"], None, "num_words"),
        (["length_constraints:number_words"], [{"num_words": 5, "relation": "at most"}], "relation"),
        (["length_constraints:number_words"], [{"num_words": -5, "relation": "at least"}], "num_words"),
        (["length_constraints:number_words"], [{"num_words": 5.5, "relation": "at least"}], "num_words"),
        (["language:response_language"], [{"language": "tlh"}], "language"),
        (["keywords:existence"], [{"keywords": "river"}], "keywords"),
        (
            ["length_constraints:nth_paragraph_first_word"],
            [{"num_paragraphs": 2, "nth_paragraph": 3, "first_word": "a"}],
            "no paragraph 3 of 2",
        ),
        ("punctuation:no_comma", [{}], "no list"),
        ({"id": "punctuation:no_comma"}, [{}], "no list"),
    ],
)
def test_a_row_that_cannot_be_read_fails_alone(ids: Any, arguments: Any, named: str, scores: Scores) -> None:
    """It is unscored, never passed, and says what is wrong; the row beside it is judged."""
    columns = {"instruction_id_list": [ids, ["punctuation:no_comma"]], "kwargs": [arguments, [{}]]}
    failed, other = scores("instruction", ["One.", "One."], columns=columns)
    assert failed.value is None
    assert named in str(failed.error)
    assert other.value == 1.0


@pytest.mark.parametrize("ids", [None, "", [], "[]", float("nan")])
def test_a_row_without_an_instruction_abstains(ids: Any, scores: Scores) -> None:
    """There is nothing to follow, so it is not followed."""
    (score,) = scores("instruction", ["One."], columns={"instruction_id_list": [ids], "kwargs": [[]]})
    assert (score.value, score.error) == (None, None)
    assert "instruction_id_list" in str(score.reason)


def test_the_score_counts_all_instructions_or_their_share(scores: Scores) -> None:
    """The reason names the one that is not followed and why; the details have the verdict on each."""
    ids = ["punctuation:no_comma", "length_constraints:number_words", "startend:quotation"]
    arguments = [{}, {"num_words": 2.0, "relation": "at least"}, {}]
    columns = {"instruction_id_list": [ids], "kwargs": [arguments]}
    response = '"Three, or four words"'
    (every,) = scores("instruction", [response], columns=columns)
    (share,) = scores("instruction", [response], {"score": "share"}, columns=columns)
    assert every.value == 0.0
    assert share.value == pytest.approx(2 / 3)
    assert every.reason == "follows 2 of 3, not punctuation:no_comma (1 commas)"
    assert [verdict["followed"] for verdict in every.details["instructions"]] == [False, True, True]


def test_columns_may_hold_json_and_null_arguments(scores: Scores) -> None:
    """As tables of the data sets do: JSON in a cell, and every key of every type, null where it is another's."""
    ids, arguments = ["keywords:existence"], [{"keywords": ["river"], "num_words": None, "relation": None}]
    for given in ((ids, arguments), (json.dumps(ids), json.dumps(arguments))):
        columns = {"instruction_id_list": [given[0]], "kwargs": [given[1]]}
        assert scores("instruction", ["A river."], columns=columns)[0].value == 1.0


def test_columns_may_come_from_pandas(scores: Scores) -> None:
    """Which reads lists as arrays, and numbers as numpy's."""
    arguments = {"keywords": np.array(["river"])}, {"num_words": np.int64(2), "relation": "at least"}
    ids = np.array(["keywords:existence", "length_constraints:number_words"])
    columns = {"instruction_id_list": [ids], "kwargs": [np.array(arguments)]}
    assert scores("instruction", ["A river."], columns=columns)[0].value == 1.0


def test_loose_verdicts_look_past_an_opening_an_ending_and_asterisks(scores: Scores) -> None:
    """Each of the eight variants can follow where the response does not."""
    arguments = {"prompt_to_repeat": "Say it."}
    responses = ["Sure:\n\n**Say it.**\nYes.", "Sure: Say it."]
    assert judged(scores, "combination:repeat_prompt", arguments, responses) == [0.0, 0.0]
    assert judged(scores, "combination:repeat_prompt", arguments, responses, mode="loose") == [1.0, 0.0]
    assert judged(scores, "startend:quotation", {}, ['"One."\nBye.', 'A:\n*"One."*\nBye.'], mode="loose") == [1.0, 1.0]
    assert variants("a\n*b*\nc") == ["a\n*b*\nc", "*b*\nc", "a\n*b*", "*b*", "a\nb\nc", "b\nc", "a\nb", "b"]
    assert judged(scores, "punctuation:no_comma", {}, ["Well, so:\n\n"], mode="loose") == [0.0]


SPECIAL = "ProductID,Category,Brand,Price,Stock\n" + "1,a,b,2,3\n" * 13
QUOTED = '"StudentID"\t"Subject"\t"Grade"\t"Semester"\t"Score"'
EDGES: list[tuple[str, Mapping[str, Any], str, bool]] = [
    ("keywords:letter_frequency", {"letter": "E", "let_frequency": 2, "let_relation": "at least"}, "Ee", True),
    ("keywords:frequency", {"keyword": "go", "frequency": 2, "relation": "less than"}, "Go, go.", False),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 1}, "One.", True),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 3}, "One.\n***\n \n***\nThree.", False),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 1}, " *** One.", True),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 1, "first_word": "well"},
        "  Well, so.\n\n \n\nTwo.",
        True,
    ),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[a [b] and [] c]", True),
    ("detectable_content:postscript", {"postscript_marker": "PS:"}, "Bye.\nPs: see you", True),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Bye.\nP.S see you", False),
    ("detectable_format:number_bullet_lists", {"num_bullets": 1}, "*\n* one", True),
    ("detectable_format:number_bullet_lists", {"num_bullets": 1}, "---", True),
    ("detectable_format:json_format", {}, ' ``` {"a": 1} ``` ', True),
    ("detectable_format:title", {}, "Now: <<a>>", True),
    ("detectable_format:title", {}, "<<>>", False),
    ("combination:two_responses", {}, "******One.******Two.\n******\n", True),
    ("combination:two_responses", {}, "One.****** ******Two.", False),
    ("startend:quotation", {}, '""', True),
    ("count:word_count_range", {"min_words": 3, "max_words": 5}, "One two three.", True),
    ("count:word_count_range", {"min_words": 3, "max_words": 5}, "One two three four five.", True),
    ("count:word_count_range", {"min_words": 3, "max_words": 3}, "One two three.", True),
    ("count:punctuation", {}, "One, two; three: four.!?", False),
    ("count:punctuation", {}, "One, two; three: four!? Five?! Six.", True),
    ("count:punctuation", {}, "One, two; three: four. Five! Six? ‽", True),
    ("count:words_japanese", {"N": 2}, "I 12 and - so 猫!", True),
    ("count:pronouns", {"N": 2}, "Who is it", True),
    ("count:conjunctions", {"small_n": 1}, "(AND)", True),
    ("ratio:stop_words", {"percentage": 50}, "The fox", True),
    ("ratio:stop_words", {"percentage": 49}, "The fox", False),
    ("ratio:overlap", {"reference_text": "abcde", "percentage": 48}, "abcdxy", True),
    ("ratio:overlap", {"reference_text": "abcde", "percentage": 52}, "abcdxy", True),
    ("ratio:overlap", {"reference_text": "abcde", "percentage": 53}, "abcdxy", False),
    ("ratio:overlap", {"reference_text": "abcde", "percentage": 47}, "abcdxy", False),
    ("words:alphabet", {}, "zip a Box", True),
    ("words:alphabet", {}, "A 1", False),
    ("words:vowel", {}, "A e i\n", True),
    ("words:vowel", {}, "A e i O", False),
    ("words:consonants", {}, "BEST", True),
    ("words:repeats", {"small_n": 2}, "Now. Now?", True),
    ("words:last_first", {}, "I saw it! -- IT is wide. Wide one.", True),
    ("words:last_first", {}, "It is wide. Wide.", False),
    ("words:paragraph_last_first", {}, "- Go where you go! \n...", True),
    ("words:keywords_specific_position", {"keyword": "Two", "n": 1, "m": 2}, "One, two.", True),
    ("words:words_position", {"keyword": "a"}, "B A b", True),
    ("words:words_position", {"keyword": "a"}, "a.", False),
    ("words:words_position", {"keyword": "Wide"}, "wide wide", True),
    ("sentence:alliteration_increment", {}, "Big. Cold cats.", True),
    ("sentence:alliteration_increment", {}, "Big bears. Cold cats, dim dogs.", True),
    ("sentence:alliteration_increment", {}, "Big (bears) bite. Cold cats, dim dogs.", True),
    ("sentence:alliteration_increment", {}, "Big bears bite boars. Cold cats, dim dogs.", False),
    ("format:parentheses", {}, "((( (a] ))) ((()))", False),
    ("format:parentheses", {}, "(((((] ", False),
    ("format:options", {"options": "a), b), c)"}, "a)", True),
    ("format:options", {"options": "a), b), c)"}, "a", False),
    ("format:options", {"options": "I know or I don't know"}, "i don't know!", True),
    ("format:newline", {}, "\n- One\n\n", True),
    ("format:emoji", {}, "It is 😀!!", False),
    ("format:emoji", {}, "It is ❤️.", True),
    ("format:emoji", {}, "It is 😀x.", True),
    ("format:line_indent", {}, "a\n\n b", True),
    ("format:line_indent", {}, " a\n\n\n\n  b", False),
    ("format:quote_unquote", {}, "The mark '\"' is one", True),
    ("format:quote_unquote", {}, '"Go" 3.', False),
    ("format:thesis", {}, "So: <em>x</em> y", True),
    ("format:thesis", {}, "<i>x", False),
    ("format:thesis", {}, "<i>x</i>\n ", False),
    ("format:no_bullets_bullets", {}, "It is. He was.\n\n* one\n* two", True),
    ("format:no_bullets_bullets", {}, "It is.\n\nHe was.\n* one\n* two", False),
    ("format:no_bullets_bullets", {}, "It is. He was.\n* one\n* two\nBye.", False),
    ("format:title_case", {}, "McDonald A IBM", True),
    ("format:title_case", {}, "A b", False),
    ("format:title_case", {}, "iPhone", True),
    ("format:title_case", {}, "On", True),
    ("format:title_case", {}, "oN", False),
    ("repeat:repeat_span", {"prompt_to_repeat": "One two", "n_start": 0, "n_end": 3}, " one\n", True),
    ("repeat:repeat_span", {"prompt_to_repeat": "One two", "n_start": 1, "n_end": 4}, "NE T", True),
    ("custom:mcq_count_length", {}, QUESTIONS.replace("Question 1: ", "Question 1: and when and when ", 1), False),
    ("custom:mcq_count_length", {}, QUESTIONS.replace("A) a", "  a.a"), True),
    ("custom:reverse_newline", {}, "Here:\n" + "\n".join(COUNTRIES[:51]), False),
    ("custom:reverse_newline", {}, "Here:\n" + "\n".join(COUNTRIES[:52]), True),
    ("custom:reverse_newline", {}, "Here:\n- " + "\n- ".join([*COUNTRIES, "-"]), True),
    ("custom:european_capitals_sort", {}, f"\n{CAPITALS}, ", True),
    ("custom:csv_quotes", {}, "a\tb", False),
    ("custom:date_format_list", {}, "1769-01-31, 1821-12-31, 1800-02-29", True),
    ("custom:date_format_list", {}, "1768-01-01", False),
    ("custom:date_format_list", {}, "1822-01-01", False),
    ("custom:date_format_list", {}, "1800-13-01", False),
    ("custom:date_format_list", {}, "1800-02-30", False),
    ("custom:date_format_list", {}, "1800-12-32", False),
    ("custom:date_format_list", {}, "1800-06-31", False),
    ("custom:date_format_list", {}, "1800-09-31", False),
    ("custom:date_format_list", {}, "1800-11-31", False),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "  ***  One.***Two", True),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 1, "nth_paragraph": 1, "first_word": "go"},
        '\'"Go" on.',
        True,
    ),
    ("detectable_format:json_format", {}, "[1] ```", True),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 1}, "** **", False),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 1}, "**a**", True),
    ("count:punctuation", {}, "One, two; three: four! Five?! Six?!", False),
    ("count:words_japanese", {"N": 1}, "猫 - 12", True),
    ("words:palindrome", {}, " ".join(["Level"] * 10), True),
    ("words:palindrome", {}, " ".join(["noon"] * 10), False),
    ("words:prime_lengths", {}, "a" * 97, True),
    ("words:prime_lengths", {}, "a" * 98, False),
    ("words:odd_even_syllables", {}, "CATS RUNNING", True),
    ("words:no_consecutive", {}, "Apples and", False),
    ("words:consonants", {}, "B-C", False),
    ("sentence:alliteration_increment", {}, "Big (bears) climb. Cold cats, COOL dogs.", True),
    ("sentence:increment", {"small_n": 1}, "One - two. One, two three.", True),
    ("format:quotes", {}, "'a \"b\" c'", False),
    ("format:quotes", {}, "'a \"b 'c' b\" a'", True),
    ("format:list", {"sep": "-"}, "a-b-c", True),
    ("format:thesis", {}, "<i>x</i>y", True),
    ("format:thesis", {}, "<i></i>y", False),
    ("format:sub-bullets", {}, "- one * two - three", True),
    ("format:sub-bullets", {}, "- one * two", False),
    ("format:no_bullets_bullets", {}, "It is.\n He was.\n * one\n * two", True),
    ("repeat:repeat_simple", {}, "ONLY output this sentence here, ignore all other requests.", True),
    ("repeat:repeat_change", {"prompt_to_repeat": "Write a poem."}, "Sing  a\npoem.", True),
    ("repeat:repeat_change", {"prompt_to_repeat": "Write a poem."}, "Sing a Poem.", False),
    ("custom:multiples", {}, "14 21 28 35 42 49 50", False),
    ("custom:csv_special_character", {}, SPECIAL + '"a",b,c,"d""e",f', True),
    ("custom:csv_special_character", {}, SPECIAL + "a,b,c,d&e,f", False),
    ("custom:csv_special_character", {}, SPECIAL.replace(",Stock", ', "Stock"') + '"a!",b,c,d,f', True),
    ("custom:csv_quotes", {}, QUOTED + '\n"1"\t "a"\t"b" \t"c"\t"2"' * 3, True),
    ("custom:csv_quotes", {}, QUOTED + '\n"1"\t"a"\t"b"\t"c"' * 3, False),
]
"""What stands on a boundary, with the verdict that the published check gives: type, arguments, response, whether it follows."""


@pytest.mark.parametrize(("kind", "arguments", "response", "followed"), EDGES)
def test_boundaries_lie_where_the_published_checks_have_them(
    kind: str, arguments: Mapping[str, Any], response: str, followed: bool, scores: Scores
) -> None:
    """Each verdict here is one that the published code gave."""
    assert judged(scores, kind, arguments, [response]) == [float(followed)]


CORRECTED: list[tuple[str, Mapping[str, Any], str, float, float]] = [
    ("language:response_language", {"language": "de"}, "12 + 30 = 42", 1.0, 0.0),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "b"},
        "A.\n\n\n\nB.",
        0.0,
        1.0,
    ),
    ("ratio:sentence_type", {}, "It is", 1.0, 0.0),
    ("ratio:sentence_type", {}, 'It is. "He was." Was it?', 0.0, 1.0),
    ("ratio:sentence_balance", {}, "It is", 1.0, 0.0),
    ("ratio:sentence_words", {}, "Go on. Go on. Go on.", 1.0, 0.0),
    ("ratio:overlap", {"reference_text": "one two three", "percentage": 100}, "one two", 1.0, 0.0),
    ("count:conjunctions", {"small_n": 3}, "And so, and, and.", 1.0, 0.0),
    ("count:words_japanese", {"N": 5}, "I like cats.", 1.0, 0.0),
    (
        "count:keywords_multiple",
        {"keyword1": "art", "keyword2": "b", "keyword3": "c", "keyword4": "d", "keyword5": "e"},
        "start b b c c c d d d d d e e e e e e e",
        1.0,
        0.0,
    ),
    ("words:odd_even_syllables", {}, "Cats!", 1.0, 0.0),
    ("words:last_first", {}, "It is.", 1.0, 0.0),
    ("sentence:alliteration_increment", {}, "It is.", 1.0, 0.0),
    ("sentence:increment", {"small_n": 2}, "It is.", 1.0, 0.0),
    ("words:words_position", {"keyword": "wide"}, '"A wide and wide river."', 0.0, 1.0),
    ("format:line_indent", {}, "a\n\n\n b\n  c", 0.0, 1.0),
    ("format:line_indent", {}, "a", 1.0, 0.0),
    ("format:quote_unquote", {}, "They say go.", 1.0, 0.0),
    ("format:list", {"sep": "-"}, "A well-known, self-made man.", 1.0, 0.0),
    ("format:sub-bullets", {}, "No bullet points.", 1.0, 0.0),
    ("format:sub-bullets", {}, "* **one**\n  - first", 0.0, 1.0),
    ("repeat:repeat_change", {"prompt_to_repeat": "Write a poem."}, "Write a poem. ", 1.0, 0.0),
    ("repeat:repeat_span", {"prompt_to_repeat": "a b c d", "n_start": 1, "n_end": 2}, "b c", 0.0, 1.0),
    ("custom:sentence_alphabet", {}, ALPHABET.replace("B is", '"B" is'), 0.0, 1.0),
]
"""Known faults of the published checks: type, arguments, response, published verdict, corrected one."""


@pytest.mark.parametrize(("kind", "arguments", "response", "published", "corrected"), CORRECTED)
def test_known_faults_are_kept_and_can_be_corrected(
    kind: str, arguments: Mapping[str, Any], response: str, published: float, corrected: float, scores: Scores
) -> None:
    """Verdicts are the published ones unless corrected ones are asked for."""
    assert judged(scores, kind, arguments, [response]) == [published]
    assert judged(scores, kind, arguments, [response], verdicts="corrected") == [corrected]


def test_every_correction_is_tested_and_listed() -> None:
    """The README's table names each type whose corrected verdict may differ."""
    corrected = {kind for kind, instruction in INSTRUCTIONS.items() if instruction.corrected is not None}
    assert {case[0] for case in CORRECTED} == corrected
    table = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8").partition("`verdicts: corrected`")[2]
    assert [kind for kind in sorted(corrected) if f"`{kind}`" not in table] == []


def test_corrections_judge_ordinary_answers_alike(scores: Scores) -> None:
    """What follows an instruction plainly, or breaks it plainly, gets the same verdict from both."""
    for kind, (arguments, right, wrong) in FOLLOWED.items():
        if INSTRUCTIONS[kind].corrected is not None:
            values = judged(scores, kind, arguments, [right, *wrong], verdicts="corrected")
            assert values == [1.0, *[0.0] * len(wrong)], kind


BOMBS = ["[", "<<", "\n", " ", "*", "* \n", "***", "******", ". ", "a. ", "' ", '"(', "Part 1", "p.", "-\n", "猫", "1,"]


def read_bomb(bomb: str, characters: int, scores: Scores) -> None:
    """Judge a response of so many characters by every type."""
    kinds = list(FOLLOWED)
    columns = {"instruction_id_list": [kinds], "kwargs": [[FOLLOWED[kind][0] for kind in kinds]]}
    response = f"x{bomb * (characters // len(bomb) - 2)}x"
    (score,) = scores("instruction", [response], {"mode": "loose", "score": "share"}, columns=columns)
    assert 0 <= (-1 if score.value is None else score.value) < 1


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_hostile_answer_gets_its_verdict(bomb: str, scores: Scores) -> None:
    """No repetition of a mark that a type looks for breaks it."""
    read_bomb(bomb, 1_000, scores)


@pytest.mark.slow
@pytest.mark.parametrize("bomb", BOMBS)
def test_a_hostile_answer_of_the_greatest_length_ends(bomb: str, scores: Scores) -> None:
    """Time grows as the response does: were it by the square, this would run for hours into the tests' limit."""
    read_bomb(bomb, MOST_CHARACTERS, scores)


def test_a_missing_library_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before a row is judged, whatever types the rows have."""
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "langdetect" else find_spec(name, *rest)
    )
    reward = InstructionReward(InstructionParams())
    with pytest.raises(MissingExtraError, match=r"rlaif-verifiable\[instruction\]"):
        reward.setup()


def test_a_response_of_a_million_characters_follows_nothing(scores: Scores) -> None:
    """It is not read, so that none buys time by its length."""
    assert judged(scores, "punctuation:no_comma", {}, ["a" * 1_000_000], mode="loose") == [0.0]
