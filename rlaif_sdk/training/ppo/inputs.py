"""From prompts and completions in one row to the inputs that a transformer takes. B rows, P prompt, T completion tokens."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rlaif_sdk.training.ppo.encoder_decoder import encoder_decoder_inputs, is_encoder_decoder

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
        inputs = encoder_decoder_inputs(model, input_ids, attention_mask, completion_length)
        return {**inputs, "use_cache": False}, slice(None)
    length = input_ids.shape[1]
    before_T = torch.arange(length - completion_length - 1, length - 1, device=input_ids.device)
    accepted = inspect.signature(type(model).forward).parameters
    causal: dict[str, Any] = {"input_ids": input_ids, "attention_mask": attention_mask, "use_cache": False}
    if "position_ids" in accepted:
        causal["position_ids"] = (attention_mask.cumsum(dim=1) - 1).clamp(min=0)
    if "logits_to_keep" in accepted:
        return {**causal, "logits_to_keep": before_T}, slice(None)
    return causal, before_T
