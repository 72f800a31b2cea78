"""The losses of proximal policy optimisation (Schulman et al. 2017, arXiv:1707.06347), token by token.

B rows, T completion tokens. Nothing is averaged before `ppo_loss`, so that the parts of a batch add up to the whole.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from rlaif_sdk.training.ppo.kl import estimate_kl
from rlaif_sdk.training.ppo.masked import masked_sum


def clipped_policy_losses(
    logprobs_BT: Tensor, old_logprobs_BT: Tensor, advantages_BT: Tensor, *, clip_low: float, clip_high: float
) -> tuple[Tensor, Tensor]:
    """The clipped surrogate objective, equation 7, negated.

    Args:
        logprobs_BT: Log-probabilities under the policy as it is.
        old_logprobs_BT: The same under the policy that sampled.
        advantages_BT: Advantages of the sampled tokens.
        clip_low: How far the probability ratio may fall below 1 before it gains nothing more.
        clip_high: How far it may rise above 1.

    Returns:
        losses_BT, and clipped_BT: where the clip acts, so that the gradient is 0.
    """
    ratios_BT = (logprobs_BT - old_logprobs_BT).exp()
    free_BT = -advantages_BT * ratios_BT
    bounded_BT = -advantages_BT * ratios_BT.clamp(1 - clip_low, 1 + clip_high)
    return torch.maximum(free_BT, bounded_BT), bounded_BT > free_BT


def reinforce_losses(logprobs_BT: Tensor, advantages_BT: Tensor) -> Tensor:
    """The policy gradient with a baseline, negated: ``-A log pi``.

    REINFORCE (Williams 1992) with a learned value function as the baseline, as in Lee et al. 2023 (arXiv:2309.00267).
    It holds for completions that the policy as it is has sampled.

    Args:
        logprobs_BT: Log-probabilities under the policy as it is.
        advantages_BT: Returns less the baseline.

    Returns:
        losses_BT.
    """
    return -advantages_BT * logprobs_BT


def importance_weights(old_logprobs_BT: Tensor, drawn_logprobs_BT: Tensor, *, most: float) -> Tensor:
    """How much likelier each token was to the policy than to the engine that drew it, and at most ``most``.

    Truncated importance sampling (Ionides 2008), with which a loss over what an engine of other numerics or older weights
    drew is one over what the policy would have drawn, but for the truncation (Yao et al. 2025).

    Args:
        old_logprobs_BT: Log-probabilities under the policy when the rollout was made.
        drawn_logprobs_BT: The same as the engine had them when it drew.
        most: Above 0; it bounds the variance.
    """
    return (old_logprobs_BT - drawn_logprobs_BT).exp().clamp(max=most)


def clipped_value_losses(
    values_BT: Tensor, old_values_BT: Tensor, returns_BT: Tensor, *, clip: float | None
) -> tuple[Tensor, Tensor]:
    """Half the squared error, where a value gains nothing by moving further than ``clip`` from its old one.

    The larger of the free and the clipped error counts, as in the reference implementation of the paper.

    Args:
        values_BT: Values as they are.
        old_values_BT: Values when the rollout was made.
        returns_BT: What they should be.
        clip: In units of reward; None for no clip.

    Returns:
        losses_BT, and clipped_BT: where the clip acts, so that the gradient is 0.
    """
    free_BT = 0.5 * (values_BT - returns_BT).square()
    if clip is None:
        return free_BT, torch.zeros_like(free_BT, dtype=torch.bool)
    near_BT = torch.clamp(values_BT, old_values_BT - clip, old_values_BT + clip)
    bounded_BT = 0.5 * (near_BT - returns_BT).square()
    return torch.maximum(free_BT, bounded_BT), bounded_BT > free_BT


class PPOLoss(NamedTuple):
    """The loss of a minibatch, and detached scalars of what it is made of, by the names that they are logged under.

    Attributes:
        total: What to minimise.
        metrics: The mean ``policy_loss`` and ``value_loss`` a token, before coefficients; the mean ``entropy`` of the
            next-token distribution, in nats; ``clip_ratio/policy`` and ``clip_ratio/value``, the shares of the tokens
            whose gradient the clip removes; ``approx_kl``, the mean divergence of the policy from the one that sampled,
            in nats a token; the mean probability ``ratio``; ``kl_loss``, the mean ``kl_BT`` where there is one, and
            ``sampling/importance_sampling_ratio/mean`` that of ``weights_BT``. As ``total`` they are sums over ``tokens``,
            so their mean over the minibatches of a step is that of all its tokens.
    """

    total: Tensor
    metrics: dict[str, Tensor]


def ppo_loss(
    *,
    logprobs_BT: Tensor,
    entropies_BT: Tensor,
    values_BT: Tensor,
    old_logprobs_BT: Tensor,
    old_values_BT: Tensor,
    advantages_BT: Tensor,
    returns_BT: Tensor,
    mask_BT: Tensor,
    tokens: float,
    clip: tuple[float, float] | None,
    value_clip: float | None,
    value_coef: float,
    entropy_coef: float,
    kl_BT: Tensor | None = None,
    kl_coef: float = 0.0,
    weights_BT: Tensor | None = None,
) -> PPOLoss:
    """Equation 9: the policy loss, plus the value loss and minus the entropy times their coefficients.

    A penalty for diverging from the reference may be added, as in Shao et al. 2024 (arXiv:2402.03300, equation 3).

    Args:
        logprobs_BT: See `clipped_policy_losses`; so for the old ones, the advantages and the clips.
        entropies_BT: Entropy of the distribution that each token was drawn from, in nats.
        values_BT: See `clipped_value_losses`; so for the old ones, the returns and the clip.
        old_logprobs_BT: See above.
        old_values_BT: See above.
        advantages_BT: See above.
        returns_BT: See above.
        mask_BT: 1 on the tokens that count.
        tokens: What the sum over tokens is divided by. The number of tokens that count gives a mean; with gradient
            accumulation, the mean number over the accumulated minibatches makes their gradients add up to that of
            one large minibatch.
        clip: ``clip_low`` and ``clip_high``; None for `reinforce_losses` in their place.
        value_clip: See above.
        value_coef: Weight of the value loss.
        entropy_coef: Weight of the entropy.
        kl_BT: The divergence from the reference with its gradient, see `rlaif_sdk.training.ppo.kl.estimate_kl`; None for
            no term of it.
        kl_coef: Weight of the divergence.
        weights_BT: What each token's policy loss is multiplied by, see `importance_weights`; None for 1.
    """
    if clip is None:
        policy_BT = reinforce_losses(logprobs_BT, advantages_BT)
        policy_clipped_BT = torch.zeros_like(mask_BT)
    else:
        policy_BT, policy_clipped_BT = clipped_policy_losses(
            logprobs_BT, old_logprobs_BT, advantages_BT, clip_low=clip[0], clip_high=clip[1]
        )
    if weights_BT is not None:
        policy_BT = policy_BT * weights_BT
    value_BT, value_clipped_BT = clipped_value_losses(values_BT, old_values_BT, returns_BT, clip=value_clip)
    losses_BT = policy_BT + value_coef * value_BT - entropy_coef * entropies_BT
    of_tokens = {
        "policy_loss": policy_BT,
        "value_loss": value_BT,
        "entropy": entropies_BT,
        "clip_ratio/policy": policy_clipped_BT.float(),
        "clip_ratio/value": value_clipped_BT.float(),
        "approx_kl": estimate_kl(old_logprobs_BT, logprobs_BT.detach(), "k3"),
        "ratio": (logprobs_BT.detach() - old_logprobs_BT).exp(),
    }
    if kl_BT is not None:
        losses_BT = losses_BT + kl_coef * kl_BT
        of_tokens["kl_loss"] = kl_BT
    if weights_BT is not None:
        of_tokens["sampling/importance_sampling_ratio/mean"] = weights_BT
    share = max(tokens, 1.0)
    return PPOLoss(
        total=masked_sum(losses_BT, mask_BT) / share,
        metrics={name: masked_sum(x_BT.detach(), mask_BT) / share for name, x_BT in of_tokens.items()},
    )
