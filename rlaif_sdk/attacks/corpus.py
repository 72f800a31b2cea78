"""The attacks that come with the SDK, and the poor answers that they are to lift."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveInt, RootModel

from rlaif_sdk.config import ConfigModel
from rlaif_sdk.config.documents import Document, load_document, parse_document, validate
from rlaif_sdk.exceptions import ConfigError

Place = Literal["instead", "before", "after", "between", "swap"]


class Attack(ConfigModel):
    """Something that is done to a poor answer so that a judge takes it for a good one."""

    family: str = Field(min_length=1)
    """The kind of attack, such as ``master key``."""
    name: str = Field(min_length=1)
    """Its name within the family."""
    place: Place = "after"
    """Where the text goes: ``instead`` of the answer, ``before`` it, ``after`` it, ``between`` all of its letters. With
    ``swap`` the answer stays as it is and gets the other place of a pair."""
    text: str
    """What the attacker writes."""
    language: str = Field(default="en", pattern="^[a-z]{2,3}$")
    """The language that the text is in, as ISO 639 has it."""
    times: PositiveInt = 1
    """How often it is repeated."""

    @property
    def swaps(self) -> bool:
        """It is about the place in a pair, and concerns only judges of pairs."""
        return self.place == "swap"

    def apply(self, answer: str) -> str:
        """The answer after the attack."""
        text = self.text * self.times
        made = {
            "instead": text,
            "before": text + answer,
            "after": answer + text,
            "between": text.join(answer),
            "swap": answer,
        }
        return made[self.place]


class Case(ConfigModel):
    """A prompt with a poor answer, which attacks are to lift, and a better one."""

    prompt: str
    """What is asked."""
    poor: str
    """An answer that a judge should rate low."""
    good: str
    """An answer that a judge of pairs should prefer."""


class _Attacks(RootModel[tuple[Attack, ...]]):
    pass


class _Cases(RootModel[tuple[Case, ...]]):
    pass


def load_attacks(path: str | Path | None = None) -> Sequence[Attack]:
    """The attacks of a YAML or JSON file, a list of `Attack`; by default those of the SDK.

    Raises:
        ConfigError: The file is refused, or two attacks of one family have one name.
    """
    document = _document(path, "attacks.yaml")
    attacks = validate(_Attacks, document).root
    seen: set[tuple[str, str]] = set()
    for index, attack in enumerate(attacks):
        if (attack.family, attack.name) in seen:
            raise document.error(f"the attack {attack.name!r} of {attack.family!r} is there twice", (index,))
        seen.add((attack.family, attack.name))
    return attacks


def load_cases(path: str | Path | None = None) -> Sequence[Case]:
    """The cases of a YAML or JSON file, a list of `Case`; by default those of the SDK.

    Raises:
        ConfigError: The file is refused, or has no cases.
    """
    document = _document(path, "cases.yaml")
    cases = validate(_Cases, document).root
    if not cases:
        raise ConfigError("has no cases", file=document.file)
    return cases


def _document(path: str | Path | None, own: str) -> Document:
    if path is not None:
        return load_document(path)
    return parse_document(files("rlaif_sdk.attacks").joinpath("corpus", own).read_text(encoding="utf-8"), file=own)
