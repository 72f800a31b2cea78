"""What a reward that asks a judge has in its params: which model, behind which backend."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from rlaif_sdk.rewards import ViewParams


class JudgeModelParams(ViewParams):
    """Base for the parameters of a reward that asks a judge: which model, behind which backend.

    Settings that are None keep the default of the backend. One that the backend in use does not know is refused.
    """

    model: str | None = None
    """Hub name or local folder of a causal language model, or the model's name at the server."""
    backend: str | None = None
    """``transformers``, ``openai``, or one that a plugin offers; by default ``openai`` if there is a ``base_url``."""
    base_url: str | None = None
    """An OpenAI-compatible server's address, up to and including ``/v1``."""
    api_key_env: str | None = None
    """Server: the environment variable that has the key. The key itself never stands in a config."""
    concurrency: int | None = None
    """Server: the most requests in flight, 64 by default."""
    timeout: float | None = None
    """Server: seconds for one attempt, to the last byte; 120 by default."""
    attempts: int | None = None
    """Server: the most attempts for one request, 5 by default."""
    revision: str | None = None
    """Local: branch, tag or commit on the hub."""
    dtype: str | None = None
    """Local: number type such as ``bfloat16``; as saved by default."""
    device: str | None = None
    """Local: a torch device; CUDA where there is one by default."""
    batch_size: int | None = None
    """Local: the most sequences in one forward pass, 16 by default."""
    max_batch_tokens: int | None = None
    """Local: the most tokens in one forward pass, 16,384 by default."""
    max_length: int | None = None
    """Local: the most tokens of a prompt with its reply; what the model allows by default. A longer one is unscored."""
    backend_options: dict[str, Any] = Field(default_factory=dict)
    """Further parameters of the backend."""

    def backend_settings(self) -> dict[str, Any]:
        """The parameters of the backend that are set."""
        given = {name: value for name, value in self if name in _BACKEND_SETTINGS and value is not None}
        return {**given, **self.backend_options}

    def judge_settings(self) -> dict[str, Any]:
        """What is set apart from the backend's parameters, such as ``view``, ``backend`` and what a subclass adds."""
        names = set(type(self).model_fields) - _BACKEND_SETTINGS - {"backend_options"}
        return {name: value for name, value in self if name in names and value is not None}


_BACKEND_SETTINGS = frozenset(JudgeModelParams.model_fields.keys() - ViewParams.model_fields.keys()) - {
    "backend",
    "backend_options",
}
