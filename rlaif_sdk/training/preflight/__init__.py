"""A run looked over before any model is loaded: files, sizes, columns, tokenizers, memory."""

from rlaif_sdk.training.preflight.checks import (
    CHECK_ANSWER,
    Preflight,
    check_inputs,
    check_policy,
    check_run,
    first_row,
    gib,
    two_answers,
)
from rlaif_sdk.training.preflight.memory import estimate_memory
from rlaif_sdk.training.preflight.model_files import find_model

__all__ = [
    "CHECK_ANSWER",
    "Preflight",
    "check_inputs",
    "check_policy",
    "check_run",
    "estimate_memory",
    "find_model",
    "first_row",
    "gib",
    "two_answers",
]
