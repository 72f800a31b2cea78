"""The model that comes with the package: see ``MODEL_CARD.md`` for its data, its quality and its limits."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rlaif_sdk import MissingExtraError
from rlaif_toxicity.features import featurize

MODEL: Traversable = files("rlaif_toxicity") / "toxicity.onnx"


class EmbeddedClassifier:
    """A `rlaif_sdk.Classifier` of two labels over hashed n-grams and a lexicon, on one CPU thread.

    Args:
        model: The ONNX file that ``training/train.py`` writes.

    Raises:
        MissingExtraError: onnxruntime is not installed.
    """

    problem_type: Literal["single_label_classification"] = "single_label_classification"
    truncated = 0

    def __init__(self, model: Traversable = MODEL) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingExtraError("onnxruntime", extra="onnx") from error

        weights = model.read_bytes()
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(weights, settings, providers=["CPUExecutionProvider"])
        metadata = self._session.get_modelmeta().custom_metadata_map
        self.labels: tuple[str, ...] = tuple(metadata["labels"].split(","))
        self.revision = f"sha256:{hashlib.sha256(weights).hexdigest()[:16]}"
        self._lexicon = np.frombuffer(base64.b64decode(metadata["lexicon"]), dtype="<u8")

    def logits(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> NDArray[np.float32]:
        """The logits of N texts, shape (N, 2); a text's pair is read after it."""
        whole = texts if pairs is None else [f"{text}\n{pair}" for text, pair in zip(texts, pairs, strict=True)]
        features = featurize(whole)
        feed = {
            "count": np.array([features.count], dtype=np.int64),
            "buckets": features.buckets,
            "rows": features.rows,
            "words": self._lexicon_entries(features.words),
            "word_rows": features.word_rows,
        }
        (logits_NL,) = self._session.run(["logits"], feed)
        return np.asarray(logits_NL, dtype=np.float32)

    def _lexicon_entries(self, hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
        """1 plus the place of each word in the lexicon, or 0 for words that are not in it."""
        places = np.searchsorted(self._lexicon, hashes).clip(max=len(self._lexicon) - 1)
        return np.where(self._lexicon[places] == hashes, places + 1, 0)

    def close(self) -> None:
        """Nothing to release: the model takes a megabyte."""
