"""The config of how a reward is run: isolation, chunks, limits, retries, breaker, budgets."""

from __future__ import annotations

import builtins
import pkgutil
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from rlaif_sdk.config.base import ConfigModel, refused

Seconds = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(strict=True, ge=1)]


class LimitsConfig(ConfigModel):
    """What a reward's server allows in any 60 seconds. Counted in one process: divide by the number of processes."""

    requests_per_minute: Count | None = None
    """Calls begun; calls wait for their turn."""
    tokens_per_minute: Count | None = None
    """Tokens, as the reward reports them in ``Score.details["usage"]["tokens"]``; a call is estimated by the length of
    its texts until it has reported."""


def _error_name(name: str) -> str:
    """The name that a class of errors has itself: ``OSError`` for ``IOError``, ``ConnectError`` for ``httpx.ConnectError``.

    Raises:
        ValueError: It is no class of errors, or cannot be imported.
    """
    try:
        found: Any = getattr(builtins, name, None) if name.isidentifier() else pkgutil.resolve_name(name)
    except Exception as error:  # noqa: BLE001 - whatever the module raises at import
        raise ValueError(
            f"{name!r} cannot be imported ({error}): name a class of errors, such as ConnectionError"
        ) from None
    if found is None:  # a class of some package, which is known when it is raised
        return name
    if not (isinstance(found, type) and issubclass(found, BaseException)):
        raise ValueError(f"{name!r} is no class of errors: name one, such as ConnectionError")  # noqa: TRY004 - for pydantic
    return found.__name__


ErrorName = Annotated[str, AfterValidator(_error_name)]


class RetryConfig(ConfigModel):
    """Calls that are made again after an error that may pass."""

    attempts: Count = 1
    """Calls made at most, the first included."""
    errors: tuple[ErrorName, ...] = ("ConnectionError", "TimeoutError")
    """Class names of the errors, or of a base of theirs, after which a call is made again: ``ConnectError``, or
    ``httpx.ConnectError``, which is looked up. ``RewardTimeoutError`` adds calls that pass their own ``timeout``. A refused
    key and a spent account or budget are never tried again."""
    delay: Seconds = 0.5
    """The longest wait before the second attempt; it doubles with each further one. The wait is drawn uniformly from 0
    to it, so that calls that failed together do not return together."""
    max_delay: Seconds = 30.0
    """The longest wait before any attempt."""


class BreakerConfig(ConfigModel):
    """A circuit breaker: after failures in a row a reward is not called for a while, and its calls fail at once."""

    failures: Count = 5
    """Failed calls in a row after which the breaker opens."""
    cooldown: Seconds = 60.0
    """Seconds that it stays open; then one call is let through, to see."""


class BudgetConfig(ConfigModel):
    """What may be spent before the run ends with `BudgetExceededError`. It counts on over checkpoints."""

    calls: Count | None = None
    """Calls, with those made again."""
    tokens: Count | None = None
    """Tokens, as reported in ``Score.details["usage"]["tokens"]``."""
    cost: Seconds | None = None
    """Money, as reported in ``Score.details["usage"]["cost"]``."""


class ExecutionConfig(ConfigModel):
    """How a reward is called."""

    isolation: Literal["none", "process"] = "none"
    """``process`` calls it in a worker process of its own, which is killed at the time limit with all that it started:
    for rewards that may hang or crash."""
    chunk: Count | None = None
    """Rows of one call; null passes the whole batch. A reward that compares the completions to one prompt gets whole
    groups, and more rows where one is larger."""
    concurrency: Count = 1
    """Chunks scored at once. A reward that blocks gets as many threads or processes, and must be safe to call from
    several threads."""
    deadline: Seconds | None = None
    """Seconds that a whole batch may take, with all its chunks, waits and attempts; rows without a score by then have
    failed. (``timeout`` limits one call.)"""
    limits: LimitsConfig = LimitsConfig()
    """What its server allows a minute."""
    retry: RetryConfig = RetryConfig()
    """Calls made again after errors that may pass."""
    breaker: BreakerConfig | None = None
    """Stops calling it after failures in a row; null never does."""
    budget: BudgetConfig = BudgetConfig()
    """What it may spend."""

    @model_validator(mode="after")
    def _concurrency_needs_chunks(self) -> ExecutionConfig:
        if self.concurrency > 1 and self.chunk is None:
            raise refused("needs 'chunk': without it a batch is one call", "concurrency")
        return self
