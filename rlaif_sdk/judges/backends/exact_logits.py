"""Logits in float32 out of a model in half precision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_ROWS = 16_384
"""Vocabulary entries converted at a time: a whole output layer in float32 would take a gigabyte."""


@contextmanager
def float32_logits(model: Any) -> Iterator[None]:
    """Inside, the output layer of a half-precision model computes in float32.

    In bfloat16 a logit of 20 has steps of 1/8, by which two labels that a judge is torn between often come out equal. A
    model whose output layer is not a plain linear one, or lies outside memory, is left as it is.
    """
    import torch

    head = model.get_output_embeddings()
    half = isinstance(head, torch.nn.Linear) and head.weight.dtype in (torch.bfloat16, torch.float16)
    if not half or head.weight.is_meta:
        yield
        return
    handle = head.register_forward_hook(_computed_in_float32)
    try:
        yield
    finally:
        handle.remove()


def _computed_in_float32(
    head: torch.nn.Linear, hidden: tuple[torch.Tensor, ...], _rounded: torch.Tensor
) -> torch.Tensor:
    """The logits (..., V) of hidden states (..., D)."""
    import torch

    states = hidden[0].float()
    logits = torch.cat([states @ weight_RD.float().T for weight_RD in torch.split(head.weight, _ROWS)], dim=-1)
    return logits if head.bias is None else logits + head.bias.float()
