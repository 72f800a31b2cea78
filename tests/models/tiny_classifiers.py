"""A small classifier of every architecture that can be exported, from its config, with a tokenizer of characters."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import pytest

SHAPE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
}
GROUPED = {"num_key_value_heads": 2, "head_dim": 8}
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "<|turn|>")
ALPHABET = [*string.ascii_lowercase, *string.digits, *".,!?:;'-()/"]
VOCABULARY = len(SPECIAL) + len(ALPHABET)
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] not in ['user', 'assistant'] %}{{ raise_exception('no role ' ~ message['role']) }}{% endif %}"
    "<|turn|>{{ message['role'] }}: {{ message['content'] | trim }}\n{% endfor %}"
)

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("Bert", SHAPE),
    "roberta": ("Roberta", {**SHAPE, "max_position_embeddings": 66}),
    "xlm-roberta": ("XLMRoberta", {**SHAPE, "max_position_embeddings": 66}),
    "distilbert": (
        "DistilBert",
        {
            "dim": 32,
            "n_layers": 2,
            "n_heads": 4,
            "hidden_dim": 64,
            "max_position_embeddings": 64,
            "initializer_range": 0.3,
        },
    ),
    "deberta-v2": (
        "DebertaV2",
        {
            **SHAPE,
            "relative_attention": True,
            "pos_att_type": ["p2c", "c2p"],
            "position_buckets": 16,
            "share_att_key": True,
            "norm_rel_ebd": "layer_norm",
            "position_biased_input": False,
            "type_vocab_size": 0,
        },
    ),
    "modernbert": ("ModernBert", {**SHAPE, "global_attn_every_n_layers": 2, "local_attention": 8}),
    "llama": ("Llama", {**SHAPE, **GROUPED}),
    "qwen2": ("Qwen2", {**SHAPE, "num_key_value_heads": 2}),
    "qwen3": ("Qwen3", {**SHAPE, **GROUPED}),
    "gemma2": ("Gemma2", {**SHAPE, **GROUPED, "sliding_window": 8}),
    "gemma3": ("Gemma3Text", {**SHAPE, **GROUPED, "sliding_window": 8}),
    "gpt2": ("GPT2", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "initializer_range": 0.3}),
}


def marked(*ordinary: str) -> list[Any]:
    """All families as the values of a parameter, of which the ordinary tests take some, and the slow ones the others."""
    return [pytest.param(family, marks=[] if family in ordinary else pytest.mark.slow) for family in FAMILIES]


DECODERS = frozenset({"llama", "qwen2", "qwen3", "gemma2", "gemma3", "gpt2"})


def build(folder: Path, family: str, *, labels: int = 1, **config: Any) -> Path:
    """Save a classifier of a family with random weights that are large enough for its logits to differ."""
    import torch
    import transformers

    torch.manual_seed(11)
    prefix, shape = FAMILIES[family]
    pad_id = 1 if "roberta" in family else 0
    ids = {"pad_token_id": pad_id, "bos_token_id": 2, "eos_token_id": 3}
    settings = {"vocab_size": VOCABULARY, "num_labels": labels, **ids, **shape, **config}
    network = getattr(transformers, f"{prefix}ForSequenceClassification")(
        getattr(transformers, f"{prefix}Config")(**settings)
    )
    network.save_pretrained(folder)
    write_tokenizer(folder, pad_id=pad_id, of_decoder=family in DECODERS, of_bert=family == "bert")
    return folder


def write_tokenizer(folder: Path, *, pad_id: int = 0, of_decoder: bool, of_bert: bool = False) -> None:
    """Write a tokenizer of single characters; an encoder's puts ``[CLS]`` and ``[SEP]`` around a text."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ("[UNK]", "[PAD]", *SPECIAL[2:]) if pad_id else SPECIAL
    tokenizer = Tokenizer(
        models.WordLevel({word: index for index, word in enumerate([*special, *ALPHABET])}, unk_token="[UNK]")
    )
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    if not of_decoder:
        tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = ["input_ids", *(["token_type_ids"] if of_bert else []), "attention_mask"]
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        bos_token="[CLS]",
        eos_token="[SEP]",
        additional_special_tokens=["<|turn|>"],
        model_max_length=64,
        model_input_names=names,
        chat_template=CHAT_TEMPLATE if of_decoder else None,
    ).save_pretrained(folder)
