"""Scoring models: every sequence classifier and reward model, by one loader, run by PyTorch or by onnxruntime.

`load_classifier` settles how a model is read from the model's own files and picks the engine; `Classifier` is what a
reward sees. `export_classifier` makes the ONNX folder that `OnnxScorer` scores with. Importing this package loads
neither torch nor onnxruntime.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlaif_sdk.models.classifier import (
        Classifier,
        ProblemType,
        finite_score,
        label_index,
        label_log_odds,
        label_probabilities,
    )
    from rlaif_sdk.models.export import export_classifier
    from rlaif_sdk.models.loader import load_classifier
    from rlaif_sdk.models.manifest import Manifest, read_manifest
    from rlaif_sdk.models.scorer import OnnxScorer

_HOMES = {
    "Classifier": "classifier",
    "Manifest": "manifest",
    "OnnxScorer": "scorer",
    "ProblemType": "classifier",
    "export_classifier": "export",
    "finite_score": "classifier",
    "label_index": "classifier",
    "label_log_odds": "classifier",
    "label_probabilities": "classifier",
    "load_classifier": "loader",
    "read_manifest": "manifest",
}

__all__ = [
    "Classifier",
    "Manifest",
    "OnnxScorer",
    "ProblemType",
    "export_classifier",
    "finite_score",
    "label_index",
    "label_log_odds",
    "label_probabilities",
    "load_classifier",
    "read_manifest",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"rlaif_sdk.models.{_HOMES[name]}"), name)
