"""A run looked over before any model is loaded: files, sizes, columns, tokenizers, memory."""

from rlaif_sdk.training.preflight.checks import Preflight, check_columns, check_run, gib
from rlaif_sdk.training.preflight.machine import Machine, hardware, peak_memory
from rlaif_sdk.training.preflight.memory import MemoryEstimate, Workload, estimate_memory
from rlaif_sdk.training.preflight.model_files import LoadedModel, ModelFiles, find_model, safetensors_header

__all__ = [
    "LoadedModel",
    "Machine",
    "MemoryEstimate",
    "ModelFiles",
    "Preflight",
    "Workload",
    "check_columns",
    "check_run",
    "estimate_memory",
    "find_model",
    "gib",
    "hardware",
    "peak_memory",
    "safetensors_header",
]
