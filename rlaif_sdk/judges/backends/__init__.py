"""What a judge needs from a language model, and the two backends that ship with the SDK."""

from __future__ import annotations

from rlaif_sdk.judges.backends.base import GeneratedText, JudgeBackend, LabelLogprobs, RowError, charged, usage_of

__all__ = ["GeneratedText", "JudgeBackend", "LabelLogprobs", "RowError", "charged", "usage_of"]
