"""Losses of preference pairs whose label is a probability.

B pairs. The model's belief that the first completion is preferred is the logistic of a difference: of two scores for a
reward model, of two scaled log-ratios for DPO.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid


def soft_preference_losses(differences_B: Tensor, chosen_prob_B: Tensor) -> Tensor:
    """The cross-entropy between the labels and the beliefs: -p log s(d) - (1 - p) log s(-d), with s the logistic.

    With scores it is the cross-entropy on the softmax of the two (Lee et al. 2023, arXiv:2309.00267); with log-ratios
    it is conservative DPO with a label a pair (Mitchell 2023, "A note on DPO with noisy preferences"). At p = 1 it is
    exactly the usual loss -log s(d).

    Args:
        differences_B: By how much the first of each pair is ahead, in nats.
        chosen_prob_B: Probability in [0, 1] that it is preferred.

    Returns:
        losses_B, in nats.
    """
    return -logsigmoid(differences_B) + soft_label_terms(differences_B, chosen_prob_B)


def soft_label_terms(differences_B: Tensor, chosen_prob_B: Tensor) -> Tensor:
    """What a soft label adds to the hard loss -log s(d): (1 - p) d, since log s(d) - log s(-d) = d.

    Args:
        differences_B: See `soft_preference_losses`.
        chosen_prob_B: See `soft_preference_losses`.
    """
    return (1 - chosen_prob_B) * differences_B


def dpo_differences(
    *,
    chosen_logprobs_B: Tensor,
    rejected_logprobs_B: Tensor,
    ref_chosen_logprobs_B: Tensor,
    ref_rejected_logprobs_B: Tensor,
    beta: float,
) -> Tensor:
    """The implicit reward difference of DPO (Rafailov et al. 2023, arXiv:2305.18290, equation 7), in nats.

    Args:
        chosen_logprobs_B: Log-probability of each first completion under the policy, summed over its tokens.
        rejected_logprobs_B: The same of the second.
        ref_chosen_logprobs_B: Of the first under the reference.
        ref_rejected_logprobs_B: Of the second under the reference.
        beta: Strength of the tie to the reference.
    """
    return beta * ((chosen_logprobs_B - ref_chosen_logprobs_B) - (rejected_logprobs_B - ref_rejected_logprobs_B))
