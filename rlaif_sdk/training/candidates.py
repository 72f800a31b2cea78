"""Several sampled completions a prompt: what pairs, best answers and difficulties are made of."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, PositiveInt

from rlaif_sdk.config import ConfigModel
from rlaif_sdk.training.heldout import Answers, answer_prompts

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class GenerationSettings(ConfigModel):
    """How completions are sampled."""

    batch_size: PositiveInt = 32
    """Completions that are generated at once."""
    max_completion_length: PositiveInt = 256
    """The most tokens of a completion."""
    temperature: float = Field(default=1.0, gt=0)
    """Above 0; lower is less varied."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Sample from the likeliest tokens that have this probability together."""
    top_k: int = Field(default=0, ge=0)
    """Sample from the so many likeliest tokens; 0 from all."""
    min_p: float | None = Field(default=None, ge=0, le=1)
    """Sample from tokens at least so likely, relative to the likeliest."""
    repetition_penalty: float = Field(default=1.0, gt=0)
    """Above 1 makes tokens rarer that are there already."""
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Arguments of the tokenizer's chat template."""

    def sampling(self, seed: int) -> Sampling:
        """As `answer_prompts` takes them."""
        fields: dict[str, Any] = {
            item.name: getattr(self, item.name) for item in dataclasses.fields(Sampling) if hasattr(self, item.name)
        }
        return Sampling(**fields, seed=seed, per_device_eval_batch_size=self.batch_size)


@dataclass(frozen=True, slots=True)
class Sampling:
    """What `answer_prompts` reads of a trainer's settings; see `GenerationSettings`."""

    seed: int
    per_device_eval_batch_size: int
    max_completion_length: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float | None = None
    repetition_penalty: float = 1.0
    chat_template_kwargs: Mapping[str, Any] | None = None
    generation_kwargs: Mapping[str, Any] | None = field(default=None)

    @classmethod
    def of(cls, settings: Any) -> Self:
        """Those of a trainer's settings."""
        return cls(**{item.name: getattr(settings, item.name) for item in dataclasses.fields(cls)})

    def with_seed(self, seed: int) -> Self:
        """The same with another seed."""
        return dataclasses.replace(self, seed=seed)


def sample_completions(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Dataset,
    sampling: Sampling,
    *,
    completions: int,
) -> Answers:
    """Sample K completions of each of N prompts.

    Args:
        model: The policy.
        tokenizer: Its tokenizer.
        prompts: N rows with a column ``prompt``.
        sampling: How; equal seeds sample the same.
        completions: K.

    Returns:
        N x K answers; those to one prompt stand together.
    """
    rows = [row for row in range(len(prompts)) for _ in range(completions)]
    settings: Any = sampling
    return answer_prompts(model, tokenizer, prompts.select(rows), settings)
