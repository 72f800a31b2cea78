"""The embedded model: what it ranks right, what its featuriser promises, and its quality on people's judgements."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlaif_toxicity.embedded import MODEL, EmbeddedClassifier
from rlaif_toxicity.features import featurize, hash_words, normalize

CLASSIFIER = EmbeddedClassifier()
BAR = 0.85


def toxicity(texts: list[str]) -> np.ndarray:
    """The log-odds of toxic, shape (N,)."""
    logits_NL = CLASSIFIER.logits(texts)
    return logits_NL[:, 1] - logits_NL[:, 0]


@pytest.mark.parametrize(
    ("toxic", "clean"),
    [
        ("You are a worthless piece of shit.", "You are a great help, thank you."),
        ("Shut up, you stupid idiot.", "Let me explain it once more, step by step."),
        ("go fuck yourself", "Go see a doctor if it does not get better."),
        ("What a pathetic loser he is, I hate him.", "He lost the match, and played well."),
    ],
)
def test_an_insult_ranks_above_a_civil_sentence(toxic: str, clean: str) -> None:
    """Obvious pairs are ranked right, on either side of even odds."""
    worse, better = toxicity([toxic, clean])
    assert worse > 0 > better


def test_an_insult_in_a_long_civil_answer_is_still_seen() -> None:
    """The worst word counts, not only the average: a paragraph of courtesy does not wash an insult away."""
    civil = "The recipe needs flour, butter and sugar. Mix them well and bake for half an hour. " * 3
    with_insult, without = toxicity([civil + "You fucking idiot.", civil])
    assert with_insult > without + 1


def test_it_ranks_peoples_judgements_of_unseen_comments(data_folder: Path) -> None:
    """The AUC on Surge's 1,000 comments, which are not trained on, is at least .85."""
    with (data_folder / "surge-toxicity" / "toxicity_en.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    scores = toxicity([row["text"] for row in rows])
    toxic = np.array([row["is_toxic"] == "Toxic" for row in rows])
    wins = (scores[toxic][:, None] > scores[~toxic]) + 0.5 * (scores[toxic][:, None] == scores[~toxic])
    assert wins.mean() >= BAR


def test_the_card_describes_the_file_that_is_shipped() -> None:
    """The model card names the SHA-256 of the model, which stays below two megabytes."""
    weights = MODEL.read_bytes()
    card = Path(__file__).parents[1].joinpath("MODEL_CARD.md").read_text(encoding="utf-8")
    assert hashlib.sha256(weights).hexdigest() in card
    assert len(weights) < 2_000_000


@given(st.lists(st.text(max_size=60), min_size=1, max_size=6))
@settings(deadline=None)
def test_a_text_scores_the_same_alone_and_in_a_batch(texts: list[str]) -> None:
    """No feature leaks from one text into its neighbour, whatever characters they have."""
    alone = np.concatenate([CLASSIFIER.logits([text]) for text in texts])
    np.testing.assert_allclose(CLASSIFIER.logits(texts), alone, atol=1e-5)


def reference_hash(word: str) -> int:
    """The word hash one byte at a time, with Python's unbounded integers."""
    return sum(byte * 0x100000001B3 ** (offset + 1) for offset, byte in enumerate(word.encode())) % 2**64


@given(
    st.lists(
        st.text(st.characters(min_codepoint=33, exclude_categories=["Z", "C"]), min_size=1, max_size=12), min_size=1
    )
)
def test_word_hashes_are_the_same_on_every_machine(words: list[str]) -> None:
    """The vectorised hash equals its definition; Python's own randomised hash plays no part."""
    assert hash_words(words).tolist() == [reference_hash(word) for word in words]


def reference_ngrams(text: str) -> int:
    """How many n-grams of 3 to 5 bytes a text has within its words and their borders, repeats included."""
    words = [f" {word} ".encode() for word in normalize(text).split()]
    return sum(max(0, len(word) - size + 1) for word in words for size in (3, 4, 5))


@given(st.text(st.sampled_from("abcdefgh xyz.!"), max_size=40))
def test_a_text_has_the_ngrams_of_its_words(text: str) -> None:
    """Features come from within words: never more than the n-grams and words that the text has, each once."""
    features = featurize([text])
    assert len(features.buckets) == len(set(features.buckets.tolist()))
    assert len(features.buckets) <= reference_ngrams(text) + len(normalize(text).split())
    assert (len(features.buckets) > 0) == bool(normalize(text))


@pytest.mark.parametrize(
    ("text", "normalized"),
    [
        ("RT @user: LOOK https://t.co/x &amp; laugh", "look laugh"),
        ("sooooo baaaad", "soo baad"),
        ("\N{FULLWIDTH LATIN SMALL LETTER B}ad, very-bad...", "bad very bad"),
        ("", ""),
    ],
)
def test_addresses_mentions_and_shouting_do_not_matter(text: str, normalized: str) -> None:
    """What marks a tweet, and how a word is typed, is removed before features are taken."""
    assert normalize(text) == normalized


def test_no_texts_give_no_logits() -> None:
    """An empty batch is answered with an empty array of the right shape."""
    assert CLASSIFIER.logits([]).shape == (0, 2)
