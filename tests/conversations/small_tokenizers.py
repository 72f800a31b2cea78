"""Small tokenizers of every kind in use, each with special tokens that act."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

WORDS = [
    "which is better of the two",
    "a user asks and the assistant answers",
    "hello world",
    "im end start think tool",
]
SPELLED = ["<|im_start|>", "<|im_end|>", "<think>", "</think>", "<tool_call>", "<s>", "</s>", "<pad>"]
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SYMBOLS = list('abcdefghijklmnopqrstuvwxyz<>|_/()[]{}":,.? ')


def byte_level() -> Any:
    """As GPT-2's and Qwen's: bytes, no normaliser."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        WORDS * 3, trainers.BpeTrainer(vocab_size=320, initial_alphabet=alphabet, show_progress=False)
    )
    return made


def lower_case() -> Any:
    """As BERT's, in lower case."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    made.train_from_iterator(
        WORDS * 3,
        trainers.WordPieceTrainer(
            vocab_size=300, special_tokens=["[UNK]", "[CLS]", "[SEP]"], initial_alphabet=SYMBOLS, show_progress=False
        ),
    )
    return made


def compatible() -> Any:
    """As XLM-R's and T5's: Unigram after NFKC, with the special tokens among the pieces."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    made = Tokenizer(models.Unigram())
    made.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    made.train_from_iterator(
        WORDS * 3,
        trainers.UnigramTrainer(
            vocab_size=120,
            special_tokens=["<unk>", "<s>", "</s>"],
            unk_token="<unk>",
            initial_alphabet=SYMBOLS,
            show_progress=False,
        ),
    )
    return made


def with_a_space_before() -> Any:
    """As Llama 2's: a space before every text, bytes for what is unknown."""
    from tokenizers import Tokenizer, decoders, models, normalizers, trainers

    made = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    made.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    made.train_from_iterator(
        WORDS * 3,
        trainers.BpeTrainer(
            vocab_size=420,
            special_tokens=["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))],
            initial_alphabet=[*SYMBOLS, "\u2581"],
            show_progress=False,
        ),
    )
    return made


def without_accents() -> Any:
    """As ALBERT's: Unigram after quotes are made plain, accents are taken off and capitals made small."""
    from tokenizers import normalizers

    made = compatible()
    made.normalizer = normalizers.Sequence(
        [
            normalizers.Replace("``", '"'),
            normalizers.NFKD(),
            normalizers.StripAccents(),
            normalizers.Lowercase(),
        ]
    )
    return made


def rewriting() -> Any:
    """Bytes, after signs that nobody sees are taken out and others are written as brackets."""
    from tokenizers import Regex, normalizers

    made = byte_level()
    made.normalizer = normalizers.Sequence(
        [
            normalizers.Replace(Regex("[\u200b\u00ad]"), ""),
            normalizers.Replace("\u00ab", "<"),
            normalizers.Replace("\u00bb", ">"),
        ]
    )
    return made


KINDS: dict[str, Callable[[], Any]] = {
    "byte level": byte_level,
    "lower case": lower_case,
    "NFKC": compatible,
    "a space before": with_a_space_before,
    "no accents": without_accents,
    "rewritten": rewriting,
}


def small_tokenizer(kind: str, *, normalized: bool = True, chat_template: str | None = CHATML) -> Any:
    """A transformers tokenizer of a kind, whose added tokens the normaliser reaches or not."""
    from tokenizers import AddedToken
    from transformers import PreTrainedTokenizerFast

    backend = KINDS[kind]()
    backend.add_special_tokens(
        [AddedToken(each, normalized=normalized) for each in SPELLED if "im_" in each or "pad" in each]
    )
    backend.add_tokens([AddedToken(each, normalized=normalized) for each in SPELLED])
    ends = {"bos_token": "<s>", "eos_token": "<|im_end|>", "pad_token": "<pad>"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, chat_template=chat_template, **ends)
