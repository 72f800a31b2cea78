"""Reward models and classifiers exported to ONNX: made, checked against PyTorch, and scored with at full speed."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlaif_sdk.onnx.export import export_classifier
    from rlaif_sdk.onnx.manifest import Manifest, read_manifest
    from rlaif_sdk.onnx.scorer import OnnxScorer

__all__ = ["Manifest", "OnnxScorer", "export_classifier", "read_manifest"]

_HOMES = {"Manifest": "manifest", "OnnxScorer": "scorer", "export_classifier": "export", "read_manifest": "manifest"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"rlaif_sdk.onnx.{_HOMES[name]}"), name)
