"""The registry of training methods: one entry each, under its name on the command line and in a config.

A method is a `Method` in a module of its own, and a line in `METHODS`. The command, the JSON schema, the check before a run,
its manifest and report, and the loops over runs (iterate, distill, sweep) all go by these; none compares names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rlaif_sdk.exceptions import ConfigError

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import TrainerCallback

    from rlaif_sdk.config.documents import Document
    from rlaif_sdk.training.config import Run, RunConfig

Task = Literal["CAUSAL_LM", "SEQ_2_SEQ_LM", "SEQ_CLS"]
"""PEFT's names of what a model does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A way to train.

    Attributes:
        name: The key of the config that has the trainer's settings.
        config: The model of the config file.
        run: What a loaded config is: a `ComposedRun` where it has a composition.
        learns_from: What it trains on: prompts, which the policy answers and rewards score; completions to imitate; or
            preference pairs.
        settings: ``module:name`` of the class of the trainer's settings, of transformers' kind.
        defaults: What a run's settings are where its config does not say; may refuse the config with a `ConfigError`.
        check: Refuses settings of a run with a `ConfigError` that has their ``key``, or completes them.
        load_rows: Reads the rows to train on, and the held-out ones; takes ``open_table``, as
            `rlaif_sdk.training.data.load_split` does.
        trainer: Makes the trainer, or its parts, as ``train`` wants it.
        train: Trains a run, with the keywords of `train`.
        report: ``module:function``, which prints what came of a run, and writes it to the run's folder.
        task: What the trained model does; a decoder where several may.
        encoder_decoder: Whether it trains models with an encoder and a decoder too.
        skips_long_rows: Whether rows that are longer than ``max_length`` are skipped, where others are truncated.
        fused_head: Whether logits are made in tiles and not kept, as TRL's trainers do.
        chunks_logits: Whether they are made a part of the vocabulary after another, as PPO does.
        trains_in_parts: Whether a run trains where a launcher keeps the weights in parts over its processes.
        keeps_reference: Whether the trainer holds a frozen copy of the policy, by its settings.
    """

    name: str
    config: type[RunConfig]
    run: type[Run]
    learns_from: Literal["prompts", "completions", "pairs"]
    settings: str
    defaults: Callable[[Any], Mapping[str, Any]]
    check: Callable[[Any, Any], None] = lambda _run, _settings: None
    load_rows: Callable[..., tuple[Dataset, Dataset]]
    trainer: Callable[..., Any]
    train: Callable[..., Any]
    report: str
    task: Task = "CAUSAL_LM"
    encoder_decoder: bool = False
    skips_long_rows: bool = False
    fused_head: bool = True
    chunks_logits: bool = False
    trains_in_parts: bool = False
    keeps_reference: Callable[[Any], bool] = lambda settings: bool(getattr(settings, "beta", 0.0))

    @property
    def model_class(self) -> str:
        """The class of transformers' that loads a trained model."""
        return "AutoModelForSequenceClassification" if self.task == "SEQ_CLS" else "AutoModelForCausalLM"


@dataclass(frozen=True, slots=True)
class MethodEntry:
    """A method in the registry; what it takes to offer it, without importing it.

    Attributes:
        place: ``module:name`` of the `Method`.
        help: What it does, for the command line.
        overrides: What the command sets in the config.
    """

    place: str
    help: str
    overrides: tuple[str, ...] = ()


METHODS: Mapping[str, MethodEntry] = {
    "sft": MethodEntry(
        "rlaif_sdk.training.sft:SFT",
        "Fine-tune on given answers, the phase before training on rewards.\n\nEvaluates held-out rows before and after. The "
        "saved model is the next run's ``model.name``.",
    ),
    "ppo": MethodEntry(
        "rlaif_sdk.training.online:PPO",
        "Train with PPO.\n\nEvaluates the held-out prompts before and after, prints every reward of both, and writes the "
        "model, the curves, the metrics and sample answers to the run's output folder.",
    ),
    "reinforce": MethodEntry(
        "rlaif_sdk.training.online:PPO",
        "Train with REINFORCE and a learned baseline: ``ppo`` with ``ppo.algorithm=reinforce``.",
        overrides=("ppo.algorithm=reinforce",),
    ),
    "grpo": MethodEntry("rlaif_sdk.training.online:GRPO", "Train with TRL's GRPO, in the way of ``ppo``."),
    "rloo": MethodEntry("rlaif_sdk.training.online:RLOO", "Train with TRL's RLOO, in the way of ``ppo``."),
    "reward_model": MethodEntry(
        "rlaif_sdk.training.preferences:REWARD_MODEL",
        "Train a reward model on preference pairs, with soft labels if they have any.\n\nEvaluates held-out pairs before and "
        "after: loss, accuracy, calibration, agreement with the labels. The model is usable as a reward at once.",
    ),
    "dpo": MethodEntry(
        "rlaif_sdk.training.preferences:DPO",
        "Train a policy by DPO on preference pairs, with soft labels and margins if they have any.",
    ),
}


def get_method(name: str) -> Method:
    """The method of a name in `METHODS`.

    Raises:
        ConfigError: There is none of that name.
    """
    method: Method = resolve(_entry(name).place)
    return method


def _entry(name: str) -> MethodEntry:
    if name in METHODS:
        return METHODS[name]
    close = get_close_matches(name, METHODS, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(METHODS)}"
    raise ConfigError(f"there is no training method {name!r}", hint=hint)


def resolve(place: str) -> Any:
    """What ``module:name`` names."""
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)


def online_methods() -> Iterator[str]:
    """The names of the methods that train on composed rewards, each under its own settings' key."""
    for name in METHODS:
        method = get_method(name)
        if method.learns_from == "prompts" and method.name == name:
            yield name


def load_run(name: str, source: str | Path | Mapping[str, Any], *, overrides: Sequence[str] = ()) -> Any:
    """Read and check a run's config.

    Args:
        name: The method.
        source: A YAML or JSON file, or a mapping, whose paths are relative to the working directory.
        overrides: ``ppo.learning_rate=1e-6`` and the like: a dotted key and a YAML value, which take the place of what
            the file says.

    Returns:
        A `Run`, or a `ComposedRun` of a method that trains on composed rewards.

    Raises:
        ConfigError: The config or an override is refused; the message has file, line and key.
    """
    from rlaif_sdk.config.overrides import overridden

    return run_of(name, overridden(source, [*overrides, *_entry(name).overrides]))


def run_of(name: str, document: Document, **fields: Any) -> Any:
    """The run that a document describes; see `load_run`.

    Args:
        name: The method.
        document: The config.
        **fields: Of `Run`.
    """
    from rlaif_sdk.config.documents import validate

    method = get_method(name)
    return method.run(validate(method.config, document), document, method=method.name, **fields)


def train(
    name: str,
    source: str | Path | Mapping[str, Any] | Run,
    *,
    display: TrainerCallback | None = None,
    report: Callable[[str], None] = lambda _: None,
    on_result: Callable[[Any], object] = lambda _: None,
    resume: bool = False,
) -> Any:
    """Train a language model, as a config says.

    Args:
        name: The method.
        source: A YAML or JSON file, a mapping, or a loaded run.
        display: Shows training's progress in place of the trainer's own printing.
        report: Called with a line of text at the start of each stage.
        on_result: Called with what came of it before the run counts as finished; under a launcher in the first process.
        resume: Resume from the last checkpoint in the output folder (``save_strategy`` of the settings makes them), or
            begin anew a run that was stopped before its first.

    Returns:
        What came of it, a `rlaif_sdk.training.online.PolicyResult`, or an `rlaif_sdk.training.offline.OfflineResult` of a
        method that trains on given rows. The output folder then holds ``model/`` and ``history.jsonl``; of training on
        composed rewards also ``samples.jsonl``, and ``rollouts.jsonl`` or ``evaluation.jsonl`` where the settings ask for
        them.

    Raises:
        ConfigError: The config is refused, or its output folder already holds a trained model.
        DataError: A row is refused.
        PluginError: A reward's plugin is unknown or broken.
        RewardError: A reward failed whose policy is to raise.
        TrainingError: The launcher asks for what the method does not do.
        MissingExtraError: The extra ``train`` is not installed.
    """
    from rlaif_sdk.training.config import Run

    run = source if isinstance(source, Run) else load_run(name, source)
    return get_method(name).train(run, display=display, report=report, on_result=on_result, resume=resume)


def check_settings(run: Run) -> None:
    """Check the settings that a config gives its trainer, without importing the trainer's libraries.

    Raises:
        ConfigError: A key is unknown or belongs elsewhere, or its value is of another type or out of its range.
    """
    method = get_method(run.method)
    run.given_settings(method.name, method.settings)


def trainer_settings(run: Run) -> Any:
    """The settings of a run's trainer.

    Raises:
        ConfigError: A key is unknown, belongs elsewhere, or its value is refused.
    """
    check_settings(run)
    method = get_method(run.method)
    settings = run.settings(resolve(method.settings), method.name, **method.defaults(run))
    try:
        method.check(run, settings)
    except ConfigError as error:
        location = (method.name, error.key) if error.key else (method.name,)
        raise run.document.error(error.message, location, error.hint) from error
    return settings
