"""Texts a second on a GPU: an exported reward model beside PyTorch in half precision, eager and compiled.

Not run yet: no GPU was at hand when it was written. Without one it says so and measures nothing.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}

import torch
from _report import interleaved, median_ratio, save
from _reward_models import LONGEST, MAKERS, ragged
from tokenizers import Tokenizer

from rlaif_sdk import OnnxScorer, export_classifier
from rlaif_sdk.models.scoring_config import LoadOptions
from rlaif_sdk.models.torch_engine import load_torch_classifier

HERE = Path(__file__).parent
BASE = "PyTorch float16, SDPA"


def torch_side(model: Path, dtype: str, texts: list[str], *, compiled: bool = False) -> Callable[[], Any]:
    """Sorted batches of 16,384 tokens through transformers, as the SDK's own backend makes them."""
    options = LoadOptions("cuda", dtype, LONGEST, 16_384, "right")
    classifier = load_torch_classifier(str(model), options, revision=None)
    if compiled:
        classifier._network.compile(dynamic=True)  # noqa: SLF001 - what a user would call on a model of their own
    return lambda: classifier.logits(texts)


def product_rate(size: int = 8192, times: int = 20) -> float:
    """The GPU's rate of bfloat16 matrix products, in TFLOP/s."""
    one = torch.randn(size, size, device="cuda", dtype=torch.bfloat16)
    rates = []
    for _ in range(5):
        torch.cuda.synchronize()
        since = time.perf_counter()
        for _ in range(times):
            one @ one
        torch.cuda.synchronize()
        rates.append(2 * size**3 * times / (time.perf_counter() - since) / 1e12)
    return statistics.median(rates)


def measure(name: str, rows: int, rounds: int, cache: Path) -> dict[str, Any]:
    """Medians of each side over one set of ragged texts."""
    from scoring import operations

    model, exported = cache / name, cache / f"{name}-onnx-gpu"
    if not model.is_dir():
        MAKERS[name](model)
    if not exported.is_dir():
        export_classifier(
            model, exported, variants=["fp16", "bf16"], max_length=LONGEST, truncation_side="right", min_agreement=0.0
        )
    texts = ragged(Tokenizer.from_file(str(model / "tokenizer.json")), rows)
    scorers = {variant: OnnxScorer(exported, variant=variant, device="cuda") for variant in ("fp16", "bf16")}
    sides = {
        BASE: torch_side(model, "float16", texts),
        "PyTorch bfloat16, SDPA": torch_side(model, "bfloat16", texts),
        "PyTorch float16, torch.compile": torch_side(model, "float16", texts, compiled=True),
        **{f"exported, {variant}": lambda one=one: one.score(texts) for variant, one in scorers.items()},
    }
    seconds = interleaved(sides, repeats=rounds)
    work, tokens = operations(model, texts)
    return {
        side: {
            "texts a second": rows / statistics.median(taken),
            "times PyTorch float16": 1 / median_ratio(taken, seconds[BASE]),
            "TFLOP/s on real tokens": work / statistics.median(taken) / 1e12,
            "tokens": tokens,
        }
        for side, taken in seconds.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=900)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--cache", type=Path, default=HERE.parent / "build" / "scoring", help="keeps models and exports"
    )
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("there is no GPU here, so nothing is measured")
        return
    options.cache.mkdir(parents=True, exist_ok=True)
    rate = product_rate()
    results = {name: measure(name, options.rows, options.rounds, options.cache) for name in MAKERS}
    lines = [
        f"| {name} | {side} | {one['texts a second']:,.0f} | {one['times PyTorch float16']:.2f} "
        f"| {one['TFLOP/s on real tokens'] / rate:.2f} |"
        for name, sides in results.items()
        for side, one in sides.items()
    ]
    heading = f"{options.rows} ragged texts on {torch.cuda.get_device_name()}, bfloat16 products {rate:.0f} TFLOP/s:"
    columns = "| | | texts a second | times PyTorch float16 | of the bfloat16 rate |"
    save(
        "gpu_scoring",
        {"rate (TFLOP/s)": rate, **results},
        "\n".join([heading, "", columns, "|---|---|---|---|---|", *lines]),
    )


if __name__ == "__main__":
    main()
