"""A run's config and where it was read from: its folders, and the settings of its trainer."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from rlaif_sdk.config.documents import Described, Document, validate
from rlaif_sdk.config.overrides import overridden
from rlaif_sdk.exceptions import ConfigError
from rlaif_sdk.training.arguments import refused_argument, typed_arguments
from rlaif_sdk.training.config.fields import RunConfig

if TYPE_CHECKING:
    from transformers import TrainingArguments

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
        allow_changed: Whether a run may be resumed that had another config, other rows or other code.
    """

    config: Any
    document: Document
    allow_changed: bool = dataclasses.field(default=False, kw_only=True)

    @classmethod
    def load(
        cls,
        config: type[RunConfig],
        source: str | Path | Mapping[str, Any],
        overrides: Sequence[str] = (),
        **fields: Any,
    ) -> Self:
        """Read and check a run's config; see `rlaif_sdk.training.config.load_run_config`.

        Args:
            config: What the config must fit.
            source: A YAML or JSON file, or a mapping.
            overrides: A dotted key and a YAML value each.
            **fields: Whatever else the kind of run has.
        """
        document = overridden(source, overrides)
        return cls(validate(config, document), document, **fields)

    def with_output(self, folder: Path) -> Self:
        """The same run with another folder for the results."""
        return dataclasses.replace(self, config=self.config.model_copy(update={"output": str(folder.resolve())}))

    @property
    def checkpoints(self) -> Path:
        """The folder of the trainer's checkpoints."""
        return self.output / "checkpoints"

    @property
    def model_name(self) -> str:
        """The model's folder where there is one of that name, else its name on the hub."""
        name = str(self.config.model.name)
        local = self.folder / name
        return str(local) if local.is_dir() else name

    def settings(self, kind: type[Settings], key: str, **defaults: Any) -> Settings:
        """The trainer's settings.

        Args:
            kind: The class of settings, a dataclass of transformers' kind.
            key: The key of the run's config that holds the fields.
            **defaults: Of fields that the config does not set.

        Raises:
            ConfigError: A field is unknown, belongs elsewhere, or its value is refused.
        """
        import torch

        given: dict[str, Any] = getattr(self.config, key)
        known = {field.name for field in dataclasses.fields(kind) if field.init}
        for name in given:
            if name in SET_ELSEWHERE:
                raise self.document.error("stands elsewhere", (key, name), SET_ELSEWHERE[name])
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"see {kind.__module__}.{kind.__name__}"
                raise self.document.error("unknown key", (key, name), hint)
        fields: dict[str, Any] = {
            "report_to": "none",
            "save_strategy": "no",
            "logging_steps": 1,
            "disable_tqdm": True,
            "dataloader_pin_memory": torch.cuda.is_available(),
            **defaults,
        }
        try:
            fields |= typed_arguments(kind, given)
            return kind(output_dir=str(self.checkpoints), seed=self.config.seed, **fields)
        except ConfigError as error:
            location = (key, error.key) if error.key else (key,)
            raise self.document.error(error.message, location, error.hint) from error
        except (TypeError, ValueError) as error:
            refused = refused_argument(kind, fields, given)
            location = (key, refused) if refused else (key,)
            raise self.document.error(f"refused: {error}", location) from error

    def trl_settings(self, kind: type[Settings], key: str, **defaults: Any) -> Settings:
        """The settings of a trainer of TRL's: as `settings`, in bfloat16 where the machine has it.

        Args:
            kind: As for `settings`; likewise the others.
            key: See there.
            **defaults: See there.

        Raises:
            ConfigError: As `settings`.
        """
        import torch

        bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
        return self.settings(kind, key, bf16=bf16, gradient_checkpointing=False, **defaults)
