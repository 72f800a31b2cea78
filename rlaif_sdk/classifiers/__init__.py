"""Text classifiers behind one interface: any Hugging Face sequence classifier, or a folder with an ONNX file.

`load_classifier` picks the backend; `Classifier` is what a reward sees. Importing this package loads neither torch
nor onnxruntime.
"""

from __future__ import annotations

from rlaif_sdk.classifiers.classifier import Classifier, label_index
from rlaif_sdk.classifiers.conversions import finite_score, label_log_odds, label_probabilities
from rlaif_sdk.classifiers.loading import load_classifier

__all__ = ["Classifier", "finite_score", "label_index", "label_log_odds", "label_probabilities", "load_classifier"]
