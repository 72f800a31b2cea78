"""What a plugin author writes: a `Reward`, a plain function with `@reward`, and the `RewardSpec` that registers it."""

from __future__ import annotations

import functools
import inspect
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeAlias, overload

from pydantic import BaseModel, ConfigDict, Field, create_model

from rlaif_sdk.exceptions import BatchError
from rlaif_sdk.types import RewardBatch, Score

PLUGIN_API_VERSION = 1
"""The version of the plugin API that this SDK speaks; a plugin module states its own as ``rlaif_api_version``."""

ScoreLike: TypeAlias = Score | float | None
Scores: TypeAlias = Sequence[ScoreLike]


class Params(BaseModel):
    """Base for the parameters of a reward: unknown keys and non-finite numbers are refused.

    Document a field with a docstring beneath it: `rlaif rewards show` and the JSON schema print it.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True, protected_namespaces=()
    )


class Reward(ABC):
    """Scores completions. Subclass it and write `score`; everything else has a default.

    Attributes:
        name: What the reward calls itself; in a composition the name in the config counts.
        version: Changes whenever the same input may get another score, so that caches know.
        range: The least and greatest score, or None for unbounded. A score outside it is a failure.
        columns: Names of the batch columns that must be present.
        higher_is_better: False for a cost, such as a probability of being toxic: the composer turns its sign.
        inputs: What `score` reads of a row beside its prompt and completion: names of columns, and ``completion_ids``.
            None when that is not said: a ledger then takes all of it for part of the input.
        cacheable: False where a row's score depends on more than that row: on its neighbours, on chance, on progress.
            A ledger then never keeps it.
    """

    name: str = ""
    version: str = "0"
    range: tuple[float, float] | None = None
    columns: tuple[str, ...] = ()
    higher_is_better: bool = True
    inputs: tuple[str, ...] | None = None
    cacheable: bool = True

    def setup(self) -> None:
        """Load models and open connections. Called once, before the first `score`, in the thread that scores."""

    @abstractmethod
    def score(self, batch: RewardBatch) -> Scores | Awaitable[Scores]:
        """Score a batch of B rows.

        May be ``async def``: all async rewards of a composition then run together on one event loop.

        Returns:
            B entries: a number, a `Score`, or None to abstain. Use `Score.failed` for a row that could not be
            scored; raise for a batch that could not.
        """

    def close(self) -> None:
        """Release what `setup` took. Called at most once; may be called without `setup`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """Describes something that a plugin offers by name; building it may be slow, describing it is not.

    Attributes:
        name: What configs call it: letters, digits, ``_`` and ``-``.
        factory: Called with an instance of ``params``; imports heavy libraries inside, not at module level.
        params: The pydantic model of its parameters.
        description: One line.
    """

    name: str
    factory: Callable[[Any], Any]
    params: type[BaseModel] = Params
    description: str = ""

    def build(self, params: Mapping[str, Any] | BaseModel | None = None) -> Any:
        """Make the object from its parameters.

        Raises:
            pydantic.ValidationError: The parameters do not fit ``params``.
        """
        checked = params if isinstance(params, self.params) else self.params.model_validate(dict(params or {}))
        return self.factory(checked)


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardSpec(Spec):
    """Describes a reward to the plugin manager, for listing without loading anything heavy.

    Attributes:
        range: As `Reward.range`, where it does not depend on the parameters.
        columns: As `Reward.columns`, where they do not depend on the parameters.
        higher_is_better: As `Reward.higher_is_better`.
        example: An entry under ``rewards:`` in a config, as `rlaif rewards show` prints it.
    """

    range: tuple[float, float] | None = None
    columns: tuple[str, ...] = ()
    higher_is_better: bool = True
    example: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class NormalizerSpec(Spec):
    """Describes a normalizer: the factory returns a `rlaif_sdk.composer.normalize.Normalizer`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AggregatorSpec(Spec):
    """Describes an aggregator: the factory returns a `rlaif_sdk.composer.aggregate.Aggregator`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeBackendSpec(Spec):
    """Describes a judge backend: the factory returns a `rlaif_sdk.judges.backends.JudgeBackend`."""


class FunctionReward(Reward):
    """A plain function ``f(prompts, completions, **columns) -> list[float | None]`` as a reward.

    This is TRL's own convention, so the same function serves both. Parameters of the function after ``prompts``
    and ``completions``:

    - without a default: a column that must be present;
    - keyword-only with a default: a parameter, set by ``params:`` in a config;
    - with a default otherwise: a column that may be absent;
    - ``**kwargs``: receives every other column, and ``completion_ids``.

    The object can still be called like the function.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        version: str = "0",
        range: tuple[float, float] | None = None,  # noqa: A002 - the field's name for it
        higher_is_better: bool = True,
        cacheable: bool = True,
        params: Mapping[str, Any] | None = None,
    ) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.name: str = name or getattr(function, "__name__", "") or type(function).__name__
        self.__name__ = self.name
        self.version = version
        self.range = range
        self.higher_is_better = higher_is_better
        self.cacheable = cacheable
        signature = _signature(function).parameters.values()
        given = {"prompts", "completions", "completion_ids"}
        self._params = {
            p.name: p.default
            for p in signature
            if p.kind is p.KEYWORD_ONLY and p.default is not p.empty and p.name not in given
        }
        named = [p for p in signature if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        self._accepts = {p.name for p in named} - self._params.keys()
        self._accepts_any = any(p.kind is p.VAR_KEYWORD for p in signature)
        self.columns = tuple(p.name for p in named if p.default is p.empty and p.name not in given)
        self.inputs = None if self._accepts_any else tuple(sorted(self._accepts - {"prompts", "completions"}))
        self.params_model = create_model(
            f"{self.name}_params",
            __base__=Params,
            **{
                p.name: (Any if p.annotation is p.empty else p.annotation, Field(default=p.default))
                for p in signature
                if p.name in self._params
            },  # type: ignore[call-overload]
        )
        self._values = dict(self._params)
        if params:
            self._values.update(self.params_model.model_validate(dict(params)).model_dump())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    def score(self, batch: RewardBatch) -> Scores | Awaitable[Scores]:
        offered: dict[str, Any] = {"prompts": batch.prompts, "completions": batch.completions}
        if batch.completion_ids is not None:
            offered["completion_ids"] = batch.completion_ids
        offered.update((name, values) for name, values in batch.columns.items() if name not in self._params)
        if not self._accepts_any:
            offered = {name: values for name, values in offered.items() if name in self._accepts}
        scores: Scores | Awaitable[Scores] = self.function(**offered, **self._values)
        return scores

    @property
    def values(self) -> Mapping[str, Any]:
        """Its parameters with their values."""
        return dict(self._values)

    @property
    def spec(self) -> RewardSpec:
        """Registers this function from a plugin: ``return [brevity.spec]``."""
        return RewardSpec(
            name=self.name,
            factory=lambda params: self.configured(params.model_dump()),
            params=self.params_model,
            description=(inspect.getdoc(self.function) or "").partition("\n")[0],
            range=self.range,
            columns=self.columns,
            higher_is_better=self.higher_is_better,
        )

    def configured(self, params: Mapping[str, Any]) -> FunctionReward:
        """The same reward with other parameters."""
        return FunctionReward(
            self.function,
            name=self.name,
            version=self.version,
            range=self.range,
            higher_is_better=self.higher_is_better,
            cacheable=self.cacheable,
            params=params,
        )


@overload
def reward(function: Callable[..., Any], /) -> FunctionReward: ...
@overload
def reward(
    *,
    name: str | None = None,
    version: str = "0",
    range: tuple[float, float] | None = None,
    higher_is_better: bool = True,
    cacheable: bool = True,
) -> Callable[[Callable[..., Any]], FunctionReward]: ...
def reward(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Turn a plain function, sync or async, into a reward: ``@reward`` or ``@reward(range=(0, 1))``.

    See `FunctionReward` for how the function's parameters are read.
    """
    if function is not None:
        return FunctionReward(function)
    return functools.partial(FunctionReward, **options)


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    """The signature with real annotations; where one names something out of reach, as with the parameter left bare."""
    try:
        return inspect.signature(function, eval_str=True)
    except Exception:  # noqa: BLE001 - evaluating an annotation may raise anything
        signature = inspect.signature(function)
    bare = [
        parameter.replace(annotation=parameter.empty) if isinstance(parameter.annotation, str) else parameter
        for parameter in signature.parameters.values()
    ]
    return signature.replace(parameters=bare)


class _DuckReward(Reward):
    """Anything with a ``score(batch)`` method, with defaults for what it does not say."""

    _optional: ClassVar = ("version", "range", "columns", "higher_is_better", "inputs", "cacheable")

    def __init__(self, scorer: Any) -> None:
        self._scorer = scorer
        self.name = getattr(scorer, "name", "") or type(scorer).__name__
        for attribute in self._optional:
            if hasattr(scorer, attribute):
                setattr(self, attribute, getattr(scorer, attribute))

    def setup(self) -> None:
        getattr(self._scorer, "setup", lambda: None)()

    def score(self, batch: RewardBatch) -> Scores | Awaitable[Scores]:
        result: Scores | Awaitable[Scores] = self._scorer.score(batch)
        return result

    def close(self) -> None:
        getattr(self._scorer, "close", lambda: None)()


def unwrapped(reward: Reward) -> Any:
    """The object that its author made: for one that is no `Reward` itself, that which `as_reward` was given."""
    return reward._scorer if isinstance(reward, _DuckReward) else reward  # noqa: SLF001 - of this module


def stated_by(reward: Reward) -> dict[str, str]:
    """What a reward states of itself: ``version``, and ``revision`` or an empty text. Some know it after setup only."""
    target = unwrapped(reward)
    return {
        "version": str(getattr(target, "version", None) or Reward.version),
        "revision": str(getattr(target, "revision", None) or ""),
    }


def is_reward_class(value: Any) -> bool:
    """Whether a value is a class whose instances have ``score(batch)``."""
    return isinstance(value, type) and callable(getattr(value, "score", None))


def as_reward(value: Any) -> Reward:
    """A `Reward` from a `Reward`, a function, a duck-typed object, or a class of either without required arguments.

    Raises:
        TypeError: It is none of these.
    """
    if is_reward_class(value):
        value = value()
    if isinstance(value, Reward):
        return value
    if callable(getattr(value, "score", None)):
        return _DuckReward(value)
    if callable(value) and not isinstance(value, type):
        return FunctionReward(value)
    raise TypeError(f"{value!r} is no reward: it needs a score(batch) method, or be f(prompts, completions, **columns)")


def require_columns(reward: Reward, batch: RewardBatch, name: str) -> None:
    """Check that the batch has what a reward needs.

    Raises:
        BatchError: A column is missing; the message names the reward and the columns present.
    """
    missing = [column for column in reward.columns if column not in batch.columns]
    if missing:
        found = ", ".join(sorted(batch.columns)) or "none"
        raise BatchError(
            f"reward {name!r} needs the column{'s' * (len(missing) > 1)} {', '.join(map(repr, missing))}",
            hint=f"columns present: {found}; map one under 'columns:' of the reward",
        )
