"""A composed reward in ms-swift (3.5 to 4.6): a plugin file for ``--external_plugins``.

The file, say ``plugin.py``, and then ``swift rlhf --rlhf_type grpo --external_plugins plugin.py --reward_funcs
composed``::

    from swift.rewards import orms
    from rlaif_sdk.integrations.swift import orm

    orms["composed"] = orm("rewards.yaml")
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rlaif_sdk.exceptions import DataError
from rlaif_sdk.integrations.host import Host, Rewards, host
from rlaif_sdk.integrations.samples import Sample, Scored, prompt_of
from rlaif_sdk.types import RESERVED_COLUMNS, Progress

_NOT_COLUMNS = frozenset({"messages", "trajectory_inputs"}) | RESERVED_COLUMNS


def orm(
    rewards: Rewards, *, state: str | None = None, asynchronous: bool = False
) -> type[ComposedORM | AsyncComposedORM]:
    """A class for ``swift.rewards.orms``, which ms-swift makes an object of.

    A sample's prompt is its ``messages`` but the last. Its columns are those of the data set. The completions that
    have one ``prompt_id`` are a group, and the trainer's step is the schedules'. An unscored completion is ``None``,
    which ms-swift leaves out.

    Args:
        rewards: A config or a composer; see `rlaif_sdk.integrations.Host`.
        state: A file with what the composer learned elsewhere.
        asynchronous: Whether the class is an AsyncORM, whose calls ms-swift runs at the same time.

    Raises:
        ConfigError: The composition learns while it trains: nothing tells training from evaluation.
    """
    hint = "use ms-swift's GRPO, which passes prompt_id"
    hosted = host(rewards, "ms-swift's ORM", state=state, grouped=True, group_hint=hint, stepped=True)
    base: type[ComposedORM | AsyncComposedORM] = AsyncComposedORM if asynchronous else ComposedORM
    return type("ComposedReward", (base,), {"host": hosted})


class ComposedORM:
    """A composed reward as an outcome reward model. See `orm`."""

    host: Host

    def __init__(self, args: Any = None, **_: Any) -> None:
        self.args = args

    def __call__(self, /, completions: Sequence[str], **kwargs: Any) -> list[float | None]:
        """One total a completion, None where it is unscored."""
        return _totals(self.host.score(samples_of(completions, kwargs), progress=progress_of(kwargs)))


class AsyncComposedORM:
    """`ComposedORM`, awaited."""

    host: Host

    def __init__(self, args: Any = None, **_: Any) -> None:
        self.args = args

    async def __call__(self, /, completions: Sequence[str], **kwargs: Any) -> list[float | None]:
        """One total a completion, None where it is unscored."""
        return _totals(await self.host.ascore(samples_of(completions, kwargs), progress=progress_of(kwargs)))


def samples_of(completions: Sequence[str], kwargs: Mapping[str, Any]) -> list[Sample]:
    """The samples of a call.

    Raises:
        DataError: The call has no ``messages``.
    """
    messages = kwargs.get("messages")
    if messages is None:
        raise DataError("ms-swift passed no 'messages', so the prompts are unknown", hint="use ms-swift 3.5 or later")
    columns = {
        name: values
        for name, values in kwargs.items()
        if name not in _NOT_COLUMNS and isinstance(values, (list, tuple)) and len(values) == len(completions)
    }
    groups = columns.pop("prompt_id", None) or [None] * len(completions)
    return [
        Sample(
            prompt_of(conversation[:-1]),
            completion,
            {name: values[row] for name, values in columns.items()},
            groups[row],
        )
        for row, (conversation, completion) in enumerate(zip(messages, completions, strict=True))
    ]


def progress_of(kwargs: Mapping[str, Any]) -> Progress:
    """How far training is, as far as the call says."""
    state = kwargs.get("trainer_state")
    return Progress() if state is None else Progress(state.global_step, state.max_steps or None)


def _totals(scored: Sequence[Scored]) -> list[float | None]:
    return [one.total for one in scored]
