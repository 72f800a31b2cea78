"""From scores to advantages: where the reward lands in a completion, and generalized advantage estimation.

B rows, T completion tokens. Completions are padded on the right, so a mask is 1 for a row's first tokens and 0 after.
"""

from __future__ import annotations

import torch
from torch import Tensor


def token_rewards(
    scores_B: Tensor, kl_BT: Tensor, mask_BT: Tensor, kl_coef: float, on_tokens_BT: Tensor | None = None
) -> Tensor:
    """The reward of each token: the KL penalty and what of the score falls on it, and on the last token the rest.

    Without ``on_tokens_BT`` the whole score falls once, on the row's last token; a row's rewards sum to its score less
    its penalties either way. This is the reward of Ziegler et al. 2019 (arXiv:1909.08593, section 2) per token, as in Ouyang et al. 2022
    (arXiv:2203.02155, equation 2).

    Args:
        scores_B: The score of each completion.
        kl_BT: log policy / reference of each token, in nats.
        mask_BT: 1 on real tokens, which come first in a row.
        kl_coef: Reward lost per nat.
        on_tokens_BT: The part of the score that falls on each token; None if no reward is per token.

    Returns:
        rewards_BT, 0 on padding.
    """
    mask_BT = mask_BT.bool()
    zeros_BT = torch.zeros_like(kl_BT)
    rewards_BT = torch.where(mask_BT, -kl_coef * kl_BT, zeros_BT)
    if on_tokens_BT is not None:
        on_tokens_BT = torch.where(mask_BT, on_tokens_BT, zeros_BT)
        rewards_BT = rewards_BT + on_tokens_BT
        scores_B = scores_B - on_tokens_BT.sum(dim=1)
    lengths_B = mask_BT.sum(dim=1)
    is_last_BT = mask_BT & (torch.arange(mask_BT.shape[1], device=mask_BT.device) == lengths_B[:, None] - 1)
    return torch.where(is_last_BT, rewards_BT + scores_B[:, None], rewards_BT)


def generalized_advantages(
    rewards_BT: Tensor, values_BT: Tensor, mask_BT: Tensor, *, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Generalized advantage estimation (Schulman et al. 2015, arXiv:1506.02438, equation 16).

    ``A_t = sum_k (gamma lam)^k delta_{t+k}`` with ``delta_t = r_t + gamma V_{t+1} - V_t``, where the value after a
    completion's last token is 0: a completion ends there, cut short or not.

    Args:
        rewards_BT: Reward of each token.
        values_BT: Expected return before each token was sampled.
        mask_BT: 1 on real tokens, which come first in a row.
        gamma: Discount, in [0, 1].
        lam: Trade of bias (0) against variance (1), in [0, 1].

    Returns:
        advantages_BT and returns_BT (advantages plus values, what the value head regresses on), both 0 on padding.
    """
    mask_BT = mask_BT.bool()
    zeros_BT = torch.zeros_like(values_BT)
    values_BT = torch.where(mask_BT, values_BT, zeros_BT)
    rewards_BT = torch.where(mask_BT, rewards_BT, zeros_BT)
    advantages_BT = torch.zeros_like(values_BT)
    next_value_B = next_advantage_B = torch.zeros_like(values_BT[:, 0])
    for t in reversed(range(values_BT.shape[1])):
        delta_B = rewards_BT[:, t] + gamma * next_value_B - values_BT[:, t]
        next_advantage_B = torch.where(mask_BT[:, t], delta_B + gamma * lam * next_advantage_B, zeros_BT[:, t])
        advantages_BT[:, t] = next_advantage_B
        next_value_B = values_BT[:, t]
    return advantages_BT, torch.where(mask_BT, advantages_BT + values_BT, zeros_BT)
