"""The settings of a PPO run."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

from trl.trainer.rloo_config import RLOOConfig

from rlaif_sdk.exceptions import ConfigError
from rlaif_sdk.io.devices import computes_in_bfloat16
from rlaif_sdk.training.arguments import check_ranges
from rlaif_sdk.training.ppo.kl import KLEstimator
from rlaif_sdk.training.ppo.scoring import ScoreNormalization

Algorithm = Literal["ppo", "reinforce"]

_STEPS_A_ROLLOUT = 2
"""Optimiser steps that PPO makes of a rollout unless told otherwise, each on its share of the completions."""

_CHOICES = {
    "algorithm": get_args(Algorithm),
    "critic": ("shared", "separate", "lora"),
    "kl_estimator": get_args(KLEstimator),
    "score_normalization": get_args(ScoreNormalization),
}


@dataclass
class PPOConfig(RLOOConfig):
    """Settings of `PPOTrainer`: all of `transformers.TrainingArguments` and `trl.RLOOConfig`, and these.

    How often what happens is named as in TRL's online trainers. A rollout is ``per_device_train_batch_size *
    steps_per_generation`` completions. It is gone through ``num_iterations`` times, in a new random order each time, in
    ``steps_per_generation`` minibatches, with an optimiser step after every ``gradient_accumulation_steps`` of them.
    Unless set, ``steps_per_generation`` is such that PPO makes two steps of a rollout, which the clipped ratio is there
    for (TRL, and ``algorithm: reinforce``, make one); ``max_steps`` counts optimiser steps. A checkpoint holds no rollout, so
    ``save_steps`` is rounded up to whole rollouts.

    Inherited settings of note: ``epsilon`` and ``epsilon_high`` (clip of the probability ratio), ``temperature``,
    ``max_completion_length``, ``reward_weights``, ``reward_clip_range``, ``mask_truncated_completions``.

    Raises:
        ConfigError: A value is out of range, or a setting of RLOO's is used that PPO has another way for.
    """

    learning_rate: float = field(default=3e-6, metadata={"help": "Learning rate of the policy."})
    adam_epsilon: float = field(
        default=1e-5, metadata={"help": "Epsilon of Adam. The usual 1e-8 lets small gradients make large steps."}
    )
    gradient_checkpointing: bool | None = field(  # type: ignore[assignment]  # set to a bool below
        default=None,
        metadata={
            "help": "Recompute activations in the backward pass. Unless set: off, and on in a run from a config that fits "
            "on the GPU only so."
        },
    )
    bf16: bool | None = field(  # type: ignore[assignment]  # likewise
        default=None,
        metadata={
            "help": "bfloat16 mixed precision. Unless set: on with a GPU that has it (a V100 or T4 has not), else off."
        },
    )
    dataloader_pin_memory: bool = field(default=False, metadata={"help": "Of no use: a batch is rows of text."})
    shuffle_dataset: bool = field(default=True, metadata={"help": "Draw the prompts of each epoch in a new order."})
    disable_dropout: bool = field(
        default=True, metadata={"help": "Set every dropout probability to 0, so that the policy agrees with itself."}
    )
    num_generations: int = field(default=1, metadata={"help": "Completions a prompt in a rollout."})
    num_generations_eval: int = field(default=1, metadata={"help": "Completions a prompt in evaluation."})
    normalize_advantages: bool = field(
        default=True, metadata={"help": "Whiten the advantages over the tokens of a rollout."}
    )
    beta: float = field(default=0.0, metadata={"help": "Not used: see kl_coef."})

    algorithm: Algorithm = field(
        default="ppo",
        metadata={"help": "'ppo', or 'reinforce': the policy gradient with the critic as baseline, a step a rollout."},
    )
    critic: str = field(
        default="shared",
        metadata={
            "help": "'shared': a value head on the policy; 'separate': a critic with weights of its own; 'lora': one with "
            "an adapter of its own on the weights that a policy with LoRA does not train."
        },
    )
    critic_model: str | None = field(
        default=None, metadata={"help": "Name or folder of a separate critic's start; the policy's own if not set."}
    )
    critic_learning_rate: float | None = field(
        default=None, metadata={"help": "Learning rate of a critic of its own, below its value head; the policy's own."}
    )
    value_learning_rate: float = field(default=1e-3, metadata={"help": "Learning rate of the value head."})
    value_loss_coef: float = field(default=0.1, metadata={"help": "Weight of the value loss."})
    value_clip: float | None = field(
        default=0.2, metadata={"help": "How far a value gains by moving in one rollout, in units of reward."}
    )
    entropy_coef: float = field(default=0.0, metadata={"help": "Weight of the entropy bonus."})
    gamma: float = field(default=1.0, metadata={"help": "Discount a token."})
    gae_lambda: float = field(default=1.0, metadata={"help": "Lambda of generalized advantage estimation."})
    kl_coef: float = field(
        default=0.05, metadata={"help": "What a nat of divergence from the reference costs; 0 keeps no reference."}
    )
    use_kl_loss: bool = field(
        default=False, metadata={"help": "Let the divergence be a term of the loss, instead of taken from the reward."}
    )
    kl_estimator: KLEstimator = field(
        default=None,  # type: ignore[arg-type]  # set to one of them below
        metadata={
            "help": "What the cost is of, at a token (Schulman 2020): k1 in the reward; in the loss k2, or k3 as in GRPO, "
            "whose gradient is that of the reference's divergence from the policy."
        },
    )
    max_kl: float | None = field(
        default=None, metadata={"help": "Divergence from the reference, in nats a completion, that ends training."}
    )
    max_approx_kl: float | None = field(
        default=None,
        metadata={"help": "Divergence from the policy that sampled, in nats a token, that ends a rollout's updates."},
    )
    kl_target: float | None = field(
        default=None, metadata={"help": "Divergence, in nats a completion, that kl_coef is steered towards."}
    )
    kl_horizon: float = field(
        default=10_000.0, metadata={"help": "Completions that a correction of kl_coef takes, with kl_target."}
    )
    score_normalization: ScoreNormalization = field(
        default="none",
        metadata={"help": "Shift and scale the composed scores by their mean and deviation: none, batch or running."},
    )
    logprob_batch_tokens: int | None = field(
        default=None,
        metadata={
            "help": "Tokens, padding among them, of one pass that computes log-probabilities without gradients, which takes "
            "rows of like length; per_device_train_batch_size rows if not set."
        },
    )
    log_samples: int = field(
        default=8, metadata={"help": "Completions of each rollout and evaluation batch that are kept as samples."}
    )
    samples_file: str | None = field(
        default=None, metadata={"help": "The JSONL file for the samples; rollouts.jsonl in output_dir if not set."}
    )
    vllm_importance_sampling_correction: bool = field(
        default=True,
        metadata={
            "help": "Weigh the policy loss of each token by how much likelier it is to the policy than to the vLLM that drew "
            "it, which rounds otherwise; as GRPO's token_truncate."
        },
    )
    vllm_importance_sampling_clip_max: float = field(
        default=3.0, metadata={"help": "The largest such weight; what is above counts as this much."}
    )
    one_step_off_policy: bool = field(
        default=False,
        metadata={
            "help": "Let a vLLM server draw the next rollout while this one is scored and learnt from: by a policy that is one "
            "rollout older, for which the importance sampling corrects."
        },
    )
    missing_eos_penalty: float = field(
        default=0.0, metadata={"help": "Taken from the score of a completion that was truncated."}
    )

    def __post_init__(self) -> None:
        if self.kl_estimator is None:
            self.kl_estimator = "k2" if self.use_kl_loss else "k1"
        self._check()
        if self.bf16 is None and not self.fp16:
            self.bf16 = computes_in_bfloat16() and not self.use_cpu
        if self.load_best_model_at_end and self.metric_for_best_model is None:
            self.metric_for_best_model = "reward"
        # RLOO's own method refuses a single generation a prompt; what else it does is done below.
        super(RLOOConfig, self).__post_init__()  # type: ignore[no-untyped-call]
        self._check_temperature()
        if self.one_step_off_policy:
            self._check_one_step_off()
        self._derive_batch_sizes()
        self._save_between_rollouts()
        if self.pad_to_multiple_of == "auto":
            self.pad_to_multiple_of = None

    @property
    def rollout_size(self) -> int:
        """Completions in a rollout."""
        return int(self.generation_batch_size or 0)

    @property
    def rollout_minibatches(self) -> int:
        """Minibatches that a rollout is split into, each time that it is gone through."""
        return int(self.steps_per_generation or 0)

    @property
    def updates_per_rollout(self) -> int:
        """Optimiser steps that are made of a rollout."""
        return self.rollout_minibatches * self.num_iterations // self.gradient_accumulation_steps

    def _check(self) -> None:
        check_ranges(vars(self))
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ConfigError(f"{name} is one of {', '.join(choices)}, not {getattr(self, name)!r}", key=name)
        self._check_divergence()
        self._check_combinations()

    def _check_divergence(self) -> None:
        if self.use_kl_loss and self.kl_estimator == "k1":
            raise ConfigError(
                "k1 is no penalty in the loss: its gradient is 0 in the mean",
                key="kl_estimator",
                hint="k2 has in the loss the gradient that k1 has in the reward",
            )
        if not self.use_kl_loss and self.kl_estimator != "k1":
            raise ConfigError(
                f"{self.kl_estimator} is no penalty in the reward: without a gradient through the estimate the policy "
                "follows another objective, and may diverge the more",
                key="kl_estimator",
                hint=f"set use_kl_loss: true to have {self.kl_estimator} as a term of the loss, or kl_estimator: k1",
            )
        if self.use_kl_loss and self.kl_coef == 0:
            raise ConfigError("use_kl_loss needs a kl_coef above 0", key="kl_coef", hint="0.05, say")
        if self.kl_target is not None and self.kl_coef == 0:
            raise ConfigError("kl_target needs a kl_coef to start from", key="kl_coef", hint="0.05, say")
        if self.max_kl is not None and self.kl_coef == 0:
            raise ConfigError("max_kl needs a reference, and kl_coef=0 keeps none", key="max_kl", hint="set kl_coef")

    def _check_one_step_off(self) -> None:
        needed = {
            "use_vllm": (self.use_vllm, "a server of its own draws while the policy learns"),
            "vllm_mode": (self.vllm_mode == "server", "an engine in this process draws and learns by turns"),
            "vllm_importance_sampling_correction": (
                self.vllm_importance_sampling_correction,
                "nothing else corrects for the older policy that drew",
            ),
        }
        for name, (holds, reason) in needed.items():
            if not holds:
                wanted = "server" if name == "vllm_mode" else "true"
                raise ConfigError(f"one_step_off_policy: {reason}", key=name, hint=f"set {name}: {wanted}")
        if self.world_size > 1:
            raise ConfigError(
                f"one_step_off_policy is for one training process, and there are {self.world_size}",
                key="one_step_off_policy",
                hint="leave it out: several share one server by turns",
            )

    def _check_combinations(self) -> None:
        if self.max_approx_kl is not None and self.fp16:
            raise ConfigError(
                "max_approx_kl skips steps, and the gradient scaler of fp16 allows none to be skipped",
                key="max_approx_kl",
                hint="use bf16",
            )
        for name, kinds in (("critic_model", ("separate",)), ("critic_learning_rate", ("separate", "lora"))):
            if self.critic not in kinds and getattr(self, name) is not None:
                raise ConfigError(f"{name} is of a separate critic", key=name, hint="set critic to 'separate'")
        elsewhere = {
            "beta": (self.beta != 0, "the KL coefficient of PPO is kl_coef"),
            "sync_ref_model": (self.sync_ref_model, "PPO's reference stays as the policy started"),
            "auto_find_batch_size": (self.auto_find_batch_size, "lower per_device_train_batch_size"),
            "label_smoothing_factor": (self.label_smoothing_factor != 0, "the loss of PPO has no labels"),
            "router_aux_loss_coef": (bool(self.router_aux_loss_coef), "the loss of PPO has no such term"),
            "use_liger_kernel": (self.use_liger_kernel, "it replaces the forward method that PPO scores in"),
        }
        for name, (used, hint) in elsewhere.items():
            if used:
                raise ConfigError(f"{name} cannot be used with PPO", key=name, hint=hint)

    def _check_temperature(self) -> None:
        extra = self.generation_kwargs if isinstance(self.generation_kwargs, dict) else {}
        if (sampled_at := extra.get("temperature", self.temperature)) != self.temperature:
            raise ConfigError(
                f"generation_kwargs samples at temperature {sampled_at}, and completions are scored at "
                f"{self.temperature:g}, so the probability ratios would be wrong",
                key="generation_kwargs",
                hint="set temperature itself",
            )

    def _derive_batch_sizes(self) -> None:
        minibatch = self.per_device_train_batch_size * self.world_size
        if self.generation_batch_size is not None and self.steps_per_generation is not None:
            raise ConfigError(
                "generation_batch_size and steps_per_generation exclude each other", hint="set one of them"
            )
        if self.generation_batch_size is not None:
            if self.generation_batch_size % minibatch:
                raise ConfigError(
                    f"generation_batch_size ({self.generation_batch_size}) is no multiple of the minibatch ({minibatch})",
                    key="generation_batch_size",
                )
            self.steps_per_generation = self.generation_batch_size // minibatch
        elif self.steps_per_generation is None:
            steps = _STEPS_A_ROLLOUT if self.algorithm == "ppo" else 1
            self.steps_per_generation = steps * self.gradient_accumulation_steps
        self.generation_batch_size = minibatch * self.steps_per_generation
        if self.steps_per_generation % self.gradient_accumulation_steps:
            raise ConfigError(
                f"a rollout has {self.steps_per_generation} minibatches, no multiple of gradient_accumulation_steps "
                f"({self.gradient_accumulation_steps})",
                key="steps_per_generation",
                hint="an optimiser step must not reach over two rollouts",
            )
        if self.algorithm == "reinforce":
            self._check_one_step()
        if self.kl_target is not None and self.kl_horizon < self.generation_batch_size:
            raise ConfigError(
                f"kl_horizon ({self.kl_horizon:g}) is shorter than a rollout of {self.generation_batch_size} completions",
                key="kl_horizon",
                hint="a correction that takes less than a rollout can push kl_coef to 0, where it stays",
            )
        rows = self.generation_batch_size // self.world_size
        if rows % self.num_generations:
            raise ConfigError(
                f"a rollout of {rows} completions in a process is no multiple of num_generations "
                f"({self.num_generations})",
                key="num_generations",
            )
        if self.do_eval and self.per_device_eval_batch_size % self.num_generations_eval:
            raise ConfigError(
                f"per_device_eval_batch_size ({self.per_device_eval_batch_size}) is no multiple of "
                f"num_generations_eval ({self.num_generations_eval})",
                key="num_generations_eval",
            )

    def _save_between_rollouts(self) -> None:
        steps = self.save_steps if self.save_steps >= 1 else math.ceil(max(self.max_steps, 0) * self.save_steps)
        whole = -(-int(steps) // self.updates_per_rollout) * self.updates_per_rollout
        if whole and whole != steps:
            if self.load_best_model_at_end and self.save_strategy == "steps":
                raise ConfigError(
                    f"load_best_model_at_end needs a checkpoint at each evaluation, and save_steps ({steps:g}) falls inside "
                    f"of a rollout of {self.updates_per_rollout} optimiser steps",
                    key="save_steps",
                    hint=f"set save_steps and eval_steps to a multiple of {self.updates_per_rollout}",
                )
            self.save_steps = whole

    def _check_one_step(self) -> None:
        for name, value, wanted in (
            ("num_iterations", self.num_iterations, 1),
            ("steps_per_generation", self.steps_per_generation, self.gradient_accumulation_steps),
        ):
            if value != wanted:
                raise ConfigError(
                    f"REINFORCE makes one optimiser step of a rollout, and {name} is {value}, not {wanted}",
                    key=name,
                    hint="gradient_accumulation_steps makes rollouts larger",
                )
