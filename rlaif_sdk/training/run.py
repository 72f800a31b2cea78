"""A run from a config: held-out prompts answered before and after training on composed rewards, the model saved."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlaif_sdk.exceptions import MissingExtraError
from rlaif_sdk.io.files import without_nan
from rlaif_sdk.io.tables import write_table
from rlaif_sdk.training.config import ComposedRun, PPORun, Run, load_run_config
from rlaif_sdk.training.manifest import recorded
from rlaif_sdk.training.models import adapter, is_encoder_decoder, load_policy, save_policy
from rlaif_sdk.training.policy_checks import check_trainable
from rlaif_sdk.training.ranks import first_process, refuse_shards, shared
from rlaif_sdk.training.run_folder import (
    EVALUATION_FILE,
    HISTORY_FILE,
    MODEL_FOLDER,
    SAMPLES_FILE,
    starting_point,
)
from rlaif_sdk.types import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, TrainerCallback

    from rlaif_sdk.composer import Composer
    from rlaif_sdk.training.heldout import ScoredAnswers


@dataclass(frozen=True, slots=True)
class PolicyResult:
    """What came of a run.

    Attributes:
        method: How the policy was trained: ``PPO``, ``REINFORCE``, ``GRPO`` or ``RLOO``.
        before: Answers to the held-out prompts before training.
        after: Answers of the trained policy to the same prompts, scored by the same composer.
        history: What the trainer logged, one mapping a rollout.
        model_folder: The trained model, for plain ``from_pretrained``; an adapter is merged into it.
        output: The folder of the run.
        steps: Optimiser steps done.
        training_seconds: Time spent in training, without loading and evaluation.
    """

    method: str
    before: ScoredAnswers
    after: ScoredAnswers
    history: Sequence[Mapping[str, Any]]
    model_folder: Path
    output: Path
    steps: int
    training_seconds: float

    def samples(self) -> Iterator[dict[str, Any]]:
        """One JSON-ready mapping a held-out prompt, with the records of its answers before and after."""
        for prompt, old, new in zip(
            self.before.answers.prompts, self.before.records(), self.after.records(), strict=True
        ):
            yield {"prompt": prompt, "before": old, "after": new}


def run_ppo(
    source: str | Path | Mapping[str, Any] | PPORun,
    *,
    display: TrainerCallback | None = None,
    report: Callable[[str], None] = lambda _: None,
    resume: bool = False,
) -> PolicyResult:
    """Train a language model by PPO on composed rewards, as a config says.

    Both sets of answers are scored after training, by one composer in one state, so that their totals can be compared
    even where a normalizer learns or a weight follows a schedule. Under a launcher (``accelerate launch rlaif train
    ppo``) all processes train, the first answers, scores and writes, and each returns the same.

    Args:
        source: A YAML or JSON file, a mapping, or a loaded `PPORun`. See `rlaif_sdk.training.config.PPORunConfig`.
        display: Shows training's progress in place of the trainer's own printing.
        report: Called with a line of text at the start of each stage.
        resume: Go on from the last checkpoint in the output folder (``ppo.save_strategy`` makes them).

    Returns:
        What came of it. The output folder then holds ``model/``, ``samples.jsonl``, ``history.jsonl`` and
        ``rollouts.jsonl`` (samples of each rollout), and ``evaluation.jsonl`` where ``ppo.eval_strategy`` asks for
        evaluations between steps.

    Raises:
        ConfigError: The config is refused, or its output folder already holds a trained model.
        DataError: A prompt is refused.
        PluginError: A reward's plugin is unknown or broken.
        RewardError: A reward failed whose policy is to raise.
        TrainingError: The launcher asks for FSDP or DeepSpeed.
        MissingExtraError: The extra ``train`` is not installed.
    """
    run = source if isinstance(source, PPORun) else load_run_config(source)

    with contextlib.ExitStack() as stack:
        evaluation = stack.enter_context(run.composer("evaluation")) if run.config.evaluation else None

        def make(composer: Composer, settings: Any, **kwargs: Any) -> Any:
            from rlaif_sdk.training.ppo import PPOTrainer

            if settings.samples_file and not resume:
                Path(settings.samples_file).unlink(missing_ok=True)
            return PPOTrainer(reward_funcs=composer, eval_reward_funcs=evaluation, args=settings, **kwargs)

        result = train_policy(
            run, "PPO", run.ppo_config, make, evaluation=evaluation, display=display, report=report, resume=resume
        )
    return replace(result, method=run.config.ppo.get("algorithm", "ppo").upper())


def train_policy(
    run: ComposedRun,
    method: str,
    settings: Callable[[], Any],
    make: Callable[..., Any],
    *,
    evaluation: Composer | None = None,
    display: TrainerCallback | None,
    report: Callable[[str], None],
    resume: bool,
) -> PolicyResult:
    """What `run_ppo` does, with any trainer of policies.

    Args:
        run: The loaded config.
        method: How the policy is trained; in small letters, the key of the config that has the trainer's settings.
        settings: Makes the trainer's settings, of transformers' kind with TRL's sampling.
        make: Makes the trainer of the composer, the settings, and keywords as `trl.GRPOTrainer` has them.
        evaluation: What scores the held-out answers beside the run's own composer.
        display: See `run_ppo`; likewise the others.
        report: See `run_ppo`.
        resume: See `run_ppo`.

    Raises:
        RlaifError: As `run_ppo`.
    """
    refuse_shards()
    checkpoint = starting_point(run, method.lower(), resume=resume)
    try:
        from transformers import PrinterCallback

        from rlaif_sdk.training.data import load_prompts, prompts_for
        from rlaif_sdk.training.heldout import answer_prompts, score_answers
        from rlaif_sdk.training.resuming import go_on

        arguments = settings()
    except ModuleNotFoundError as error:
        raise MissingExtraError(str(error.name), extra="train") from error

    train, held_out = load_prompts(run.config.data, run.folder, seed=run.config.seed)
    tables = {"train": train, "held_out": held_out}
    with (
        run.composer() as composer,
        recorded(run, method.lower(), arguments, tables, composer, resume=resume, report=report) as results,
    ):
        report(f"loading {run.model_name}")
        model, tokenizer = load_policy(run, encoder_decoder=method == "PPO")
        check_chat_template(
            run, tokenizer, needed=not all(isinstance(row["prompt"], str) for row in (train[0], held_out[0]))
        )
        train, held_out = (
            prompts_for(rows, tokenizer, getattr(arguments, "chat_template_kwargs", None) or {})
            for rows in (train, held_out)
        )
        trainer = make(
            composer,
            arguments,
            model=model,
            train_dataset=train,
            eval_dataset=None if arguments.eval_strategy == "no" else held_out,
            processing_class=tokenizer,
            peft_config=adapter(run, "SEQ_2_SEQ_LM" if is_encoder_decoder(model) else "CAUSAL_LM"),
        )
        check_trainable(trainer.model)
        if display is not None:
            trainer.remove_callback(PrinterCallback)
            trainer.add_callback(display)
        policy = trainer.accelerator.unwrap_model(trainer.model)
        report(f"answering {len(held_out)} held-out prompts before training")
        answer = partial(answer_prompts, tokenizer=tokenizer, prompts=held_out, settings=arguments)
        answers_before = shared(partial(answer, policy))
        report("training")
        started = time.monotonic()
        go_on(trainer, checkpoint)
        seconds = time.monotonic() - started
        history = [without_nan(entry) for entry in trainer.state.log_history if "reward" in entry]
        evaluations = [without_nan(entry) for entry in trainer.state.log_history if "eval_reward" in entry]
        if first_process():
            report(f"saving {run.output / MODEL_FOLDER}")
            policy = save_policy(run, trainer, tokenizer, run.output / MODEL_FOLDER)
            write_table(history, run.output / HISTORY_FILE)
            if evaluations:
                write_table(evaluations, run.output / EVALUATION_FILE)
        report(f"answering {len(held_out)} held-out prompts after training")
        answers_after = shared(partial(answer, policy))
        report("scoring both sets of answers")
        progress = Progress(trainer.state.global_step, trainer.state.max_steps)
        before, after = shared(
            lambda: [score_answers(said, composer, progress, evaluation) for said in (answers_before, answers_after)]
        )
        results |= {"steps": progress.step, "training_seconds": round(seconds, 1)}
        result = PolicyResult(
            method, before, after, history, run.output / MODEL_FOLDER, run.output, progress.step, seconds
        )
        if first_process():
            with contextlib.suppress(OSError):  # the trainer makes the folder even if nothing is to be saved
                run.checkpoints.rmdir()
            write_table(result.samples(), run.output / SAMPLES_FILE)
    return result


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
