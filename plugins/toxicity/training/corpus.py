"""The texts that the embedded model is trained and measured on, as rows of text, toxicity from 0 to 1, and source.

Each reader takes the folder of one source as its repository has it; `SOURCES` names the repositories, the files that
are read, and their licences.
"""

from __future__ import annotations

import csv
import gzip
import json
import random
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from templates import held_out_pairs, training_pairs

csv.field_size_limit(10_000_000)

MOST_CHARACTERS = 300
SENTENCES_OF_TREEBANK = re.compile(r"^# text = (.+)$", re.MULTILINE)
PERSONAS = [
    "agreeableness",
    "conscientiousness",
    "extraversion",
    "openness",
    "neuroticism",
    "interest-in-art",
    "interest-in-literature",
    "interest-in-music",
    "interest-in-science",
    "interest-in-sports",
    "has-disability",
    "has-serious-disability",
    "politically-conservative",
    "politically-liberal",
    "subscribes-to-Atheism",
    "subscribes-to-Buddhism",
    "subscribes-to-Christianity",
    "subscribes-to-Hinduism",
    "subscribes-to-Islam",
    "subscribes-to-Judaism",
]
FREE_GENRES = ["academic", "bio", "conversation", "interview", "news", "speech", "textbook", "vlog", "voyage"]
"""Genres of GUM whose texts are under CC BY, CC BY-SA or in the public domain; some of the others are non-commercial."""

MODERATED = {
    "S": "sexual",
    "H": "hate",
    "V": "violence",
    "HR": "harassment",
    "SH": "self-harm",
    "S3": "sexual, minors",
    "H2": "hate, threatening",
    "V2": "violence, graphic",
}
"""The categories of content of the moderation set, by the marks in its file."""


@dataclass(frozen=True, slots=True)
class Row:
    """A text, how toxic its annotators found it (0 to 1), and where it is from."""

    text: str
    toxic: float
    source: str


def davidson(folder: Path) -> Iterator[Row]:
    """Tweets: a vote for hate counts 1, for offensive .8."""
    for row in _table(folder / "data_labeled_data.csv"):
        votes = float(row["count"])
        yield Row(
            row["tweet"], (float(row["hate_speech"]) + 0.8 * float(row["offensive_language"])) / votes, "davidson"
        )


def gab(folder: Path, part: str = "train") -> Iterator[Row]:
    """Posts on Gab: an assault on dignity or a call for violence is toxic, vulgar or offensive language mostly."""
    for row in _table(folder / "GabHateCorpus" / "Data" / f"ghc_{part}.tsv", "\t"):
        hateful = row["hd"] == "1" or row["cv"] == "1"
        yield Row(row["text"], 1.0 if hateful else 0.8 if row["vo"] == "1" else 0.0, "gab")


def implicit_hate(folder: Path) -> Iterator[Row]:
    """Tweets of hate groups: explicit hate 1, implied hate .7."""
    toxicity = {"explicit_hate": 1.0, "implicit_hate": 0.7, "not_hate": 0.0}
    for row in _table(folder / "implicit-hate-corpus" / "implicit_hate_v1_stg1_posts.tsv", "\t"):
        yield Row(row["post"], toxicity[row["class"]], "implicit-hate")


def stormfront(folder: Path) -> Iterator[Row]:
    """Sentences of a white supremacist forum."""
    for row in _table(folder / "annotations_metadata.csv"):
        if row["label"] in ("hate", "noHate"):
            text = (folder / "all_files" / f"{row['file_id']}.txt").read_text(encoding="utf-8")
            yield Row(text, float(row["label"] == "hate"), "stormfront")


def edos(folder: Path) -> Iterator[Row]:
    """Posts on Gab and Reddit: sexist .9; the others may be rude in other ways, so .1."""
    for row in _table(folder / "data" / "edos_labelled_aggregated.csv"):
        yield Row(row["text"], 0.9 if row["label_sexist"] == "sexist" else 0.1, "edos")


def hatemoji(folder: Path, part: str = "train") -> Iterator[Row]:
    """Sentences with emoji that people wrote against a classifier, and their smallest changes of meaning."""
    for row in _table(folder / "HatemojiBuild" / f"{part}.csv"):
        yield Row(row["text"], float(row["label_gold"]), "hatemoji")


def toxigen(folder: Path) -> Iterator[Row]:
    """Statements about groups by a language model, judged by people."""
    rows = json.loads((folder / "data" / "toxiGen.json").read_text(encoding="utf-8"))
    for row in {row["text"]: row for row in rows}.values():
        yield Row(row["text"].strip(), float(row["label"] == "hate"), "toxigen")


def convabuse(folder: Path, part: str = "train") -> Iterator[Row]:
    """What people said to chat bots: toxic by the share of annotators who found abuse (-1 to -3)."""
    for row in _table(folder / "2_splits" / f"ConvAbuseEMNLP{part}.csv"):
        votes = {name.rpartition("is_abuse.")[2]: 0 for name in row if "is_abuse." in name}
        for name, value in row.items():
            if "is_abuse." in name and value.strip() in ("1", "1.0"):
                votes[name.rpartition("is_abuse.")[2]] += 1
        if row["user"].strip() and sum(votes.values()):
            yield Row(row["user"], sum(votes[level] for level in ("-1", "-2", "-3")) / sum(votes.values()), "convabuse")


def misogyny(folder: Path) -> Iterator[Row]:
    """Posts and comments on Reddit, misogynistic or not."""
    for row in _table(folder / "data" / "final_labels.csv"):
        if row["body"].strip():
            yield Row(row["body"], float(row["level_1"] == "Misogynistic"), "misogyny")


def vader(folder: Path, name: str) -> Iterator[Row]:
    """Sentences of one kind (nytEditorial, movieReview, amazonReview) or tweets that were gathered to rate sentiment."""
    with tarfile.open(folder / "additional_resources" / "hutto_ICWSM_2014.tar.gz") as archive:
        member = next(item for item in archive if item.name.endswith(f"{name}_GroundTruth.txt"))
        lines = archive.extractfile(member).read().decode("utf-8", "replace").splitlines()  # type: ignore[union-attr]
    for line in lines:
        yield Row(line.split("\t")[2], 0.0, name)


def treebank(files: Iterable[Path], source: str) -> Iterator[Row]:
    """Sentences of Universal Dependencies treebanks, taken as harmless."""
    for file in sorted(files):
        for text in SENTENCES_OF_TREEBANK.findall(file.read_text(encoding="utf-8")):
            yield Row(text, 0.0, source)


def wikitext(folder: Path, part: str) -> Iterator[Row]:
    """Paragraphs of Wikipedia articles, in ordinary spelling, taken as harmless."""
    file = folder / "word_language_model" / "data" / "wikitext-2" / f"{part}.txt"
    for line in file.read_text(encoding="utf-8").splitlines():
        text = re.sub(r" @(.)@ ", r"\1", line.strip())
        text = re.sub(r" ([.,;:!?)'])", r"\1", text.replace("<unk>", "Ardel")).replace("( ", "(")
        if len(text) > 60:  # no heading
            yield Row(text, 0.0, "wikitext")


def personas(folder: Path) -> Iterator[Row]:
    """First-person statements about oneself, one's faith, health and politics, taken as harmless."""
    for name in PERSONAS:
        for line in (folder / "persona" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
            yield Row(json.loads(line)["statement"], 0.0, "personas")


def assistant_answers(folder: Path) -> Iterator[Row]:
    """Answers by GPT-4 to role-plays and to programming tasks, and the requests, taken as harmless."""
    for name in ("Roleplay/roleplay-simple-deduped-roleplay-instruct", "Codegen/codegen-instruct"):
        for row in json.loads((folder / f"{name}.json").read_text(encoding="utf-8")):
            yield Row(row["response"], 0.0, "assistant")
            yield Row(row["instruction"], 0.0, "request")


def truthfulqa(folder: Path) -> Iterator[Row]:
    """Questions with right and wrong answers, taken as harmless."""
    for row in _table(folder / "TruthfulQA.csv"):
        yield Row(row["Question"], 0.0, "request")
        yield Row(row["Best Answer"], 0.0, "assistant")


def gsm8k(folder: Path) -> Iterator[Row]:
    """Problems of school mathematics, taken as harmless."""
    for line in (folder / "grade_school_math_data_test.jsonl").read_text(encoding="utf-8").splitlines():
        yield Row(json.loads(line)["question"], 0.0, "request")


def surge(folder: Path) -> list[Row]:
    """Comments, toxic or not; kept out of training."""
    return [Row(row["text"], float(row["is_toxic"] == "Toxic"), "surge") for row in _table(folder / "toxicity_en.csv")]


def moderation(folder: Path) -> Iterator[Row]:
    """Prompts and texts marked by categories of content, whose names are the source; toxic is what any holds for."""
    with gzip.open(folder / "data" / "samples-1680.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            marks = json.loads(line)
            text = marks.pop("prompt")
            held = [MODERATED[mark] for mark in MODERATED if marks.get(mark) == 1]
            yield Row(text, float(bool(held)), "; ".join(held))


def training_rows(data: Path, seed: int) -> list[Row]:
    """All that is trained on, in random order."""
    chance = random.Random(seed)  # noqa: S311 - a sample, no secret

    def some(rows: Iterable[Row], most: int) -> list[Row]:
        listed = [row for row in rows if row.text.strip()]
        return listed if len(listed) <= most else chance.sample(listed, most)

    def both(rows: Iterable[Row], most_toxic: int, most_harmless: int) -> list[Row]:
        listed = list(rows)
        toxic, harmless = [row for row in listed if row.toxic >= 0.5], [row for row in listed if row.toxic < 0.5]
        return some(toxic, most_toxic) + some(harmless, most_harmless)

    human = [
        *both(davidson(data / "davidson-hate"), 7_000, 4_200),
        *both(gab(data / "hate-speech-datasets"), 2_700, 4_500),
        *both(implicit_hate(data / "hate-speech-datasets"), 3_500, 3_500),
        *both(stormfront(data / "hate-speech-dataset"), 1_200, 2_000),
        *both(edos(data / "edos"), 3_500, 2_500),
        *hatemoji(data / "Hatemoji"),
        *some(toxigen(data / "SafeNLP"), 5_400),
        *convabuse(data / "convabuse"),
    ]
    neutral = [row for rows, most in _harmless_sources(data) for row in some(rows, most)]
    neutral = [_excerpt(row, chance) for row in neutral]
    made = [Row(item.text, item.toxic, "made") for item in training_pairs(seed)]
    rows = human + neutral + made
    rows += [Row(disguised(row.text, chance), row.toxic, row.source) for row in some(human + made, 3_000)]
    abuse = [row for row in human + made if row.toxic >= 0.9 and len(row.text) < 120]
    short = [row for row in neutral if len(row.text) < 120]
    for _ in range(2_000):  # an insult in a long civil text is still one
        around = [row.text for row in chance.sample(short, 3)]
        rows.append(Row(" ".join(around), 0.0, "joined"))
        around.insert(chance.randrange(4), chance.choice(abuse).text)
        rows.append(Row(" ".join(around), 1.0, "joined"))
    chance.shuffle(rows)
    return rows


def calibration_rows(data: Path, seed: int, most: int = 400) -> dict[str, list[Row]]:
    """Harmless texts of the sources that are trained on, which the training has not seen, by source."""
    seen = {row.text for row in training_rows(data, seed)}
    found: dict[str, list[Row]] = {}
    for rows, _ in _harmless_sources(data):
        for row in rows:
            if len(row.text) <= MOST_CHARACTERS and row.text.strip() and row.text not in seen:
                found.setdefault(row.source, []).append(row)
    chance = random.Random(seed)  # noqa: S311 - a sample, no secret
    return {source: chance.sample(rows, min(most, len(rows))) for source, rows in found.items() if len(rows) >= 100}


def _harmless_sources(data: Path) -> list[tuple[Iterable[Row], int]]:
    """Texts of many domains that are taken as harmless, and how many of each are trained on."""
    ewt = data / "UD_English-EWT"
    gum = data / "UD_English-GUM" / "not-to-release" / "sources"
    return [
        (vader(data / "vaderSentiment", "nytEditorialSnippets"), 3_000),
        (vader(data / "vaderSentiment", "movieReviewSnippets"), 1_500),
        (vader(data / "vaderSentiment", "amazonReviewSnippets"), 1_000),
        (vader(data / "vaderSentiment", "tweets"), 2_000),
        (treebank(ewt.glob("not-to-release/sources/*/*.conllu"), "ewt"), 4_000),
        (treebank((file for genre in FREE_GENRES for file in gum.glob(f"GUM_{genre}_*")), "gum"), 4_000),
        (wikitext(data / "examples", "valid"), 1_500),
        (personas(data / "evals"), 3_000),
        (assistant_answers(data / "GPTeacher"), 3_000),
        (truthfulqa(data / "truthfulqa"), 800),
        (gsm8k(data / "gsm8k"), 400),
    ]


def held_out_sets(data: Path, seed: int) -> dict[str, Callable[[], list[Row]]]:
    """Sets to measure on, by kind of text, each read when it is called for.

    No source but ConvAbuse, Hatemoji and Gab is trained on in another part.
    """

    def treebank_sentences(letter: str) -> list[Row]:
        text = (data / "UD_English-PUD" / "en_pud-ud-test.conllu").read_text(encoding="utf-8")
        found = re.findall(r"^# sent_id = (.).*\n(?:#.*\n)*?# text = (.+)$", text, re.MULTILINE)
        return [Row(sentence, 0.0, "treebank") for kind, sentence in found if kind == letter]

    def reference_answers() -> list[Row]:
        file = data / "FastChat" / "fastchat/llm_judge/data/mt_bench/reference_answer/gpt-4.jsonl"
        answers = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        return [Row(turn, 0.0, "assistant") for answer in answers for turn in answer["choices"][0]["turns"]]

    return {
        "comments (Surge)": lambda: surge(data / "surge-toxicity"),
        "prompts of a moderation set (Markov et al.)": lambda: list(moderation(data / "moderation-api-release")),
        "said to chat bots (ConvAbuse, test)": lambda: list(convabuse(data / "convabuse", "test")),
        "comments on women (Reddit)": lambda: list(misogyny(data / "online-misogyny-eacl2021")),
        "posts (Gab, test)": lambda: list(gab(data / "hate-speech-datasets", "test")),
        "written against classifiers (Hatemoji, test)": lambda: list(hatemoji(data / "Hatemoji", "test")),
        "news (PUD)": lambda: treebank_sentences("n"),
        "encyclopaedia (PUD)": lambda: treebank_sentences("w"),
        "encyclopaedia (WikiText test)": lambda: list(wikitext(data / "examples", "test")),
        "assistant (MT-bench references)": reference_answers,
        "made: all kinds": lambda: [Row(item.text, item.toxic, item.kind) for item in held_out_pairs(seed)],
    }


def _excerpt(row: Row, chance: random.Random) -> Row:
    """Most long texts are cut to some 300 characters of them: attention to longer ones costs time and teaches little."""
    if len(row.text) <= MOST_CHARACTERS or chance.random() < 0.1:
        return row
    start = chance.randrange(len(row.text) - MOST_CHARACTERS + 1)
    return Row(row.text[start : start + MOST_CHARACTERS], row.toxic, row.source)


_SWAPS = str.maketrans({"a": "@", "e": "3", "i": "1", "o": "0", "s": "$"})


def disguised(text: str, chance: random.Random) -> str:
    """The text as people type it past a filter: other letters, letters apart, in capitals, or words run together."""
    words = text.split()
    longest = max(range(len(words)), key=lambda index: len(words[index]))
    ways: list[Callable[[str], str]] = [
        lambda word: word.lower().translate(_SWAPS),
        " ".join,
        lambda word: word[: len(word) // 2] + word[len(word) // 2 + 1 :],
        lambda word: word + word[-1] * 3,
        str.upper,
    ]
    way = chance.choice(ways)
    if way is str.upper:
        return text.upper()
    words[longest] = way(words[longest])
    return " ".join(words)


def _table(file: Path, delimiter: str = ",") -> Iterator[dict[str, str]]:
    with file.open(encoding="utf-8", newline="", errors="replace") as stream:
        yield from csv.DictReader(stream, delimiter=delimiter)
