"""A tiny Llama and a tokenizer of words, built from configs: nothing is downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

WORDS = [f"w{index}" for index in range(28)]


def word_tokenizer(*roles: str, **settings: Any) -> PreTrainedTokenizerFast:
    """A token a word: three special ones, then the roles of a chat, then `WORDS`."""
    vocabulary = {word: index for index, word in enumerate(["<pad>", "<eos>", "<unk>", *roles, *WORDS])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"pad_token": "<pad>", "eos_token": "<eos>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, padding_side="left", **special, **settings)


def tiny_llama(**settings: Any) -> LlamaForCausalLM:
    """Two layers of random weights, the same each time."""
    torch.manual_seed(0)
    shape = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
    }
    ids = {"bos_token_id": None, "eos_token_id": 1, "pad_token_id": 0}
    return LlamaForCausalLM(LlamaConfig(**{**shape, **ids, **settings}))


@pytest.fixture(autouse=True)
def quiet_and_single_threaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """No model hub is asked, and no test takes the cores of another."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    torch.set_num_threads(1)


def accept_renamed_checkpointing(items: list[pytest.Item], folder: Path) -> None:
    """TRL 1.16 uses names with ``gradient_checkpointing`` that transformers 5.23 renamed to ``activation_...``."""
    for item in items:
        if folder in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning"))


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """A token a byte, and Qwen3's chat template, of which TRL knows how tools are called."""
    from tokenizers import decoders
    from trl.chat_template_utils import qwen3_chat_template

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokens = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    backend = Tokenizer(models.BPE(vocab={token: index for index, token in enumerate(tokens)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        extra_special_tokens=["<|im_start|>"],
        chat_template=qwen3_chat_template,
        padding_side="left",
    )
