"""Ten minutes on a GPU: whether training, judges, exported models and vLLM do there what they do on a CPU.

Each check says what it found, and a failed one does not keep the others from running. The findings go to
``results/gpu_check-CARD.json``, of which people without a GPU can learn: please send it in. On a pretended device small
shapes run, to see that the script works, and nothing is saved.

    python benchmarks/gpu_check.py                # all checks
    python benchmarks/gpu_check.py head judge     # some of them
    python -m tests.pretend_cuda.device benchmarks/gpu_check.py
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}

import torch
from _report import hardware
from _words import word_tokenizer
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    TrainerCallback,
)

from rlaif_sdk import export_classifier, load_classifier
from rlaif_sdk.judges.backends.local import TransformersBackend
from rlaif_sdk.training.methods import load_run, train
from rlaif_sdk.training.ppo.logprobs import head_logprobs
from rlaif_sdk.training.run_folder import check, versions

HERE = Path(__file__).parent
ROOT = HERE.parent
PRETEND = torch.cuda.is_available() and torch.cuda.get_device_name().startswith("Pretend")
SHAPE = {
    "vocab_size": 1000 if PRETEND else 151_936,
    "hidden_size": 64 if PRETEND else 896,
    "intermediate_size": 128 if PRETEND else 4864,
    "num_hidden_layers": 2 if PRETEND else 24,
    "num_attention_heads": 4 if PRETEND else 14,
    "num_key_value_heads": 2,
}
"""That of Qwen2-0.5B, with random weights."""
CHAT = "{% for m in messages %}{{ m.content + ' ' }}{% endfor %}"
Finding = dict[str, Any]


class Failed(Exception):  # noqa: N818 - a finding, not a fault of the script
    """What a check has found to be wrong."""


def expect(finding: Finding, **limits: float) -> Finding:
    """The finding, if none of the numbers named is above its limit."""
    beyond = [
        f"{name} is {finding[name]:.4g}, above {limit:g}" for name, limit in limits.items() if finding[name] > limit
    ]
    if beyond:
        raise Failed(f"{'; '.join(beyond)}: {finding}")
    return finding


def model_folder(folder: Path, kind: Any = LlamaForCausalLM, **settings: Any) -> Path:
    """A folder with a model of the shape, in bfloat16, and its tokenizer."""
    torch.manual_seed(0)
    config = LlamaConfig(**SHAPE, bos_token_id=None, eos_token_id=1, pad_token_id=0, **settings)
    kind(config).to(torch.bfloat16).save_pretrained(folder)
    tokenizer = word_tokenizer(SHAPE["vocab_size"])
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(folder)
    return folder


@contextlib.contextmanager
def waits() -> Iterator[dict[str, int]]:
    """Counts the host's waits within, by the package's lines that cause them."""
    counted: dict[str, int] = {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield counted
        finally:
            torch.cuda.set_sync_debug_mode("default")
    for one in caught:
        if "synchronizing" in str(one.message) and "rlaif_sdk" in one.filename:
            place = f"{Path(one.filename).name}:{one.lineno}"
            counted[place] = counted.get(place, 0) + 1


def check_head(_: Path) -> Finding:
    """Log-probabilities of a head in half precision, against float32 of the same numbers, in nats."""
    torch.manual_seed(0)
    finding: Finding = {}
    for name in ("bfloat16", "float16"):
        dtype = getattr(torch, name)
        states = torch.randn(2, 128, SHAPE["hidden_size"], device="cuda").to(dtype)
        weight = (torch.randn(SHAPE["vocab_size"], SHAPE["hidden_size"], device="cuda") * 0.05).to(dtype)
        ids = torch.randint(0, SHAPE["vocab_size"], (2, 128), device="cuda")
        exact, _ = head_logprobs(states.float(), weight.float(), ids)
        found, _ = head_logprobs(states, weight, ids)
        finding[name] = float((found - exact).abs().max())
    return expect(finding, bfloat16=1e-3, float16=1e-3)


def training(folder: Path, model: Mapping[str, Any], **ppo: Any) -> Finding:
    """A run of three steps from a config."""
    (folder / "rewards.py").write_text("def short(completions):\n    return [1 / (1 + len(t)) for t in completions]\n")
    rows = [{"prompt": " ".join(f"w{(row * 7 + k) % 900}" for k in range(64))} for row in range(64)]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = load_run(
        "ppo",
        {
            "model": {"name": str(model_folder(folder / "start")), **model},
            "data": {"train": str(folder / "prompts.jsonl"), "held_out_rows": 8},
            "composition": {"rewards": {"short": {"use": f"{folder}/rewards.py:short"}}},
            "ppo": {
                "max_steps": 3,
                "per_device_train_batch_size": 4,
                "steps_per_generation": 2,
                "gradient_accumulation_steps": 2,
                "max_completion_length": 16 if PRETEND else 256,
                **ppo,
            },
            "output": str(folder / "out"),
        },
    )
    estimate = check(run).memory
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    with waits() as counted:
        result = train("ppo", run, display=TrainerCallback())
    history = [json.loads(line) for line in (result.output / "history.jsonl").read_text().splitlines()]
    first = next(entry for entry in history if "ratio" in entry)
    return {
        "ratio_off": abs(first["ratio"] - 1),
        "kl_off": abs(first["kl_per_token"]),
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30,
        "estimated_gib": (estimate.peak - estimate.process) / 2**30,
        "waits_a_step": sum(counted.values()) / 3,
        "waits": dict(sorted(counted.items(), key=lambda one: -one[1])[:12]),
    }


def check_full(folder: Path) -> Finding:
    """PPO of all weights: the policy agrees with itself at first, and takes the memory that ``--check`` says."""
    return expect(training(folder, {}), ratio_off=0.05, kl_off=0.02)


def check_lora(folder: Path) -> Finding:
    """The same of an adapter, with activations computed anew."""
    settings = {"gradient_checkpointing": True, "learning_rate": 1e-4}
    return expect(training(folder, {"lora": {"r": 16}}, **settings), ratio_off=0.05, kl_off=0.02)


def check_judge(folder: Path) -> Finding:
    """A judge in bfloat16 whose prompts share their beginning, beside the same without sharing, in nats."""
    import asyncio

    name = str(model_folder(folder / "judge"))
    begun = " ".join(f"w{k}" for k in range(200))
    asked = [[{"role": "user", "content": f"{begun} w{row} w{row + 1}"}] for row in range(16)]
    said = []
    for share in (True, False):
        backend = TransformersBackend(name, share_prefix=share)
        answers = asyncio.run(backend.label_logprobs(asked, ["w5", "w6"]))
        said.append([value for answer in answers for value in answer.logprobs])
        shares = backend._shared is not None  # noqa: SLF001 - whether it was done, and not only asked for
        if shares is not share:
            raise Failed(f"share_prefix={share} and the backend {'shares' if shares else 'does not share'}")
        backend.close()
    return expect({"difference": max(abs(a - b) for a, b in zip(*said, strict=True))}, difference=0.25)


def check_onnx(folder: Path) -> Finding:
    """An exported reward model by onnxruntime on CUDA, beside PyTorch on a CPU, in units of the logit."""
    from rlaif_sdk.models.onnx_providers import cuda_device_count, offers_cuda

    if PRETEND or not (cuda_device_count() and offers_cuda()):
        return {"skipped": "onnxruntime has no CUDA provider here"}
    small = {"num_hidden_layers": 4, "num_labels": 1, "tie_word_embeddings": False}
    SHAPE["num_hidden_layers"], layers = small.pop("num_hidden_layers"), SHAPE["num_hidden_layers"]
    name = model_folder(folder / "scorer", LlamaForSequenceClassification, **small)
    SHAPE["num_hidden_layers"] = layers
    export_classifier(str(name), folder / "exported", variants=["fp16"])
    texts = [" ".join(f"w{(row + k) % 900}" for k in range(1 + row)) for row in range(64)]
    exact = load_classifier(name, device="cpu").logits(texts)
    found = load_classifier(folder / "exported", device="cuda").logits(texts)
    return expect({"difference": float(abs(exact - found).max()), "spread": float(exact.std())}, difference=0.1)


def check_vllm(folder: Path) -> Finding:
    """Three rollouts by vLLM with an adapter: the weights beneath stay as they were loaded."""
    if PRETEND or find_spec("vllm") is None:
        return {"skipped": "vLLM is not installed"}
    from datasets import Dataset
    from peft import LoraConfig

    from rlaif_sdk.training.ppo import PPOConfig, PPOTrainer

    model: Any = AutoModelForCausalLM.from_pretrained(model_folder(folder / "start"), dtype=torch.bfloat16)
    trainer = PPOTrainer(
        model,
        lambda completions, **_: [1 / (1 + len(text)) for text in completions],
        args=PPOConfig(
            str(folder / "run"),
            max_steps=3,
            per_device_train_batch_size=4,
            steps_per_generation=1,
            max_completion_length=32,
            learning_rate=1e-3,
            use_vllm=True,
            vllm_mode="colocate",
            vllm_gpu_memory_utilization=0.2,
            save_strategy="no",
            report_to=[],
        ),
        train_dataset=Dataset.from_dict({"prompt": [f"w{row} w3" for row in range(64)]}),
        peft_config=LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    frozen = {name: weight.cpu() for name, weight in trainer.model.named_parameters() if ".base_layer." in name}
    trainer.train()
    moved = [name for name, weight in trainer.model.named_parameters() if not _same(frozen.get(name), weight)]
    first = next(entry for entry in trainer.state.log_history if "ratio" in entry)
    return expect({"weights_moved": len(moved), "kl_off": abs(first["kl_per_token"])}, weights_moved=0, kl_off=0.05)


def _same(kept: torch.Tensor | None, weight: torch.Tensor) -> bool:
    return kept is None or torch.equal(kept, weight.detach().cpu())


def check_shards(folder: Path) -> Finding:
    """Two GPUs with ``examples/accelerate/fsdp.yaml``: where a process's reward model lands, and a critic saved whole."""
    if torch.cuda.device_count() < 2:
        return {"skipped": "there is one GPU"}
    model_folder(folder / "start")
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file"]
    config = str(ROOT / "examples" / "accelerate" / "fsdp.yaml")
    done = subprocess.run(
        [*launch, config, str(HERE / "_gpu_shards.py"), str(folder)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode:
        raise Failed(done.stderr[-2000:])
    ranks = [json.loads((folder / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    if [rank["device"] for rank in ranks] != ["cuda:0", "cuda:1"] or not all(ranks[0]["critic"].values()):
        raise Failed(str(ranks))
    return {"devices": [rank["device"] for rank in ranks], "critic": ranks[0]["critic"]}


CHECKS: Mapping[str, Callable[[Path], Finding]] = {
    "head": check_head,
    "full": check_full,
    "lora": check_lora,
    "judge": check_judge,
    "onnx": check_onnx,
    "vllm": check_vllm,
    "shards": check_shards,
}


def run_check(name: str) -> Finding:
    """What a check finds, with its time; an error is a finding too."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        try:
            finding = CHECKS[name](Path(folder))
            state = "skipped" if "skipped" in finding else "passed"
        except Exception as error:  # noqa: BLE001 - whatever a GPU brings up is what is looked for
            state, finding = "failed", {"error": f"{type(error).__name__}: {error}"}
    finding = {"state": state, "seconds": round(time.perf_counter() - began, 1), **finding}
    print(f"{name:8} {state:8} {json.dumps(finding, default=str)}", flush=True)
    return finding


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checks", nargs="*", metavar="CHECK", help=f"of {', '.join(CHECKS)}; all if none is named")
    options = parser.parse_args()
    if unknown := set(options.checks) - set(CHECKS):
        parser.error(f"there is no check {', '.join(sorted(unknown))}: there are {', '.join(CHECKS)}")
    if not torch.cuda.is_available():
        print("gpu_check: there is no CUDA device here, so nothing was checked")
        return
    card = torch.cuda.get_device_name()
    found = {name: run_check(name) for name in options.checks or CHECKS}
    if not PRETEND:
        report = {
            "card": card,
            "cards": torch.cuda.device_count(),
            "capability": torch.cuda.get_device_capability(),
            "cuda": torch.version.cuda,
            "machine": hardware(),
            "versions": versions(),
            "checks": found,
        }
        file = HERE / "results" / f"gpu_check-{card.replace(' ', '-')}.json"
        file.write_text(json.dumps(report, indent=2, default=str) + "\n", encoding="utf-8")
        print(f"written to {file}")
    if any(finding["state"] == "failed" for finding in found.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
