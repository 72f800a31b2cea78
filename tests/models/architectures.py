"""A small random model of every sequence-classification architecture that transformers knows, from its config."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "d_model": 32,
    "n_embd": 32,
    "dim": 32,
    "emb_dim": 32,
    "embedding_size": 32,
    "word_embed_proj_dim": 32,
    "num_hidden_layers": 2,
    "num_layers": 2,
    "n_layer": 2,
    "n_layers": 2,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "num_decoder_layers": 2,
    "num_attention_heads": 4,
    "num_heads": 4,
    "n_head": 4,
    "n_heads": 4,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "d_kv": 8,
    "d_head": 8,
    "intermediate_size": 64,
    "hidden_dim": 64,
    "d_inner": 64,
    "d_ff": 64,
    "dff": 64,
    "ffn_dim": 64,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "max_position_embeddings": 40,
    "n_positions": 40,
    "max_seq_len": 40,
    "initializer_range": 0.3,
    "init_std": 0.3,
    "sliding_window": 16,
    "num_local_experts": 4,
    "num_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
    "tie_word_embeddings": False,
}
"""Each goes to the configs that have it."""

OWN: dict[str, dict[str, Any]] = {
    "albert": {"num_hidden_groups": 1},
    "axk1": {
        "first_k_dense_replace": 1,
        "n_group": 1,
        "topk_group": 1,
        "q_lora_rank": 16,
        "kv_lora_rank": 16,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8,
        "v_head_dim": 8,
        "head_dim": None,
    },
    "big_bird": {"attention_type": "original_full"},
    "bigbird_pegasus": {"attention_type": "original_full"},
    "deepseek_v2": {
        "kv_lora_rank": 16,
        "q_lora_rank": 16,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8,
        "v_head_dim": 8,
        "n_group": 1,
        "topk_group": 1,
    },
    "funnel": {"block_sizes": [1, 1], "num_decoder_layers": 1},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 8},
    "gptj": {"rotary_dim": 4},
    "longformer": {"attention_window": 8},
    "mobilebert": {"intra_bottleneck_size": 16, "embedding_size": 32},
    "modernbert": {"local_attention": 8, "global_attn_every_n_layers": 2},
    "deberta-v2": {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False},
    "reformer": {
        "attn_layers": ["local", "local"],
        "axial_pos_shape": [5, 8],
        "axial_pos_embds_dim": [16, 16],
        "local_attn_chunk_length": 8,
        "lsh_attn_chunk_length": 8,
        "is_decoder": False,
        "attention_head_size": 8,
        "feed_forward_size": 64,
    },
    "perceiver": {
        "num_latents": 8,
        "d_latents": 16,
        "num_blocks": 1,
        "num_self_attends_per_block": 1,
        "num_self_attention_heads": 2,
        "num_cross_attention_heads": 2,
    },
    "esmc": {"num_key_value_heads": 4},
    "roc_bert": {
        "pronunciation_vocab_size": 60,
        "shape_vocab_size": 60,
        "pronunciation_embed_dim": 8,
        "shape_embed_dim": 8,
    },
    "luke": {"entity_vocab_size": 10},
    "markuplm": {
        "max_depth": 4,
        "xpath_unit_hidden_size": 8,
        "max_xpath_tag_unit_embeddings": 8,
        "max_xpath_subs_unit_embeddings": 8,
    },
    "layoutlm": {"max_2d_position_embeddings": 8},
    "t5": {"decoder_start_token_id": 0},
    "xmod": {"languages": ["en_XX"], "default_language": "en_XX"},
}
"""What an architecture wants besides."""


NOT_BUILT = {
    "axk1": "its latent attention has sizes that depend on each other",
    "axk2": "as axk1",
    "canine": "reads characters, by a tokenizer without a fast version",
    "cohere_compass_text": "its config has no small form",
    "deepseek_v2": "as axk1",
    "deepseek_v3": "as axk1",
    "gemma3": "reads images too; gemma3_text is its text model",
    "jamba": "its cache does not fit two layers",
    "layoutlmv2": "needs detectron2",
    "layoutlmv3": "needs pages with images",
    "lilt": "needs pages with boxes",
    "minicpm3": "as axk1",
    "mistral4": "as axk1",
    "modernvbert": "reads images too; modernbert is its text model",
    "qwen3_5": "as jamba",
    "qwen3_5_text": "as jamba",
    "qwen3_next": "as jamba",
    "t5gemma": "its encoder and decoder have configs of their own",
    "t5gemma2": "as t5gemma",
    "ultravbert": "reads images too; ultrabert is its text model",
    "zamba": "as jamba",
    "zamba2": "as jamba",
}
"""Architectures that no small config builds, and why."""


def small_model(model_type: str, **settings: Any) -> PreTrainedModel:
    """A classifier of an architecture with random weights that are large enough for its outputs to differ."""
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    known = AutoConfig.for_model(model_type).to_dict()
    sizes = {name: size for name, size in SIZES.items() if name in known}
    special = {"vocab_size": 60, "pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 3, "num_labels": 1}
    config = AutoConfig.for_model(model_type, **{**sizes, **special, **OWN.get(model_type, {}), **settings})
    for name in ("pad_token_id", "problem_type"):
        if name in settings:
            setattr(config, name, settings[name])
    torch.manual_seed(5)
    return AutoModelForSequenceClassification.from_config(config).eval()
