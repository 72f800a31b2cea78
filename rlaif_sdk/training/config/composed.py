"""Runs whose config has a composition: their composers, and PPO's settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlaif_sdk.config import CompositionConfig
from rlaif_sdk.config.documents import Document, load_document, validate
from rlaif_sdk.plugins.references import code_digests
from rlaif_sdk.training.config.fields import PPORunConfig
from rlaif_sdk.training.config.run import Run

if TYPE_CHECKING:
    from rlaif_sdk.composer import Composer
    from rlaif_sdk.training.ppo import PPOConfig

POLICY = "$policy"
"""Stands in a composition for the model that training starts from: a judge that is the policy itself."""


@dataclass(frozen=True, slots=True)
class ComposedRun(Run):
    """A run whose config has a composition and prompts.

    Attributes:
        weights: Weights by reward that take the place of those of the composition.
    """

    weights: Mapping[str, float] = dataclasses.field(default_factory=dict, kw_only=True)

    def composer(self, key: str = "composition", *, ledger: bool = True) -> Composer:
        """The composer of the run, or another that its config describes.

        Args:
            key: The key of the config that has it.
            ledger: False to leave out its ledger, and so to make no file.

        Raises:
            ConfigError: The composition is refused.
            PluginError: A plugin is unknown or broken.
        """
        from rlaif_sdk.composer import Composer

        return Composer.from_config(self.composition_document(key, ledger=ledger))

    def composition_config(self, key: str = "composition") -> CompositionConfig:
        """A composition of the run, read from its file if it has one of its own.

        Args:
            key: See `composer`.

        Raises:
            ConfigError: The composition is refused.
        """
        return validate(CompositionConfig, self.composition_document(key))

    def code(self) -> dict[str, str]:
        """The digests of the Python files and modules that its compositions name, by the name that they have for them.

        Raises:
            ConfigError: The file of a composition cannot be read.
        """
        found: dict[str, str] = {}
        for key in self.composition_keys:
            document = self.composition_document(key)
            digests = code_digests(document.data, document.folder)
            found |= {name if key == "composition" else f"{key} {name}": value for name, value in digests.items()}
        return found

    @property
    def composition_keys(self) -> list[str]:
        """The keys of the config that have a composition."""
        return [key for key in ("composition", "evaluation") if getattr(self.config, key, None) is not None]

    def in_order(self) -> dict[str, Any]:
        """Defaults of a trainer's settings: under a curriculum the prompts are not shuffled."""
        return {"shuffle_dataset": False} if self.config.data.curriculum else {}

    def composition_document(self, key: str = "composition", *, ledger: bool = True) -> Document:
        """The document of a composition of the run, with the weights that take the place of its own.

        Args:
            key: See `composer`; likewise the ledger.
            ledger: See there.

        Raises:
            ConfigError: Its file cannot be read, or there is no reward of a weight's name.
        """
        named = getattr(self.config, key)
        document = load_document(self.folder / named) if isinstance(named, str) else self.document.at(key)
        data = with_policy(document.data, self.model_name)
        for name, weight in self.weights.items() if key == "composition" else ():
            if name not in data["rewards"]:
                known = ", ".join(data["rewards"])
                raise document.error(f"there is no reward {name!r} to weigh", ("rewards",), f"there are {known}")
            data["rewards"][name] = {**(data["rewards"][name] or {}), "weight": weight}
        if not ledger:
            data.pop("ledger", None)
        return dataclasses.replace(document, data=data)


@dataclass(frozen=True, slots=True)
class PPORun(ComposedRun):
    """A PPO run's config and the document it was read from."""

    config: PPORunConfig

    def ppo_config(self) -> PPOConfig:
        """The trainer's settings.

        Raises:
            ConfigError: A key is unknown, belongs elsewhere, or its value is refused.
        """
        from rlaif_sdk.training.ppo import PPOConfig

        settings = self.settings(PPOConfig, "ppo", samples_file=str(self.output / "rollouts.jsonl"), **self.in_order())
        if settings.critic_model and (self.folder / settings.critic_model).is_dir():
            settings.critic_model = str(self.folder / settings.critic_model)
        return settings


def load_run_config(source: str | Path | Mapping[str, Any], *, overrides: Sequence[str] = ()) -> PPORun:
    """Read and check a run's config.

    Args:
        source: A YAML or JSON file, or a mapping, whose paths are relative to the working directory.
        overrides: ``ppo.learning_rate=1e-6`` and the like: a dotted key and a YAML value, which take the place of what
            the file says.

    Raises:
        ConfigError: The config or an override is refused; the message has file, line and key.
    """
    return PPORun.load(PPORunConfig, source, overrides)


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
