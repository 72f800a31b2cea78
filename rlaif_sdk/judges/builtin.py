"""Offers the SDK's own judge backends through the hook that any plugin uses; imports nothing heavy."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from rlaif_sdk.hookspecs import hookimpl
from rlaif_sdk.judges.backends import JudgeBackend
from rlaif_sdk.rewards import JudgeBackendSpec, Params

rlaif_api_version = 1


def _plain_address(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("it must be an address such as http://localhost:8000/v1")
    if parts.username or parts.password or parts.query:
        raise ValueError("it must have no user, password or query: name the key's variable in api_key_env")
    return url


class TransformersParams(Params):
    """A local model."""

    model: str
    """Hub name or local folder of a causal language model."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""
    dtype: str = "auto"
    """Number type: ``auto`` (as saved), ``float32``, ``bfloat16``, ``float16``."""
    device: str = "auto"
    """``auto`` (CUDA where there is one), ``cpu``, ``cuda:1``."""
    batch_size: int = Field(default=16, ge=1)
    """The most sequences in one forward pass."""
    max_batch_tokens: int = Field(default=16_384, ge=1)
    """The most tokens, with padding, in one forward pass."""
    max_length: int | None = Field(default=None, ge=1)
    """The most tokens of a prompt with its reply; by default what the model allows."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model."""


class OpenAIParams(Params):
    """A model behind an OpenAI-compatible server."""

    model: str
    """The model's name at the server."""
    base_url: Annotated[str, AfterValidator(_plain_address)]
    """The server's address, up to and including ``/v1``."""
    api_key_env: str | None = None
    """The environment variable that has the key; leave it out for a server without keys."""
    concurrency: int = Field(default=64, ge=1)
    """The most requests in flight."""
    timeout: float = Field(default=120.0, gt=0)
    """Seconds for one attempt, from connecting to the last byte."""
    attempts: int = Field(default=5, ge=1)
    """The most attempts for one request."""
    max_retry_after: float = Field(default=60.0, ge=0)
    """The most seconds to wait where the server says how long."""
    top_logprobs: int = Field(default=20, ge=1)
    """How many of the first token's alternatives to ask for."""
    max_body_bytes: int = Field(default=4_000_000, ge=1_000)
    """The longest answer that is read."""
    extra_body: dict[str, Any] = Field(default_factory=dict)
    """Further fields of every request, such as ``{chat_template_kwargs: {enable_thinking: false}}`` for a reasoning
    model at vLLM: in likelihood mode the verdict must be the first token."""


def _transformers(params: TransformersParams) -> JudgeBackend:
    from rlaif_sdk.judges.backends.local import TransformersBackend

    return TransformersBackend(**dict(params))


def _openai(params: OpenAIParams) -> JudgeBackend:
    from rlaif_sdk.judges.backends.openai_compatible import OpenAIBackend

    return OpenAIBackend(**dict(params))


BACKENDS = (
    JudgeBackendSpec(
        name="transformers",
        factory=_transformers,
        params=TransformersParams,
        description="A causal language model in this process",
    ),
    JudgeBackendSpec(
        name="openai",
        factory=_openai,
        params=OpenAIParams,
        description="A model behind any OpenAI-compatible server",
    ),
)


@hookimpl
def rlaif_judge_backends() -> tuple[JudgeBackendSpec, ...]:
    """The local and the remote backend."""
    return BACKENDS
