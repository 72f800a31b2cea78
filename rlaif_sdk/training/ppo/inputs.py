"""From prompts and completions in one row to what a transformer takes: a decoder, or an encoder and a decoder.

B rows of P + T tokens, prompts padded on the left and completions on the right, as decoder-only models have them. With an
encoder-decoder the prompt goes to the encoder, and the completion is what the decoder says.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rlaif_sdk.exceptions import TrainingError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def completion_inputs(
    model: PreTrainedModel, input_ids: Tensor, attention_mask: Tensor, completion_length: int
) -> tuple[dict[str, Any], Tensor | slice]:
    """Inputs of the model's forward pass, and the T positions of its output at which the completion is decided.

    Positions are counted over real tokens, so that padding shifts nothing (GPT-2 counts padding by itself). Where the
    model can be told which logits it is to compute, it is told these positions alone.

    Args:
        model: A transformer, with or without a language-model head.
        input_ids: B rows of P prompt tokens, padded on the left, and T completion tokens, padded on the right.
        attention_mask: 1 on their real tokens.
        completion_length: T.
    """
    if is_encoder_decoder(model):
        prompt_ids_BP, prompt_mask_BP = padded_on_the_right(
            input_ids[:, :-completion_length], attention_mask[:, :-completion_length]
        )
        completion_ids_BT = input_ids[:, -completion_length:]
        starts_B1 = torch.full_like(completion_ids_BT[:, :1], decoder_start(model))
        return {
            "input_ids": prompt_ids_BP,
            "attention_mask": prompt_mask_BP,
            "decoder_input_ids": torch.cat([starts_B1, completion_ids_BT[:, :-1]], dim=1),
            "use_cache": False,
        }, slice(None)
    length = input_ids.shape[1]
    before_T = torch.arange(length - completion_length - 1, length - 1, device=input_ids.device)
    accepted = inspect.signature(type(model).forward).parameters
    causal: dict[str, Any] = {"input_ids": input_ids, "attention_mask": attention_mask, "use_cache": False}
    if "position_ids" in accepted:
        causal["position_ids"] = (attention_mask.cumsum(dim=1) - 1).clamp(min=0)
    if "logits_to_keep" in accepted:
        return {**causal, "logits_to_keep": before_T}, slice(None)
    return causal, before_T


def is_encoder_decoder(model: Any) -> bool:
    """Whether the model has an encoder for the prompt and a decoder for the completion."""
    return bool(getattr(model.config, "is_encoder_decoder", False))


def decoder_start(model: PreTrainedModel) -> int:
    """The token that the decoder begins with; it is no part of a completion.

    Raises:
        TrainingError: The model names none.
    """
    for config in (getattr(model, "generation_config", None), model.config):
        for name in ("decoder_start_token_id", "bos_token_id"):
            token = getattr(config, name, None)
            if token is not None:
                return int(token)
    raise TrainingError(
        f"{type(model).__name__} does not say which token its decoder begins with",
        hint="set model.generation_config.decoder_start_token_id",
    )


def padded_on_the_right(ids_BP: Tensor, mask_BP: Tensor) -> tuple[Tensor, Tensor]:
    """The same rows with their padding moved behind the real tokens, which keep their order.

    Encoders with learnt absolute positions (BART) count padding that comes first.
    """
    order_BP = mask_BP.argsort(dim=1, descending=True, stable=True)
    return ids_BP.gather(1, order_BP), mask_BP.gather(1, order_BP)


@contextlib.contextmanager
def contiguous_head_input(model: PreTrainedModel) -> Iterator[None]:
    """Within, the language-model head reads a contiguous tensor.

    ``generate`` gives it a slice of the prompt's states, the last position of each row. On a CPU PyTorch multiplies such
    a slice row by row and copies the head's whole weight for every row: gigabytes for a vocabulary of 49,152.
    """
    head: Any = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    if head is None:
        yield
        return
    hook = head.register_forward_pre_hook(lambda _, args: (args[0].contiguous(), *args[1:]) if args else None)
    try:
        yield
    finally:
        hook.remove()


@contextlib.contextmanager
def generating_in_one_row(model: PreTrainedModel) -> Iterator[None]:
    """Within, ``generate`` takes prompts padded on the left and returns each with its completion, in one row.

    That is what decoder-only models do, of which nothing is changed.
    """
    if not is_encoder_decoder(model):
        yield
        return
    generate: Any = model.generate

    def in_one_row(*, input_ids: Tensor, attention_mask: Tensor, **settings: Any) -> Tensor:
        prompt_ids_BP, prompt_mask_BP = padded_on_the_right(input_ids, attention_mask)
        output: Tensor = generate(input_ids=prompt_ids_BP, attention_mask=prompt_mask_BP, **settings)
        return torch.cat([input_ids, output[:, 1:]], dim=1)

    model.generate = in_one_row  # type: ignore[assignment]
    try:
        yield
    finally:
        del model.generate
