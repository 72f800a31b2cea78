"""Plain functions as rewards: `@reward`, and TRL's convention."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, overload

from pydantic import ConfigDict, Field, create_model

from rlaif_sdk.conversations import as_generated
from rlaif_sdk.exceptions import RewardOutputError
from rlaif_sdk.rewards.contract import Params, Reward, Scope, ScoreLike, Scores
from rlaif_sdk.types import RewardBatch

_TRAINER_ARGUMENTS = frozenset({"trainer_state", "log_metric", "log_extra", "environments"})
"""What TRL's trainers hand to a reward function beside the data."""
_DATA_ARGUMENTS = frozenset({"prompts", "completions", "prompt_texts", "completion_texts", "completion_ids"})
_TEXT_ARGUMENTS = frozenset({"prompt_texts", "completion_texts"})


class _FunctionParams(Params):
    """The keyword parameters of a function, which has no docstrings of attributes: looking for them reads every module."""

    model_config = ConfigDict(use_attribute_docstrings=False)


class FunctionReward(Reward):
    """A plain function ``f(prompts, completions, **columns) -> list[float | None]`` as a reward.

    This is TRL's own convention, so the same function serves both: ``prompts`` and ``completions`` are what TRL would
    give, lists of messages where the data is conversational, each with its text as ``content``. A function that names ``completion_texts`` or
    ``prompt_texts`` gets text whatever the data (see `rlaif_sdk.RewardBatch.completion_texts`); TRL itself knows
    neither. Its other parameters:

    - without a default: a column that must be present;
    - keyword-only with a default: a parameter, set by ``params:`` in a config;
    - with a default otherwise: a column that may be absent;
    - ``**kwargs``: receives every other column, and ``completion_ids``;
    - ``trainer_state``, ``log_metric`` and ``log_extra``, where it names them: the trainer's own under a trainer of
      TRL's. Elsewhere, and in a process of the reward's own, a state with the batch's ``global_step`` and
      ``max_steps`` (0 where it is unknown), and functions that do nothing;
    - ``environments``, where it names them: the environment of each completion under TRL's GRPO, elsewhere None.

    A function that names ``trainer_state`` or ``environments`` is not cached, since its scores depend on more than the row.

    With ``scope="group"`` it is called once for each group, with the completions to one prompt.

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
        ends: tuple[str, str] | None = None,
        scope: Scope = "row",
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
        self.ends = ends
        self.scope = scope
        signature = _signature(function).parameters.values()
        given = _DATA_ARGUMENTS | _TRAINER_ARGUMENTS
        self._params = {
            p.name: p.default
            for p in signature
            if p.kind is p.KEYWORD_ONLY and p.default is not p.empty and p.name not in given
        }
        named = [p for p in signature if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        self._accepts = {p.name for p in named} - self._params.keys()
        self.cacheable = cacheable and "trainer_state" not in self._accepts and not self.reads_environments
        self._accepts_any = any(p.kind is p.VAR_KEYWORD for p in signature)
        self._bound = frozenset({"self"}) if self._accepts_any and not inspect.isfunction(function) else frozenset()
        self.reads_images = bool({"prompts", "completions"} & self._accepts) or self._accepts_any
        self.columns = tuple(p.name for p in named if p.default is p.empty and p.name not in given)
        self.inputs = (
            None
            if self._accepts_any
            else tuple(sorted(self._accepts - (_DATA_ARGUMENTS - {"completion_ids"}) - _TRAINER_ARGUMENTS))
        )
        self.params_model = create_model(
            f"{self.name}_params",
            __base__=_FunctionParams,
            **{
                p.name: (Any if p.annotation is p.empty else p.annotation, Field(default=p.default))
                for p in signature
                if p.name in self._params
            },  # type: ignore[call-overload]
        )
        self._values = dict(self._params)
        if params:
            self._values.update(self.params_model.model_validate(dict(params)).model_dump())

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    def score(self, batch: RewardBatch) -> Scores | Awaitable[Scores]:
        if self.scope == "row":
            return self.function(**self._arguments(batch))  # type: ignore[no-any-return]
        groups = batch.groups()
        answers = [self.function(**self._arguments(batch.select(rows))) for rows in groups]
        return _awaited(answers, groups) if any(map(inspect.isawaitable, answers)) else _in_order(answers, groups)

    def _arguments(self, batch: RewardBatch) -> dict[str, Any]:
        offered: dict[str, Any] = {"prompts": batch.prompts, "completions": batch.completions}
        if "completions" in self._accepts and set(map(type, batch.completions)) != {str}:
            offered["completions"] = [as_generated(completion) for completion in batch.completions]
        if batch.completion_ids is not None:
            offered["completion_ids"] = batch.completion_ids
        offered.update((name, values) for name, values in batch.columns.items() if name not in self._params)
        if self._accepts_any:
            offered = {name: values for name, values in offered.items() if name not in self._bound}
        else:
            offered = {name: values for name, values in offered.items() if name in self._accepts}
        for name in _TEXT_ARGUMENTS & self._accepts:
            offered[name] = list(getattr(batch, name))
        for name in _TRAINER_ARGUMENTS & self._accepts:
            offered[name] = _trainer_argument(batch, name)
        return {**offered, **self._values}

    @property
    def reads_messages(self) -> bool:
        """Whether it gets messages where the data has messages, and no text of them."""
        return bool({"prompts", "completions"} & self._accepts) and not _TEXT_ARGUMENTS & self._accepts

    @property
    def reads_environments(self) -> bool:
        """Whether it gets the environments of TRL's GRPO themselves."""
        return "environments" in self._accepts

    @property
    def values(self) -> Mapping[str, Any]:
        """Its parameters with their values."""
        return dict(self._values)

    def configured(self, params: Mapping[str, Any]) -> FunctionReward:
        """The same reward with other parameters."""
        return FunctionReward(
            self.function,
            name=self.name,
            version=self.version,
            range=self.range,
            higher_is_better=self.higher_is_better,
            ends=self.ends,
            scope=self.scope,
            cacheable=self.cacheable,
            params=params,
        )


async def _awaited(answers: Sequence[Any], groups: Sequence[Sequence[int]]) -> Scores:
    import asyncio

    return _in_order(await asyncio.gather(*answers), groups)


def _in_order(answers: Sequence[Any], groups: Sequence[Sequence[int]]) -> Scores:
    """The entries of all rows, of those of each group.

    Raises:
        RewardOutputError: There are more or fewer than rows.
    """
    entries: list[ScoreLike] = [None] * sum(map(len, groups))
    for answer, rows in zip(answers, groups, strict=True):
        if len(answer) != len(rows):
            raise RewardOutputError(
                f"returned {len(answer)} scores for a group of {len(rows)} rows", hint="return one entry a row"
            )
        for row, entry in zip(rows, answer, strict=True):
            entries[row] = entry
    return entries


def _trainer_argument(batch: RewardBatch, name: str) -> Any:
    if name == "trainer_state":
        progress = batch.progress
        state = SimpleNamespace(global_step=progress.step, max_steps=progress.total or 0)
        return state if batch.trainer is None else batch.trainer.state
    if name == "environments":
        return batch.trainer and batch.trainer.environments
    return _ignore if batch.trainer is None else getattr(batch.trainer, name)


def _ignore(*_: Any, **__: Any) -> None:
    """What logs where there is no trainer."""


@overload
def reward(function: Callable[..., Any], /) -> FunctionReward: ...
@overload
def reward(
    *,
    name: str | None = None,
    version: str = "0",
    range: tuple[float, float] | None = None,
    higher_is_better: bool = True,
    ends: tuple[str, str] | None = None,
    scope: Scope = "row",
    cacheable: bool = True,
) -> Callable[[Callable[..., Any]], FunctionReward]: ...
def reward(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Turn a plain function, sync or async, into a reward: ``@reward`` or ``@reward(range=(0, 1))``.

    Example:
        >>> from rlaif_sdk import RewardBatch, reward
        >>> @reward(range=(0, 1))
        ... def mentions(completion_texts, word):
        ...     return [float(want in text) for text, want in zip(completion_texts, word)]
        >>> mentions.score(RewardBatch(["A pet?"] * 2, ["a cat", "a dog"], columns={"word": ["cat", "cat"]}))
        [1.0, 0.0]

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
