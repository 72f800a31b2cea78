"""Proximal policy optimisation: the loss on the minibatches of a rollout."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rlaif_sdk.exceptions import TrainingError
from rlaif_sdk.training.ppo.collecting import CollectingTrainer
from rlaif_sdk.training.ppo.losses import ppo_loss
from rlaif_sdk.training.ppo.rollout import Rollout

if TYPE_CHECKING:
    from rlaif_sdk.training.ppo.policy import CompletionScores

_LOSS_METRICS = ("policy_loss", "value_loss", "entropy", "clip_ratio/policy", "clip_ratio/value", "approx_kl", "ratio")


class PPOTrainer(CollectingTrainer):
    """Trains a language model by proximal policy optimisation, with a value head on it or a critic of its own.

    The KL divergence from the policy as it started is part of the reward. With PEFT the reference is the model with
    its adapter switched off; otherwise it is a frozen copy, made in memory. Under a launcher several processes train as
    one.

    Example:
        >>> from datasets import Dataset
        >>> from rlaif_sdk import PPOConfig, PPOTrainer
        >>> def brevity(completion_texts):
        ...     return [1 / (1 + len(text.split())) for text in completion_texts]
        >>> trainer = PPOTrainer(
        ...     "my-model",
        ...     brevity,
        ...     args=PPOConfig(
        ...         output_dir="out",
        ...         max_steps=2,
        ...         per_device_train_batch_size=4,
        ...         steps_per_generation=1,
        ...         max_completion_length=8,
        ...         report_to="none",
        ...         use_cpu=True,
        ...     ),
        ...     train_dataset=Dataset.from_dict({"prompt": ["w1 w2", "w3", "w4 w5", "w6"] * 4}),
        ... )
        >>> trainer.train()  # doctest: +ELLIPSIS
        {...TrainOutput(global_step=2, ...)

    Args:
        model: A decoder-only or encoder-decoder model, a PEFT model, or the name or path of one.
        reward_funcs: A `rlaif_sdk.Composer`, or anything with ``compose(RewardBatch)``; or a reward, a function
            ``f(prompts, completions, **columns)``, or a list or mapping of these, summed with
            ``args.reward_weights``. A composer stays the caller's to close.
        args: Settings.
        train_dataset: Rows with a ``prompt``, text or messages; all other columns go to the rewards.
        eval_dataset: The same, or a mapping of name to the same. Evaluation samples completions and logs their
            rewards and divergence, with ``training=False`` in the batch, so that no statistics are updated.
        processing_class: The tokenizer; the model's own if None.
        callbacks: As in `transformers.Trainer`.
        optimizers: As in `transformers.Trainer`; the critic is added as parameter groups.
        quantization_config: How to quantise a model that is given by name.
        peft_config: Trains an adapter instead of the whole model.
        eval_reward_funcs: What scores the completions of evaluation, of the kind of ``reward_funcs``; the same if None.

    Attributes:
        composer: What scores the completions.
        eval_composer: What scores those of evaluation.
        critic: A `rlaif_sdk.training.ppo.critic.ValueHead` or ``SeparateCritic``, a submodule of the policy.
        value_head: The value head, on the policy or on the separate critic.
        kl_controller: What a nat of divergence costs.

    Raises:
        ConfigError: The settings or rewards are refused, there are fewer prompts than a rollout takes, or the tokenizer's
            padding or end token is outside of the model's vocabulary.
        DataError: A dataset has no column ``prompt``, or a prompt that the model has no positions for.
        BatchError: A dataset has a column of a reserved name.
        TrainingError: No weight of the model is trainable, or model or set-up are of a kind that is not supported.
    """

    _name = "PPO"
    _tag_names = ["ppo", "rlaif-sdk"]  # noqa: RUF012 - as TRL declares it
    _paper = {  # noqa: RUF012 - as TRL declares it
        "title": "Proximal Policy Optimization Algorithms",
        "id": "1707.06347",
        "citation": textwrap.dedent("""\
            @article{schulman2017proximal,
                title  = {{Proximal Policy Optimization Algorithms}},
                author = {John Schulman and Filip Wolski and Prafulla Dhariwal and Alec Radford and Oleg Klimov},
                year   = 2017,
                eprint = {arXiv:1707.06347},
            }"""),
    }

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        """One minibatch's gradient; none where the policy has moved as far as one rollout may move it."""
        loss: Tensor = super().training_step(model, inputs, num_items_in_batch)  # type: ignore[no-untyped-call]
        if self._halted:
            model.zero_grad()
        return loss

    def compute_loss(
        self,
        model: Any,
        inputs: Any,
        return_outputs: bool = False,  # noqa: FBT001, FBT002 - the base class's signature
        num_items_in_batch: Any = None,
    ) -> Tensor:
        """The loss of a minibatch; its parts are logged."""
        del num_items_in_batch
        if return_outputs:
            raise TrainingError("PPOTrainer does not return the outputs of its forward pass")
        if self._halted:
            self._note("train", {"left_out": 1.0})
            return torch.zeros((), device=self.accelerator.device, requires_grad=True)
        minibatch: Rollout = inputs
        tokens = minibatch.tokens
        scores: CompletionScores = model(
            input_ids=tokens.input_ids,
            attention_mask=tokens.attention_mask,
            completion_length=tokens.completion_length,
        )
        loss = ppo_loss(
            logprobs_BT=scores.logprobs_BT,
            entropies_BT=scores.entropies_BT,
            values_BT=scores.values_BT,
            old_logprobs_BT=minibatch.old_logprobs_BT,
            old_values_BT=minibatch.old_values_BT,
            advantages_BT=minibatch.advantages_BT,
            returns_BT=minibatch.returns_BT,
            mask_BT=minibatch.mask_BT,
            tokens=minibatch.token_share,
            clip=None if self.args.algorithm == "reinforce" else (self.epsilon_low, self.epsilon_high),
            value_clip=self.args.value_clip,
            value_coef=self.args.value_loss_coef,
            entropy_coef=self.args.entropy_coef,
        )
        parts = self.processes.mean(torch.stack(loss[1:])).tolist()
        self._note("train", dict(zip(_LOSS_METRICS, parts, strict=True)))
        if self.args.max_approx_kl is not None and self._step % self.args.gradient_accumulation_steps == 0:
            approx_kl = float(self.accelerator.reduce(loss.approx_kl, "mean"))
            self._halted = approx_kl > self.args.max_approx_kl
            self._note("train", {"left_out": float(self._halted)})
        return loss.total
