"""What a reward server allows."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field

from rlaif_sdk.exceptions import ConfigError
from rlaif_sdk.integrations.cohorts import DEADLINE
from rlaif_sdk.io.addresses import is_loopback


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeSettings:
    """Limits of a reward server, and how it speaks the protocols of others.

    Attributes:
        api_key: The key that requests must carry; None lets everybody in.
        max_body: Bytes in a request at most; all requests together that are read or scored have 16 times as many at
            most, and one beyond that is refused with 503.
        max_rows: Rows in a request at most.
        max_queue: Rows that wait or are scored, of all requests together, at most; a request beyond it is refused
            with 429. No more requests are read at once either.
        max_batch: Rows that are scored together at most, unless one request has more.
        in_flight: Batches that are scored at once.
        timeout: Seconds for reading a request, and again for scoring it.
        label_column: The column that the labels of OpenRLHF and slime become.
        prompt_key: Where verl's ``extra_info`` holds the prompt.
        unscored: What OpenRLHF, verl and slime get for an unscored completion; null if None.
        cohort: Gather the groups whose members come in requests of their own, by the rules of
            `rlaif_sdk.integrations.cohorts`, and let the composer learn from what is scored.
        cohort_deadline: Seconds that a group is waited for.
        cohort_size: How many completions there are to a prompt, where a row names no group: those to one prompt are then
            gathered. None leaves such rows as they come.
        groups_per_step: After so many groups another training step is counted, where requests tell none.

    Raises:
        ConfigError: A limit is not above 0 or has no end, ``unscored`` is no number that JSON has, the key cannot be
            sent in a header, or groups are described and not gathered.
    """

    api_key: str | None = field(default=None, repr=False)
    max_body: int = 8_000_000
    max_rows: int = 1024
    max_queue: int = 4096
    max_batch: int = 64
    in_flight: int = 2
    timeout: float = 120.0
    label_column: str = "label"
    prompt_key: str = "prompt"
    unscored: float | None = None
    cohort: bool = False
    cohort_deadline: float = DEADLINE
    cohort_size: int | None = None
    groups_per_step: int | None = None

    def __post_init__(self) -> None:
        for name in ("max_body", "max_rows", "max_queue", "max_batch", "in_flight", "timeout", "cohort_deadline"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"must be above 0, not {getattr(self, name)}", key=name)
        for name in ("timeout", "cohort_deadline"):
            if math.isinf(getattr(self, name)):
                raise ConfigError("must be a number of seconds, not infinite", key=name)
        self._check_groups()
        if self.unscored is not None and not math.isfinite(self.unscored):
            raise ConfigError(
                f"JSON has no {self.unscored}", key="unscored", hint="leave it out: unscored completions then get null"
            )
        if self.max_rows > self.max_queue:
            raise ConfigError(f"{self.max_rows} rows of one request would never fit the queue", key="max_queue")
        key = self.api_key
        if key is not None and not (key and key.isascii() and key.isprintable() and " " not in key):
            raise ConfigError("the key must be printable ASCII without spaces", key="api_key")

    def _check_groups(self) -> None:
        for name, unset in (("cohort_size", None), ("groups_per_step", None), ("cohort_deadline", DEADLINE)):
            if getattr(self, name) != unset and not self.cohort:
                raise ConfigError("it says how groups come, which are gathered only with cohort", key=name)
        for name in ("cohort_size", "groups_per_step"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ConfigError(f"must be at least 1, not {getattr(self, name)}", key=name)


def key_from_environment(variable: str) -> str:
    """The key in an environment variable.

    Raises:
        ConfigError: There is none.
    """
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ConfigError(
            f"the environment variable {variable} has no key", key="api_key_env", hint=f"export {variable}=..."
        )
    return key


def check_exposure(host: str, settings: ServeSettings) -> None:
    """Refuse to let everybody in from other machines.

    Raises:
        ConfigError: There is no key, and the host is not this machine's loopback address.
    """
    if settings.api_key is None and not is_loopback(host):
        raise ConfigError(
            f"without a key the server answers only this machine, and {host!r} is reached from others",
            key="host",
            hint="name the environment variable with a key: --api-key-env NAME; or bind to 127.0.0.1",
        )
