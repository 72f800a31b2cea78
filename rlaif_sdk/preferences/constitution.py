"""A constitution: principles by which a model criticises and revises its own answers, and by which a judge prefers."""

from __future__ import annotations

import random
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from rlaif_sdk.config import ConfigModel
from rlaif_sdk.config.documents import load_document, parse_document, validate
from rlaif_sdk.exceptions import ConfigError
from rlaif_sdk.preferences.policy import derived_seed


class Principle(ConfigModel):
    """One principle."""

    name: str = Field(min_length=1)
    """Stands beside everything that was made by it."""
    critique: str = Field(min_length=1)
    """Asks the model to criticise its answer."""
    revision: str = Field(min_length=1)
    """Asks the model to write the answer again."""
    preference: str | None = None
    """Tells a judge of two responses which to prefer; null where the principle is for revisions alone."""


class Constitution(ConfigModel):
    """A file of principles."""

    description: str = ""
    """What the constitution is about, in a line."""
    principles: tuple[Principle, ...] = Field(min_length=1)
    """The principles, one of which is drawn for each round and each label."""

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        names = [principle.name for principle in self.principles]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"two principles are called {twice!r}")
        return self

    @classmethod
    def load(cls, name: str, folder: Path) -> Self:
        """The constitution of a YAML or JSON file, or one that comes with the SDK.

        Args:
            name: ``short``, or a file.
            folder: What a file's path is relative to.

        Raises:
            ConfigError: There is none, or the file is refused; names the line.
        """
        if Path(name).suffix in {".yaml", ".yml", ".json"}:
            return validate(cls, load_document(folder / name))
        file = files("rlaif_sdk.preferences").joinpath("constitutions", f"{name}.yaml")
        if not file.is_file():
            raise ConfigError(f"there is no constitution {name!r}", hint="there is short; or name a YAML file")
        return validate(cls, parse_document(file.read_text(encoding="utf-8"), file=file.name))

    def drawn(self, seed: int, row: int, round_: int) -> Principle:
        """The principle of a row's round: any with equal probability, always the same for equal arguments."""
        return _choice(self.principles, seed, row, round_)

    def preferences(self) -> tuple[Principle, ...]:
        """The principles that tell a judge what to prefer.

        Raises:
            ConfigError: None does.
        """
        telling = tuple(principle for principle in self.principles if principle.preference)
        if not telling:
            raise ConfigError("no principle of the constitution has a preference", hint="add preference: to some")
        return telling

    def drawn_preference(self, seed: int, *texts: str) -> Principle:
        """The principle under which a pair is labelled; see `drawn`."""
        return _choice(self.preferences(), seed, *texts)


def _choice(principles: Sequence[Principle], *parts: object) -> Principle:
    return random.Random(derived_seed(*parts)).choice(principles)  # noqa: S311 - a draw, no secret
