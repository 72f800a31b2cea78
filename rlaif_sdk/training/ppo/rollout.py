"""A rollout: completions, what was known of them when they were sampled, and the minibatches made from it.

B rows, P prompt tokens (padded on the left), T completion tokens (padded on the right).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from rlaif_sdk.training.ppo.kl import estimate_kl


@dataclass(frozen=True, slots=True)
class Tokens:
    """Prompts and completions as padded token ids, with masks that are 1 on real tokens.

    Attributes:
        prompt_ids_BP: Padded on the left.
        prompt_mask_BP: 1 on real tokens.
        completion_ids_BT: Padded on the right.
        completion_mask_BT: 1 on real tokens.
        lengths: Of each row how many tokens prompt and completion have, on the host, which asks the device for them once
            if they are not given.
    """

    prompt_ids_BP: Tensor
    prompt_mask_BP: Tensor
    completion_ids_BT: Tensor
    completion_mask_BT: Tensor
    lengths: Sequence[tuple[int, int]] = ()

    def __post_init__(self) -> None:
        if not self.lengths:
            counts_B2 = torch.stack([self.prompt_mask_BP.sum(dim=1), self.completion_mask_BT.sum(dim=1)], dim=1)
            object.__setattr__(self, "lengths", [(prompt, said) for prompt, said in counts_B2.tolist()])

    @classmethod
    def padded(
        cls, prompt_ids: Sequence[Sequence[int]], completion_ids: Sequence[Sequence[int]], *, pad_id: int
    ) -> Tokens:
        """From B lists of ids each; prompts are padded on the left, completions on the right."""
        prompts = [torch.tensor(ids, dtype=torch.long) for ids in prompt_ids]
        completions = [torch.tensor(ids, dtype=torch.long) for ids in completion_ids]
        return cls(
            prompt_ids_BP=_padded(prompts, pad_id, "left"),
            prompt_mask_BP=_padded([torch.ones_like(ids) for ids in prompts], 0, "left"),
            completion_ids_BT=_padded(completions, pad_id, "right"),
            completion_mask_BT=_padded([torch.ones_like(ids) for ids in completions], 0, "right"),
            lengths=[(len(prompt), len(said)) for prompt, said in zip(prompt_ids, completion_ids, strict=True)],
        )

    def __len__(self) -> int:
        return self.completion_ids_BT.shape[0]

    @property
    def completion_length(self) -> int:
        """T."""
        return self.completion_ids_BT.shape[1]

    @property
    def input_ids(self) -> Tensor:
        """Prompt and completion in one row, P + T tokens."""
        return torch.cat([self.prompt_ids_BP, self.completion_ids_BT], dim=1)

    @property
    def attention_mask(self) -> Tensor:
        """1 on the real tokens of `input_ids`."""
        return torch.cat([self.prompt_mask_BP, self.completion_mask_BT], dim=1)

    def to(self, device: torch.device) -> Tokens:
        """The same on a device, from the host, which does not wait for it."""
        tensors = {name: getattr(self, name).to(device, non_blocking=True) for name in _OF_TOKENS}
        return replace(self, **tensors)

    def rows(self, rows: Tensor | slice) -> Tokens:
        """Some of the rows, by their numbers on the host, without the padding that none of them needs."""
        lengths = self.lengths[rows] if isinstance(rows, slice) else [self.lengths[row] for row in rows.tolist()]
        prompts, completions = (max(each) for each in zip(*lengths, strict=True))
        index = self._index(rows)
        first = self.prompt_ids_BP.shape[1] - prompts
        return Tokens(
            prompt_ids_BP=self.prompt_ids_BP[index, first:],
            prompt_mask_BP=self.prompt_mask_BP[index, first:],
            completion_ids_BT=self.completion_ids_BT[index, :completions],
            completion_mask_BT=self.completion_mask_BT[index, :completions],
            lengths=lengths,
        )

    def batches(
        self, *, rows: int, budget: int | None = None, most: Callable[[int], int] = lambda count: count
    ) -> list[Tensor]:
        """The numbers of the rows, from the shortest to the longest, in batches that need little padding.

        Args:
            rows: So many in a batch, unless there is a budget.
            budget: The most tokens of a batch, padding among them; a longer row is a batch by itself.
            most: The greatest of a number over all processes, which make equally many batches: weights in parts are brought
                together for each.
        """
        order = sorted(range(len(self)), key=self.length_of)
        cut = [order[start : start + rows] for start in range(0, len(order), rows)]
        if budget is not None:
            cut = [order[:1]]
            for row in order[1:]:
                wider = [*cut[-1], row]
                width = sum(max(side) for side in zip(*(self.lengths[each] for each in wider), strict=True))
                cut[-1:] = [wider] if width * len(wider) <= budget else [cut[-1], [row]]
        for _ in range(most(len(cut)) - len(cut)):
            at = cut.index(max(cut, key=len))
            half = len(cut[at]) // 2
            cut[at : at + 1] = [cut[at][:half], cut[at][half:]]
        return [torch.tensor(batch) for batch in cut]

    def length_of(self, row: int) -> int:
        """Tokens of a row's prompt and completion."""
        return sum(self.lengths[row])

    def _index(self, rows: Tensor | slice) -> Tensor | slice:
        """The rows where the tensors are, for which the host does not wait."""
        return rows if isinstance(rows, slice) else rows.to(self.completion_ids_BT.device, non_blocking=True)


_OF_TOKENS = [field.name for field in fields(Tokens) if field.name != "lengths"]


def _as_it_is(x: Tensor) -> Tensor:
    return x


@dataclass(frozen=True, slots=True)
class Rollout:
    """A rollout, or a minibatch of one, ready for the loss.

    Attributes:
        tokens: Prompts and completions.
        old_logprobs_BT: Log-probabilities under the policy that sampled.
        ref_logprobs_BT: The same under the reference; None without one.
        old_values_BT: Values then.
        advantages_BT: Advantages, 0 where ``mask_BT`` is.
        returns_BT: Targets of the value head, 0 where ``mask_BT`` is.
        mask_BT: 1 on the tokens that count: real ones, in rows that have a score.
        token_share: What a sum over the tokens is divided by, see `ppo_loss`.
        drawn_logprobs_BT: Log-probabilities as the engine had them that drew the tokens; None where the policy drew them.
    """

    tokens: Tokens
    old_logprobs_BT: Tensor
    ref_logprobs_BT: Tensor | None
    old_values_BT: Tensor
    advantages_BT: Tensor
    returns_BT: Tensor
    mask_BT: Tensor
    token_share: float = 1.0
    drawn_logprobs_BT: Tensor | None = None

    @property
    def kl_BT(self) -> Tensor | None:
        """The divergence from the reference in nats, by the unbiased estimator k1; None without a reference."""
        if self.ref_logprobs_BT is None:
            return None
        return estimate_kl(self.old_logprobs_BT, self.ref_logprobs_BT, "k1")

    def rows(self, rows: Tensor | slice) -> Rollout:
        """Some of the rows, by their numbers on the host, without the padding that none of them needs."""
        tokens, index = self.tokens.rows(rows), self.tokens._index(rows)  # noqa: SLF001 - of the same module
        length = tokens.completion_length
        per_token = {name: x for name in _PER_TOKEN if (x := getattr(self, name)) is not None}
        return replace(self, tokens=tokens, **{name: x_BT[index, :length] for name, x_BT in per_token.items()})

    def minibatches(
        self, count: int, *, accumulation: int, mean: Callable[[Tensor], Tensor] = _as_it_is
    ) -> list[Rollout]:
        """The rows in a new random order (from torch's global generator), in equal minibatches.

        Args:
            count: How many; divides B.
            accumulation: How many of them, in a row, make one optimiser step; divides ``count``. Each gets the mean
                number of tokens of its step's minibatches as ``token_share``, so that it is of no matter to the gradient which
                of them a row is in: rows of like length are in one, which needs less padding.
            mean: The mean of a tensor over all processes, which make an optimiser step together: averaged over them,
                their gradients are those of one process that has all rows.
        """
        parts = []
        for step in torch.randperm(len(self.tokens)).chunk(count // accumulation):
            by_length = torch.tensor(sorted(step.tolist(), key=self.tokens.length_of)).chunk(accumulation)
            # in a random order: the first of a step tells how far the policy has moved
            parts += [self.rows(by_length[index]) for index in torch.randperm(accumulation).tolist()]
        sizes_SA = torch.stack([part.mask_BT.sum() for part in parts]).float().view(-1, accumulation)
        shares: list[float] = mean(sizes_SA.mean(dim=1)).tolist()
        return [replace(part, token_share=shares[index // accumulation]) for index, part in enumerate(parts)]


_PER_TOKEN = [field.name for field in fields(Rollout) if field.name.endswith("_BT")]


def _padded(rows: list[Tensor], value: int, side: str) -> Tensor:
    return pad_sequence(rows, batch_first=True, padding_value=value, padding_side=side)
