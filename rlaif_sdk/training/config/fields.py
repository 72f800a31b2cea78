"""What the config file of a training run says: model, data, composition, settings of the trainer, output."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, PositiveInt, Tag, model_validator

from rlaif_sdk.config import CompositionConfig, ConfigModel
from rlaif_sdk.training.curriculum import CurriculumSettings


class LoraSettings(ConfigModel):
    """Train a low-rank adapter (Hu et al. 2021, arXiv:2106.09685) and leave the model's own weights as they are."""

    r: PositiveInt = 16
    """Rank."""
    alpha: PositiveInt = 32
    """The adapter's output is scaled by alpha / r."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout before the adapter. PPO wants none: the policy has to agree with itself."""
    target_modules: str | list[str] = "all-linear"
    """Names of the layers that get an adapter, or ``all-linear``."""


class ModelSettings(ConfigModel):
    """The language model to train."""

    name: str
    """A folder, or the name of a model on the hub."""
    revision: str | None = None
    """Branch, tag or commit on the hub; pin a commit to be sure of what is trained."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Type of the weights; ``auto`` is what they were saved as under an adapter, and float32 without one: PPO's steps
    are so small that bfloat16 weights round them to nothing. ``ppo.bf16`` computes in bfloat16 all the same."""
    lora: LoraSettings | None = None
    """Train an adapter; null trains every weight."""
    quantization: Literal["4bit", "8bit"] | None = None
    """Hold the model's own weights in 4 bits (NF4, QLoRA: Dettmers et al. 2023, arXiv:2305.14314) or in 8, by
    bitsandbytes; takes an adapter, which is what trains. What is saved has the weights of `name`, unquantised."""

    @model_validator(mode="after")
    def _quantised_weights_do_not_train(self) -> Self:
        if self.quantization and self.lora is None:
            raise ValueError("quantised weights do not train: quantization takes an adapter; set lora")
        return self


class TableSettings(ConfigModel):
    """The rows to train on, and those held out to see what was learnt."""

    train: str | list[str]
    """JSONL or Parquet files, or a data set: its name on the hub, or a folder that is laid out like one."""
    subset: str | None = None
    """Which of a hub data set's configurations to take, where it has several."""
    train_split: str = "train"
    """The split of a data set on the hub."""
    held_out: str | list[str] | None = None
    """The same for the held-out rows; null keeps back the last `held_out_rows` rows of ``train``."""
    held_out_split: str = "test"
    """The split of a data set on the hub."""
    held_out_rows: PositiveInt = 512
    """At most so many held-out rows are used."""
    prompt: str = "prompt"
    """The column with the prompt: text, or messages with role and content."""


class DataSettings(TableSettings):
    """The prompts to train on, and those held out to see what was learnt."""

    held_out_rows: PositiveInt = 64
    """At most so many held-out prompts are used: each is answered before and after training."""
    curriculum: CurriculumSettings | None = None
    """Choose and order the prompts of ``train`` by their measured difficulty; null takes all in random order."""


Composition = Annotated[
    Annotated[str, Tag("file")] | Annotated[CompositionConfig, Tag("inline")],
    Discriminator(lambda value: "file" if isinstance(value, str) else "inline"),
]
"""A composition, or the path of a file with one; told apart first, so that a refusal speaks of the right one."""


class RunConfig(ConfigModel):
    """What every run has. Paths are relative to the file that they stand in."""

    model: ModelSettings
    """The language model to start from."""
    output: str = "run"
    """The folder for the trained model and everything that is reported of the run."""
    seed: int = Field(default=0, ge=0)
    """Seeds the data's order, a new head's weights and all sampling."""


class ComposedRunConfig(RunConfig):
    """What every run on composed rewards has."""

    data: DataSettings
    """The prompts."""
    composition: Composition
    """The rewards: a composition, or the path of a file with one. ``$policy`` in it stands for the model of the run."""


class PPORunConfig(ComposedRunConfig):
    """Everything about a PPO run."""

    evaluation: Composition | None = None
    """Rewards for held-out prompts alone, of the kind of ``composition``, which training never sees; null for the same."""
    ppo: dict[str, Any] = Field(default_factory=dict)
    """Fields of `rlaif_sdk.training.ppo.PPOConfig`, which has those of `transformers.TrainingArguments` too."""
