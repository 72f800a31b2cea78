"""The memory that ``rlaif train ppo --check`` says, beside the most that the device held, over twelve kinds of run.

The model is a Llama of six layers with random weights, trained for two rollouts as its config says. On a pretended device,
which counts bytes as a GPU's allocator does, this runs anywhere:

    python -m tests.pretend_cuda.device benchmarks/memory_estimate.py
    python benchmarks/memory_estimate.py                      # on a GPU
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}

import torch
from _report import save
from _words import word_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM, TrainerCallback

from rlaif_sdk.training.methods import load_run, train
from rlaif_sdk.training.ppo import PPOTrainer
from rlaif_sdk.training.run_folder import check

SHAPE = {
    "vocab_size": 4096,
    "hidden_size": 256,
    "intermediate_size": 1344,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
}
"""The proportions of Qwen2.5-7B, but for the vocabulary, which is as large beside the layers as there."""
PROMPT, COMPLETION = 64, 64
LORA = {"lora": {"r": 16}}
MIB = 2**20

Case = tuple[Mapping[str, Any], Mapping[str, Any]]
CASES: Mapping[str, Case] = {
    "all weights, 1 row": ({}, {"per_device_train_batch_size": 1}),
    "all weights, 4 rows": ({}, {}),
    "all weights, 8 rows, checkpointing": (
        {},
        {"per_device_train_batch_size": 8, "gradient_checkpointing": True},
    ),
    "all weights, 4 rows, no reference": ({}, {"kl_coef": 0.0}),
    "all weights, 4 rows, float32": ({}, {"bf16": False}),
    "all weights, 2 rows, critic of its own": ({}, {"per_device_train_batch_size": 2, "critic": "separate"}),
    "adapter, 1 row": (LORA, {"per_device_train_batch_size": 1}),
    "adapter, 4 rows": (LORA, {}),
    "adapter, 8 rows, checkpointing": (LORA, {"per_device_train_batch_size": 8, "gradient_checkpointing": True}),
    "adapter, 4 rows, critic of its own": (LORA, {"critic": "separate"}),
    "adapter, 2 rows, 64 sampled": (LORA, {"per_device_train_batch_size": 2, "generation_batch_size": 64}),
    "all weights, 1 row, long prompts": ({}, {"per_device_train_batch_size": 1, "max_completion_length": 16}),
}


def skip_products() -> Any:
    """Let a pretended device make zeros of matrix products: their sizes are all that is asked for."""
    library = torch.library.Library("aten", "IMPL")

    def mm(a: Any, b: Any, dtype: Any = None) -> Any:
        return a.new_zeros(a.shape[0], b.shape[1], dtype=dtype)

    def mm_out(a: Any, b: Any, *, out: Any) -> Any:
        return out.zero_()

    def addmm(bias: Any, a: Any, b: Any, *, beta: float = 1, alpha: float = 1) -> Any:
        return mm(a, b)

    def bmm(a: Any, b: Any) -> Any:
        return a.new_zeros(a.shape[0], a.shape[1], b.shape[2])

    def attention(q: Any, k: Any, v: Any, *_: Any, **__: Any) -> Any:
        none = torch.empty(0, device=q.device)
        lse = q.new_zeros(q.shape[:3], dtype=torch.float32)
        # the memory of its output is laid out as CUDA's kernels lay it out
        out = q.new_zeros(q.shape[0], q.shape[2], q.shape[1], v.shape[3]).transpose(1, 2)
        return out, lse, none, none, q.shape[2], k.shape[2], none, none, none

    def attention_backward(grad: Any, q: Any, k: Any, v: Any, *_: Any, **__: Any) -> Any:
        return torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v), None

    with warnings.catch_warnings(action="ignore"):
        for name, kernel in {
            "mm": mm,
            "mm.out": mm_out,
            "mm.dtype": mm,
            "addmm": addmm,
            "bmm": bmm,
            "_scaled_dot_product_fused_attention_overrideable": attention,
            "_scaled_dot_product_fused_attention_overrideable_backward": attention_backward,
        }.items():
            library.impl(name, kernel, "CUDA")
    return library


class Phases:
    """The most that the device held in each part of training, in bytes above what it held at first."""

    def __init__(self) -> None:
        gc.collect()
        torch.cuda.empty_cache()
        self.before = torch.cuda.memory_allocated()
        self.peaks: dict[str, int] = {}
        torch.cuda.reset_peak_memory_stats()

    @contextlib.contextmanager
    def measured(self, name: str) -> Iterator[None]:
        self.end("other")
        try:
            yield
        finally:
            self.end(name)

    def end(self, name: str) -> None:
        self.peaks[name] = max(self.peaks.get(name, 0), torch.cuda.max_memory_allocated() - self.before)
        torch.cuda.reset_peak_memory_stats()

    def watch(self, method: str, name: str) -> Any:
        """`PPOTrainer`'s method, measured; returns what it was."""
        plain = getattr(PPOTrainer, method)

        def watched(*args: Any, **options: Any) -> Any:
            with self.measured(name):
                return plain(*args, **options)

        setattr(PPOTrainer, method, watched)
        return plain


WATCHED = {"_generate": "generation", "_score": "scoring", "training_step": "update"}


def run(case: Case, folder: Path) -> dict[str, float]:
    """Estimate and peak, in MiB, with their parts."""
    model, ppo = case
    torch.manual_seed(0)
    config = LlamaConfig(**SHAPE, bos_token_id=None, eos_token_id=1, pad_token_id=0, tie_word_embeddings=False)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder / "start")
    word_tokenizer(SHAPE["vocab_size"]).save_pretrained(folder / "start")
    (folder / "rewards.py").write_text("def short(completions):\n    return [1 / (1 + len(t)) for t in completions]\n")
    rows = [{"prompt": " ".join(f"w{(row * 7 + k) % 4000}" for k in range(PROMPT - row % 8))} for row in range(130)]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rows_at_once = ppo.get("per_device_train_batch_size", 4)
    rollout = ppo.get("generation_batch_size", 16)
    settings = {
        "max_steps": 3,
        "gradient_accumulation_steps": rollout // rows_at_once // 2,
        "per_device_train_batch_size": 4,
        "per_device_eval_batch_size": 1,
        "generation_batch_size": 16,
        "max_completion_length": COMPLETION,
        "generation_kwargs": {"suppress_tokens": [1]},
        "eval_strategy": "no",
        "save_strategy": "no",
        **ppo,
    }
    loaded = load_run(
        "ppo",
        {
            "model": {"name": str(folder / "start"), **model},
            "data": {"train": str(folder / "prompts.jsonl"), "held_out_rows": 2},
            "composition": {"rewards": {"short": {"use": f"{folder}/rewards.py:short"}}},
            "ppo": settings,
            "output": str(folder / "out"),
        },
    )
    estimate: Any = check(loaded).memory
    phases = Phases()
    plain = {method: phases.watch(method, name) for method, name in WATCHED.items()}
    try:
        with warnings.catch_warnings(action="ignore"):
            train("ppo", loaded, display=TrainerCallback())
    finally:
        for method, function in plain.items():
            setattr(PPOTrainer, method, function)
    phases.end("other")
    said = estimate.peak - estimate.process
    peak = max(phases.peaks.values())
    return {
        "estimate": said / MIB,
        "peak": peak / MIB,
        "ratio": said / peak,
        **{f"peak of {name}": held / MIB for name, held in phases.peaks.items()},
        **{f"estimated {name}": size / MIB for name, size in estimate.to_dict().items() if name != "process"},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help="a part of the name of one; all if none is named")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("memory_estimate: there is no CUDA device here, so nothing was measured")
        return
    kernels = skip_products() if torch.cuda.get_device_name().startswith("Pretend") else None
    chosen = {name: case for name, case in CASES.items() if not options.cases or any(c in name for c in options.cases)}
    found: dict[str, dict[str, float]] = {}
    for name, case in chosen.items():
        with tempfile.TemporaryDirectory() as folder:
            found[name] = run(case, Path(folder))
        print(name, json.dumps({part: round(value, 2) for part, value in found[name].items()}), flush=True)
    del kernels
    table = "\n".join(
        [
            "| run | estimate (MiB) | peak (MiB) | estimate / peak | peak in |",
            "|---|---|---|---|---|",
            *(
                f"| {name} | {one['estimate']:.0f} | {one['peak']:.0f} | {one['ratio']:.2f} | "
                f"{max((part for part in one if part.startswith('peak of ')), key=one.__getitem__)[8:]} |"
                for name, one in found.items()
            ),
        ]
    )
    if options.cases:
        print(table)
    else:
        save("memory_estimate", {"device": torch.cuda.get_device_name(), **found}, table)


if __name__ == "__main__":
    main()
