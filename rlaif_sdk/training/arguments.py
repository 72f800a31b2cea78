"""A trainer's settings from a config: their types by the annotations of the settings' dataclass, ranges and names."""

from __future__ import annotations

import ast
import builtins
import contextlib
import difflib
import functools
import importlib.util
import inspect
import math
import typing
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError

from rlaif_sdk.exceptions import ConfigError
from rlaif_sdk.training.ranks import refuse_sharded_settings


def typed_arguments(declared: Mapping[str, Declaration], given: Mapping[str, Any]) -> dict[str, Any]:
    """The values in the types that the dataclass states: the text ``"5"`` becomes a number where one is wanted.

    Args:
        declared: The fields of the dataclass; a value whose field is not among them stays as it is.
        given: Values by name.

    Raises:
        ConfigError: A value is of another type or out of its range; ``key`` is its name.
    """
    typed = {
        name: _typed(value, name, declared[name].resolve()) if name in declared else value
        for name, value in given.items()
    }
    check_ranges(typed)
    refuse_sharded_settings(typed)
    return typed


def check_named(settings: Mapping[str, Any]) -> None:
    """Check the loggers and the arguments of ``generate`` that settings name, which the libraries know.

    Raises:
        ConfigError: One is not there; ``key`` is the setting's name.
    """
    _check_loggers(settings.get("report_to"))
    if not settings.get("use_vllm"):
        _check_generation(settings.get("generation_kwargs"))


def refused_argument(kind: type[Any], fields: Mapping[str, Any], given: Iterable[str]) -> str | None:
    """Which of the given fields a dataclass refuses, where it does not say: the one without which it takes the others.

    Args:
        kind: The dataclass.
        fields: All that it was called with.
        given: The names of those that a config gives.
    """
    for name in given:
        with contextlib.suppress(TypeError, ValueError), warnings.catch_warnings(action="ignore"):
            kind(**{other: value for other, value in fields.items() if other != name})
            return name
    return None


@dataclass(frozen=True, slots=True)
class Declaration:
    """How a dataclass declares a field, in its source.

    Attributes:
        module: The module that it stands in.
        annotation: The type, as it is written there.
    """

    module: str
    annotation: ast.expr

    def resolve(self) -> Any:
        """The type; `Any` where it takes a class that only importing the module would give."""
        names = {node.id for node in ast.walk(self.annotation) if isinstance(node, ast.Name)}
        known: dict[str, Any] = {}
        for name in names:
            if hasattr(typing, name):
                known[name] = getattr(typing, name)
            elif not hasattr(builtins, name):
                module, alias = _definition(self.module, name)
                if not isinstance(alias, ast.Assign):
                    return Any
                known[name] = Declaration(module, alias.value).resolve()
        stated = SimpleNamespace(__annotations__={"it": ast.unparse(self.annotation)})
        try:
            return typing.get_type_hints(stated, known)["it"]
        except (NameError, TypeError):
            return Any


def declared_fields(place: str) -> dict[str, Declaration] | None:
    """The fields that a dataclass takes, read in its source: importing a trainer's libraries takes seconds.

    Args:
        place: ``module:name`` of the dataclass.

    Returns:
        Its fields and those of its bases, by name; None where the source of one is not found.
    """
    module, defined = _definition(*place.split(":"))
    if not isinstance(defined, ast.ClassDef):
        return None
    fields: dict[str, Declaration] = {}
    for base in reversed(defined.bases):
        inherited = declared_fields(f"{module}:{base.id}") if isinstance(base, ast.Name) else None
        if inherited is None:
            return None
        fields |= inherited
    for line in defined.body:
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and _is_argument(line):
            fields[line.target.id] = Declaration(module, line.annotation)
    return fields


@functools.cache
def _definition(module: str, name: str) -> tuple[str, ast.ClassDef | ast.Assign | None]:
    """The module where a name is defined, which may be one that it is imported from, and the statement, if it is found."""
    if (source := _source(module)) is None:
        return module, None
    tree, package = source
    for line in tree.body:
        if isinstance(line, ast.ClassDef) and line.name == name:
            return module, line
        if isinstance(line, ast.Assign) and name in {getattr(target, "id", None) for target in line.targets}:
            return module, line
    # also what is imported only for type checkers, and otherwise when it is used
    for each in (node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)):
        for alias in each.names:
            if (alias.asname or alias.name) == name:
                origin = importlib.util.resolve_name("." * each.level + (each.module or ""), package)
                return _definition(origin, alias.name)
    return module, None


def _is_argument(line: ast.AnnAssign) -> bool:
    options = line.value.keywords if isinstance(line.value, ast.Call) else []
    no_init = any(each.arg == "init" and ast.unparse(each.value) == "False" for each in options)
    return not no_init and "ClassVar" not in ast.unparse(line.annotation)


@functools.cache
def _source(module: str) -> tuple[ast.Module, str] | None:
    """The syntax of a module, and the package that its relative imports are relative to."""
    package, *inside = module.split(".")
    spec = importlib.util.find_spec(package)
    for folder in (spec and spec.submodule_search_locations) or ():
        place = Path(folder, *inside)
        file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
        if file.is_file():
            return ast.parse(file.read_bytes()), module if place.is_dir() else module.rpartition(".")[0]
    return None


def _check_loggers(named: str | list[str] | None) -> None:
    """Whether transformers has these loggers, and they are installed where it can tell."""
    from transformers.integrations.integration_utils import (
        INTEGRATION_TO_CALLBACK,
        get_available_reporting_integrations,
    )

    for name in [named] if isinstance(named, str) else named or []:
        if name in {"all", "none"}:
            continue
        if name not in INTEGRATION_TO_CALLBACK:
            raise ConfigError(f"{name!r} is no logger", key="report_to", hint=_nearest(name, INTEGRATION_TO_CALLBACK))
        installed = get_available_reporting_integrations()  # type: ignore[no-untyped-call]
        if name not in {*installed, "azure_ml", "flyte"}:
            raise ConfigError(f"{name} is not installed", key="report_to", hint=f"pip install {name}")


def _check_generation(given: Any) -> None:
    """Whether ``generate`` knows these names."""
    from transformers import GenerationConfig, GenerationMixin

    if not isinstance(given, dict):
        return
    config = GenerationConfig()  # type: ignore[no-untyped-call]
    known = {*vars(config), *inspect.signature(GenerationMixin.generate).parameters}
    for name in given:
        if name not in known:
            raise ConfigError(f"generate knows no {name!r}", key="generation_kwargs", hint=_nearest(name, known))


def _nearest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"there are {', '.join(sorted(known))}"


def _typed(value: Any, name: str, annotation: Any) -> Any:
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True))
    except PydanticUserError:  # pydantic takes no config for a type that has one of its own
        adapter = TypeAdapter(annotation)
    try:
        typed = adapter.validate_python(value)
    except ValidationError as error:
        problem = error.errors()[0]["msg"]
        wanted = getattr(annotation, "__name__", None) if isinstance(annotation, type) else str(annotation)
        raise ConfigError(f"{value!r} is refused: {problem}", key=name, hint=f"its type is {wanted}") from error
    return value if typed == value else typed  # transformers tells a step of 500 from a share of 500.0


_ABOVE_0 = frozenset({
    "critic_learning_rate", "eval_steps", "generation_batch_size", "gradient_accumulation_steps", "kl_horizon", "kl_target",
    "logging_steps", "logprob_batch_tokens", "max_approx_kl", "max_completion_length", "max_kl", "max_length", "num_generations",
    "num_generations_eval", "num_iterations", "num_train_epochs", "per_device_eval_batch_size",
    "per_device_train_batch_size", "repetition_penalty", "save_steps", "steps_per_generation", "temperature", "top_p",
    "value_clip", "value_learning_rate", "vllm_importance_sampling_clip_max",
})  # fmt: skip
_AT_LEAST_0 = frozenset({
    "adam_beta1", "adam_beta2", "adam_epsilon", "beta", "entropy_coef", "epsilon", "epsilon_high", "gae_lambda", "gamma",
    "kl_coef", "learning_rate", "log_samples", "max_grad_norm", "min_p", "missing_eos_penalty", "value_loss_coef",
    "warmup_steps", "weight_decay",
})  # fmt: skip
_AT_MOST_1 = frozenset({"gae_lambda", "gamma", "min_p", "top_p"})
_BELOW_1 = frozenset({"adam_beta1", "adam_beta2"})
_MAY_BE_INFINITE = frozenset({"max_grad_norm"})
_STEPS_OF = {
    "logging_steps": ("logging_strategy", "steps"),
    "save_steps": ("save_strategy", "no"),
    "eval_steps": ("eval_strategy", "no"),
}
"""The only strategy under which each interval holds, and what it is in a run whose config says nothing of it."""


def check_ranges(settings: Mapping[str, Any]) -> None:
    """Refuse settings of which training would end in another's error, or do what nobody means.

    Args:
        settings: By name; names that are not known here, values that are no numbers, and those of which another setting
            makes no use (``logging_steps`` under ``logging_strategy: "no"``) are not looked at.

    Raises:
        ConfigError: A value is out of its range; ``key`` is its name.
    """
    for name, value in settings.items():
        if isinstance(value, int | float) and _holds(name, settings) and (range_ := _missed(name, value)):
            raise ConfigError(f"{name} must be {range_}, not {value}", key=name)
    if (steps := settings.get("max_steps", -1)) < 1 and steps != -1:
        raise ConfigError(
            f"max_steps must be above 0, not {steps}", key="max_steps", hint="without it num_train_epochs holds"
        )
    clip = settings.get("reward_clip_range")
    if clip is not None and clip[0] >= clip[1]:
        raise ConfigError(
            f"reward_clip_range goes from {clip[0]} up to {clip[1]}",
            key="reward_clip_range",
            hint="the lower one first",
        )


def setting_range(name: str) -> str:
    """The range of a setting in words, such as ``above 0, at most 1``; empty where it has none."""
    bounds = {"above 0": _ABOVE_0, "at least 0": _AT_LEAST_0, "at most 1": _AT_MOST_1, "below 1": _BELOW_1}
    return ", ".join(words for words, names in bounds.items() if name in names)


def _holds(name: str, settings: Mapping[str, Any]) -> bool:
    """Whether training makes use of a setting, given the others."""
    if name in _STEPS_OF:
        strategy, default = _STEPS_OF[name]
        return bool(settings.get(strategy, default) == "steps")
    return name != "num_train_epochs" or settings.get("max_steps", -1) == -1


def _missed(name: str, value: float) -> str | None:
    """The range that a number is not in."""
    if name in _MAY_BE_INFINITE and math.isnan(value):
        return "a number"
    if name in (_ABOVE_0 | _AT_LEAST_0) - _MAY_BE_INFINITE and not math.isfinite(value):
        return "a finite number"
    if name in _ABOVE_0 and value <= 0:
        return "above 0"
    if name in _AT_LEAST_0 and value < 0:
        return "at least 0"
    if name in _AT_MOST_1 and value > 1:
        return "at most 1"
    return "below 1" if name in _BELOW_1 and value >= 1 else None
