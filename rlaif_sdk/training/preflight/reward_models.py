"""The models that rewards will load, found in their parameters before any is loaded.

By convention a reward whose parameters have ``model`` loads that model, at ``revision`` if there is one; with a
``base_url`` it asks a server instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlaif_sdk.exceptions import ConfigError
from rlaif_sdk.training.preflight.model_files import ModelFiles, find_model

if TYPE_CHECKING:
    from rlaif_sdk.composer import Composer


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model that a run will load.

    Attributes:
        role: What for: ``policy``, ``critic``, or ``reward NAME``.
        files: What is known of it.
        copies: How often it is held: the policy and its frozen reference make two.
    """

    role: str
    files: ModelFiles
    copies: int = 1


def reward_models(composer: Composer) -> Iterator[LoadedModel]:
    """The models of a composer's rewards and their fallbacks.

    Raises:
        ConfigError: A model's files are missing or damaged; the message names the reward's parameter.
    """
    parts = [("rewards", composer.components), ("fallbacks", composer.fallbacks)]
    for kind, components in parts:
        for name, component in components.items():
            params = component.params
            model = params.get("model")
            if not isinstance(model, str) or params.get("base_url"):
                continue
            try:
                files = find_model(model, params.get("revision"))
            except ConfigError as error:
                key = f"composition.{kind}.{name}.params.model"
                raise ConfigError(error.message, key=key, hint=error.hint) from error
            yield LoadedModel(f"{kind.removesuffix('s')} {name}", files)
