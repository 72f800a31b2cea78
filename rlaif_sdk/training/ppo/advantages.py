"""From scored completions to a rollout: the reward of every token, its advantage, and the metrics to log.

B rows, T completion tokens. Completions are padded on the right, so a mask is 1 for a row's first tokens and 0 after. Rows
without a score (NaN) count in nothing: no loss, no whitening, no metric.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rlaif_sdk.training.ppo.kl import estimate_kl
from rlaif_sdk.training.ppo.masked import Total, explained_variance, masked_mean, masked_whiten, of_this_process
from rlaif_sdk.training.ppo.rollout import Rollout, Tokens


def token_rewards(
    scores_B: Tensor, kl_BT: Tensor, mask_BT: Tensor, kl_coef: float, token_rewards_BT: Tensor | None = None
) -> Tensor:
    """The reward of each token: the KL penalty and what of the score falls on it, and on the last token the rest.

    Without ``token_rewards_BT`` the whole score falls once, on the row's last token; a row's rewards sum to its score less
    its penalties either way. This is the reward of Ziegler et al. 2019 (arXiv:1909.08593, section 2) per token, as in Ouyang et al. 2022
    (arXiv:2203.02155, equation 2).

    Args:
        scores_B: The score of each completion.
        kl_BT: log policy / reference of each token, in nats.
        mask_BT: 1 on real tokens, which come first in a row.
        kl_coef: Reward lost per nat.
        token_rewards_BT: The part of the score that falls on each token; None if no reward is per token.

    Returns:
        rewards_BT, 0 on padding.
    """
    mask_BT = mask_BT.bool()
    zeros_BT = torch.zeros_like(kl_BT)
    rewards_BT = torch.where(mask_BT, -kl_coef * kl_BT, zeros_BT)
    if token_rewards_BT is not None:
        token_rewards_BT = torch.where(mask_BT, token_rewards_BT, zeros_BT)
        rewards_BT = rewards_BT + token_rewards_BT
        scores_B = scores_B - token_rewards_BT.sum(dim=1)
    lengths_B = mask_BT.sum(dim=1)
    is_last_BT = mask_BT & (torch.arange(mask_BT.shape[1], device=mask_BT.device) == lengths_B[:, None] - 1)
    return torch.where(is_last_BT, rewards_BT + scores_B[:, None], rewards_BT)


def generalized_advantages(
    rewards_BT: Tensor, values_BT: Tensor, mask_BT: Tensor, *, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Generalized advantage estimation (Schulman et al. 2015, arXiv:1506.02438, equation 16).

    ``A_t = sum_k (gamma lam)^k delta_{t+k}`` with ``delta_t = r_t + gamma V_{t+1} - V_t``, where the value after a
    completion's last token is 0: a completion ends there, truncated or not.

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
    advantages_BT = rewards_BT + gamma * _later(values_BT, 1) - values_BT
    for power in range((values_BT.shape[1] - 1).bit_length()):
        # Each holds the sum over the next 2^power tokens: not a kernel a token, but a few for each doubling.
        ahead = 1 << power
        advantages_BT = advantages_BT + (gamma * lam) ** ahead * _later(advantages_BT, ahead)
    return advantages_BT, torch.where(mask_BT, advantages_BT + values_BT, zeros_BT)


def _later(x_BT: Tensor, ahead: int) -> Tensor:
    """What stands so many tokens later; 0 beyond the last."""
    return torch.nn.functional.pad(x_BT[:, ahead:], (0, ahead))


def compute_advantages(
    tokens: Tokens,
    *,
    scores_B: Tensor,
    truncated_B: Tensor,
    logprobs_BT: Tensor,
    values_BT: Tensor,
    ref_logprobs_BT: Tensor | None = None,
    token_rewards_BT: Tensor | None = None,
    drawn_logprobs_BT: Tensor | None = None,
    gamma: float = 1.0,
    gae_lambda: float = 1.0,
    kl_coef: float = 0.0,
    missing_eos_penalty: float = 0.0,
    mask_truncated: bool = False,
    whiten: bool = True,
    total: Total = of_this_process,
) -> Rollout:
    """The rollout of B scored completions: the reward of every token, its advantage and its return.

    Args:
        tokens: Prompts and completions.
        scores_B: The completions' scores, NaN where there is none.
        truncated_B: True where a completion was truncated: it has no end-of-sequence token.
        logprobs_BT: Log-probabilities under the policy that sampled.
        values_BT: Its values.
        ref_logprobs_BT: Log-probabilities under the reference; None without one, and then nothing is taken for the
            divergence from it.
        token_rewards_BT: The part of the scores that falls on each token, see `token_rewards`; the penalty for being
            truncated falls on the last token.
        drawn_logprobs_BT: See `Rollout`.
        gamma: See the setting of this name in `PPOConfig`, and so for the others.
        gae_lambda: See `PPOConfig`.
        kl_coef: The reward that a nat of divergence costs.
        missing_eos_penalty: See `PPOConfig`.
        mask_truncated: Whether truncated completions count in nothing.
        whiten: Whether the advantages are whitened.
        total: Adds up over the processes.
    """
    counts_B = ~scores_B.isnan()
    if mask_truncated:
        counts_B = counts_B & ~truncated_B
    mask_BT = tokens.completion_mask_BT * counts_B[:, None]
    scores_B = scores_B.nan_to_num(0.0) - missing_eos_penalty * truncated_B
    kl_BT = torch.zeros_like(logprobs_BT)
    if ref_logprobs_BT is not None:
        kl_BT = estimate_kl(logprobs_BT, ref_logprobs_BT, "k1")
    rewards_BT = token_rewards(scores_B, kl_BT, mask_BT, kl_coef, token_rewards_BT)
    advantages_BT, returns_BT = generalized_advantages(rewards_BT, values_BT, mask_BT, gamma=gamma, lam=gae_lambda)
    return Rollout(
        tokens=tokens,
        old_logprobs_BT=logprobs_BT,
        ref_logprobs_BT=ref_logprobs_BT,
        old_values_BT=values_BT,
        advantages_BT=masked_whiten(advantages_BT, mask_BT, total) if whiten else advantages_BT,
        returns_BT=returns_BT,
        mask_BT=mask_BT,
        drawn_logprobs_BT=drawn_logprobs_BT,
    )


_SAMPLING_DIFFERENCE = "sampling/sampling_logp_difference/mean"
"""As TRL's GRPO calls it."""


def rollout_weights(rollout: Rollout) -> dict[str, int]:
    """What each figure of `rollout_metrics` was measured on in this process: completions, or tokens."""
    completions, tokens = int(rollout.mask_BT.any(dim=1).sum()), int(rollout.mask_BT.sum())
    of_tokens = ("kl_per_token", "values/mean", "values/explained_variance", "returns/mean", _SAMPLING_DIFFERENCE)
    return {"kl": completions, **dict.fromkeys(of_tokens, tokens)}


def rollout_metrics(rollout: Rollout, total: Total = of_this_process) -> dict[str, float]:
    """What to log of a rollout.

    ``kl`` is in nats a completion, ``kl_per_token`` in nats a token; both are unbiased, so a small sample's may be below 0.
    Without a reference neither is there. ``sampling/sampling_logp_difference/mean`` is how far the log-probabilities of the
    engine that drew are from the policy's, without their signs, where there is one. Empty when no row counts.
    """
    mask_BT, kl_BT = rollout.mask_BT, rollout.kl_BT
    rows = total(mask_BT.any(dim=1).sum())
    metrics: dict[str, Tensor] = {}
    if kl_BT is not None:
        metrics["kl"] = total((kl_BT * mask_BT).sum()) / rows
        metrics["kl_per_token"] = masked_mean(kl_BT, mask_BT, total)
    metrics |= {
        "values/mean": masked_mean(rollout.old_values_BT, mask_BT, total),
        "values/explained_variance": explained_variance(rollout.old_values_BT, rollout.returns_BT, mask_BT, total),
        "returns/mean": masked_mean(rollout.returns_BT, mask_BT, total),
    }
    if rollout.drawn_logprobs_BT is not None:
        apart_BT = (rollout.old_logprobs_BT - rollout.drawn_logprobs_BT).abs()
        metrics[_SAMPLING_DIFFERENCE] = masked_mean(apart_BT, mask_BT, total)
    counted, *numbers = torch.stack([rows, *metrics.values()]).tolist()  # at once: each is a wait for the device
    return dict(zip(metrics, numbers, strict=True)) if counted else {}
