"""One rival scorer in an environment of its own, which scores the texts whenever it is told to.

``optimum`` is its ONNX Runtime model, given sorted batches of 1,024 tokens, since it makes none itself; ``cross-encoder``
is that of sentence-transformers with its ONNX backend, which sorts and makes batches of 16 itself; it takes pairs of
texts only, so it is given the halves of each, which changes the scores and not the work. Both export the model themselves.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}

TOKENS_PER_BATCH = 1024


def batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Rows by length, in batches of so many tokens with padding."""
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if batch and (len(batch) + 1) * lengths[batch[0]] > TOKENS_PER_BATCH:
            yield batch
            batch = []
        batch.append(row)
    yield batch


def optimum(model: Path, exported: Path) -> Callable[[list[str]], list[float]]:
    import onnxruntime
    from optimum.onnxruntime import ORTModelForSequenceClassification
    from transformers import AutoTokenizer

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    if not exported.is_dir():
        ORTModelForSequenceClassification.from_pretrained(model, export=True).save_pretrained(exported)
    network: Any = ORTModelForSequenceClassification.from_pretrained(exported, session_options=options)
    tokenizer = AutoTokenizer.from_pretrained(model)

    def score(texts: list[str]) -> list[float]:
        encoded = tokenizer(texts, truncation=True, max_length=512)
        scores = [0.0] * len(texts)
        for rows in batches([len(ids) for ids in encoded["input_ids"]]):
            inputs = {name: [values[row] for row in rows] for name, values in encoded.items()}
            padded = tokenizer.pad(inputs, return_tensors="pt")
            for row, logits in zip(rows, network(**padded).logits.tolist(), strict=True):
                scores[row] = logits[0]
        return scores

    return score


def cross_encoder(model: Path, exported: Path) -> Callable[[list[str]], list[float]]:
    import onnxruntime
    import torch
    from sentence_transformers import CrossEncoder

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    settings = {"session_options": options, "provider": "CPUExecutionProvider"}
    source = exported if exported.is_dir() else model
    encoder = CrossEncoder(str(source), backend="onnx", max_length=512, model_kwargs=settings, device="cpu")
    if not exported.is_dir():
        encoder.save_pretrained(str(exported))

    def score(texts: list[str]) -> list[float]:
        halves = [(text[: len(text) // 2], text[len(text) // 2 :]) for text in texts]
        identity = torch.nn.Identity()
        scores = encoder.predict(halves, batch_size=16, show_progress_bar=False, activation_fn=identity)
        return [float(one) for one in scores]

    return score


RIVALS = {"optimum": optimum, "cross-encoder": cross_encoder}


def main() -> None:
    import torch

    torch.set_num_threads(1)
    name, model, cache, texts_file = sys.argv[1], *map(Path, sys.argv[2:])
    score = RIVALS[name](model, cache / f"{model.name}-{name}")
    texts: list[str] = json.loads(texts_file.read_text(encoding="utf-8"))
    for command in sys.stdin:
        figures: dict[str, Any] = {}
        if command.strip() == "go":
            wall, cpu = time.perf_counter(), time.process_time()
            scores = score(texts)
            figures = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu, "scores": scores}
        print(f"turn {json.dumps(figures)}", flush=True)
        if command.strip() == "stop":
            break


if __name__ == "__main__":
    main()
