"""A policy with a critic and a reference, inside TRL's online trainer.

Data loading, generation, logging, PEFT, quantisation and resuming are `trl.RLOOTrainer`'s. Each of its private methods
that is called or replaced in this package is named in ``tests/training/test_ppo_trl_contract.py``, which fails when TRL
changes it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sized
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from trl.models.utils import disable_gradient_checkpointing, prepare_deepspeed, prepare_fsdp
from trl.trainer.rloo_trainer import RLOOTrainer
from trl.trainer.utils import use_adapter

from rlaif_sdk.exceptions import DataError, TrainingError
from rlaif_sdk.training.evaluation_means import MeansOverRows
from rlaif_sdk.training.policy_checks import (
    check_prompts_fit,
    check_rollout,
    check_special_tokens,
    check_trainable,
    prompt_room,
)
from rlaif_sdk.training.ppo import checkpoint
from rlaif_sdk.training.ppo.config import PPOConfig
from rlaif_sdk.training.ppo.critic import (
    Critic,
    SeparateCritic,
    ValueHead,
    add_separate_critic,
    add_value_head,
    backbone_of,
    load_backbone,
    without_critic,
)
from rlaif_sdk.training.ppo.encoder_decoder import decoder_start, generating_in_one_row, is_encoder_decoder
from rlaif_sdk.training.ppo.kl import make_kl_controller
from rlaif_sdk.training.ppo.policy import (
    CompletionScores,
    base_model,
    disable_dropout,
    frozen_copy,
    score_in_batches,
    score_in_forward,
    warn_of_coarse_weights,
)
from rlaif_sdk.training.ppo.processes import Processes
from rlaif_sdk.training.ppo.sample_loggers import LoggedSamples
from rlaif_sdk.training.ppo.samples import SAMPLES_FILE, SampleFile
from rlaif_sdk.training.ppo.sampling import AtTrainBegin, EpochRepeatSampler, warn_of_mismatches
from rlaif_sdk.training.ppo.score_normalization import ScoreNormalizer
from rlaif_sdk.training.ppo.scoring import build_composer, check_datasets
from rlaif_sdk.training.ppo.vllm import check_vllm, end_completions_at, sampling_by_vllm

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset
    from peft import PeftConfig, PeftModel
    from transformers import (
        BitsAndBytesConfig,
        PreTrainedModel,
        PreTrainedTokenizerBase,
        TrainerCallback,
        TrainerState,
    )

    from rlaif_sdk.training.ppo.rollout import Tokens
    from rlaif_sdk.training.ppo.scoring import Composes


class ActorCriticTrainer(MeansOverRows, RLOOTrainer):
    """The base of `PPOTrainer`: everything but the rollout and the loss. See there for arguments and errors."""

    args: PPOConfig
    model: Any
    train_dataset: Any
    _metrics: Any
    _logs: Any

    def __init__(
        self,
        model: str | PreTrainedModel | PeftModel,
        reward_funcs: Composes | Any,
        args: PPOConfig | None = None,
        train_dataset: Dataset | IterableDataset | None = None,
        eval_dataset: Dataset | IterableDataset | Mapping[str, Dataset | IterableDataset] | None = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
        quantization_config: BitsAndBytesConfig | None = None,
        peft_config: PeftConfig | None = None,
        eval_reward_funcs: Composes | Any = None,
    ) -> None:
        args = args or PPOConfig("ppo-output")
        if optimizers[1] is not None:
            raise TrainingError(
                "a learning-rate scheduler made beforehand knows nothing of the value head",
                hint="pass (optimizer, None) and set lr_scheduler_type",
            )
        check_datasets(train_dataset, eval_dataset)
        if isinstance(train_dataset, Sized):
            check_rollout(args, len(train_dataset))
        self.composer = build_composer(reward_funcs, args.reward_weights)
        self.eval_composer = self.composer if eval_reward_funcs is None else build_composer(eval_reward_funcs)
        if args.use_vllm:
            check_vllm(model, args)
        super().__init__(
            model=model,
            reward_funcs=[_scored_by_the_composer] * len(args.reward_weights or [1.0]),
            args=args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            callbacks=callbacks,
            optimizers=optimizers,
            quantization_config=quantization_config,
            peft_config=peft_config,
        )
        if self._is_vlm:
            raise TrainingError("PPOTrainer takes a tokenizer, not a processor of images", hint="train a text model")
        if self._tokenizer.pad_token_id is None:
            raise TrainingError(
                "the tokenizer has neither a padding nor an end token", hint="set tokenizer.pad_token, or eos_token"
            )
        self.processes = Processes(self.accelerator)
        self.processes.learn_together(self.composer)
        self._policy = base_model(self.model)
        check_trainable(self.model)
        _check_policy(self._policy, args)
        self._check_tokens({"train": train_dataset, "evaluation": eval_dataset})
        if args.disable_dropout:
            disable_dropout(self.model)
        sharded = self.is_fsdp_enabled or self.is_deepspeed_enabled
        score_in_forward(self._policy, temperature=args.temperature, sharded=sharded)
        if self._policy is self.model:
            warn_of_coarse_weights(self._policy, args.learning_rate)
            if args.kl_coef > 0:
                self.ref_model = self._sharded(frozen_copy(self._policy))
        self.reference_fingerprint = self._fingerprint()
        self.critic = self._add_critic()
        self.kl_controller = make_kl_controller(args.kl_coef, args.kl_target, args.kl_horizon)
        self.score_normalizer = ScoreNormalizer(
            args.score_normalization, gather=self.accelerator.gather, rank=self.accelerator.process_index
        )
        self.add_callback(SampleFile(Path(args.samples_file or Path(str(args.output_dir), SAMPLES_FILE))))
        self.add_callback(LoggedSamples(self.callback_handler))
        self.add_callback(AtTrainBegin(self._align))
        chosen = args.generation_kwargs if isinstance(args.generation_kwargs, dict) else {}
        if self.use_vllm:
            end_completions_at(self.vllm_generation, self.eos_token_ids)
            warn_of_mismatches(sampling_by_vllm(args), chosen)
        else:
            warn_of_mismatches(self._policy.generation_config.to_dict(), self.generation_config.to_dict(), chosen)

    def _check_tokens(self, tables: Mapping[str, Any]) -> None:
        """Refuse special tokens that the policy lacks, and prompts that it has no positions for.

        Raises:
            ConfigError: A special token is outside of the vocabulary, or a completion as long as allowed does not fit.
            DataError: A prompt is too long.
        """
        embeddings = cast("torch.nn.Embedding", self._policy.get_input_embeddings())
        check_special_tokens(self._tokenizer, embeddings.num_embeddings)
        parts = {
            f"the {name} set {part!r}" if part else f"the {name} set": rows
            for name, table in tables.items()
            for part, rows in (table.items() if isinstance(table, Mapping) else [("", table)])
        }
        for place, rows in parts.items():
            if isinstance(rows, Sized):  # one that is streamed is seen when it is trained on
                check_prompts_fit(
                    rows["prompt"],  # type: ignore[index]
                    self._tokenizer,
                    self._policy.config,
                    new_tokens=int(self.args.max_completion_length or 0),
                    place=place,
                    template_arguments=cast("dict[str, Any]", self.chat_template_kwargs),
                )

    def _tokenize_prompts(self, prompts: list[Any]) -> Any:
        """As TRL does; a prompt that the policy has no positions for is refused before anything is generated."""
        found = super()._tokenize_prompts(prompts)
        room = prompt_room(self._policy.config, int(self.args.max_completion_length or 0))
        longest = max(map(len, found[0]), default=0)
        if room is not None and longest > room:
            raise DataError(
                f"a prompt has {longest} tokens, and the policy takes {room} beside its completion",
                hint="shorten the prompts or leave them out, or lower max_completion_length",
            )
        return found

    def _sharded(self, reference: PreTrainedModel) -> Any:
        """The reference as FSDP or DeepSpeed holds it, where one of them trains the policy."""
        if self.is_deepspeed_enabled:
            return prepare_deepspeed(reference, self.accelerator)
        return prepare_fsdp(reference, self.accelerator) if self.is_fsdp_enabled else reference

    def _fingerprint(self) -> str | None:
        """What tells the reference from others; None without one, or where no process has all of it."""
        if self.args.kl_coef == 0 or self.is_deepspeed_enabled or self.is_fsdp_enabled:
            return None
        weights = self.model.named_parameters()
        if self.ref_model is None:  # the policy with its adapter off: what the adapter trains is no part of it
            weights = ((name, weight) for name, weight in weights if not weight.requires_grad)
        return checkpoint.fingerprint(weights)

    def _add_critic(self) -> Critic:
        if self.args.critic == "shared":
            return add_value_head(self._policy)
        name = self.args.critic_model
        backbone = load_backbone(name) if name else backbone_of(self.model)
        if self.args.disable_dropout:
            disable_dropout(backbone)
        return add_separate_critic(self._policy, backbone)

    @property
    def value_head(self) -> ValueHead:
        """The value head, on the policy or on the separate critic."""
        return self.critic.value_head if isinstance(self.critic, SeparateCritic) else self.critic

    def _align(self, state: TrainerState) -> None:
        """Start at the state's place in a rollout, also when resuming in the middle of one.

        Raises:
            TrainingError: Training goes on from a checkpoint of sharded weights.
        """
        if state.global_step and (self.is_fsdp_enabled or self.is_deepspeed_enabled):
            raise TrainingError(
                "PPO does not go on from a checkpoint of sharded weights, which FSDP and DeepSpeed load their own way",
                hint="train on from the saved model, in a new run",
            )
        self._step = state.global_step * self.args.gradient_accumulation_steps

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """The optimiser, with the critic in parameter groups of its own learning rates."""
        head = list(self.value_head.parameters())
        if self.optimizer and any(head[0] is p for group in self.optimizer.param_groups for p in group["params"]):
            return self.optimizer
        self.critic.requires_grad_(requires_grad=False)
        optimizer: torch.optim.Optimizer = super().create_optimizer(model)
        self.critic.requires_grad_(requires_grad=True)
        optimizer.add_param_group({"params": head, "lr": self.args.value_learning_rate, "weight_decay": 0.0})
        if isinstance(self.critic, SeparateCritic):
            backbone = list(self.critic.backbone.parameters())
            rate = self.args.critic_learning_rate or self.args.learning_rate
            optimizer.add_param_group({"params": backbone, "lr": rate, "weight_decay": 0.0})
        return optimizer

    def _get_train_sampler(self, dataset: Any = None) -> EpochRepeatSampler:
        return EpochRepeatSampler(
            data_source=self.train_dataset if dataset is None else dataset,
            mini_repeat_count=self.args.num_generations,
            batch_size=self.args.rollout_size // self.args.num_generations,
            repeat_count=self.args.num_iterations * self.args.rollout_minibatches,
            shuffle=self.args.shuffle_dataset,
            seed=self.args.seed if self.args.data_seed is None else self.args.data_seed,
        )

    def _generate_single_turn(self, *args: Any, **kwargs: Any) -> Any:
        with without_critic(self._policy), generating_in_one_row(self._policy):
            return super()._generate_single_turn(*args, **kwargs)  # type: ignore[no-untyped-call]

    def _score(self, model: Any, tokens: Tokens) -> CompletionScores:
        """Score completions without gradients."""
        size = self.args.per_device_train_batch_size if self.model.training else self.args.per_device_eval_batch_size
        kwargs = self.args.gradient_checkpointing_kwargs
        with (
            disable_gradient_checkpointing(self.model, kwargs if isinstance(kwargs, dict) else None),
            self.accelerator.autocast(),
        ):
            return score_in_batches(model, tokens, batch_size=size)

    @contextlib.contextmanager
    def _reference(self) -> Iterator[Any]:
        """The model to score the reference with: the frozen copy, or the policy with its adapter set back."""
        if self.ref_model is not None:
            yield self.ref_model
            return
        adapter = "ref" if "ref" in self.model.peft_config else None
        with without_critic(self._policy), use_adapter(self.model, adapter_name=adapter):
            yield self.model

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        super()._save(output_dir, state_dict=state_dict)
        if not self.args.should_save:
            return
        checkpoint.save(
            Path(output_dir or self.args.output_dir or "."),
            critic=self.critic,
            kl_controller=self.kl_controller,
            score_normalizer=self.score_normalizer,
            composer=self.composer,
            reference=self.reference_fingerprint,
            state_dict=state_dict,
        )

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        with without_critic(self._policy):
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        checkpoint.load(
            Path(resume_from_checkpoint),
            critic=self.critic,
            kl_controller=self.kl_controller,
            score_normalizer=self.score_normalizer,
            composer=self.composer,
            reference=self.reference_fingerprint,
        )


def _check_policy(policy: PreTrainedModel, args: PPOConfig) -> None:
    """Refuse what an encoder-decoder policy cannot be generated with."""
    if is_encoder_decoder(policy):
        decoder_start(policy)
        if args.use_transformers_continuous_batching:
            raise TrainingError(
                "use_transformers_continuous_batching does not generate with encoder-decoder models",
                hint="leave it out of the settings",
            )


def _scored_by_the_composer(**_: Any) -> list[float | None]:
    """Stands in for the reward functions that TRL's constructor asks for; never called."""
    raise NotImplementedError
