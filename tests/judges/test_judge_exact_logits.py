"""A judge in half precision reads its labels from logits that were not rounded to it."""

from __future__ import annotations

import asyncio
import copy
from typing import Any

import pytest
import torch

from rlaif_sdk.judges.backends import local
from rlaif_sdk.judges.backends.local import TransformersBackend, float32_logits

LETTERS = list("ABCDEFGHIJ")


@pytest.fixture
def half_chat(tiny_chat: tuple[Any, Any]) -> tuple[Any, Any]:
    """The tiny chat model in bfloat16, with logits of the size that real models have, and a bias."""
    model, tokenizer = copy.deepcopy(tiny_chat)
    head = model.get_output_embeddings()
    with torch.no_grad():
        head.weight *= 4
    head.bias = torch.nn.Parameter(torch.linspace(-1, 1, head.out_features))
    return model.to(torch.bfloat16), tokenizer


def unrounded_logprobs(model: Any, ids: list[int]) -> Any:
    """The last token's log-probabilities from the hidden state of a bfloat16 model, by a matrix product in float64."""
    with torch.no_grad():
        state = model.model(input_ids=torch.tensor([ids])).last_hidden_state[0, -1].double()
        head = model.get_output_embeddings()
        return (head.weight.double() @ state + head.bias.double()).log_softmax(-1)


def test_labels_of_a_half_precision_judge_are_not_rounded(
    half_chat: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log-probabilities are those of the exact output layer, also when it is converted piece by piece."""
    monkeypatch.setattr(local, "_ROWS", 100)
    model, tokenizer = half_chat
    request = [{"role": "user", "content": "Which is better?"}]
    ids = tokenizer.apply_chat_template(request, add_generation_prompt=True, return_dict=False)
    exact = unrounded_logprobs(model, ids)
    backend = TransformersBackend(model, tokenizer, share_prefix=False)
    [found] = asyncio.run(backend.label_logprobs([request], LETTERS))
    expected = [exact[tokenizer.convert_tokens_to_ids(letter)].item() for letter in LETTERS]
    assert found.logprobs == pytest.approx(expected, abs=1e-4)


def test_the_model_is_given_back_as_it_was(half_chat: tuple[Any, Any]) -> None:
    """Logits are in float32 inside only, also after an error."""
    model, _ = half_chat
    ids = torch.tensor([[1, 2, 3]])
    with float32_logits(model):
        assert model(input_ids=ids).logits.dtype == torch.float32
    with pytest.raises(IndexError), float32_logits(model):
        model(input_ids=ids + model.config.vocab_size)
    assert model(input_ids=ids).logits.dtype == torch.bfloat16


def test_a_float32_model_computes_as_ever(tiny_chat: tuple[Any, Any]) -> None:
    """Where nothing was rounded, nothing changes."""
    model, _ = tiny_chat
    ids = torch.tensor([[1, 2, 3]])
    expected = model(input_ids=ids).logits
    with float32_logits(model):
        assert torch.equal(model(input_ids=ids).logits, expected)
