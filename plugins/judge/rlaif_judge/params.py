"""What can be set about the judge in a config."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from rlaif_sdk import ViewParams


class JudgeParams(ViewParams):
    """Settings of the judge.

    Those that are None keep the default of the SDK or of the backend. A setting that the backend in use does not know
    is refused.
    """

    model: str
    """Hub name or local folder of a causal language model, or the model's name at the server."""
    criteria: str = "helpfulness"
    """What makes an answer good: ``helpfulness``, ``harmlessness``, ``summarisation``, or a text of your own."""
    mode: Literal["likelihood", "rating"] = "likelihood"
    """``likelihood``: the mean of the scale's scores under the judge's own probabilities. ``rating``: the judge writes
    a justification, which becomes the score's reason, and a rating with two decimals."""
    scale: tuple[int, int] | None = None
    """The least and the greatest score: by default [1, 10] in likelihood mode, [1, 5] in rating mode."""
    labels: Literal["letters", "numbers"] = "letters"
    """How the judge names a score in likelihood mode. ``numbers`` needs a local model."""
    preamble: str | None = None
    """What the judge is told first."""
    template: str | None = None
    """The whole prompt: a text with {preamble}, {criteria}, {prompt}, {answer} and {verdict}."""
    max_chars: int | None = Field(default=None, ge=1)
    """The most characters of a prompt, and of an answer: 24,000 by default."""
    overlong: Literal["error", "keep_start", "keep_end"] = "error"
    """What becomes of a longer one: unscored, or cut and flagged."""
    max_new_tokens: int | None = Field(default=None, ge=1)
    """The longest reply in rating mode: 256 tokens by default."""

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

    def judge_settings(self) -> dict[str, Any]:
        """The settings of the judge, apart from its backend's."""
        names = set(type(self).model_fields) - _BACKEND_SETTINGS - {"backend_options"}
        return {name: value for name, value in self if name in names and value is not None}

    def backend_settings(self) -> dict[str, Any]:
        """The settings of the backend that are set."""
        given = {name: value for name, value in self if name in _BACKEND_SETTINGS and value is not None}
        return {**given, **self.backend_options}


_BACKEND_SETTINGS = {
    "model",
    "base_url",
    "api_key_env",
    "concurrency",
    "timeout",
    "attempts",
    "revision",
    "dtype",
    "device",
    "batch_size",
    "max_batch_tokens",
    "max_length",
}
