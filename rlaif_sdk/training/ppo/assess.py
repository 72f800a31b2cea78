"""From scored completions to a rollout: the reward of every token, its advantage, and the figures to log.

B rows, T completion tokens. Rows without a score (NaN) count in nothing: no loss, no whitening, no figure.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rlaif_sdk.training.ppo.gae import generalized_advantages, token_rewards
from rlaif_sdk.training.ppo.masked import Total, explained_variance, masked_mean, masked_whiten, of_this_process
from rlaif_sdk.training.ppo.rollout import Rollout, Tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """How completions are assessed; see the settings of the same names in `PPOConfig`."""

    gamma: float = 1.0
    gae_lambda: float = 1.0
    kl_coef: float = 0.0
    missing_eos_penalty: float = 0.0
    mask_truncated: bool = False
    whiten: bool = True
    total: Total = of_this_process

    def rollout(
        self,
        tokens: Tokens,
        *,
        scores_B: Tensor,
        truncated_B: Tensor,
        logprobs_BT: Tensor,
        values_BT: Tensor,
        kl_BT: Tensor | None,
        on_tokens_BT: Tensor | None = None,
    ) -> Rollout:
        """Make the rollout.

        Args:
            tokens: Prompts and completions.
            scores_B: The completions' scores, NaN where there is none.
            truncated_B: True where a completion was cut short: it has no end-of-sequence token.
            logprobs_BT: Log-probabilities under the policy that sampled.
            values_BT: Its values.
            kl_BT: The divergence of policy from reference, as estimated at each token; None without a reference, and
                then nothing is taken for it.
            on_tokens_BT: The part of the scores that falls on each token, see `token_rewards`; the penalty for being
                cut short falls on the last token.
        """
        counts_B = ~scores_B.isnan()
        if self.mask_truncated:
            counts_B = counts_B & ~truncated_B
        mask_BT = tokens.completion_mask_BT * counts_B[:, None]
        scores_B = scores_B.nan_to_num(0.0) - self.missing_eos_penalty * truncated_B
        charged_BT = torch.zeros_like(logprobs_BT) if kl_BT is None else kl_BT
        rewards_BT = token_rewards(scores_B, charged_BT, mask_BT, self.kl_coef, on_tokens_BT)
        advantages_BT, returns_BT = generalized_advantages(
            rewards_BT, values_BT, mask_BT, gamma=self.gamma, lam=self.gae_lambda
        )
        return Rollout(
            tokens=tokens,
            old_logprobs_BT=logprobs_BT,
            old_values_BT=values_BT,
            advantages_BT=masked_whiten(advantages_BT, mask_BT, self.total) if self.whiten else advantages_BT,
            returns_BT=returns_BT,
            mask_BT=mask_BT,
        )


def rollout_weights(rollout: Rollout) -> dict[str, int]:
    """What each figure of `rollout_metrics` was measured on in this process: completions, or tokens."""
    completions, tokens = int(rollout.mask_BT.any(dim=1).sum()), int(rollout.mask_BT.sum())
    of_tokens = ("kl_per_token", "values/mean", "values/explained_variance", "returns/mean")
    return {"kl": completions, **dict.fromkeys(of_tokens, tokens)}


def rollout_metrics(rollout: Rollout, kl_BT: Tensor | None, total: Total = of_this_process) -> dict[str, float]:
    """What to log of a rollout.

    ``kl`` is in nats a completion, ``kl_per_token`` in nats a token; with the estimator k1 a small sample may be below 0.
    Without a divergence neither is there. Empty when no row counts.
    """
    mask_BT = rollout.mask_BT
    rows = total(mask_BT.any(dim=1).sum())
    if not rows:
        return {}
    figures: dict[str, Tensor] = {}
    if kl_BT is not None:
        figures["kl"] = total((kl_BT * mask_BT).sum()) / rows
        figures["kl_per_token"] = masked_mean(kl_BT, mask_BT, total)
    figures |= {
        "values/mean": masked_mean(rollout.old_values_BT, mask_BT, total),
        "values/explained_variance": explained_variance(rollout.old_values_BT, rollout.returns_BT, mask_BT, total),
        "returns/mean": masked_mean(rollout.returns_BT, mask_BT, total),
    }
    numbers: list[float] = torch.stack(list(figures.values())).tolist()
    return dict(zip(figures, numbers, strict=True))
