"""Proximal policy optimisation of a policy with a critic and a reference, inside TRL's online trainer.

Data loading, generation, logging, PEFT, quantisation and resuming are `trl.RLOOTrainer`'s. Each of its private methods
that is called or replaced in this package is named in ``tests/training/test_ppo_trl_contract.py``, which fails when TRL
changes it.
"""

from __future__ import annotations

import contextlib
import logging
import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence, Sized
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from trl.models.utils import disable_gradient_checkpointing, prepare_deepspeed, prepare_fsdp
from trl.trainer.rloo_trainer import RLOOTrainer
from trl.trainer.utils import use_adapter

from rlaif_sdk.diagnostics import drift_in_history
from rlaif_sdk.exceptions import ConfigError, DataError, TrainingError
from rlaif_sdk.judges.backends.local import lock_of
from rlaif_sdk.training.evaluation_means import MeansOverRows
from rlaif_sdk.training.models import (
    check_prompts_fit,
    check_rollout,
    check_special_tokens,
    check_trainable,
    prompt_room,
)
from rlaif_sdk.training.ppo.advantages import compute_advantages, rollout_metrics, rollout_weights
from rlaif_sdk.training.ppo.ahead import BatchesAhead, DrawnAhead
from rlaif_sdk.training.ppo.checkpoint import CheckpointState, critic_weights, fingerprint
from rlaif_sdk.training.ppo.config import PPOConfig
from rlaif_sdk.training.ppo.critic import (
    Critic,
    SeparateCritic,
    ValueHead,
    adapted_backbone,
    add_lora_critic,
    add_separate_critic,
    add_value_head,
    backbone_of,
    load_backbone,
    trained_weights,
    without_critic,
)
from rlaif_sdk.training.ppo.inputs import (
    contiguous_head_input,
    decoder_start,
    generating_in_one_row,
    is_encoder_decoder,
)
from rlaif_sdk.training.ppo.kl import KLController, estimate_kl
from rlaif_sdk.training.ppo.losses import importance_weights, ppo_loss
from rlaif_sdk.training.ppo.policy import (
    CompletionScores,
    base_model,
    disable_dropout,
    frozen_copy,
    score_in_batches,
    score_in_forward,
    warn_of_coarse_weights,
)
from rlaif_sdk.training.ppo.processes import Measured, Processes, measured_rows
from rlaif_sdk.training.ppo.rollout import Rollout, Tokens
from rlaif_sdk.training.ppo.samples import SAMPLES_FILE, LoggedSamples, SampleFile, sample_records, show_samples
from rlaif_sdk.training.ppo.sampling import (
    AtTrainBegin,
    DrawnLogprobs,
    EpochRepeatSampler,
    check_vllm,
    end_completions_at,
    keep_base_weights,
    sampling_by_vllm,
    warn_of_mismatches,
)
from rlaif_sdk.training.ppo.scoring import (
    ScoreNormalizer,
    begin_scoring,
    build_composer,
    check_datasets,
    reward_batch,
    reward_metrics,
    scores_of,
    token_rewards_of,
)
from rlaif_sdk.training.ppo.shards import gathered_once, return_float32
from rlaif_sdk.types import Progress, TrainerArguments

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset
    from peft import PeftConfig, PeftModel
    from transformers import BitsAndBytesConfig, PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback, TrainerState

    from rlaif_sdk.training.ppo.scoring import Composes, ScoredBatch


_logger = logging.getLogger(__name__)

Row = Mapping[str, Any]


class PPOTrainer(MeansOverRows, RLOOTrainer):
    """Trains a language model by proximal policy optimisation, with a value head on it or a critic of its own.

    The KL divergence from the policy as it started is taken from the reward, or is a term of the loss. With PEFT the reference is the model with
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

    args: PPOConfig
    model: Any
    train_dataset: Any
    _metrics: Any
    _logs: Any
    _rollout: Rollout | None = None
    _minibatches: Sequence[Rollout] = ()
    _drifted: frozenset[str] = frozenset()
    _early_stopped = False
    _drawn: DrawnLogprobs | None = None
    _ahead: DrawnAhead | None = None
    _evaluated: list[Measured] = []  # noqa: RUF012 - replaced at the start of each evaluation
    _parts: list[tuple[tuple[str, ...], Tensor]]

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
        self._check_shards()
        self._parts = []
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
        reference = self._fingerprint()
        self.critic = self._add_critic()
        self.kl_controller = KLController(args.kl_coef, args.kl_target, args.kl_horizon)
        self.score_normalizer = ScoreNormalizer(
            args.score_normalization, gather=self.accelerator.gather, rank=self.accelerator.process_index
        )
        self._checkpoint_state = CheckpointState(
            self.critic, self.kl_controller, self.score_normalizer, self.composer, reference
        )
        self.add_callback(SampleFile(Path(args.samples_file or Path(str(args.output_dir), SAMPLES_FILE))))
        self.add_callback(LoggedSamples(self.callback_handler))
        self.add_callback(AtTrainBegin(self._align))
        chosen = args.generation_kwargs if isinstance(args.generation_kwargs, dict) else {}
        if self.use_vllm:
            self._prepare_vllm()
            warn_of_mismatches(sampling_by_vllm(args), chosen)
        else:
            warn_of_mismatches(self._policy.generation_config.to_dict(), self.generation_config.to_dict(), chosen)

    def _prepare_vllm(self) -> None:
        end_completions_at(self.vllm_generation, self.eos_token_ids)
        keep_base_weights(self.vllm_generation, self.model)
        if self.args.one_step_off_policy:
            self._ahead, self._batches = DrawnAhead(self.vllm_generation, lambda: self.model.training), BatchesAhead()
        if self.args.vllm_importance_sampling_correction:
            self._drawn = DrawnLogprobs(self.vllm_generation)

    def _check_shards(self) -> None:
        """Refuse what cannot be done with weights in parts, and let them say float32.

        Raises:
            ConfigError: DeepSpeed is to leave out steps, or weights in parts are to be of policy and critic.
        """
        if self.is_deepspeed_enabled and self.args.max_approx_kl is not None:
            raise ConfigError(
                "max_approx_kl skips steps, and DeepSpeed's engine makes each by itself",
                key="max_approx_kl",
                hint="leave it out, or use FSDP",
            )
        if self.args.critic == "lora" and (self.is_deepspeed_enabled or self.is_fsdp_enabled):
            raise ConfigError(
                "a LoRA critic has the policy's weights in common with it, and a weight in parts has one owner",
                key="critic",
                hint="use critic: shared, or the weights whole in each process",
            )
        return_float32(self.accelerator)

    def _check_tokens(self, tables: Mapping[str, Any]) -> None:
        """Refuse special tokens that the policy lacks, and prompts that it has no positions for.

        Raises:
            ConfigError: A special token is outside of the vocabulary, or a completion as long as allowed does not fit.
            DataError: A prompt is too long.
        """
        embeddings: Any = self._policy.get_input_embeddings()
        template_arguments: Any = self.chat_template_kwargs
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
                    template_arguments=template_arguments,
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
        return fingerprint(weights)

    def _add_critic(self) -> Critic:
        if self.args.critic == "shared":
            return add_value_head(self._policy)
        if self.args.critic == "lora":
            adapted = adapted_backbone(self.model)
            if self.args.disable_dropout:
                disable_dropout(adapted)
            return add_lora_critic(self._policy, adapted)
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
        """Start with a new rollout.

        Raises:
            TrainingError: Training is resumed from within a rollout.
        """
        updates = self.args.updates_per_rollout
        if (begun := state.global_step % updates) and state.global_step < state.max_steps:
            raise TrainingError(
                f"the checkpoint of step {state.global_step} was made after {begun} of a rollout's {updates} optimiser steps, and "
                "holds nothing of the rollout",
                hint=f"resume from a checkpoint whose step is a multiple of {updates}",
            )
        self._step = state.global_step * self.args.gradient_accumulation_steps
        self._rollout = None

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """The optimiser, with the critic in parameter groups of its own learning rates."""
        head = list(self.value_head.parameters())
        if self.optimizer and any(head[0] is p for group in self.optimizer.param_groups for p in group["params"]):
            return self.optimizer
        of_critic = trained_weights(self.critic).values()
        for weight in of_critic:
            weight.requires_grad = False
        optimizer: torch.optim.Optimizer = super().create_optimizer(model)
        for weight in of_critic:
            weight.requires_grad = True
        optimizer.add_param_group({"params": head, "lr": self.args.value_learning_rate, "weight_decay": 0.0})
        if isinstance(self.critic, SeparateCritic):
            backbone = list(trained_weights(self.critic.backbone).values())
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
        with (
            gathered_once(self._policy),
            without_critic(self._policy),
            contiguous_head_input(self._policy),
            generating_in_one_row(self._policy),
        ):
            return super()._generate_single_turn(*args, **kwargs)  # type: ignore[no-untyped-call]

    def _score(self, model: Any, tokens: Tokens) -> CompletionScores:
        """Score completions without gradients."""
        size = self.args.per_device_train_batch_size if self.model.training else self.args.per_device_eval_batch_size
        in_parts = self.is_fsdp_enabled or self.is_deepspeed_enabled
        most = {"most": self.processes.most} if in_parts else {}
        batches = tokens.batches(rows=size, budget=self.args.logprob_batch_tokens, **most)
        kwargs = self.args.gradient_checkpointing_kwargs
        with (
            disable_gradient_checkpointing(self.model, kwargs if isinstance(kwargs, dict) else None),
            self.accelerator.autocast(),
        ):
            return score_in_batches(model, tokens, batches)

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
        saves = self.args.should_save
        critic = critic_weights(self.critic, state_dict) if saves else None  # before transformers empties the mapping
        with without_critic(self._policy):  # of whose adapter PEFT would save a part as the policy's
            super()._save(output_dir, state_dict=state_dict)
        if saves:
            self._checkpoint_state.save(Path(output_dir or self.args.output_dir or "."), critic)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if self.is_fsdp_enabled and not self.accelerator.is_fsdp2:
            raise TrainingError(
                "PPO does not resume from a checkpoint of FSDP1",
                hint="set fsdp_version: 2 for a new run, or train on from the saved model",
            )
        # of FSDP's own file the critic is a part
        with contextlib.nullcontext() if self.is_fsdp_enabled else without_critic(self._policy):
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        self._checkpoint_state.load(Path(resume_from_checkpoint))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None and self.is_deepspeed_enabled:  # which has loaded all weights by now
            self._checkpoint_state.load(Path(checkpoint), weights=False)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log what was noted since the last time, and whether what is rewarded rises as a reward of weight 0 falls.

        ``drift/NAME`` is `rlaif_sdk.diagnostics.Drift.statistic` over the log so far; a drift is warned of
        when it is first found.
        """
        self._note_parts()
        if self.model.training:
            for drift in drift_in_history(self.state.log_history):
                self._note("train", {f"drift/{drift.held_out}": drift.statistic})
                if drift.detected and drift.held_out not in self._drifted:
                    self._drifted |= {drift.held_out}
                    _logger.warning("%s", drift)
        super().log(logs, start_time)

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> Any:
        """As transformers does; where prompts are drawn ahead, those of the next rollout are seen before they come."""
        if self._ahead is not None:
            epoch_iterator = self._batches.of(epoch_iterator)
        return super().get_batch_samples(epoch_iterator, num_batches, device)

    def _draw_ahead(self, ahead: DrawnAhead) -> None:
        """Begin to draw the next rollout, where there is one in this epoch, by the policy as it is."""
        if self.state.global_step + self.args.updates_per_rollout >= self.state.max_steps:
            return
        # of this rollout's micro-batches those of its first step have come
        left = self.args.rollout_minibatches * self.args.num_iterations - self.args.gradient_accumulation_steps
        rows = self._batches.peek(left)
        if rows is not None:
            prompt_ids, *_ = self._tokenize_prompts([row["prompt"] for row in rows])
            ahead.begin(prompt_ids, self.args.num_generations)

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        """The minibatch of this micro-step: of a new rollout, or of the present one in its old or a new order."""
        minibatches = self.args.rollout_minibatches
        if self._rollout is None or self._step % (minibatches * self.args.num_iterations) == 0:
            self._rollout, self._minibatches = self._collect(generation_batch), ()
        if not self._minibatches or self._step % minibatches == 0:
            self._minibatches = self._rollout.minibatches(
                minibatches, accumulation=self.args.gradient_accumulation_steps, mean=self.processes.mean
            )
        return self._minibatches[self._step % minibatches]

    def _collect(self, rows: Sequence[Row], counted: int | None = None) -> Rollout:
        """Sample completions of the rows' prompts, and assess every token while the rewards score them.

        Args:
            rows: B rows.
            counted: How many of them, the first, are scored and counted; the others fill up an evaluation's last batch.
        """
        counted = len(rows) if counted is None else counted
        training = self.model.training
        mode = "train" if training else "eval"
        prompts = [row["prompt"] for row in rows]
        prompt_ids, completion_ids, completions = self._generate(prompts)
        if training and self._ahead is not None:
            self._draw_ahead(self._ahead)
        tokens = Tokens.padded(prompt_ids, completion_ids, pad_id=self._tokenizer.pad_token_id)
        tokens = tokens.to(self.accelerator.device)
        composer = self.composer if training else self.eval_composer
        logged = TrainerArguments(self.state, counted)
        scored = begin_scoring(
            composer,
            reward_batch(
                rows,
                prompts=prompts[:counted],
                completions=completions[:counted],
                completion_ids=completion_ids[:counted],
                generations=self.args.num_generations if training else self.args.num_generations_eval,
                progress=Progress(self.state.global_step, self.state.max_steps or None),
                training=training,
                trainer=logged,
            ),
        )
        with lock_of(self._policy):  # a reward may ask the policy itself
            policy = self._score(self.model, tokens)
            ref_logprobs_BT = self._reference_logprobs(tokens)
        composition = scored()
        scores_B, token_rewards_BT = self._scores(composition, tokens, counted)
        truncated = [ids[-1] not in self.eos_token_ids for ids in completion_ids]
        rollout = compute_advantages(
            tokens,
            scores_B=scores_B,
            truncated_B=torch.tensor(truncated).to(policy.logprobs_BT.device, non_blocking=True),
            logprobs_BT=policy.logprobs_BT,
            values_BT=policy.values_BT,
            ref_logprobs_BT=ref_logprobs_BT,
            token_rewards_BT=token_rewards_BT,
            drawn_logprobs_BT=self._drawn.where_known(policy.logprobs_BT) if self._drawn else None,
            gamma=self.args.gamma,
            gae_lambda=self.args.gae_lambda,
            kl_coef=0.0 if self.args.use_kl_loss else self.kl_controller.coef,
            missing_eos_penalty=self.args.missing_eos_penalty,
            mask_truncated=self.args.mask_truncated_completions,
            whiten=self.args.normalize_advantages,
            total=self.processes.total,
        )
        rewarded = reward_metrics(composition)
        measured = measured_rows(rewarded, composition)
        if training:
            metrics = rollout_metrics(rollout, self.processes.total)
            if not metrics:
                _logger.warning("no completion of this rollout has a score: it changes nothing")
            rewarded = self.processes.metrics([Measured(rewarded, measured)])
            self._note(mode, {**rewarded, **metrics, "kl_coef": self.kl_controller.coef})
        else:
            metrics = rollout_metrics(rollout)
            self._evaluated.append(Measured({**rewarded, **metrics}, measured | rollout_weights(rollout)))
        for name, value in self.processes.rows(logged.metrics):
            self._note(mode, {name: value})
        if composer is self.composer:
            self._note_completions(prompts[:counted], completions[:counted], composition, rollout, logged.extras)
        kl_BT = rollout.kl_BT
        kl_B = None if kl_BT is None else (kl_BT * tokens.completion_mask_BT).sum(dim=1)[:counted]
        samples = sample_records(prompts[:counted], completions[:counted], composition, kl_B, truncated[:counted])
        show_samples(self.callback_handler, self.args, self.state, self.control, split=mode, records=samples)
        if training:
            self._early_stopped = False
            if "kl" in metrics:
                self._follow(metrics["kl"], len(rows) * self.processes.count)
        return rollout

    def _scores(self, composition: ScoredBatch, tokens: Tokens, counted: int) -> tuple[Tensor, Tensor | None]:
        """scores_B as they become rewards, NaN of rows that do not count, and the part of them that falls on tokens."""
        scores_B = scores_of(composition, counted, clip=self.args.reward_clip_range)
        scores_B = scores_B.to(self.accelerator.device, non_blocking=True)
        scores_B = torch.nn.functional.pad(scores_B, (0, len(tokens) - counted), value=float("nan"))
        token_rewards_BT = token_rewards_of(composition, tokens, self._tokenizer)
        if token_rewards_BT is not None:
            token_rewards_BT = token_rewards_BT.to(scores_B, non_blocking=True)
        return self.score_normalizer.normalize(scores_B, token_rewards_BT, training=self.model.training)

    def _follow(self, kl: float, completions: int) -> None:
        """Let the price of divergence follow a rollout's, or end training where that is too great."""
        self.kl_controller.update(kl, completions)
        limit = self.args.max_kl
        if limit is not None and kl > limit:
            _logger.warning(
                "training ends: the policy is %.4g nats a completion from its reference, max_kl=%g", kl, limit
            )
            self._early_stopped = self.control.should_training_stop = True

    def _reference_logprobs(self, tokens: Tokens) -> Tensor | None:
        if self.args.kl_coef == 0:
            return None
        with self._reference() as reference:
            return self._score(reference, tokens).logprobs_BT

    def prediction_step(
        self,
        model: Any,
        inputs: Any,
        prediction_loss_only: bool,  # noqa: FBT001 - the base class's signature
        ignore_keys: list[str] | None = None,
    ) -> tuple[None, None, None]:
        """Sample and score an evaluation batch; what is learnt of it is in the logged metrics."""
        del model, prediction_loss_only, ignore_keys
        self._collect(inputs, self._count_rows(inputs))
        return None, None, None

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluate; every metric is of all rows of the set, those of several processes together."""
        self._evaluated = []
        return super().evaluation_loop(*args, **kwargs)

    def _evaluation_metrics(self) -> dict[str, float | None]:
        found = self.processes.metrics(self._evaluated)
        metrics = {name: None if math.isnan(value) else value for name, value in found.items()}
        return {**super()._evaluation_metrics(), **metrics, "kl_coef": self.kl_controller.coef}

    def _note_parts(self) -> None:
        """Note the parts of the losses since the last time; before that nobody waits for the device to have them."""
        parts, self._parts = self._parts, []
        if parts:
            rows = torch.stack([values for _, values in parts]).tolist()
            for (names, _), values in zip(parts, rows, strict=True):
                self._note("train", dict(zip(names, values, strict=True)))

    def _note(self, mode: str, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self._metrics[mode][name].append(value)

    def _note_completions(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        composition: ScoredBatch,
        rollout: Rollout,
        extras: Mapping[str, Sequence[Any]],
    ) -> None:
        """Keep the latest completions of all processes for ``log_completions``."""
        if not self.args.log_completions:
            return
        rows = self.processes.rows
        self._logs["prompt"].extend(rows(prompts))
        self._logs["completion"].extend(rows(completions))
        for name, column in composition.rewards.items():
            self._logs["rewards"][name].extend(rows(column.raw.tolist()))
        # one gathering, since a reward may have logged a column in one process only
        extra = rows([{name: values[row] for name, values in extras.items()} for row in range(len(prompts))])
        for name in dict.fromkeys(name for row in extra for name in row):
            self._logs["extra"][name].extend(row.get(name) for row in extra)
        advantages_B = rollout.advantages_BT.sum(dim=1) / rollout.mask_BT.sum(dim=1).clamp(min=1)
        self._logs["advantages"].extend(rows(advantages_B[: len(prompts)].tolist()))

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        """One minibatch's gradient; none where the policy has moved as far as one rollout may move it."""
        loss: Tensor = super().training_step(model, inputs, num_items_in_batch)  # type: ignore[no-untyped-call]
        if self._early_stopped:
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
        if self._early_stopped:
            self._note("train", {"skipped": 1.0})
            return torch.zeros((), device=self.accelerator.device, requires_grad=True)
        minibatch: Rollout = inputs
        tokens = minibatch.tokens
        scores: CompletionScores = model(
            input_ids=tokens.input_ids,
            attention_mask=tokens.attention_mask,
            completion_length=tokens.completion_length,
        )
        ref_logprobs_BT = minibatch.ref_logprobs_BT if self.args.use_kl_loss else None
        kl_BT = None
        if ref_logprobs_BT is not None:
            kl_BT = estimate_kl(scores.logprobs_BT, ref_logprobs_BT, self.args.kl_estimator)
        weights_BT = None
        if minibatch.drawn_logprobs_BT is not None:
            most = self.args.vllm_importance_sampling_clip_max
            weights_BT = importance_weights(minibatch.old_logprobs_BT, minibatch.drawn_logprobs_BT, most=most)
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
            kl_BT=kl_BT,
            kl_coef=self.kl_controller.coef,
            weights_BT=weights_BT,
        )
        parts = self.processes.mean(torch.stack([*loss.metrics.values()]))
        self._parts.append((tuple(loss.metrics), parts))
        if self.args.max_approx_kl is not None and self._step % self.args.gradient_accumulation_steps == 0:
            divergence = loss.metrics["approx_kl"] * minibatch.token_share
            total, count = self.accelerator.reduce(torch.stack([divergence, minibatch.mask_BT.sum()]), "sum")
            self._early_stopped = float(total / count.clamp(min=1)) > self.args.max_approx_kl
            self._note("train", {"skipped": float(self._early_stopped)})
        return loss.total


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
