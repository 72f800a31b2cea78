"""Tokenizers that put a space before every text, as Llama 2's does, change neither prompts nor labels."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest

from rlaif_sdk.conversations.templates import ChatEncoder
from rlaif_sdk.judges.backends.local import TransformersBackend

TEMPLATE = "{{ bos_token }}{% for m in messages %}[INST] {{ m['content'] }} [/INST]{% endfor %}"
TEXTS = ["Hi", "which is better, 1 or 2?", "a\nb", " led by a space", "fine </s> it says", "<s>", ""]


@pytest.fixture(scope="module", params=["prepend", "metaspace"])
def tokenizer(request: Any) -> Any:
    """A small tokenizer in the manner of Llama 2's: a space before every text, bytes for what is unknown."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    if request.param == "prepend":
        bpe.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
        bpe.pre_tokenizer = pre_tokenizers.Split("\u2581", behavior="merged_with_next")
    else:
        bpe.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    bpe.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    alphabet = [chr(code) for code in range(33, 127)] + ["\u2581"]
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    bpe.train_from_iterator(["which is better of the two A B Hi says"] * 3, trainer)
    made = PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    made.chat_template = TEMPLATE
    return made


@pytest.mark.parametrize("text", TEXTS)
def test_a_prompt_is_encoded_as_the_whole_would_be(tokenizer: Any, text: str) -> None:
    """No space is added where a message or the template goes on, and delimiters in a message stay text."""
    found = ChatEncoder(tokenizer)([{"role": "user", "content": text}])
    assert tokenizer.decode(found).removeprefix("<s>").lstrip() == f"[INST] {text} [/INST]".lstrip()
    assert found.count(tokenizer.bos_token_id) == 1
    if "s>" not in text and text:
        asked = [{"role": "user", "content": text}]
        whole = tokenizer.apply_chat_template(asked, tokenize=False)
        assert found == tokenizer(whole, add_special_tokens=False)["input_ids"]


def test_a_label_counts_with_and_without_the_tokenizers_space(tokenizer: Any) -> None:
    """The probability of "1" is that of both ways in which the answer may begin with it."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        initializer_range=0.3,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    encoder = ChatEncoder(tokenizer)
    spellings = {label: encoder.spellings(label) for label in ("1", "A")}
    assert [len(ways) for ways in spellings.values()] == [2, 2]
    asked = [{"role": "user", "content": "Which?"}]
    [found] = asyncio.run(TransformersBackend(model, tokenizer).label_logprobs([asked], list(spellings)))
    prompt = encoder(asked)
    for ways, logprob in zip(spellings.values(), found.logprobs, strict=True):
        slow = 0.0
        for way in ways:
            with torch.no_grad():
                dense = model(torch.tensor([prompt + way])).logits[0].log_softmax(-1)
            slow += math.exp(sum(dense[len(prompt) - 1 + i, token].item() for i, token in enumerate(way)))
        assert math.exp(logprob) == pytest.approx(slow, rel=1e-3)
