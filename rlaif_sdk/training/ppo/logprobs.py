"""Log-probabilities of given tokens and entropies, without a second copy of the logits.

The plain formulas keep three or four arrays of the logits' size for the backward pass; here the logits themselves are
all that is kept, and the gradient is written in closed form, a few rows at a time, over the logits if they may go.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_CHUNK_ELEMENTS = 1 << 22
_CHUNK_ELEMENTS_CPU = 1 << 20
"""Fewer on a CPU, where what stays in its cache is worth more than long kernels."""
_IMPOSSIBLE = -1e30
"""Stands for lower logits. Models rule tokens out by -inf, or by the least number of their type, which a temperature
below 1 makes -inf: times a probability of 0 that is NaN, and in the gradient it ruins every weight."""


def token_logprobs(
    logits_BTV: Tensor, ids_BT: Tensor, *, temperature: float = 1.0, overwrite: bool = False
) -> tuple[Tensor, Tensor]:
    """Log-probabilities of tokens, and entropies, under ``softmax(logits / temperature)``.

    Args:
        logits_BTV: Logits; the softmax is taken in float32 at least, whatever their type.
        ids_BT: The tokens.
        temperature: Above 0.
        overwrite: Let the backward pass write its gradient over the logits, which saves an array of their size. For
            logits that nobody reads afterwards; autograd refuses a second backward pass, or one of an operation
            before it that needs them.

    Returns:
        logprobs_BT and entropies_BT, in nats.
    """
    shape = ids_BT.shape
    logits_NV = logits_BTV.reshape(-1, logits_BTV.shape[-1])
    scores: tuple[Tensor, Tensor] = _TokenLogprobs.apply(  # type: ignore[no-untyped-call]
        logits_NV, ids_BT.reshape(-1), temperature, overwrite
    )
    logprobs_N, entropies_N = scores
    return logprobs_N.view(shape), entropies_N.view(shape)


def _scaled(logits_NV: Tensor, temperature: float) -> Tensor:
    wide = torch.promote_types(logits_NV.dtype, torch.float32)
    return (logits_NV.to(wide) / temperature).clamp_(min=_IMPOSSIBLE)


def _chunks(logits_NV: Tensor) -> list[slice]:
    elements = _CHUNK_ELEMENTS_CPU if logits_NV.device.type == "cpu" else _CHUNK_ELEMENTS
    rows = max(1, elements // logits_NV.shape[1])
    return [slice(start, start + rows) for start in range(0, logits_NV.shape[0], rows)]


class _TokenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits_NV: Tensor,
        ids_N: Tensor,
        temperature: float,
        overwrite: bool,  # noqa: FBT001 - autograd functions take no keywords
    ) -> tuple[Tensor, Tensor]:
        wide = torch.promote_types(logits_NV.dtype, torch.float32)
        normalizers_N = logits_NV.new_empty(logits_NV.shape[0], dtype=wide)
        logprobs_N, entropies_N = torch.empty_like(normalizers_N), torch.empty_like(normalizers_N)
        for rows in _chunks(logits_NV):
            scaled_nV = _scaled(logits_NV[rows], temperature)
            largest_n1 = scaled_nV.amax(dim=1, keepdim=True)
            exps_nV = (scaled_nV - largest_n1).exp_()
            sums_n = exps_nV.sum(dim=1)
            normalizers_n = sums_n.log() + largest_n1.squeeze(1)
            normalizers_N[rows] = normalizers_n
            logprobs_N[rows] = scaled_nV.gather(1, ids_N[rows, None]).squeeze(1) - normalizers_n
            entropies_N[rows] = normalizers_n - exps_nV.mul_(scaled_nV).sum(dim=1) / sums_n
        ctx.save_for_backward(logits_NV, ids_N, normalizers_N, entropies_N)
        ctx.temperature, ctx.overwrite = temperature, overwrite
        return logprobs_N, entropies_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_logprobs_N: Tensor, grad_entropies_N: Tensor) -> tuple[Tensor, None, None, None]:
        # d logprob / d scaled = onehot - p and d entropy / d scaled = -p (log p + entropy)
        logits_NV, ids_N, normalizers_N, entropies_N = ctx.saved_tensors
        grad_NV = logits_NV if ctx.overwrite else torch.empty_like(logits_NV)
        for rows in _chunks(logits_NV):
            all_logprobs_nV = _scaled(logits_NV[rows], ctx.temperature) - normalizers_N[rows, None]
            probs_nV = all_logprobs_nV.exp()
            all_logprobs_nV.add_(entropies_N[rows, None]).mul_(grad_entropies_N[rows, None])
            grad_nV = probs_nV.mul_(all_logprobs_nV.add_(grad_logprobs_N[rows, None])).neg_()
            grad_nV.scatter_add_(1, ids_N[rows, None], grad_logprobs_N[rows, None])
            grad_NV[rows] = grad_nV.div_(ctx.temperature)
        return grad_NV, None, None, None
