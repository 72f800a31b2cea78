"""The tools that a policy calls while it answers: loaded by reference, checked before a model loads, used in held-out answers.

TRL's GRPO has the loop of calls and results. It is given functions, and environments, whose methods are tools too.
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlaif_sdk.exceptions import ConfigError, exception_text
from rlaif_sdk.integrations.environments import COLUMN, own_rewards
from rlaif_sdk.plugins.references import load_reference
from rlaif_sdk.rewards import FunctionReward
from rlaif_sdk.training.config import Run
from rlaif_sdk.training.generation import Answers, telling

if TYPE_CHECKING:
    from datasets import Dataset

    from rlaif_sdk.composer import Composer

_NO_TOOLS = frozenset({"reset", "get_reward"})
"""What TRL itself calls of an environment."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What a policy may call.

    Attributes:
        functions: Plain or ``async`` functions, with a type for each parameter and Google's docstrings.
        environment: Makes an environment of TRL's kind for each rollout: its ``reset`` gets the row, and its other public
            methods are tools.
        schemas: What each tool is to the chat template, in JSON schema.
    """

    functions: Sequence[Callable[..., Any]]
    environment: Callable[[], Any] | None
    schemas: Sequence[Mapping[str, Any]]

    def options(self) -> dict[str, Any]:
        """Keywords of `trl.GRPOTrainer`."""
        given = {"tools": list(self.functions), "environment_factory": self.environment}
        return {name: value for name, value in given.items() if value}


def load_tools(run: Run) -> Tools | None:
    """The tools of a run; None where it has none.

    Raises:
        ConfigError: A reference names nothing, or something that is no tool: a function without a docstring, or with a
            parameter without a type; an environment without a ``reset``.
    """
    names: list[str] = getattr(run.config, "tools", [])
    environment: str | None = getattr(run.config, "environment", None)
    if not names and environment is None:
        return None
    functions, schemas = [], []
    for place, name in enumerate(names):
        found = _loaded(run, name, ("tools", place))
        for function in found if isinstance(found, (list, tuple)) else [found]:
            functions.append(function)
            schemas.append(_schema(run, function, ("tools", place)))
    factory = None
    if environment is not None:
        factory = _loaded(run, environment, ("environment",))
        schemas += [_schema(run, method, ("environment",)) for method in _methods(run, factory)]
    called = [schema["function"]["name"] for schema in schemas]
    for name in called:
        if called.count(name) > 1:
            raise run.document.error(
                f"two tools are called {name!r}", ("tools" if names else "environment",), "rename one"
            )
    return Tools(functions, factory, schemas)


def _loaded(run: Run, reference: str, location: tuple[str | int, ...]) -> Any:
    try:
        return load_reference(reference, run.folder)
    except ConfigError as error:
        raise run.document.error(error.message, location, error.hint) from error


def _methods(run: Run, factory: Any) -> Iterator[Callable[..., Any]]:
    """The tools of an environment, bound as TRL binds them; a class is not made for it."""
    if not callable(factory):
        raise run.document.error("is no class of environments, nor a function that makes one", ("environment",))
    try:
        kind = factory if isinstance(factory, type) else _kind_made_by(factory)
    except Exception as error:
        raise run.document.error(f"makes no environment: {exception_text(error)}", ("environment",)) from error
    methods = dict(inspect.getmembers(kind, inspect.isfunction))
    if "reset" not in methods:
        raise run.document.error(
            f"{kind.__name__} has no method 'reset'",
            ("environment",),
            "def reset(self, **row) begins a rollout; what it returns is added to the prompt",
        )
    for name in methods:
        if name not in _NO_TOOLS and not name.startswith("_"):
            yield inspect.getattr_static(kind, name).__get__(kind)


@functools.cache
def _kind_made_by(factory: Callable[[], Any]) -> type:
    """The class of the environments that a function makes, which is called for it once, however often a run loads its tools."""
    return type(factory())


def _schema(run: Run, tool: Any, location: tuple[str | int, ...]) -> Mapping[str, Any]:
    from transformers.utils.chat_template_utils import get_json_schema

    if not callable(tool):
        raise run.document.error(f"{tool!r:.60} is no function", location, "name a function, or a list of them")
    try:
        schema: Mapping[str, Any] = get_json_schema(tool)
    except Exception as error:  # it has errors of its own for each thing that a docstring may lack
        raise run.document.error(
            f"{getattr(tool, '__name__', tool)!r} is no tool: {exception_text(error)}",
            location,
            "give each parameter a type, and describe it in the docstring under 'Args:'",
        ) from error
    return schema


def check_tools(run: Run, composer: Composer | None, tables: Mapping[str, Dataset]) -> None:
    """Whether what the rewards read of environments is there when they are asked.

    Raises:
        ConfigError: A reward reads what an environment says, and the run has none; or the environments themselves.
    """
    parts = {} if composer is None else {**composer.components, **composer.fallbacks}
    has_environment = getattr(run.config, "environment", None) is not None
    for name, part in parts.items():
        reward = part.reward
        if isinstance(reward, FunctionReward) and reward.reads_environments:
            raise run.document.error(
                f"{name!r} reads the environments, which have gone on when held-out answers are scored",
                ("composition",),
                "return what it says from the environment's get_reward, and use the reward 'environment'",
            )
        known = has_environment or all(COLUMN in rows.column_names for rows in tables.values())
        if COLUMN in (reward.inputs or ()) and not known:
            raise run.document.error(
                f"{name!r} is what an environment says, and the run has none",
                ("composition",),
                "rlaif train grpo takes one: environment: FILE.py:CLASS",
            )


def check_tool_calling(tokenizer: Any, tables: Mapping[str, Dataset]) -> None:
    """Whether a model's chat template has a place for calls and results, and TRL can tell a call in what it says.

    Raises:
        ConfigError: It has none, or TRL cannot; or the prompts are text.
    """
    from trl.chat_template_utils import (
        add_response_schema,
        get_training_chat_template,
        is_chat_template_prefix_preserving,
        supports_tool_calling,
    )

    for name, rows in tables.items():
        if isinstance(rows[0]["prompt"], str):
            raise ConfigError(
                "the prompts are text, and tools are called in a conversation",
                key=f"data.{name}",
                hint='give messages: [{"role": "user", "content": "..."}]',
            )
    if not supports_tool_calling(tokenizer):
        raise ConfigError(
            "its chat template has no place for tool calls and their results",
            key="model.name",
            hint="name a model that calls tools, such as Qwen/Qwen3-0.6B",
        )
    tokenizer = copy.copy(tokenizer)
    try:
        if not any(getattr(tokenizer, name, None) for name in ("response_template", "response_schema")):
            add_response_schema(tokenizer)
        if not is_chat_template_prefix_preserving(tokenizer):
            get_training_chat_template(tokenizer)
    except ValueError as error:
        raise ConfigError(
            f"TRL cannot tell a tool call in what this model says: {error}",
            key="model.name",
            hint="save its tokenizer with a response_template, or name a model whose template TRL knows",
        ) from error


def answer_with_tools(
    trainer: Any, prompts: Dataset, *, own: bool, report: Callable[[str], None] = lambda _: None
) -> Answers:
    """Sample an answer to each of N prompts, tools and environments included, as the trainer samples in training.

    Equal seeds answer the same, and the state of the random generators that training uses is left as it was. Every process
    has to call it.

    Args:
        trainer: A `trl.GRPOTrainer` with tools.
        prompts: N rows with a column ``prompt``.
        own: Whether to ask the environments what they say, for the column that the reward ``environment`` reads.
        report: Takes a line on what is done and the time left.
    """
    import torch

    asked: list[Any] = []
    said: list[Any] = []
    ids: list[list[int]] = []
    own_N: list[float | str | None] = []
    devices = [trainer.accelerator.device] if trainer.accelerator.device.type == "cuda" else []
    tell = telling(len(prompts), report)
    with torch.random.fork_rng(devices=devices), _evaluating(trainer):
        torch.manual_seed(trainer.args.seed)
        size = trainer.args.per_device_eval_batch_size
        for start in range(0, len(prompts), size):
            rows = [prompts[row] for row in range(start, min(start + size, len(prompts)))]
            shown, completions, completion_ids = _rollouts(trainer, rows)
            asked += shown
            said += completions
            ids += completion_ids
            if own:
                own_N += own_rewards(trainer.environments, getattr(trainer, "async_loop", None))
            tell(len(ids))
    ends = set(trainer.eos_token_ids)
    columns = {name: list(prompts[name]) for name in prompts.column_names if name != "prompt"}
    return Answers(
        prompts=asked,
        completions=said,
        completion_ids=ids,
        truncated=[not row or row[-1] not in ends for row in ids],
        columns={**columns, COLUMN: own_N} if own else columns,
    )


@contextmanager
def _evaluating(trainer: Any) -> Iterator[None]:
    """One completion a prompt, without dropout, and none of it in the trainer's log."""
    training, generations = trainer.model.training, trainer.num_generations_eval
    trainer.model.eval()
    trainer.num_generations_eval = 1
    try:
        yield
    finally:
        trainer.model.train(training)
        trainer.num_generations_eval = generations
        trainer._metrics["eval"].clear()  # noqa: SLF001 - TRL has no public way; see the contract


class _Played(Exception):  # noqa: N818 - no error
    """The rollouts are played, and what TRL does then is not wanted."""


def _rollouts(trainer: Any, rows: Sequence[Mapping[str, Any]]) -> tuple[list[Any], list[Any], list[list[int]]]:
    """Prompts as the environments have completed them, completions and their ids."""
    played: list[tuple[list[Any], list[Any], list[list[int]]]] = []

    def generate(prompts: list[Any]) -> Any:
        _, completion_ids, _, completions, *_ = type(trainer)._generate(trainer, prompts)  # noqa: SLF001
        played.append((prompts, completions, completion_ids))
        raise _Played

    trainer._generate = generate  # noqa: SLF001 - TRL has no public way; see the contract
    try:
        trainer._generate_and_score_completions(list(rows))  # noqa: SLF001
    except _Played:
        return played[0]
    finally:
        del trainer._generate  # noqa: SLF001
    raise AssertionError("TRL generates by another method")
