"""Parameters of the rewards of other libraries and servers: light, so that listing the rewards imports no client."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from rlaif_sdk.rewards import Params, Scope


class RemoteParams(Params):
    """A reward server: one of ``rlaif serve``, or one that speaks OpenRLHF's protocol."""

    url: str
    """``http://host:port`` of ``rlaif serve``; with ``openrlhf`` the whole address, as ``--reward.remote_url`` has it."""
    protocol: Literal["native", "openrlhf"] = "native"
    """``native`` sends prompts, completions and columns; ``openrlhf`` sends them as one text, with a label."""
    api_key_env: str | None = None
    """The environment variable with the server's key; null for a server without one."""
    columns: tuple[str, ...] | None = None
    """The columns to send; null sends all."""
    label_column: str | None = None
    """With ``openrlhf``: the column that is sent as the labels; null sends none."""
    batch_size: int = Field(default=64, ge=1)
    """Rows in a request at most; the completions of one group stay together and may be more."""
    concurrency: int = Field(default=8, ge=1)
    """Requests in flight at most."""
    timeout: float = Field(default=120.0, gt=0)
    """Seconds for one attempt, from connecting to the last byte."""
    attempts: int = Field(default=4, ge=1)
    """Attempts for one request at most: a full queue, a broken connection or an unreadable answer is tried again."""
    max_retry_after: float = Field(default=60.0, ge=0)
    """The most seconds to wait where the server says how long."""
    higher_is_better: bool = True
    """False where the server's number is a cost."""
    scope: Scope = "row"
    """``group`` where the server's composition compares the completions to one prompt: a group is then never cut, and a
    ledger knows its scores by the whole group."""
    revision: str | None = None
    """What the server serves now. A ledger keeps its scores only where this is said: it cannot see them change."""

    @model_validator(mode="after")
    def _groups_are_told(self) -> Self:
        if self.scope == "group" and self.protocol == "openrlhf":
            raise ValueError("scope 'group' is for protocol 'native': OpenRLHF's tells no groups")
        return self


class VerifiersParams(Params):
    """A reward function of the verifiers library."""

    function: str
    """``package.module:function`` or ``path/to/file.py:function``, which takes any of prompt, completion, answer, state,
    info and the columns."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Further arguments, such as a parser's settings."""
