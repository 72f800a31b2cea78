"""How a scoring model is read, by the model's own files: ``config.json`` and ``tokenizer_config.json``.

Both engines take every answer from here, so that the same files give the same numbers by either.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from rlaif_sdk.exceptions import ConfigError
from rlaif_sdk.models.classifier import ProblemType
from rlaif_sdk.models.encoding import TruncationSide

Side: TypeAlias = Literal["encoder", "decoder"]

_UNBOUNDED = 1_000_000
"""Tokenizers without a maximum length state one beyond this."""

DEFAULT_MAX_LENGTH = 512
"""For models that state no longest input."""

_LONGEST_INPUT = (
    "max_position_embeddings",
    "n_positions",
    "n_ctx",
    "max_seq_len",
    "seq_length",
    "max_sequence_length",
)
"""What configs call the number of tokens that a model takes."""

_LONGEST_OF_SIDE: dict[Side, tuple[str, ...]] = {
    "encoder": ("max_encoder_position_embeddings", "max_source_positions"),
    "decoder": ("max_decoder_position_embeddings", "max_target_positions"),
}
"""What those of encoder-decoders call it, which may take more on one side."""

_WITHOUT_POSITIONS = frozenset({"bloom", "rwkv"})
"""Model types without positions, whatever their configs state."""

POSITIONS_AFTER_PADDING = frozenset(
    (
        *("camembert", "data2vec-text", "esm", "ibert", "layoutlmv3", "lilt", "longformer", "luke", "markuplm"),
        *("mpnet", "roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod"),
    )
)
"""Model types that number positions from ``pad_token_id + 1``, so that many of ``max_position_embeddings`` are lost."""

_ALWAYS_FROM_TWO = frozenset({"mpnet"})
"""Those of them that do so whatever their padding token is."""

_CHANGED_BY_PADDING = frozenset({"convbert", "fnet", "mobilebert", "nystromformer", "reformer", "xlnet", "yoso"})
"""Model types that mix padding into their numbers whatever the attention mask says, or are read at the very last token."""

_TYPES_WITHOUT_A_TABLE = frozenset({"xlnet"})
"""Model types that tell the texts of a pair apart by ``token_type_ids`` and state no ``type_vocab_size``."""

_READ_AT_LAST_TOKEN = frozenset(
    (
        *("arcee", "axk1", "axk2", "biogpt", "bloom", "cohere_compass_text", "ctrl", "deepseek_v2", "deepseek_v3"),
        *("diffllama", "doge", "exaone4", "falcon", "gemma", "gemma2", "gemma3", "gemma3_text", "glm", "glm4"),
        *("gpt-sw3", "gpt2", "gpt_bigcode", "gpt_neo", "gpt_neox", "gpt_oss", "gptj", "helium", "hunyuan_v1_dense"),
        *("hunyuan_v1_moe", "jamba", "jetmoe", "llama", "minicpm3", "minimax", "ministral", "ministral3"),
        *("mistral", "mistral4", "mixtral", "modernbert-decoder", "mpt", "nemotron", "olmo", "olmo2", "olmo3"),
        *("openai-gpt", "opt", "persimmon", "phi", "phi3", "phimoe", "qwen2", "qwen2_moe", "qwen3", "qwen3_5"),
        *("qwen3_5_text", "qwen3_moe", "qwen3_next", "seed_oss", "smollm3", "stablelm", "starcoder2", "zamba"),
        *("zamba2"),
    )
)
"""Model types that transformers reads at the last token: decoders, with a head on every token."""

_PROBLEM_TYPES: tuple[ProblemType, ...] = (
    "single_label_classification",
    "multi_label_classification",
    "regression",
)


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """The arguments of `load_classifier` that both engines share, checked."""

    device: str | None
    dtype: str | None
    max_length: int | None
    tokens_per_batch: int | None
    truncation_side: TruncationSide | None

    def __post_init__(self) -> None:
        if self.max_length is not None and self.max_length < 1:
            raise ConfigError(f"max_length must be at least 1, not {self.max_length}")
        if self.tokens_per_batch is not None and self.tokens_per_batch < 1:
            raise ConfigError(f"tokens_per_batch must be at least 1, not {self.tokens_per_batch}")
        if self.truncation_side not in (None, "left", "right"):
            raise ConfigError(f"truncation_side must be 'left' or 'right', not {self.truncation_side!r}")

    def length_within(self, limit: int | None) -> int:
        """The maximum length to use with a model that takes ``limit`` tokens; 512 where neither says one."""
        if self.max_length is not None and limit is not None and self.max_length > limit:
            raise ConfigError(f"max_length is {self.max_length} where the model takes at most {limit} tokens")
        return self.max_length or limit or DEFAULT_MAX_LENGTH


def batch_tokens(stated: int | None, *, on_gpu: bool) -> int:
    """Most tokens of a forward pass: those stated, else so many as keep the device busy."""
    return stated or (16_384 if on_gpu else 1024)


@dataclass(frozen=True, slots=True)
class ScoringConfig:
    """How a model is read.

    Attributes:
        labels: The L label names, in the order of the logits.
        problem_type: What the logits mean.
        max_length: Longest input in tokens; None where no file states one.
        truncation_side: Where a longer text is cut: on the left if it is read at its last token, else as the tokenizer
            declares.
        pad_id: The model's own padding token, by which a decoder finds each row's last token; None where it has none.
        takes_token_types: Whether the texts of a pair are told apart by ``token_type_ids``.
        unpadded: Whether padding would change the numbers, so that only rows of one length share a batch.
        vocabulary: How many tokens the model knows, where its config says so; a tokenizer may have more.
    """

    labels: tuple[str, ...]
    problem_type: ProblemType
    max_length: int | None
    truncation_side: TruncationSide
    pad_id: int | None
    takes_token_types: bool
    unpadded: bool
    vocabulary: int | None = None

    @property
    def fill_id(self) -> int:
        """What fills up short rows."""
        return self.pad_id or 0


def scoring_config(config: Mapping[str, Any], tokenizer: Mapping[str, Any]) -> ScoringConfig:
    """Decide how a model is read.

    Args:
        config: Its ``config.json``.
        tokenizer: Its ``tokenizer_config.json``.

    Raises:
        ConfigError: The labels are not numbered from 0, or the ``problem_type`` is unknown.
    """
    text = _text_config(config)
    pad_id = padding_token(config)
    return ScoringConfig(
        labels=labels_from(config),
        problem_type=problem_type_of(config),
        max_length=longest_input(config, tokenizer.get("model_max_length")),
        truncation_side="left"
        if tokenizer.get("truncation_side") == "left" or text.get("model_type") in _READ_AT_LAST_TOKEN
        else "right",
        pad_id=pad_id,
        takes_token_types=_takes_token_types(text, tokenizer.get("model_input_names")),
        unpadded=text.get("model_type") in _CHANGED_BY_PADDING
        or bool(config.get("is_encoder_decoder") and pad_id in (None, text.get("eos_token_id"))),
        vocabulary=text["vocab_size"] if _is_count(text.get("vocab_size")) else None,
    )


def labels_from(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The label names in a model's config, in the order of the logits; `LABEL_0` and so on where it names none."""
    by_index = {int(index): str(name) for index, name in (config.get("id2label") or {}).items()}
    if not by_index:
        return tuple(f"LABEL_{index}" for index in range(int(config.get("num_labels", 2))))
    if sorted(by_index) != list(range(len(by_index))):
        raise ConfigError(f"id2label of the classifier's config.json must number labels from 0, not {sorted(by_index)}")
    return tuple(by_index[index] for index in range(len(by_index)))


def problem_type_of(config: Mapping[str, Any]) -> ProblemType:
    """What a model's config says its outputs are; a choice of one label where it says nothing, as transformers reads it.

    Raises:
        ConfigError: It says something unknown.
    """
    stated = config.get("problem_type")
    if stated is None:
        return "single_label_classification"
    if stated not in _PROBLEM_TYPES:
        raise ConfigError(
            f"unknown problem_type {stated!r} in the classifier's config.json",
            hint=f"one of {', '.join(_PROBLEM_TYPES)}",
        )
    known: ProblemType = stated
    return known


def longest_input(config: Mapping[str, Any], tokenizer_limit: Any = None, *, side: Side = "encoder") -> int | None:
    """How many tokens a model takes: the least that its tokenizer and its config state, by any name.

    Rotary positions could be computed beyond theirs, where the model was never trained.

    Args:
        config: Its ``config.json``.
        tokenizer_limit: Its tokenizer's ``model_max_length``.
        side: Which side of an encoder-decoder is meant; a decoder takes the same by either.

    Returns:
        The number; None where nothing bounds it: relative positions, ALiBi that is computed for any length, state
        spaces.
    """
    limits = [tokenizer_limit] if _is_count(tokenizer_limit) and tokenizer_limit < _UNBOUNDED else []
    text = _text_config(config)
    if not _is_unbounded(text):
        names = (*_LONGEST_OF_SIDE[side], *_LONGEST_INPUT)
        limits += [text[name] - _lost_positions(text) for name in names if _is_count(text.get(name))]
    return min(limits, default=None)


def _is_unbounded(text: Mapping[str, Any]) -> bool:
    kind = text.get("model_type")
    relative = "relative_attention_num_buckets" in text and kind not in POSITIONS_AFTER_PADDING
    return bool(relative or text.get("alibi") or kind in _WITHOUT_POSITIONS)


def padding_token(config: Mapping[str, Any]) -> int | None:
    """The model's padding token, if it has one that its vocabulary holds."""
    text = _text_config(config)
    pad_id, vocabulary = text.get("pad_token_id"), text.get("vocab_size")
    if not isinstance(pad_id, int) or pad_id < 0 or (isinstance(vocabulary, int) and pad_id >= vocabulary):
        return None
    return pad_id


def _text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of a config that is the text model's."""
    inner = config.get("text_config")
    return {**config, **inner} if isinstance(inner, Mapping) else config


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _lost_positions(text: Mapping[str, Any]) -> int:
    if text.get("model_type") not in POSITIONS_AFTER_PADDING:
        return 0
    pad_id = text.get("pad_token_id")
    return 2 if pad_id is None or text.get("model_type") in _ALWAYS_FROM_TWO else int(pad_id) + 1


def _takes_token_types(text: Mapping[str, Any], input_names: Any) -> bool:
    """Whether both the tokenizer makes token types, if it says what it makes, and the model has more than one."""
    if isinstance(input_names, list | tuple) and "token_type_ids" not in input_names:
        return False
    return int(text.get("type_vocab_size") or 0) > 1 or text.get("model_type") in _TYPES_WITHOUT_A_TABLE
