"""Encoder-decoder policies: prompts go to the encoder, completions are what the decoder says.

Everywhere else prompts and completions stand in one row, B rows of P + T tokens, prompts padded on the left, as
decoder-only models have them. Here is where that becomes the input of an encoder and of a decoder, and back.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rlaif_sdk.exceptions import TrainingError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


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


def encoder_decoder_inputs(
    model: PreTrainedModel, input_ids: Tensor, attention_mask: Tensor, completion_length: int
) -> dict[str, Tensor]:
    """Inputs that give one output a completion token.

    Args:
        model: Knows the token that the decoder begins with.
        input_ids: B rows of P prompt tokens, padded on the left, and T completion tokens, padded on the right.
        attention_mask: 1 on their real tokens.
        completion_length: T.
    """
    prompt_ids_BP, prompt_mask_BP = padded_on_the_right(
        input_ids[:, :-completion_length], attention_mask[:, :-completion_length]
    )
    completion_ids_BT = input_ids[:, -completion_length:]
    starts_B1 = torch.full_like(completion_ids_BT[:, :1], decoder_start(model))
    return {
        "input_ids": prompt_ids_BP,
        "attention_mask": prompt_mask_BP,
        "decoder_input_ids": torch.cat([starts_B1, completion_ids_BT[:, :-1]], dim=1),
    }


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
