"""The config file of a training run, and the run that it describes."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeVar

from pydantic import Discriminator, Field, PositiveInt, Tag, field_validator, model_validator

from rlaif_sdk.config import CompositionConfig, ConfigModel
from rlaif_sdk.config.base import refused
from rlaif_sdk.config.documents import Described, Document, load_document, validate
from rlaif_sdk.exceptions import ConfigError
from rlaif_sdk.io.devices import computes_in_bfloat16
from rlaif_sdk.io.digests import rows_digest
from rlaif_sdk.io.jobs import RESUME_ANOTHER, claim
from rlaif_sdk.plugins.references import code_digests, reference_digests
from rlaif_sdk.training.arguments import check_named, declared_fields, refused_argument, typed_arguments
from rlaif_sdk.training.curriculum import CurriculumSettings

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import TrainingArguments

    from rlaif_sdk.composer import Composer


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
    attn_implementation: str | None = None
    """How attention is computed, as transformers names it: ``sdpa``, ``eager``, ``flash_attention_2``; null lets it choose."""
    lora: LoraSettings | None = None
    """Train an adapter; null trains every weight."""
    quantization: Literal["4bit", "8bit"] | None = None
    """Hold the model's own weights in 4 bits (NF4, QLoRA: Dettmers et al. 2023, arXiv:2305.14314) or in 8, by
    bitsandbytes; takes an adapter, which is what trains. What is saved has the weights of `name`, unquantised."""

    @property
    def loading(self) -> dict[str, str]:
        """What transformers is told of it besides its name and type, where anything is."""
        stated = {"revision": self.revision, "attn_implementation": self.attn_implementation}
        return {name: value for name, value in stated.items() if value is not None}

    @model_validator(mode="after")
    def _quantised_weights_do_not_train(self) -> Self:
        if self.quantization and self.lora is None:
            raise ValueError("quantised weights do not train: quantization takes an adapter; set lora")
        return self


class TableSettings(ConfigModel):
    """The rows to train on, and those held out to see what was learnt."""

    train: str | list[str]
    """Tables (JSONL, JSON, CSV, Parquet, Arrow), a folder of parts, or the name of a data set on the hub."""
    subset: str | None = None
    """Which of a hub data set's configurations to take, where it has several."""
    train_split: str = "train"
    """The split of a data set on the hub."""
    held_out: str | list[str] | Annotated[float, Field(gt=0, lt=1)] | None = None
    """The same for the held-out rows. A number between 0 and 1 keeps back the last rows of ``train``, that share of
    them; null keeps back the last `held_out_rows`."""
    held_out_split: str | None = None
    """The split of `held_out`, where that is a data set on the hub; null is ``test``."""
    held_out_rows: PositiveInt = 512
    """At most so many held-out rows are used; with a share under `held_out` it is left out."""
    prompt: str = "prompt"
    """The column with the prompt: text, or messages with role and content."""

    @field_validator("held_out", mode="before")
    @classmethod
    def _is_a_share(cls, value: Any) -> Any:
        if isinstance(value, (int, float)) and not 0 < value < 1:
            raise ValueError(
                f"a number here is the share of the rows of 'train' to keep back, between 0 and 1, not {value!r}: "
                "a count of rows stands under held_out_rows"
            )
        return value

    @property
    def held_out_source(self) -> str | list[str] | None:
        """Where the held-out rows come from; None where they are the last ones of ``train``."""
        return None if isinstance(self.held_out, float) else self.held_out

    @model_validator(mode="after")
    def _held_out_is_said_once(self) -> Self:
        counted = self.held_out_rows != type(self).model_fields["held_out_rows"].default
        if isinstance(self.held_out, float) and counted:
            raise refused(f"held_out, {self.held_out:g}, says already how many rows are kept back", "held_out_rows")
        if self.held_out_split is not None and self.held_out_source is None:
            raise ValueError(
                f"held_out_split {self.held_out_split!r} is a split of held_out, which is not set: "
                "name the data set there too"
            )
        return self


class DataSettings(TableSettings):
    """The prompts to train on, and those held out to see what was learnt."""

    held_out_rows: PositiveInt = 64
    """At most so many held-out prompts are used: each is answered before and after training. With a share under
    `held_out` it is left out."""
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


CHECKPOINTS = "checkpoints"
"""The folder of the trainer's checkpoints, in that of the run."""
Settings = TypeVar("Settings", bound="TrainingArguments")

SET_ELSEWHERE = {
    "output_dir": "set 'output' of the run",
    "seed": "set 'seed' of the run",
    "data_seed": "set 'seed' of the run",
    "resume_from_checkpoint": "give --resume",
    "reward_weights": "set the weights in the composition",
}
"""Fields of the trainer's settings that a run has another place for, and which."""


@dataclass(frozen=True, slots=True)
class Run(Described):
    """A run's config and the document it was read from, which knows the folder and the lines.

    Attributes:
        config: The settings: of a model, an output folder, a seed, and whatever else the kind of run has.
        document: Where they come from.
        method: The name of what trains it, see `rlaif_sdk.training.methods`; empty of a loop over runs.
        allow_changed: Whether a run may be resumed that had another config, other rows or other code.
    """

    config: Any
    document: Document
    method: str = dataclasses.field(default="", kw_only=True)
    allow_changed: bool = dataclasses.field(default=False, kw_only=True)

    def with_output(self, folder: Path) -> Self:
        """The same run with another folder for the results."""
        return dataclasses.replace(self, config=self.config.model_copy(update={"output": str(folder.resolve())}))

    @property
    def checkpoints(self) -> Path:
        """The folder of the trainer's checkpoints."""
        return self.output / CHECKPOINTS

    @property
    def model_name(self) -> str:
        """The model's folder where there is one of that name, else its name on the hub."""
        name = str(self.config.model.name)
        local = self.folder / name
        return str(local) if local.is_dir() else name

    def given_settings(self, key: str, kind: str) -> dict[str, Any]:
        """The trainer's settings that the config gives, checked without importing the trainer's libraries.

        Args:
            key: The key of the run's config that holds them.
            kind: ``module:name`` of their dataclass.

        Raises:
            ConfigError: One is unknown, belongs elsewhere, or is of another type or out of its range.
        """
        given: dict[str, Any] = getattr(self.config, key)
        known = declared_fields(kind) if given else {}
        for name in given:
            if name in SET_ELSEWHERE:
                raise self.document.error("stands elsewhere", (key, name), SET_ELSEWHERE[name])
            if known is not None and name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"see {kind.replace(':', '.')}"
                raise self.document.error("unknown key", (key, name), hint)
        with self._placed(key):
            return typed_arguments(known or {}, given)

    def settings(self, kind: type[Settings], key: str, **defaults: Any) -> Settings:
        """The trainer's settings.

        Args:
            kind: The class of settings, a dataclass of transformers' kind.
            key: The key of the run's config that holds the fields.
            **defaults: Of fields that the config does not set.

        Raises:
            ConfigError: As `given_settings`; or the class refuses a value.
        """
        given = self.given_settings(key, f"{kind.__module__}:{kind.__qualname__}")
        fields: dict[str, Any] = {
            "report_to": "none",
            "save_strategy": "no",
            "logging_steps": 1,
            "disable_tqdm": True,
            "dataloader_pin_memory": _on_cuda(),
            **defaults,
            **given,
        }
        with self._placed(key):
            check_named(given)
            try:
                settings = kind(output_dir=str(self.checkpoints), seed=self.config.seed, **fields)
            except ConfigError:
                raise
            except (TypeError, ValueError) as error:
                raise ConfigError(f"refused: {error}", key=refused_argument(kind, fields, given)) from error
        if settings.n_gpu > 1:  # without a launcher; the trainer would take all of them for torch's DataParallel
            settings._n_gpu = 1  # noqa: SLF001 - transformers has no public name for it
        return settings

    @contextmanager
    def _placed(self, key: str) -> Iterator[None]:
        """Give an error about a setting its place in the file."""
        try:
            yield
        except ConfigError as error:
            location = (key, error.key) if error.key else (key,)
            raise self.document.error(error.message, location, error.hint) from error

    def trl_defaults(self) -> dict[str, Any]:
        """Defaults of the settings of TRL's own trainers: they compute in bfloat16 where the machine has it."""
        given = getattr(self.config, self.method)
        elsewhere = given.get("fp16") or given.get("use_cpu")
        return {"bf16": computes_in_bfloat16() and not elsewhere, "gradient_checkpointing": False}


def _on_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


POLICY = "$policy"
"""Stands in a composition for the model that training starts from: a judge that is the policy itself."""


@dataclass(frozen=True, slots=True)
class ComposedRun(Run):
    """A run whose config has a composition and prompts.

    Attributes:
        weights: Weights by reward that take the place of those of the composition.
    """

    weights: Mapping[str, float] = dataclasses.field(default_factory=dict, kw_only=True)

    def composer(self, key: str = "composition", *, ledger: Path | bool = True) -> Composer:
        """The composer of the run, or another that its config describes.

        Args:
            key: The key of the config that has it.
            ledger: The file of the ledger that it keeps where the composition says nothing of one; False to leave out
                any ledger, and so to make no file.

        Raises:
            ConfigError: The composition is refused.
            PluginError: A plugin is unknown or broken.
        """
        from rlaif_sdk.composer import Composer
        from rlaif_sdk.composer.build import keeping_ledger

        document = self.composition_document(key, ledger=ledger is not False)
        return Composer.from_config(keeping_ledger(document, ledger) if isinstance(ledger, Path) else document)

    def composition_config(self, key: str = "composition") -> CompositionConfig:
        """A composition of the run, read from its file if it has one of its own; see `composer`."""
        return validate(CompositionConfig, self.composition_document(key))

    def code(self) -> dict[str, str]:
        """The digests of the Python files and modules that its config names, by the name that it has for them."""
        tools = [*getattr(self.config, "tools", []), *filter(None, [getattr(self.config, "environment", None)])]
        found = reference_digests(tools, self.folder)
        for key in self.composition_keys:
            document = self.composition_document(key)
            digests = code_digests(document.data, document.folder)
            found |= {name if key == "composition" else f"{key} {name}": value for name, value in digests.items()}
        return found

    @property
    def composition_keys(self) -> list[str]:
        """The keys of the config that have a composition."""
        return [key for key in ("composition", "evaluation") if getattr(self.config, key, None) is not None]

    def claim_loop(
        self,
        kind: str,
        train: Dataset,
        held_out: Dataset,
        *,
        results: str,
        resume: bool,
        may_change: tuple[str, ...] = (),
    ) -> None:
        """Claim the folder for a loop over runs; see `rlaif_sdk.io.jobs.claim`.

        Args:
            kind: What the loop is called.
            train: The prompts to train on.
            held_out: The held-out prompts.
            results: The pattern of what the loop leaves in the folder.
            resume: Whether an earlier loop in it is resumed.
            may_change: Keys of the config that may differ.
        """
        free = f"; what stands under {', '.join(map(repr, may_change))} may always change" if may_change else ""
        claim(
            self.output,
            {
                **self.config.model_dump(mode="json", exclude={"output"}),
                **{key: self.composition_config(key).model_dump(mode="json") for key in self.composition_keys},
                "code": self.code(),
                "training prompts": rows_digest(train),
                "held-out prompts": rows_digest(held_out),
            },
            kind=kind,
            results=[results],
            resume=resume,
            on_change="note" if self.allow_changed else "refuse",
            may_change=may_change,
            file=self.document.file,
            hint=RESUME_ANOTHER + free,
        )

    def in_order(self) -> dict[str, Any]:
        """Defaults of a trainer's settings: under a curriculum the prompts are not shuffled."""
        return {"shuffle_dataset": False} if self.config.data.curriculum else {}

    def composition_document(self, key: str = "composition", *, ledger: bool = True) -> Document:
        """The document of a composition of the run, with the weights that take the place of its own; see `composer`.

        Raises:
            ConfigError: Its file cannot be read, or there is no reward of a weight's name.
        """
        from rlaif_sdk.composer.build import without_ledger

        named = getattr(self.config, key)
        document = load_document(self.folder / named) if isinstance(named, str) else self.document.at(key)
        data = with_policy(document.data, self.model_name)
        for name, weight in self.weights.items() if key == "composition" else ():
            if name not in data["rewards"]:
                known = ", ".join(data["rewards"])
                raise document.error(f"there is no reward {name!r} to weigh", ("rewards",), f"there are {known}")
            data["rewards"][name] = {**(data["rewards"][name] or {}), "weight": weight}
        document = dataclasses.replace(document, data=data)
        return document if ledger else without_ledger(document)


def with_policy(data: Any, policy: str) -> Any:
    """A copy of the data with the policy's name wherever `POLICY` stands as a value."""
    return with_model(data, POLICY, policy)


def with_model(data: Any, placeholder: str, model: str) -> Any:
    """A copy of the data with a model's name wherever a placeholder stands as a value."""
    if isinstance(data, Mapping):
        return {key: with_model(value, placeholder, model) for key, value in data.items()}
    if isinstance(data, list):
        return [with_model(value, placeholder, model) for value in data]
    return model if data == placeholder else data


def has_placeholder(data: Any, placeholder: str) -> bool:
    """Whether a placeholder stands in the data as a value."""
    return bool(with_model(data, placeholder, "") != data)
