"""Training on composed rewards: held-out prompts answered before and after, the model saved. PPO, GRPO and RLOO."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from rlaif_sdk.exceptions import ConfigError, RlaifError, needs_extra
from rlaif_sdk.io.files import without_nan
from rlaif_sdk.io.tables import write_table
from rlaif_sdk.training.config import ComposedRun, ComposedRunConfig, Composition, Run
from rlaif_sdk.training.methods import Method, get_method, resolve, trainer_settings
from rlaif_sdk.training.model_card import write_model_card
from rlaif_sdk.training.models import adapter, check_trainable, is_encoder_decoder, load_policy, save_policy
from rlaif_sdk.training.ranks import first_process, in_turn, on_one_machine, refuse_shards, shared
from rlaif_sdk.training.run_folder import (
    EVALUATION_FILE,
    MODEL_FOLDER,
    SAMPLES_FILE,
    RunResult,
    recorded,
    run_training,
    starting_point,
)
from rlaif_sdk.types import Progress

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase, TrainerCallback

    from rlaif_sdk.composer import Composer
    from rlaif_sdk.training.generation import Answers, ScoredAnswers
    from rlaif_sdk.training.ppo import PPOConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyResult(RunResult):
    """What came of a run; its method is ``PPO``, ``REINFORCE``, ``GRPO`` or ``RLOO``.

    Attributes:
        before: Answers to the held-out prompts before training.
        after: Answers of the trained policy to the same prompts, scored by the same composer.
    """

    before: ScoredAnswers
    after: ScoredAnswers

    def samples(self) -> Iterator[dict[str, Any]]:
        """One JSON-ready mapping a held-out prompt, with the records of its answers before and after."""
        for prompt, old, new in zip(
            self.before.answers.prompts, self.before.records(), self.after.records(), strict=True
        ):
            yield {"prompt": prompt, "before": old, "after": new}


def train_policy(
    run: ComposedRun,
    *,
    display: TrainerCallback | None,
    report: Callable[[str], None],
    on_result: Callable[[PolicyResult], object],
    resume: bool,
) -> PolicyResult:
    """Train a policy on composed rewards; see `rlaif_sdk.training.methods.train`.

    Both sets of answers are scored after training, by one composer in one state, so that their totals can be compared
    even where a normalizer learns or a weight follows a schedule. Under a launcher (``accelerate launch rlaif train
    ppo``) all processes train, each answers a share of the held-out prompts, the first scores and writes, and each returns
    the same.

    The trainer of the method is made of the run, its composer, that of its evaluation or None, and the settings; and of
    keywords: ``resume``, and those of `trl.GRPOTrainer`.
    """
    from rlaif_sdk.composer.ledger import FILE_NAME

    method = get_method(run.method)
    refuse_shards(trains_in_parts=method.trains_in_parts)
    checkpoint = starting_point(run, resume=resume)
    with needs_extra("train"):
        from transformers import PrinterCallback

        from rlaif_sdk.integrations.trl import reads_own_rewards
        from rlaif_sdk.training.generation import score_answers
        from rlaif_sdk.training.tools import answer_with_tools, load_tools

        tools = load_tools(run)
        arguments = trainer_settings(run)
        train, held_out = method.load_rows(run)

    tables = {"train": train, "held_out": held_out}
    with (
        recorded(run, arguments, tables, checkpoint=checkpoint, resume=resume, report=report) as results,
        run.composer(ledger=not on_one_machine() or run.output / FILE_NAME) as composer,
        run.composer("evaluation") if "evaluation" in run.composition_keys else contextlib.nullcontext() as evaluation,
    ):
        report(f"loading {run.model_name}")
        model, tokenizer = load_policy(run, encoder_decoder=method.encoder_decoder)
        train, held_out = prompts_for_trainer(run, tokenizer, arguments, tables)
        trainer = method.trainer(
            run,
            composer,
            evaluation,
            arguments,
            resume=checkpoint is not None,
            model=model,
            train_dataset=train,
            eval_dataset=None if arguments.eval_strategy == "no" else held_out,
            processing_class=tokenizer,
            peft_config=adapter(run, "SEQ_2_SEQ_LM" if is_encoder_decoder(model) else "CAUSAL_LM"),
            **(tools.options() if tools else {}),
        )
        check_trainable(trainer.model)
        if display is not None:
            trainer.remove_callback(PrinterCallback)
            trainer.add_callback(display)
        end_by_alarm = _heed_alarm(run, composer, trainer)

        def answer() -> Answers:
            if tools is not None:
                own = tools.environment is not None and reads_own_rewards(composer)
                return answer_with_tools(trainer, held_out, own=own, report=report)
            return _answers_of_all(trainer, tokenizer, held_out, arguments, report)

        report(f"answering {len(held_out)} held-out prompts before training")
        answers_before = answer()
        report("training")
        fields = run_training(run, trainer, checkpoint, results, logged="reward")
        end_by_alarm()
        evaluations = [without_nan(entry) for entry in trainer.state.log_history if "eval_reward" in entry]
        report(f"saving {run.output / MODEL_FOLDER}")
        save_policy(run, trainer, tokenizer, run.output / MODEL_FOLDER)
        if first_process():
            write_model_card(run, run.output / MODEL_FOLDER, steps=fields["steps"])
            if evaluations:
                write_table(evaluations, run.output / EVALUATION_FILE)
        report(f"answering {len(held_out)} held-out prompts after training")
        answers_after = answer()
        report("scoring both sets of answers")
        progress = Progress(trainer.state.global_step, trainer.state.max_steps)
        before, after = shared(
            lambda: [score_answers(said, composer, progress, evaluation) for said in (answers_before, answers_after)]
        )
        fields["method"] = str(getattr(arguments, "algorithm", run.method)).upper()
        result = PolicyResult(**fields, before=before, after=after)
        if first_process():
            write_table(result.samples(), run.output / SAMPLES_FILE)
            on_result(result)
    return result


def _answers_of_all(
    trainer: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Dataset,
    settings: Any,
    report: Callable[[str], None],
) -> Answers:
    """The answers to held-out prompts, of which each process answers a share."""
    from rlaif_sdk.training.generation import Answers, answer_prompts
    from rlaif_sdk.training.ppo.shards import ready_to_answer

    with ready_to_answer(trainer) as policy:

        def share(process: int, count: int) -> list[Answers]:
            rows = range(len(prompts) * process // count, len(prompts) * (process + 1) // count)
            sampling = copy(settings)
            sampling.seed += process
            return [answer_prompts(policy, tokenizer, prompts.select(rows), sampling, report=report)] if rows else []

        return Answers.joined(prompts, in_turn(share))


def _heed_alarm(run: ComposedRun, composer: Composer, trainer: Any) -> Callable[[], None]:
    """Have the trainer do what an alarm says. Calling what is returned raises an `AlarmError` where one ended the run."""
    from rlaif_sdk.integrations.alarm_callback import AlarmCallback

    if composer.alarm is None:
        return lambda: None
    callback = AlarmCallback(composer, run.output)
    trainer.add_callback(callback)
    return partial(callback.end_run, f"rlaif train {run.method} {run.document.file} --resume")


def prompts_for_trainer(
    run: Run, tokenizer: PreTrainedTokenizerBase, arguments: Any, tables: Mapping[str, Dataset]
) -> list[Dataset]:
    """The tables, with prompts that the policy's chat template takes.

    Raises:
        ConfigError: See `check_chat_template`.
        DataError: The template refuses a prompt.
    """
    from rlaif_sdk.training.data import prompts_for

    conversational = not all(isinstance(rows[0]["prompt"], str) for rows in tables.values())
    check_chat_template(run, tokenizer, needed=conversational)
    template_arguments = getattr(arguments, "chat_template_kwargs", None) or {}
    return [prompts_for(rows, tokenizer, template_arguments) for rows in tables.values()]


def check_chat_template(run: Run, tokenizer: PreTrainedTokenizerBase, *, needed: bool) -> None:
    """Refuse a tokenizer without a chat template where messages are to be encoded.

    Raises:
        ConfigError: The template is needed and missing.
    """
    if needed and not tokenizer.chat_template:
        raise run.document.error(
            "its tokenizer has no chat template, and the prompts are messages",
            ("model", "name"),
            "name an instruct model, or give the prompts as text",
        )


GRPO_CHOICES: dict[str, tuple[str, ...]] = {
    "loss_type": ("grpo", "bnpo", "dr_grpo", "dapo", "cispo", "luspo", "sapo", "vespo"),
    "scale_rewards": ("group", "batch", "none"),
    "importance_sampling_level": ("token", "sequence"),
    "multi_objective_aggregation": ("sum_then_normalize", "normalize_then_sum"),
}
"""What TRL compares settings of GRPO with once it is training."""


class PPORunConfig(ComposedRunConfig):
    """Everything about a PPO run."""

    evaluation: Composition | None = None
    """Rewards only for held-out prompts, of the kind of ``composition``, which training never sees; null for the same."""
    ppo: dict[str, Any] = Field(default_factory=dict)
    """Fields of `rlaif_sdk.training.ppo.PPOConfig`, which has those of `transformers.TrainingArguments` too."""


class GRPORunConfig(ComposedRunConfig):
    """Everything about a GRPO run."""

    tools: list[str] = Field(default_factory=list)
    """Functions that the policy may call while it answers, plain or ``async``: ``path/to/file.py:function`` or
    ``package.module:function``; a name may stand for a list of them. Each parameter has a type, and a line in the docstring
    under ``Args:``."""
    environment: str | None = None
    """A class of environments, named like a tool. Each rollout has one: ``reset(**row)`` begins it and returns what is added
    to the prompt, its other public methods are tools, and ``get_reward()``, if there is one, is the reward
    ``environment``. TRL calls its environments experimental."""
    grpo: dict[str, Any] = Field(default_factory=dict)
    """Fields of `trl.GRPOConfig`, which has those of `transformers.TrainingArguments` too."""


class RLOORunConfig(ComposedRunConfig):
    """Everything about an RLOO run."""

    rloo: dict[str, Any] = Field(default_factory=dict)
    """Fields of `trl.RLOOConfig`, which has those of `transformers.TrainingArguments` too."""


def _load_rows(run: ComposedRun, **options: Any) -> tuple[Dataset, Dataset]:
    from rlaif_sdk.training.data import load_prompts

    return load_prompts(run.config.data, run.folder, seed=run.config.seed, **options)


def _ppo_defaults(run: ComposedRun) -> dict[str, Any]:
    return {"samples_file": str(run.output / "rollouts.jsonl"), **run.in_order()}


def _complete_ppo(run: ComposedRun, settings: PPOConfig) -> None:
    if settings.critic == "lora" and run.config.model.lora is None:
        raise ConfigError("a LoRA critic needs a policy with LoRA", key="critic", hint="set model.lora")
    if settings.critic_model and (run.folder / settings.critic_model).is_dir():
        settings.critic_model = str(run.folder / settings.critic_model)


def _ppo_trainer(
    _: ComposedRun, composer: Composer, evaluation: Composer | None, settings: Any, *, resume: bool, **options: Any
) -> Any:
    from rlaif_sdk.training.ppo import PPOTrainer

    if settings.samples_file and not resume:
        Path(settings.samples_file).unlink(missing_ok=True)
    return PPOTrainer(reward_funcs=composer, eval_reward_funcs=evaluation, args=settings, **options)


def _grpo_defaults(run: ComposedRun) -> dict[str, Any]:
    from rlaif_sdk.training.tools import load_tools

    for name, known in GRPO_CHOICES.items():
        if (value := run.config.grpo.get(name, known[0])) not in known:
            raise run.document.error(f"is one of {', '.join(known)}, not {value!r}", ("grpo", name))
    load_tools(run)
    return _trl_defaults(run)


def _trl_defaults(run: ComposedRun) -> dict[str, Any]:
    return {
        **run.trl_defaults(),
        **run.in_order(),
        "model_init_kwargs": run.config.model.loading or None,  # of the reference, which TRL loads anew
    }


def _no_labels(_: ComposedRun, settings: Any) -> None:
    if settings.label_smoothing_factor:
        raise ConfigError("the loss has no labels to smooth", key="label_smoothing_factor")


def _trl_trainer(
    run: ComposedRun,
    composer: Composer,
    _: Composer | None,
    settings: Any,
    *,
    kind: str,
    resume: bool,
    **options: Any,
) -> Any:
    """With ``multi_objective_aggregation: normalize_then_sum`` TRL gets the rewards one by one, with their weights."""
    from rlaif_sdk.training.evaluation_means import over_rows

    del resume
    if getattr(settings, "multi_objective_aggregation", None) == "normalize_then_sum":
        rewards, settings.reward_weights = composer.for_trl(separate=True)
    else:
        rewards = [composer.for_trl()]
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", "You are using 'environment_factory'"
            )  # experimental, as the key's docs say
            trainer = over_rows(resolve(kind))(reward_funcs=rewards, args=settings, **options)
    except RlaifError:
        raise
    except (ImportError, ValueError) as error:
        raise run.document.error(f"TRL refuses this: {error}", (run.method,)) from error
    rewards[0].check(trainer)
    if trainer.use_vllm:
        from rlaif_sdk.training.ppo.sampling import keep_base_weights

        keep_base_weights(trainer.vllm_generation, trainer.model)
    return trainer


_OnlineMethod = partial(
    Method,
    run=ComposedRun,
    learns_from="prompts",
    load_rows=_load_rows,
    train=train_policy,
    report="rlaif_sdk.reporting.training_report:report_online",
)
PPO = _OnlineMethod(
    name="ppo",
    config=PPORunConfig,
    settings="rlaif_sdk.training.ppo.config:PPOConfig",
    defaults=_ppo_defaults,
    check=_complete_ppo,
    trainer=_ppo_trainer,
    encoder_decoder=True,
    fused_head=False,
    chunks_logits=True,
    trains_in_parts=True,
    keeps_reference=lambda settings: bool(settings.kl_coef > 0),
)
GRPO = _OnlineMethod(
    name="grpo",
    config=GRPORunConfig,
    settings="trl.trainer.grpo_config:GRPOConfig",
    defaults=_grpo_defaults,
    check=_no_labels,
    trainer=partial(_trl_trainer, kind="trl.trainer.grpo_trainer:GRPOTrainer"),
)
RLOO = _OnlineMethod(
    name="rloo",
    config=RLOORunConfig,
    settings="trl.trainer.rloo_config:RLOOConfig",
    defaults=_trl_defaults,
    check=_no_labels,
    trainer=partial(_trl_trainer, kind="trl.trainer.rloo_trainer:RLOOTrainer"),
)
