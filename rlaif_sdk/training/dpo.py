"""Direct preference optimisation on soft labels, with margins."""

from __future__ import annotations

import copy
from typing import Any

from peft import PeftModel
from torch import Tensor
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer

from rlaif_sdk.exceptions import ConfigError, TrainingError
from rlaif_sdk.training.preference_data import CHOSEN_PROB, MARGIN, column_or, without
from rlaif_sdk.training.soft_labels import dpo_differences, soft_preference_losses
from rlaif_sdk.training.soft_trainer import SoftLabelTrainer


class SoftDPOTrainer(SoftLabelTrainer, DPOTrainer):
    """`trl.DPOTrainer` that knows soft labels and margins.

    A column ``chosen_prob`` in [0, 1] says how likely ``chosen`` is preferred: each pair then has its own conservative
    loss -p log s(h) - (1 - p) log s(-h), with h the difference of the log-ratios times beta (Mitchell 2023). Without the
    column, or with 1 in it, the loss is DPO's own. A column ``margin``, in nats, is taken from h, as DLMA does with
    its self-rewarding score (Liu et al. 2024; see `rlaif_sdk.preferences.self_rewarding_margin`). Where a
    label is below 0.5, ``rejected`` is the preferred one and its margin wants a minus sign.

    A model given as an object is copied as the reference, unless a reference or an adapter makes that needless.

    The arguments are those of `trl.DPOTrainer`. Evaluation reports the calibration of s(h) as `SoftRewardTrainer` does.

    Raises:
        ConfigError: The settings name another loss than DPO's sigmoid, or a variation of it.
        DataError: A row is refused; the message names it.
    """

    soft_columns = (CHOSEN_PROB, MARGIN)

    def __init__(self, model: Any, ref_model: Any = None, args: DPOConfig | None = None, **options: Any) -> None:
        check_settings(args)
        if ref_model is None and _needs_reference(model, args, options.get("peft_config")):
            ref_model = copy.deepcopy(model).eval().requires_grad_(False)  # noqa: FBT003 - torch's signature
        super().__init__(model, ref_model, args, **options)

    def compute_ref_log_probs(self, model: Any, inputs: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Log-probabilities under the reference; see TRL."""
        known = without(inputs, self.soft_columns)
        chosen_B, rejected_B = super().compute_ref_log_probs(model, known)  # type: ignore[no-untyped-call]
        return chosen_B, rejected_B

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,  # noqa: FBT001, FBT002 - the base class's signature
        num_items_in_batch: Any = None,
    ) -> Tensor:
        """The mean loss of a batch of pairs; beliefs and rewards are logged."""
        del num_items_in_batch
        if return_outputs:
            raise TrainingError("SoftDPOTrainer keeps no logits", hint="leave out compute_metrics")
        chosen_B, rejected_B, auxiliary = self._policy_log_probs(model, inputs)
        if self.precompute_ref_logps:
            ref_chosen_B, ref_rejected_B = inputs["ref_chosen_logps"], inputs["ref_rejected_logps"]
        else:
            ref_chosen_B, ref_rejected_B = self.compute_ref_log_probs(self.ref_model or self.model, inputs)
        differences_B = dpo_differences(
            chosen_logprobs_B=chosen_B,
            rejected_logprobs_B=rejected_B,
            ref_chosen_logprobs_B=ref_chosen_B,
            ref_rejected_logprobs_B=ref_rejected_B,
            beta=self.beta,
        )
        chosen_prob_B = column_or(inputs, CHOSEN_PROB, 1.0, differences_B)
        margins_B = column_or(inputs, MARGIN, 0.0, differences_B)
        loss = soft_preference_losses(differences_B - margins_B, chosen_prob_B).mean() + auxiliary
        self._note_beliefs(differences_B, chosen_prob_B)
        self._note(
            {
                "rewards/chosen": self.beta * (chosen_B - ref_chosen_B),
                "rewards/rejected": self.beta * (rejected_B - ref_rejected_B),
                "rewards/accuracies": (differences_B > 0).float(),
                "rewards/margins": differences_B,
                "logps/chosen": chosen_B,
                "logps/rejected": rejected_B,
            }
        )
        return loss

    def _policy_log_probs(self, model: Any, inputs: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor | float]:
        """Summed log-probabilities of the B first and B second completions, and the loss of a mixture's router."""
        masks = ("completion_mask", "ref_chosen_logps", "ref_rejected_logps")
        known = without(inputs, (*self.soft_columns, *masks))
        router = {"output_router_logits": True} if self.aux_loss_enabled else {}
        labels = inputs["input_ids"].masked_fill(inputs["completion_mask"] == 0, -100)
        outputs = model(**known, **router, use_cache=False, labels=labels, fused_lm_head=True)
        # prompt learning puts virtual tokens before the real ones
        tokens = inputs["completion_mask"].size(1) - 1
        chosen_B, rejected_B = outputs.log_probs[:, -tokens:].sum(dim=1).chunk(2)
        auxiliary = self.router_aux_loss_coef * outputs.aux_loss if self.aux_loss_enabled else 0.0
        return chosen_B, rejected_B, auxiliary

    def _note(self, figures: dict[str, Tensor]) -> None:
        mode = "train" if self.model.training else "eval"
        for name, values_B in figures.items():
            mean = self.accelerator.gather_for_metrics(values_B.detach()).mean()
            self._metrics[mode][name].append(mean.item())


def _needs_reference(model: Any, args: DPOConfig | None, peft_config: Any) -> bool:
    """Whether TRL would read the starting model from its path again, which may not be the model that was given."""
    precomputed = args is not None and args.precompute_ref_log_probs
    adapted = peft_config is not None or isinstance(model, PeftModel)
    return not (isinstance(model, str) or precomputed or adapted)


def check_settings(args: DPOConfig | None) -> None:
    """Refuse settings of another loss than DPO's sigmoid.

    Raises:
        ConfigError: There is one; ``key`` is its name.
    """
    if args is None:
        return
    variations = {
        "loss_type": (list(args.loss_type) != ["sigmoid"], "soft labels are for the sigmoid loss"),
        "loss_weights": (bool(args.loss_weights), "there is one loss"),
        "f_divergence_type": (str(args.f_divergence_type) != "reverse_kl", "use reverse_kl"),
        "ld_alpha": (args.ld_alpha is not None, "leave it out"),
        "use_weighting": (args.use_weighting, "leave it out"),
        "label_smoothing": (args.label_smoothing != 0, "soft labels take its place: chosen_prob = 1 - label_smoothing"),
    }
    for name, (used, hint) in variations.items():
        if used:
            raise ConfigError(
                f"{name} cannot be used with SoftDPOTrainer", key=name, hint=f"{hint}, or use trl.DPOTrainer"
            )
