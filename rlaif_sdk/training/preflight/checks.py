"""Everything about a run that can be known before a model is loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from rlaif_sdk.composer import stages
from rlaif_sdk.composer.check import Check
from rlaif_sdk.exceptions import BatchError, ConfigError
from rlaif_sdk.io.digests import rows_digest
from rlaif_sdk.training.data import same_answers
from rlaif_sdk.training.methods import Task, get_method
from rlaif_sdk.training.models import (
    adapter,
    check_prompts_fit,
    check_rollout,
    check_special_tokens,
    is_encoder_decoder,
)
from rlaif_sdk.training.preflight.memory import (
    GIB,
    Machine,
    MemoryEstimate,
    ModelDims,
    Workload,
    estimate_memory,
    model_dims,
    read_config,
    workload,
)
from rlaif_sdk.training.preflight.model_files import LoadedModel, find_model, reward_models
from rlaif_sdk.training.preflight.rows import check_chat_rows, check_lengths
from rlaif_sdk.training.ranks import processes_here, sharded_by
from rlaif_sdk.training.tools import check_tool_calling, check_tools, load_tools
from rlaif_sdk.types import Message, RewardBatch, TextOrConversation

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from rlaif_sdk.composer import Composer
    from rlaif_sdk.judges.pairwise import Pair
    from rlaif_sdk.training.config import Run


@dataclass
class Preflight(Check):
    """What is known of a run before anything is loaded; of each table also its digest.

    Attributes:
        models: What it will load.
        memory: What it will take; None where the model's config is not to be had.
        machine: What there is; None likewise.
    """

    models: list[LoadedModel] = field(default_factory=list)
    memory: MemoryEstimate | None = None
    machine: Machine | None = None


def check_run(
    run: Run,
    settings: Any,
    tables: Mapping[str, Dataset],
    composer: Composer | None = None,
) -> Preflight:
    """Look at everything that a run will load, and at whether it fits; see `check_inputs` and `check_policy`."""
    found = Preflight()
    check_inputs(found, run, tables, composer)
    check_policy(found, run, settings, tables, composer)
    return found


def check_inputs(found: Preflight, run: Run, tables: Mapping[str, Dataset], composer: Composer | None = None) -> None:
    """Look at a run's rows, rewards and files, for which neither torch nor the trainer's libraries are imported.

    Args:
        found: What is known of the run; gets what is found.
        run: The loaded config.
        tables: The rows by name: ``train``, ``held_out``.
        composer: The rewards, if the run has any; none is called.
    """
    for name, rows in tables.items():
        found.data[name] = {"rows": len(rows), "columns": list(rows.column_names), "digest": rows_digest(rows)}
        if composer is not None:
            with found.noting():
                check_columns(composer, rows, name)
    if composer is not None:
        with found.noting(), _placed(run, "composition"):
            found.models += reward_models(composer)
        with found.noting():
            check_tools(run, composer, tables)
    with found.noting(), _placed(run, "model.name"):
        found.models.insert(0, LoadedModel("policy", find_model(run.model_name, run.config.model.revision)))


def check_policy(
    found: Preflight, run: Run, settings: Any, tables: Mapping[str, Dataset], composer: Composer | None = None
) -> None:
    """Look at what the trainer makes of a run: its tokenizer, its lengths, its memory.

    Args:
        found: What `check_inputs` has found; gets the rest.
        run: The loaded config.
        settings: The trainer's settings, of transformers' kind.
        tables: See `check_inputs`.
        composer: See there.
    """
    with found.noting(), _placed(run, "data.train"):
        check_rollout(settings, len(tables["train"]))
    if composer is not None:
        with found.noting():
            _check_separate(run, settings, composer)
        with found.noting():
            _check_groups(run, settings, composer)
            found.warnings += _warn_of_alarm(run, settings, composer) + _warn_of_ask(run, settings, composer)
    with found.noting(), _placed(run, "model.name"):
        if found.models and found.models[0].role == "policy":
            _check_policy(found, run, settings, tables)


CHECK_ANSWER = "This is a short answer."
"""What the check has rewards score, since no policy has answered yet."""


def first_row(rows: Dataset) -> RewardBatch:
    """The first prompt with its columns, answered by `CHECK_ANSWER`, and by another to compare it with."""
    row = rows[0]
    return RewardBatch(
        prompts=[row["prompt"]] * 2,
        completions=_answers(row["prompt"]),
        columns={name: [value] * 2 for name, value in row.items() if name != "prompt"},
        group=[0, 0],
        training=False,
    )


def two_answers(rows: Dataset) -> Pair:
    """The first prompt with two answers to compare, of which `CHECK_ANSWER` is one."""
    from rlaif_sdk.judges.pairwise import Pair

    prompt = rows[0]["prompt"]
    return Pair(prompt, *_answers(prompt))


def _answers(prompt: TextOrConversation) -> list[TextOrConversation]:
    said = (CHECK_ANSWER, "This is another one.")
    return [*said] if isinstance(prompt, str) else [[Message(role="assistant", content=text)] for text in said]


def check_columns(composer: Composer, rows: Dataset, name: str) -> None:
    """Whether a table has the columns that the rewards ask for.

    Raises:
        BatchError: One is missing, or has a reserved name.
    """
    row = rows[0]
    columns = {column: [value] for column, value in row.items() if column != "prompt"}
    try:
        batch = RewardBatch(prompts=[row["prompt"]], completions=[""], columns=columns, group=[None])
    except BatchError as error:
        raise BatchError(f"data.{name}: {error.message}", hint=error.hint) from None
    try:
        stages.check_columns({**composer.components, **composer.fallbacks}, batch)
    except BatchError as error:
        raise BatchError(f"data.{name}: {error.message}", hint=error.hint) from None


def _check_separate(run: Run, settings: Any, composer: Composer) -> None:
    """Whether the composition can be taken apart into its rewards, where the trainer normalises each of them.

    Raises:
        ConfigError: Something in it holds only over the total.
    """
    if getattr(settings, "multi_objective_aggregation", None) != "normalize_then_sum":
        return
    from rlaif_sdk.integrations.trl import gdpo_weights

    try:
        gdpo_weights(composer)
    except ConfigError as error:
        hint = "leave multi_objective_aggregation: normalize_then_sum out"
        raise run.document.error(error.message, ("composition",), hint) from error


def _warn_of_alarm(run: Run, settings: Any, composer: Composer) -> list[str]:
    """What an alarm of the composition cannot do with the trainer's settings."""
    if composer.alarm is None or not composer.alarm.halts or settings.save_strategy != "no":
        return []
    return [f"{run.method}.save_strategy is 'no', so an alarm that stops the run keeps no good checkpoint"]


def _warn_of_ask(run: Run, settings: Any, composer: Composer) -> list[str]:
    """Where a reward's ``ask`` saves nothing, since no prompt has several completions."""
    if getattr(settings, "num_generations", None) != 1:
        return []
    return [
        f"rewards.{name}.ask saves nothing: {run.method}.num_generations is 1, and a completion alone in its group is asked "
        "about in any case"
        for name, part in composer.components.items()
        if part.ask
    ]


def _check_groups(run: Run, settings: Any, composer: Composer) -> None:
    """Whether a prompt has several completions, where a reward compares them.

    Raises:
        ConfigError: It has one.
    """
    compares = [name for name, part in composer.components.items() if part.reward.scope == "group"]
    if compares and getattr(settings, "num_generations", None) == 1:
        raise run.document.error(
            f"{compares[0]!r} compares the completions to one prompt, and there is one",
            (run.method, "num_generations"),
            "raise it, or use a reward that scores each completion by itself",
        )


def _check_policy(found: Preflight, run: Run, settings: Any, tables: Mapping[str, Dataset]) -> None:
    model, method = run.config.model, get_method(run.method)
    config = read_config(run.model_name, model.revision)
    if is_encoder_decoder(config) and not method.encoder_decoder:
        raise ConfigError(
            f"{config.model_type} has an encoder and a decoder, which only PPO trains here", hint="rlaif train ppo"
        )
    task: Task = "SEQ_2_SEQ_LM" if is_encoder_decoder(config) else method.task
    dims = model_dims(config, task, adapter(run, task))
    tokenizer = _tokenizer(run.model_name, model.revision)
    _check_tokenizer(tokenizer, dims.vocabulary)
    arguments = getattr(settings, "chat_template_kwargs", None) or {}
    if tools := load_tools(run):
        check_tool_calling(tokenizer, tables)
        arguments = {**arguments, "tools": tools.schemas}
    found.warnings += check_chat_rows(tokenizer, tables, arguments)
    new_tokens: Any = getattr(settings, "max_completion_length", None)
    for name, rows in () if new_tokens is None else tables.items():
        with found.noting(), _placed(run, run.method):
            check_prompts_fit(
                rows["prompt"],
                tokenizer,
                config,
                new_tokens=int(new_tokens),
                place=f"data.{name}",
                template_arguments=arguments,
            )
    for name, rows in tables.items() if new_tokens is None else ():
        with found.noting():
            found.warnings += filter(None, [same_answers(rows, f"data.{name}")])
            found.warnings += check_lengths(f"data.{name}", rows, method, settings, tokenizer, config)
    found.machine = Machine.look(settings.device)
    critic = _critic(found, settings, dims, task)
    work = workload(
        method, settings, tokenizer, tables, config=config, model=model, critic=critic, card=found.machine.cuda
    )
    found.models[0] = replace(found.models[0], copies=1 + work.references)
    found.warnings += filter(None, [_idle_gpus(settings, method.learns_from)])
    rewards = sum(loaded.bytes for loaded in found.models if " " in loaded.role)
    stated = getattr(run.config, method.name).get("gradient_checkpointing") is not None
    estimate = partial(estimate_memory, dims, rewards=rewards)
    _check_memory(found, settings, found.machine, estimate, work, may_recompute=not stated)


def _critic(found: Preflight, settings: Any, dims: ModelDims, task: Task) -> ModelDims | None:
    """The dims of a critic of its own, which is listed among the models where it is read from files."""
    kind = getattr(settings, "critic", "shared")
    if kind == "lora":
        return replace(dims, parameters=dims.trainable, head=0)
    if kind != "separate":
        return None
    if not settings.critic_model:
        return dims.backbone
    found.models.insert(1, LoadedModel("critic", find_model(settings.critic_model)))
    return model_dims(read_config(settings.critic_model, None), task).backbone


def _idle_gpus(settings: Any, learns_from: str) -> str | None:
    """Warn where a run in one process leaves GPUs idle."""
    import torch

    if settings.device.type != "cuda" or settings.world_size > 1 or (count := torch.cuda.device_count()) == 1:
        return None
    where = f"{count} GPUs are visible, and one process trains on the first of them"
    if learns_from != "prompts":
        return f"{where}: CUDA_VISIBLE_DEVICES chooses another"
    return f"{where}: torchrun --nproc_per_node {count} --no-python rlaif train ... takes all"


def _tokenizer(name: str, revision: str | None) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(name, revision=revision)
    except Exception as error:  # it raises whatever a damaged file makes it stumble over
        raise ConfigError(f"its tokenizer cannot be loaded: {error}") from error
    return tokenizer


def _check_tokenizer(tokenizer: Any, vocabulary: int) -> None:
    """Whether the tokenizer is this model's.

    Raises:
        ConfigError: It is another model's, or has no end token.
    """
    if len(tokenizer) > vocabulary:
        raise ConfigError(
            f"the tokenizer knows {len(tokenizer):,} tokens and the model {vocabulary:,}",
            hint="it is another model's tokenizer, or tokens were added without resizing the embedding",
        )
    check_special_tokens(tokenizer, vocabulary)
    if tokenizer.eos_token_id is None:
        raise ConfigError("the tokenizer has no end token", key="model.name", hint="set eos_token and save it again")


def _check_memory(
    found: Preflight,
    settings: Any,
    machine: Machine,
    estimate: Callable[..., MemoryEstimate],
    work: Workload,
    *,
    may_recompute: bool,
) -> None:
    """Refuse what surely does not fit; recompute activations where that makes it fit; warn of what likely does not.

    On a CPU the launcher's processes share the machine's memory; on CUDA each has a device of its own, where what Python
    and the libraries hold does not count. Weights in parts, which may also be offloaded, are warned of and never refused,
    and are left as they are: processes that differ in what they recompute would wait for each other.
    """
    memory = found.memory = estimate(work, process=machine.process)
    again = estimate(replace(work, checkpointing=True), process=machine.process)
    total, free, where, process, each = machine.ram, machine.ram_free + machine.process, "memory", machine.process, ""
    if machine.cuda is not None and machine.cuda_free is not None:
        total, free, where, process = machine.cuda, machine.cuda_free, "memory of the CUDA device", 0
    elif (sharing := processes_here()) > 1:
        total, free, each = total // sharing, free // sharing, f" for each of {sharing} processes"
    takes, takes_again = (one.peak - machine.process + process for one in (memory, again))
    ways = "train an adapter (model.lora), or a smaller model"
    if memory.sure > total and not sharded_by():
        raise ConfigError(
            f"weights, gradients and optimiser take {gib(memory.sure)}, and the {where} has {gib(total)}{each}",
            key="model",
            hint=f"{ways}, or put the weights in parts (FSDP) on several GPUs",
        )
    if takes <= free:
        return
    if takes_again <= free and may_recompute and machine.cuda is not None and not sharded_by():
        settings.gradient_checkpointing = True
        found.memory = again
        found.warnings.append(
            f"gradient_checkpointing is on, with which training may take {gib(takes_again)}: without it, {gib(takes)}, and "
            f"of the {where} {gib(free)} are free"
        )
        return
    hint = ways
    if takes_again <= free:
        hint = f"gradient_checkpointing: true makes it {gib(takes_again)}"
    elif memory.activations + memory.logits > memory.sure // 4:
        hint = "lower per_device_train_batch_size"
    found.warnings.append(f"training may take {gib(takes)}, and of the {where} {gib(free)} are free{each}: {hint}")


@contextmanager
def _placed(run: Run, key: str) -> Iterator[None]:
    """Give an error its place in the run's file: the key that it names, or this one."""
    try:
        yield
    except ConfigError as error:
        if error.file:
            raise
        location = tuple((error.key or key).split("."))
        if error.key == "max_completion_length":
            location = (key, error.key)
        raise run.document.error(error.message, location, error.hint) from error


def gib(size: int) -> str:
    """A size as people read it."""
    return f"{size / GIB:.1f} GiB" if size >= GIB // 10 else f"{size / 2**20:.1f} MiB"
