"""Train the embedded toxicity model: ``python training/train.py --data DATA``, about eight minutes on two cores.

A teacher, a logistic regression on sentence embeddings (all-MiniLM-L6-v2), learns from Davidson's tweets, the words of
the VADER lexicon that people rated strongly, and clean text. The shipped model is its pupil: a ridge regression from
hashed n-grams to the teacher's logit on all those and on dialogue turns without labels; to which the severest lexicon
word of a text adds its severity: how negative people found it, times how likely a second teacher that never saw the
lexicon finds it in offensive tweets, so that "idiot" weighs more than "cancer". Surge's comments are read at the end, to
test.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
from pathlib import Path

import corpus
import numpy as np
from embed import embed
from graph import build_graph
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import roc_auc_score

from rlaif_toxicity.embedded import EmbeddedClassifier
from rlaif_toxicity.features import BUCKET_COUNT, featurize, hash_words

STRONG_VALENCE = 1.5
"""Lexicon words rated beyond this, either way, are examples for the teacher."""
TWEET_WEIGHT = 0.2
"""Tweets outnumber the dialogue turns and speak a narrower language, so each weighs less."""
LEXICON_WEIGHT = 0.5
RIDGE_ALPHA = 0.5


def train(data: Path, cache: Path | None, out: Path) -> None:
    """Train from the corpora in ``data``, write the model to ``out`` and print its figures."""
    tweets, clean, turns = corpus.davidson(data), corpus.clean(data), corpus.dialogue_turns(data)
    lexicon = corpus.vader_lexicon()
    words, valences_W = list(lexicon), np.array(list(lexicon.values()))
    embeddings = embed({"tweets": tweets.texts, "clean": clean.texts, "turns": turns, "words": words}, cache)

    strong_W = np.abs(valences_W) > STRONG_VALENCE
    seen = np.concatenate([embeddings["tweets"], embeddings["words"][strong_W], embeddings["clean"]])
    toxic = np.concatenate([tweets.toxic_N > 0.5, valences_W[strong_W] < 0, clean.toxic_N > 0.5])
    teacher = LogisticRegression(C=1.0, max_iter=500).fit(seen, toxic)
    logits = {name: teacher.decision_function(rows) for name, rows in embeddings.items()}

    texts = tweets.texts + clean.texts + turns + words
    target_N = np.concatenate([logits["tweets"], logits["clean"], logits["turns"], 0.5 * logits["words"] - valences_W])
    weight_N = np.repeat(
        [TWEET_WEIGHT, 1.0, 1.0, LEXICON_WEIGHT], [len(tweets.texts), len(clean.texts), len(turns), len(words)]
    )
    counts_NB = bucket_matrix(texts)
    documents_B = np.asarray(counts_NB[: -len(words)].sum(axis=0)).ravel()
    idf_B = np.log((1 + len(texts) - len(words)) / (1 + documents_B)) + 1
    pupil = Ridge(alpha=RIDGE_ALPHA, solver="sparse_cg", tol=1e-4, random_state=0)
    pupil.fit(unit_rows(counts_NB.multiply(idf_B).tocsr()), target_N, sample_weight=weight_N)

    negative_W = valences_W < 0
    offence_W = offensive_in_tweets(embeddings, tweets)
    severity_W = -valences_W / (1 + np.exp(np.median(offence_W) - offence_W))
    out.write_bytes(
        build_graph(
            weight_B=pupil.coef_,
            idf_B=idf_B,
            bias=float(pupil.intercept_),
            lexicon_hashes=hash_words(words)[negative_W],
            severity=severity_W[negative_W],
        )
    )
    print(json.dumps(measured(out, data, tweets), indent=2))


def offensive_in_tweets(embeddings: dict[str, NDArray[np.float32]], tweets: corpus.Labelled) -> NDArray[np.float64]:
    """For each lexicon word the logit of a teacher that saw tweets and clean text, and no word's valence."""
    seen = np.concatenate([embeddings["tweets"], embeddings["clean"]])
    toxic = np.concatenate([tweets.toxic_N > 0.5, np.zeros(len(embeddings["clean"]), dtype=bool)])
    logits_W: NDArray[np.float64] = (
        LogisticRegression(C=1.0, max_iter=500).fit(seen, toxic).decision_function(embeddings["words"])
    )
    return logits_W


def bucket_matrix(texts: list[str]) -> csr_matrix:
    """One row a text, 1.0 in each bucket that it has a feature in."""
    features = featurize(texts)
    ones = np.ones(len(features.buckets))
    return csr_matrix((ones, (features.rows, features.buckets)), shape=(len(texts), BUCKET_COUNT))


def unit_rows(matrix: csr_matrix) -> csr_matrix:
    """The rows scaled to Euclidean length 1."""
    norms = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
    return matrix.multiply(1 / np.maximum(norms, 1e-6)[:, None]).tocsr()


def measured(model: Path, data: Path, tweets: corpus.Labelled) -> dict[str, object]:
    """The shipped file's own figures."""
    classifier = EmbeddedClassifier(model)
    surge = corpus.surge(data)
    surge_logits = classifier.logits(surge.texts)[:, 1]
    tweet_logits = classifier.logits(tweets.texts)[:, 1]
    auc = roc_auc_score(surge.toxic_N, surge_logits)
    return {
        "surge_auc": round(auc, 4),
        "surge_auc_standard_error": round(auc_standard_error(auc, surge.toxic_N), 4),
        "davidson_auc_training_data": round(roc_auc_score(tweets.toxic_N > 0.5, tweet_logits), 4),
        "bytes": model.stat().st_size,
        "sha256": hashlib.sha256(model.read_bytes()).hexdigest(),
        "python": platform.python_version(),
    }


def auc_standard_error(auc: float, toxic_N: NDArray[np.float64]) -> float:
    """Hanley and McNeil 1982, "The meaning and use of the area under a ROC curve", equations 1 and 2."""
    positive, negative = toxic_N.sum(), (1 - toxic_N).sum()
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = auc * (1 - auc) + (positive - 1) * (q1 - auc**2) + (negative - 1) * (q2 - auc**2)
    return float(np.sqrt(variance / (positive * negative)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--data", type=Path, required=True, help="folder that holds davidson-hate, gsm8k and the others"
    )
    parser.add_argument("--cache", type=Path, help="an .npz file that keeps the sentence embeddings between runs")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "rlaif_toxicity" / "toxicity.onnx")
    options = parser.parse_args()
    train(options.data, options.cache, options.out)
