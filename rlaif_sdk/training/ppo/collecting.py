"""Rollouts inside the trainer: completions sampled, scored by the rewards, and assessed token by token."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rlaif_sdk.composer.diagnostics import drift_in_history
from rlaif_sdk.training.ppo.actor_critic import ActorCriticTrainer
from rlaif_sdk.training.ppo.assess import Assessment, rollout_metrics, rollout_weights
from rlaif_sdk.training.ppo.kl import estimate_kl
from rlaif_sdk.training.ppo.processes import Measured, measured_rows
from rlaif_sdk.training.ppo.rollout import Rollout, Tokens
from rlaif_sdk.training.ppo.samples import sample_records, show_samples
from rlaif_sdk.training.ppo.scoring import begin_scoring, on_tokens_of, reward_batch, reward_metrics, scores_of
from rlaif_sdk.types import Progress

if TYPE_CHECKING:
    from transformers import TrainerState

    from rlaif_sdk.training.ppo.policy import CompletionScores
    from rlaif_sdk.training.ppo.scoring import Scored

_logger = logging.getLogger(__name__)

Row = Mapping[str, Any]


class CollectingTrainer(ActorCriticTrainer):
    """The base of `PPOTrainer`: everything but the loss. See there for arguments and errors."""

    _rollout: Rollout | None = None
    _minibatches: Sequence[Rollout] = ()
    _drifted: frozenset[str] = frozenset()
    _halted = False
    _evaluated: list[Measured] = []  # noqa: RUF012 - replaced at the start of each evaluation

    def _align(self, state: TrainerState) -> None:
        super()._align(state)
        self._rollout = None

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log what was noted since the last time, and whether what is rewarded rises as a reward of weight 0 falls.

        ``drift/NAME`` is `rlaif_sdk.composer.diagnostics.Drift.statistic` over the log so far; a drift is warned of
        when it is first found.
        """
        if self.model.training:
            for drift in drift_in_history(self.state.log_history):
                self._note("train", {f"drift/{drift.held_out}": drift.statistic})
                if drift.detected and drift.held_out not in self._drifted:
                    self._drifted |= {drift.held_out}
                    _logger.warning("%s", drift)
        super().log(logs, start_time)

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
        tokens = Tokens.padded(prompt_ids, completion_ids, pad_id=self._tokenizer.pad_token_id)
        tokens = tokens.to(self.accelerator.device)
        composer = self.composer if training else self.eval_composer
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
            ),
        )
        policy = self._score(self.model, tokens)
        kl_BT = self._divergence(policy, tokens)
        composition = scored()
        scores_B, on_tokens_BT = self._scores(composition, tokens, counted)
        truncated_B = torch.tensor([ids[-1] not in self.eos_token_ids for ids in completion_ids]).to(
            policy.logprobs_BT.device
        )
        rollout = Assessment(
            gamma=self.args.gamma,
            gae_lambda=self.args.gae_lambda,
            kl_coef=self.kl_controller.coef,
            missing_eos_penalty=self.args.missing_eos_penalty,
            mask_truncated=self.args.mask_truncated_completions,
            whiten=self.args.normalize_advantages,
            total=self.processes.total,
        ).rollout(
            tokens,
            scores_B=scores_B,
            truncated_B=truncated_B,
            logprobs_BT=policy.logprobs_BT,
            values_BT=policy.values_BT,
            kl_BT=kl_BT,
            on_tokens_BT=on_tokens_BT,
        )
        rewarded = reward_metrics(composition)
        measured = measured_rows(rewarded, composition)
        if training:
            figures = rollout_metrics(rollout, kl_BT, self.processes.total)
            if not figures:
                _logger.warning("no completion of this rollout has a score: it changes nothing")
            rewarded = self.processes.figures([(rewarded, measured)])
            self._note(mode, {**rewarded, **figures, "kl_coef": self.kl_controller.coef})
        else:
            figures = rollout_metrics(rollout, kl_BT)
            self._evaluated.append(({**rewarded, **figures}, measured | rollout_weights(rollout)))
        if composer is self.composer:
            self._note_completions(prompts[:counted], completions[:counted], composition, rollout)
        kl_B = None if kl_BT is None else (kl_BT * tokens.completion_mask_BT).sum(dim=1)[:counted]
        samples = sample_records(prompts[:counted], completions[:counted], composition, kl_B, truncated_B[:counted])
        show_samples(self.callback_handler, self.args, self.state, self.control, split=mode, records=samples)
        if training:
            self._halted = False
            if "kl" in figures:
                self._follow(figures["kl"], len(rows) * self.processes.count)
        return rollout

    def _scores(self, composition: Scored, tokens: Tokens, counted: int) -> tuple[Tensor, Tensor | None]:
        """scores_B as they become rewards, NaN of rows that do not count, and the part of them that falls on tokens."""
        scores_B = scores_of(composition, counted, clip=self.args.reward_clip_range).to(self.accelerator.device)
        scores_B = torch.nn.functional.pad(scores_B, (0, len(tokens) - counted), value=float("nan"))
        on_tokens_BT = on_tokens_of(composition, tokens)
        if on_tokens_BT is not None:
            on_tokens_BT = on_tokens_BT.to(scores_B)
        return self.score_normalizer.normalize(scores_B, on_tokens_BT, training=self.model.training)

    def _follow(self, kl: float, completions: int) -> None:
        """Let the price of divergence follow a rollout's, or end training where that is too great."""
        self.kl_controller.update(kl, completions)
        limit = self.args.max_kl
        if limit is not None and kl > limit:
            _logger.warning(
                "training ends: the policy is %.4g nats a completion from its reference, max_kl=%g", kl, limit
            )
            self._halted = self.control.should_training_stop = True

    def _divergence(self, policy: CompletionScores, tokens: Tokens) -> Tensor | None:
        """kl_BT, the divergence of policy from reference at each token; None without a reference."""
        if self.args.kl_coef == 0:
            return None
        with self._reference() as reference:
            return estimate_kl(policy.logprobs_BT, self._score(reference, tokens).logprobs_BT, self.args.kl_estimator)

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
        """Evaluate; every figure is of all rows of the set, those of several processes together."""
        self._evaluated = []
        return super().evaluation_loop(*args, **kwargs)

    def _evaluation_figures(self) -> dict[str, float | None]:
        found = self.processes.figures(self._evaluated)
        figures = {name: None if math.isnan(value) else value for name, value in found.items()}
        return {**super()._evaluation_figures(), **figures, "kl_coef": self.kl_controller.coef}

    def _note(self, mode: str, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            self._metrics[mode][name].append(value)

    def _note_completions(
        self, prompts: Sequence[Any], completions: Sequence[Any], composition: Scored, rollout: Rollout
    ) -> None:
        """Keep the latest completions of all processes for ``log_completions``."""
        if not self.args.log_completions:
            return
        rows = self.processes.rows
        self._logs["prompt"].extend(rows(prompts))
        self._logs["completion"].extend(rows(completions))
        for name, column in composition.rewards.items():
            self._logs["rewards"][name].extend(rows(column.raw.tolist()))
        advantages_B = rollout.advantages_BT.sum(dim=1) / rollout.mask_BT.sum(dim=1).clamp(min=1)
        self._logs["advantages"].extend(rows(advantages_B[: len(prompts)].tolist()))
