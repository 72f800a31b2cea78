"""Next-token distributions of many sequences that begin alike, with the common beginning computed once."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, takewhile
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

Tokens = Sequence[int]

_PACK_TOKENS = {"cpu": 768, "cuda": 4096}
"""Attention within a pack grows with its square, so a processor without much to run at once wants small ones."""
_TOLERANCE = {"torch.float32": 1e-3, "torch.float64": 1e-6}
_HALF_TOLERANCE = 0.25
_FULL_ATTENTION = frozenset({"full_attention"})


@dataclass(frozen=True, slots=True)
class Pack:
    """Several sequences as one row of S tokens, the shared ones once: a tree, flattened.

    Attributes:
        rows: Which sequences are in it.
        tokens: The S tokens.
        depths: For each token its position in its sequences.
        branches: For each sequence, where its own tokens begin in ``tokens``, and the places of all its tokens, from
            the first to the last.
    """

    rows: list[int]
    tokens: list[int]
    depths: list[int]
    branches: list[tuple[int, list[int]]]


def shared_length(sequences: Sequence[Tokens]) -> int:
    """How many tokens all sequences begin with in common."""
    return _common(min(sequences, key=tuple), max(sequences, key=tuple))  # the two that differ earliest


def packs(sequences: Sequence[Tokens], start: int, max_tokens: int) -> Iterator[Pack]:
    """The sequences from their ``start`` on, in packs of at most ``max_tokens`` tokens.

    Neighbours in lexicographic order share the most, so they are packed in that order. A sequence that is longer than
    the limit has a pack of its own.

    Args:
        sequences: Token sequences that have the first ``start`` tokens in common, each longer than that.
        start: Where the packs begin; these tokens are in no pack.
        max_tokens: The most tokens of a pack.
    """
    pack = Pack([], [], [], [])
    for row in sorted(range(len(sequences)), key=lambda row: tuple(sequences[row])):
        own = sequences[row][start:]
        shared = _common(own, sequences[pack.rows[-1]][start:]) if pack.rows else 0
        if pack.rows and len(pack.tokens) + len(own) - shared > max_tokens:
            yield pack
            pack, shared = Pack([], [], [], []), 0
        begin = len(pack.tokens)
        places = pack.branches[-1][1][:shared] if shared else []
        pack.rows.append(row)
        pack.branches.append((begin, [*places, *range(begin, begin + len(own) - shared)]))
        pack.tokens.extend(own[shared:])
        pack.depths.extend(range(start + shared, start + len(own)))
    if pack.rows:
        yield pack


def _common(left: Tokens, right: Tokens) -> int:
    pairs = zip(count(), left, right, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[1] == pair[2], pairs))


class SharedPrefix:
    """Runs a causal model over packs of sequences (see `rlaif_sdk.judges.backends.shared_prefix`).

    The tokens that all sequences of a call begin with go through the model once; their keys and values are kept for
    the next call, as far as it begins with the same. What only some sequences share, such as the text that two orders
    of a pair are about, stands once in a pack, whose tokens see only their own sequence.

    Args:
        model: The model, in evaluation mode and without gradients whenever this is called.
        max_tokens: The most tokens of a pack; never more than suits the device.
    """

    def __init__(self, model: Any, max_tokens: int | None = None) -> None:
        best = _PACK_TOKENS.get(model.device.type, _PACK_TOKENS["cuda"])
        self._max_tokens = min(best, max_tokens or best)
        self._model = model
        self._tokens: list[int] = []
        self._cache: Any = None

    def next_logprobs(self, sequences: Sequence[Sequence[int]], stopped: Callable[[], bool]) -> dict[int, torch.Tensor]:
        """The log-probabilities of the token after each of N sequences, (V,) each in float32, by its index.

        Args:
            sequences: Token ids, none empty.
            stopped: Asked before each forward pass; once it says so, the sequences left are not in the result.
        """
        start = min(shared_length(sequences), min(map(len, sequences)) - 1)
        found: dict[int, torch.Tensor] = {}
        try:
            self._move_to(list(sequences[0][:start]), stopped)
            for pack in packs(sequences, start, self._max_tokens):
                if stopped():
                    break
                found |= zip(pack.rows, self._run(pack), strict=True)
        except BaseException:
            self.forget()
            raise
        return found

    def forget(self) -> None:
        """Let go of the keys and values that are kept."""
        self._tokens, self._cache = [], None

    def _move_to(self, prefix: list[int], stopped: Callable[[], bool]) -> None:
        """Make the cache one of exactly this prefix, or of its beginning when told to stop."""
        import torch
        from transformers import DynamicCache

        kept = shared_length([prefix, self._tokens])
        if self._cache is None:
            self._cache, kept = DynamicCache(), 0
        self._crop(kept)
        self._tokens = prefix[:kept]
        for begin in range(kept, len(prefix), self._max_tokens):
            if stopped():
                return
            ids_1T = torch.tensor([prefix[begin : begin + self._max_tokens]], device=self._model.device)
            self._model(input_ids=ids_1T, past_key_values=self._cache, use_cache=True, **_only_logits(self._model, [0]))
            self._tokens = prefix[: begin + self._max_tokens]

    def _run(self, pack: Pack) -> torch.Tensor:
        import torch

        device = self._model.device
        last_N = [places[-1] for _, places in pack.branches]
        logits_1NV = self._model(
            input_ids=torch.tensor([pack.tokens], device=device),
            position_ids=torch.tensor([pack.depths], device=device),
            attention_mask=attention_mask(pack, len(self._tokens), self._model.dtype, device),
            past_key_values=self._cache,
            use_cache=True,
            **_only_logits(self._model, last_N),
        ).logits
        self._crop(len(self._tokens))
        logprobs_NV: torch.Tensor = logits_1NV[0].float().log_softmax(-1).cpu()
        return logprobs_NV

    def _crop(self, length: int) -> None:
        surplus = self._cache.get_seq_length() - length
        if surplus:
            self._cache.crop(-surplus)


def attention_mask(pack: Pack, start: int, dtype: torch.dtype, device: torch.device | str = "cpu") -> torch.Tensor:
    """What the S tokens of a pack see of ``start`` tokens before it and of the pack itself.

    Returns:
        mask_11SP of zeros and, where a token is not seen, the least number of the type; P = start + S.
    """
    import torch

    size = len(pack.tokens)
    hidden_SS = torch.ones(size, size, dtype=torch.bool)
    for begin, places in pack.branches:
        own = len(places) - sum(1 for place in places if place < begin)
        path = torch.tensor(places)
        rows = path[len(places) - own :]
        hidden_SS[rows[:, None], path[None, :]] = path[None, :] > rows[:, None]
    mask_SP = torch.zeros(size, start + size, dtype=dtype, device=device)
    mask_SP[:, start:].masked_fill_(hidden_SS.to(device), torch.finfo(dtype).min)
    return mask_SP[None, None]


def can_share_prefix(model: Any) -> bool:
    """Whether packs give a model's own probabilities: known by its attention, and tried on random tokens.

    Attention that looks at a window, state that runs along the sequence, and kernels that take no mask of their own
    are left to plain batches.
    """
    import torch

    config = model.config.get_text_config(decoder=True)
    windowed = getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
    layer_types = set(getattr(config, "layer_types", None) or _FULL_ATTENTION)
    if layer_types != _FULL_ATTENTION or (windowed and not getattr(config, "layer_types", None)):
        return False
    if getattr(config, "_attn_implementation", None) not in {"sdpa", "eager"} or getattr(model, "_is_stateful", False):
        return False
    draw = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, config.vocab_size, (4, 24), generator=draw).tolist()
    prompts = [tokens[0] + tokens[1] + tokens[2], tokens[0] + tokens[1] + tokens[3], tokens[0] + tokens[3]]
    try:
        found = SharedPrefix(model).next_logprobs(prompts, lambda: False)
    except (TypeError, ValueError, RuntimeError, NotImplementedError, AttributeError):
        return False
    tolerance = _TOLERANCE.get(str(model.dtype), _HALF_TOLERANCE)
    for row, prompt in enumerate(prompts):
        logits_1TV = model(input_ids=torch.tensor([prompt], device=model.device), use_cache=False).logits
        plain_V = logits_1TV[0, -1].float().log_softmax(-1).cpu()
        if not (found[row] - plain_V).abs().max() <= tolerance:
            return False
    return True


def _only_logits(model: Any, places: Sequence[int]) -> dict[str, Any]:
    import torch

    if "logits_to_keep" not in inspect.signature(model.forward).parameters:
        raise TypeError("the model gives the logits of all tokens or none")
    return {"logits_to_keep": torch.tensor(places, device=model.device)}
