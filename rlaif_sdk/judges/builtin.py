"""Offers the SDK's own judge backends through the hook that any plugin uses; imports nothing heavy."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from rlaif_sdk.judges.backends import JudgeBackend
from rlaif_sdk.judges.usage import Prices
from rlaif_sdk.plugins import JudgeBackendSpec, hookimpl
from rlaif_sdk.rewards import Params

rlaif_api_version = 1


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
    share_prefix: bool = True
    """Compute what prompts begin with in common once, where the model's attention allows it; the probabilities are the
    same."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model."""


class OpenAIParams(Params):
    """A model behind an OpenAI-compatible server."""

    model: str
    """The model's name at the server."""
    base_url: str
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
    limit_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """The field that limits an answer's tokens; newer models take only ``max_completion_tokens``."""
    requests_per_minute: int | None = Field(default=None, ge=1)
    """The most requests begun in any 60 seconds."""
    tokens_per_minute: int | None = Field(default=None, ge=1)
    """The most tokens in any 60 seconds, as the server counts them."""
    input_price: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Price of a million tokens of prompts; with ``output_price`` it puts the cost into every usage."""
    output_price: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Price of a million tokens of answers."""
    images: bool = False
    """Send the images of prompts and answers along; the model has to take them."""
    structured_output: bool = False
    """Send the JSON schema of replies that are read as JSON (a rubric's verdicts, a ranking in words), for servers that hold
    a model to one: OpenAI's, vLLM, SGLang, llama.cpp. Elsewhere the form is asked for in words."""
    extra_body: dict[str, Any] = Field(default_factory=dict)
    """Further fields of every request, such as ``{chat_template_kwargs: {enable_thinking: false}}`` for a reasoning
    model at vLLM: in likelihood mode the verdict must be the first token. A field that is null is left out of requests, for
    servers that refuse it: ``{temperature: null}``."""

    @model_validator(mode="after")
    def _both_prices(self) -> Self:
        if (self.input_price is None) != (self.output_price is None):
            raise ValueError("input_price and output_price go together: give both, 0 where nothing is charged")
        return self


def _transformers(params: TransformersParams) -> JudgeBackend:
    from rlaif_sdk.judges.backends.local import TransformersBackend

    return TransformersBackend(**dict(params))


def _openai(params: OpenAIParams) -> JudgeBackend:
    from rlaif_sdk.judges.backends.openai import OpenAIBackend

    options = dict(params)
    charged = (options.pop("input_price"), options.pop("output_price"))
    prices = None if None in charged else Prices(*charged)
    return OpenAIBackend(**options, prices=prices)


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
