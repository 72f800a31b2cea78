"""Log-probabilities of given tokens and entropies, without the arrays of the logits' size that plain formulas keep.

The gradient is written in closed form, a part of the logits at a time. From the states and the weight of a
language-model head, only that part of the logits exists; from logits, they are all that is kept, and the gradient goes
over them if they may go. N tokens, n of them at a time, H hidden size, V vocabulary, v of it at a time.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rlaif_sdk.exceptions import TrainingError

_CHUNK_ELEMENTS = 1 << 22
_CHUNK_ELEMENTS_CPU = 1 << 20
"""Fewer on a CPU, where what stays in its cache is worth more than long kernels."""
MADE_ELEMENTS = 1 << 26
MADE_ELEMENTS_CPU = 1 << 21
"""More where the logits of a part are made too, for large matrix products."""
_IMPOSSIBLE = -1e30
"""Stands for lower logits. Models rule tokens out by -inf, or by the least number of their type, which a temperature
below 1 makes -inf: times a probability of 0 that is NaN, and in the gradient it ruins every weight."""


def token_logprobs(
    logits_BTV: Tensor, ids_BT: Tensor, *, temperature: float = 1.0, overwrite: bool = False
) -> tuple[Tensor, Tensor]:
    """Log-probabilities of tokens, and entropies, under ``softmax(logits / temperature)``.

    Args:
        logits_BTV: Logits; the softmax is taken in float32 at least, whatever their type.
        ids_BT: The tokens, each from 0 to V - 1.
        temperature: Above 0.
        overwrite: Let the backward pass write its gradient over the logits, which saves an array of their size. For
            logits that nobody reads afterwards; autograd refuses a second backward pass, or one of an operation
            before it that needs them.

    Returns:
        logprobs_BT and entropies_BT, in nats.

    Raises:
        TrainingError: A token is outside the vocabulary. CUDA says so itself, as an assertion, when it gets there.
    """
    _check_range(ids_BT, logits_BTV.shape[-1])
    logits_NV = logits_BTV.reshape(-1, logits_BTV.shape[-1])
    scores: tuple[Tensor, Tensor] = _OfLogits.apply(  # type: ignore[no-untyped-call]
        logits_NV, ids_BT.reshape(-1), temperature, overwrite
    )
    logprobs_N, entropies_N = scores
    return logprobs_N.view(ids_BT.shape), entropies_N.view(ids_BT.shape)


def head_logprobs(
    states_BTH: Tensor, weight_VH: Tensor, ids_BT: Tensor, *, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """`token_logprobs` of the logits ``states @ weight.T``, which never exist as a whole.

    The backward pass computes them a second time: one more product with the weight, for B times T times V numbers less
    in memory. Under autocast the products are taken in its type, as those of a linear layer.

    Args:
        states_BTH: What the language-model head reads.
        weight_VH: Its weight.
        ids_BT: The tokens, each from 0 to V - 1.
        temperature: Above 0.

    Returns:
        logprobs_BT and entropies_BT, in nats.

    Raises:
        TrainingError: A token is outside the vocabulary. CUDA says so itself, as an assertion, when it gets there.
    """
    _check_range(ids_BT, weight_VH.shape[0])
    states_NH = states_BTH.reshape(-1, states_BTH.shape[-1])
    device = states_NH.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        states_NH, weight_VH = states_NH.to(dtype), weight_VH.to(dtype)
    scores: tuple[Tensor, Tensor] = _OfHead.apply(  # type: ignore[no-untyped-call]
        states_NH, weight_VH, ids_BT.reshape(-1), temperature
    )
    logprobs_N, entropies_N = scores
    return logprobs_N.view(ids_BT.shape), entropies_N.view(ids_BT.shape)


def _check_range(ids_BT: Tensor, size: int) -> None:
    """Refuse tokens outside a vocabulary; a GPU is not waited for, and asserts it itself."""
    if not ids_BT.numel():
        return
    lowest, highest = ids_BT.aminmax()
    if ids_BT.is_cuda:
        inside = (lowest >= 0) & (highest < size)
        torch._assert_async(inside, f"a token is outside the vocabulary of {size}")  # noqa: SLF001 - no public one
    elif lowest < 0 or highest >= size:
        raise TrainingError(
            f"the tokens range from {int(lowest)} to {int(highest)}, and the model's vocabulary from 0 to {size - 1}",
            hint="score tokens of the model's own tokenizer, padded with one of them instead of with labels' -100",
        )


def _parts(length: int, other: int, elements: int) -> list[slice]:
    """Slices of a side of a matrix, such that a part has about so many elements; one at least."""
    step = max(1, elements // max(1, other))
    return [slice(start, start + step) for start in range(0, max(1, length), step)]


def _scaled(logits_NV: Tensor, temperature: float, *, keep: bool) -> Tensor:
    """Logits over the temperature, in float32 at least; in their place unless they are to be kept."""
    wide = torch.promote_types(logits_NV.dtype, torch.float32)
    return logits_NV.to(wide, copy=keep).div_(temperature).clamp_(min=_IMPOSSIBLE)


class _Softmax:
    """What a softmax says of given tokens, a part of the vocabulary after another (Milakov 2018, arXiv:1805.02867)."""

    def __init__(self, ids_N: Tensor, dtype: torch.dtype) -> None:
        self.ids_N = ids_N
        self.largest_N = torch.full(ids_N.shape, -torch.inf, dtype=dtype, device=ids_N.device)
        self.sums_N, self.weighted_N, self.chosen_N = (torch.zeros_like(self.largest_N) for _ in range(3))

    def add(self, scaled_Nv: Tensor, first: int = 0) -> None:
        """Take in the part of the vocabulary that begins at ``first``."""
        largest_N = torch.maximum(self.largest_N, scaled_Nv.amax(dim=1))
        shrunk_N = (self.largest_N - largest_N).exp_()
        exps_Nv = (scaled_Nv - largest_N[:, None]).exp_()
        self.sums_N = self.sums_N * shrunk_N + exps_Nv.sum(dim=1)
        self.weighted_N = self.weighted_N * shrunk_N + exps_Nv.mul_(scaled_Nv).sum(dim=1)
        places_N, is_here_N = _places(self.ids_N, first, scaled_Nv.shape[1])
        here_N = scaled_Nv.gather(1, places_N[:, None]).squeeze(1)
        self.chosen_N = torch.where(is_here_N, here_N, self.chosen_N)
        self.largest_N = largest_N

    def scores(self) -> tuple[Tensor, Tensor, Tensor]:
        """logprobs_N, entropies_N and normalizers_N, the logarithms of the sums that the softmax divides by."""
        normalizers_N = self.sums_N.log() + self.largest_N
        return self.chosen_N - normalizers_N, normalizers_N - self.weighted_N / self.sums_N, normalizers_N


def _places(ids_N: Tensor, first: int, size: int) -> tuple[Tensor, Tensor]:
    """Where tokens are in a part of the vocabulary, and whether they are in it; 0 or the last place if not."""
    places_N = ids_N - first
    return places_N.clamp(0, size - 1), (places_N >= 0) & (places_N < size)


class _Scored(NamedTuple):
    """What the forward pass keeps of N tokens, and the gradients that reach them."""

    ids_N: Tensor
    entropies_N: Tensor
    normalizers_N: Tensor
    grad_logprobs_N: Tensor
    grad_entropies_N: Tensor

    def gradient(self, scaled_Nv: Tensor, temperature: float, first: int = 0) -> Tensor:
        """The gradient of the part of the logits that begins at ``first``, written over them.

        d logprob / d scaled = onehot - p and d entropy / d scaled = -p (log p + entropy).
        """
        all_logprobs_Nv = scaled_Nv.sub_(self.normalizers_N[:, None])
        probs_Nv = all_logprobs_Nv.exp()
        all_logprobs_Nv.add_(self.entropies_N[:, None]).mul_(self.grad_entropies_N[:, None])
        grad_Nv = all_logprobs_Nv.add_(self.grad_logprobs_N[:, None]).mul_(probs_Nv).neg_()
        places_N, is_here_N = _places(self.ids_N, first, grad_Nv.shape[1])
        grad_Nv.scatter_add_(1, places_N[:, None], (self.grad_logprobs_N * is_here_N)[:, None])
        return grad_Nv.div_(temperature)


class _OfLogits(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits_NV: Tensor,
        ids_N: Tensor,
        temperature: float,
        overwrite: bool,  # noqa: FBT001 - autograd functions take no keywords
    ) -> tuple[Tensor, Tensor]:
        elements = _CHUNK_ELEMENTS_CPU if logits_NV.device.type == "cpu" else _CHUNK_ELEMENTS
        ctx.parts, scores = _parts(logits_NV.shape[0], logits_NV.shape[1], elements), []
        for rows in ctx.parts:
            scaled_nV = _scaled(logits_NV[rows], temperature, keep=True)
            softmax = _Softmax(ids_N[rows], scaled_nV.dtype)
            softmax.add(scaled_nV)
            scores.append(softmax.scores())
        logprobs_N, entropies_N, normalizers_N = (torch.cat(column) for column in zip(*scores, strict=True))
        ctx.save_for_backward(logits_NV, ids_N, entropies_N, normalizers_N)
        ctx.temperature, ctx.overwrite = temperature, overwrite
        return logprobs_N, entropies_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads_N: Tensor) -> tuple[Tensor, None, None, None]:
        logits_NV, *kept_N = ctx.saved_tensors
        grad_NV = logits_NV if ctx.overwrite else torch.empty_like(logits_NV)
        for rows in ctx.parts:
            scored = _Scored(*(x_N[rows] for x_N in (*kept_N, *grads_N)))
            scaled_nV = _scaled(logits_NV[rows], ctx.temperature, keep=True)
            grad_NV[rows] = scored.gradient(scaled_nV, ctx.temperature)
        return grad_NV, None, None, None


def _product(states_NH: Tensor, weight_vH: Tensor) -> Tensor:
    """``states @ weight.T``, on CUDA in float32 at least, as it is summed there: rounded, a ratio is some 2% off."""
    if states_NH.is_cuda and states_NH.dtype.itemsize < 4:
        return torch.mm(states_NH, weight_vH.T, out_dtype=torch.float32)
    return states_NH @ weight_vH.T


class _OfHead(torch.autograd.Function):
    """Goes over the vocabulary, not the tokens: each row of the weight, which is large, is read once a pass."""

    @staticmethod
    def forward(
        ctx: Any, states_NH: Tensor, weight_VH: Tensor, ids_N: Tensor, temperature: float
    ) -> tuple[Tensor, Tensor]:
        elements = MADE_ELEMENTS_CPU if states_NH.device.type == "cpu" else MADE_ELEMENTS
        ctx.parts = _parts(weight_VH.shape[0], states_NH.shape[0], elements)
        softmax = _Softmax(ids_N, torch.promote_types(states_NH.dtype, torch.float32))
        for words in ctx.parts:
            softmax.add(_scaled(_product(states_NH, weight_VH[words]), temperature, keep=False), words.start)
        logprobs_N, entropies_N, normalizers_N = softmax.scores()
        ctx.save_for_backward(states_NH, weight_VH, ids_N, entropies_N, normalizers_N)
        ctx.temperature = temperature
        return logprobs_N, entropies_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads_N: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        states_NH, weight_VH, *kept_N = ctx.saved_tensors
        wants_states, wants_weight, *_ = ctx.needs_input_grad
        scored = _Scored(*kept_N, *grads_N)
        # Summed over parts, in float32 so that many round no more than one.
        grad_states_NH = torch.zeros_like(states_NH, dtype=scored.normalizers_N.dtype)
        grad_weight_VH = torch.empty_like(weight_VH) if wants_weight else None
        # The products are of the forward pass's types, whatever the caller's autocast says by now.
        with torch.autocast(states_NH.device.type, enabled=False):
            for words in ctx.parts:
                weight_vH = weight_VH[words]
                scaled_Nv = _scaled(_product(states_NH, weight_vH), ctx.temperature, keep=False)
                grad_Nv = scored.gradient(scaled_Nv, ctx.temperature, words.start).to(states_NH.dtype)
                if wants_states:
                    grad_states_NH += grad_Nv @ weight_vH
                if grad_weight_VH is not None:
                    torch.mm(grad_Nv.T, states_NH, out=grad_weight_VH[words])
        return grad_states_NH.to(states_NH.dtype) if wants_states else None, grad_weight_VH, None, None
