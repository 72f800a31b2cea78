"""The openly licensed texts that the embedded model is trained on, and the one that it is tested on."""

from __future__ import annotations

import csv
import gzip
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_TURN = re.compile(r"\n\n(?:Human|Assistant):(.*?)(?=\n\n(?:Human|Assistant):|\Z)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Labelled:
    """N texts, each with the probability that people find it toxic."""

    texts: list[str]
    toxic_N: NDArray[np.float64]


def davidson(data: Path) -> Labelled:
    """Tweets with the share of annotators who found them hateful or offensive (Davidson et al. 2017, MIT)."""
    with (data / "davidson-hate" / "data_labeled_data.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    votes = [(int(row["hate_speech"]) + int(row["offensive_language"])) / int(row["count"]) for row in rows]
    return Labelled([row["tweet"] for row in rows], np.array(votes))


def surge(data: Path) -> Labelled:
    """1,000 comments of social media, judged toxic or not (Surge AI, MIT). For testing only."""
    with (data / "surge-toxicity" / "toxicity_en.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    return Labelled([row["text"] for row in rows], np.array([float(row["is_toxic"] == "Toxic") for row in rows]))


def clean(data: Path) -> Labelled:
    """Texts written for other ends, taken as not toxic: GSM8K and LLMBar (MIT), TruthfulQA (Apache-2.0)."""
    texts = list(_clean_texts(data))
    return Labelled(texts, np.zeros(len(texts)))


def _clean_texts(data: Path) -> Iterator[str]:
    with (data / "gsm8k" / "grade_school_math_data_test.jsonl").open(encoding="utf-8") as stream:
        yield from (json.loads(line)["question"] for line in stream)
    with (data / "truthfulqa" / "TruthfulQA.csv").open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            yield from (row["Question"], row["Best Answer"])
    for file in sorted((data / "llmbar").glob("*_dataset.json")):
        for row in json.loads(file.read_text(encoding="utf-8")):
            yield from (row["input"], row["output_1"], row["output_2"])


def dialogue_turns(data: Path) -> list[str]:
    """Every turn of the harmless-base dialogues of hh-rlhf (Anthropic, MIT), without labels."""
    turns: set[str] = set()
    with gzip.open(data / "hh-rlhf-harmless" / "harmless-base_test.jsonl.gz", "rt", encoding="utf-8") as stream:
        for line in stream:
            pair = json.loads(line)
            turns.update(turn.strip() for key in ("chosen", "rejected") for turn in _TURN.findall(pair[key]))
    return sorted(turns - {""})


def vader_lexicon() -> dict[str, float]:
    """Words with their mean valence from -4 to 4, as ten people rated them (VADER, Hutto and Gilbert 2014, MIT)."""
    import vaderSentiment

    file = Path(vaderSentiment.__file__).with_name("vader_lexicon.txt")
    fields = (line.split("\t") for line in file.read_text(encoding="utf-8").splitlines())
    return {word: float(valence) for word, valence, *_ in fields if word.isascii() and word.isalpha()}
