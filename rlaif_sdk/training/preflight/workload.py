"""What a trainer's settings make it do at once: how many sequences, of what length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from rlaif_sdk.conversations.templates import chat_ids
from rlaif_sdk.training.preflight.chat_rows import ANSWERS, conversations_of
from rlaif_sdk.training.preflight.memory import Workload

if TYPE_CHECKING:
    from datasets import Dataset

    from rlaif_sdk.training.config import ModelSettings

SAMPLED_ROWS = 500
"""So many rows are tokenized to learn how long they are."""

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "8bit": 1, "4bit": 0.5}
_CPU_TILES = 6
"""Arrays of a tile's size that TRL's fused head holds without Triton, counted on two runs."""
_PAIRS = frozenset({"dpo", "reward_model"})


def workload(
    method: str,
    settings: Any,
    tokenizer: Any,
    tables: Mapping[str, Dataset],
    *,
    config: Any,
    model: ModelSettings,
) -> Workload:
    """The workload of a run.

    Args:
        method: See `rlaif_sdk.training.preflight.check_run`, as for the settings and tables.
        settings: The trainer's settings.
        tokenizer: The policy's tokenizer.
        tables: The rows by name.
        config: The policy's config, in transformers' form.
        model: What the run says of it.
    """
    saved = str(getattr(config, "dtype", None) or "float32").removeprefix("torch.")
    upcast = model.dtype == "auto" and model.lora is None and method != "reward_model"
    dtype = "float32" if upcast else saved if model.dtype == "auto" else model.dtype
    weight_bytes = _BYTES.get(model.quantization or dtype, 4)
    mixed = bool(settings.bf16 or settings.fp16 or model.quantization)
    fused = not _is_actor_critic(settings)
    on_cpu = settings.device.type == "cpu"
    common: dict[str, Any] = {
        "fused_head": fused,
        "logit_copies": (_CPU_TILES if on_cpu else 1) if fused else 2,
        "checkpointing": bool(settings.gradient_checkpointing),
        "weight_bytes": weight_bytes,
        "compute_bytes": 2 if mixed else int(weight_bytes),
        "adapter_bytes": 2 if settings.bf16 or settings.fp16 else 4,
        "optimizer": str(getattr(settings.optim, "value", settings.optim)),
        "references": int(_keeps_reference(method, settings) and model.lora is None),
        "critic": getattr(settings, "critic", "shared") == "separate",
    }
    rows = int(settings.per_device_train_batch_size)
    new_tokens = getattr(settings, "max_completion_length", None)
    longest = _longest(tokenizer, tables, (*ANSWERS, "text") if new_tokens is None else ())
    if new_tokens is None:
        length = min(longest, getattr(settings, "max_length", None) or longest)
        logit_tokens = 0 if method == "reward_model" else length
        return Workload(rows=rows * (2 if method in _PAIRS else 1), length=length, logit_tokens=logit_tokens, **common)
    length = longest + int(new_tokens)
    sampled = max(int(settings.generation_batch_size or rows), int(settings.per_device_eval_batch_size))
    return Workload(
        rows=rows,
        length=length,
        logit_tokens=length if fused else int(new_tokens),
        generated_rows=sampled,
        generated_length=length,
        **common,
    )


def _is_actor_critic(settings: Any) -> bool:
    """Whether the settings are a `rlaif_sdk.training.ppo.PPOConfig`; looked at by name, so that none is imported."""
    return hasattr(settings, "kl_coef")


def _keeps_reference(method: str, settings: Any) -> bool:
    if _is_actor_critic(settings):
        return bool(settings.kl_coef > 0)
    if method == "dpo":
        return not settings.precompute_ref_log_probs
    return bool(getattr(settings, "beta", 0.0))


def _longest(tokenizer: Any, tables: Mapping[str, Dataset], answers: Sequence[str]) -> int:
    """Tokens of the longest of the first rows: its prompt, and the longest of the answers that it has."""
    return max(_tokens(row, tokenizer, answers) for rows in tables.values() for row in islice(rows, SAMPLED_ROWS))


def _tokens(row: Mapping[str, Any], tokenizer: Any, answers: Sequence[str]) -> int:
    chats = [
        len(chat_ids(turns, tokenizer, add_generation_prompt=open_ended))
        for turns, open_ended in conversations_of(row, answers)
    ]
    if chats:
        return max(chats)
    texts = [len(tokenizer(row[name])["input_ids"]) for name in answers if row.get(name)]
    return max(texts, default=0) + (len(tokenizer(row["prompt"])["input_ids"]) if row.get("prompt") else 0)
