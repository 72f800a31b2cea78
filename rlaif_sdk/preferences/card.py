"""The card beside made data: how it came about, in a README.md that travels with it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlaif_sdk.io.digests import json_digest
from rlaif_sdk.io.files import write_text
from rlaif_sdk.io.versions import installed_versions
from rlaif_sdk.judges.backends import JudgeBackend

CARD_FILE = "README.md"
_LIBRARIES = ("rlaif-sdk", "torch", "transformers", "pyarrow")
_TOLD = ("model", "revision", "backend", "base_url", "dtype")
"""What a card says of a model; keys, further request fields and the like stay out."""


@dataclass(frozen=True, slots=True)
class Card:
    """What a card says.

    Attributes:
        title: What the data is.
        method: How rows and labels were made, in sentences, with the sources.
        files: What each file holds, by name.
        models: What is said of each model, by its part in the job; see `model_facts`.
        inputs: The SHA-256 of each file, and a digest of each prompt, that went in, by name.
        settings: The settings that bear on the result.
        counts: Rows, what was skipped, shares, by name.
        licence: The user's own lines.
        warnings: What should make one doubt the data, in sentences.
    """

    title: str
    method: str
    files: Mapping[str, str]
    models: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    counts: Mapping[str, Any] = field(default_factory=dict)
    licence: Sequence[str] = ()
    warnings: Sequence[str] = ()

    def markdown(self) -> str:
        """The card's text."""
        licence = _list(self.licence)
        parts = [
            f"# {self.title}\n\n{self.method}",
            f"## Warnings\n\n{_list(self.warnings)}" if self.warnings else "",
            _section("Files", self.files),
            _section("Counts", self.counts),
            *(_section(f"Model: {part}", facts) for part, facts in self.models.items()),
            _section("Inputs (digests)", self.inputs),
            _section("Settings", self.settings),
            f"## Licence\n\n{licence or 'Nothing was stated.'}",
            _section("Versions", installed_versions(_LIBRARIES)),
        ]
        return "\n\n".join(part for part in parts if part) + "\n"

    def write(self, folder: Path, name: str = CARD_FILE) -> Path:
        """Write the card into a folder."""
        file = folder / name
        write_text(file, self.markdown())
        return file


def model_facts(backend: JudgeBackend, options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What a card says of a model.

    Args:
        backend: The model; a digest of its identity is told, which changes with its files or its address.
        options: The part of the config that describes it.
    """
    told = {name: options[name] for name in _TOLD if options and options.get(name) is not None}
    return {**told, "identity": json_digest(backend.identity)}


def _section(heading: str, facts: Mapping[str, Any]) -> str:
    if not facts:
        return ""
    rows = "\n".join(f"| {_inline(name)} | {_shown(value)} |" for name, value in facts.items())
    return f"## {heading}\n\n| | |\n|---|---|\n{rows}"


def _list(lines: Sequence[str]) -> str:
    return "\n".join(f"- {_inline(line)}" for line in lines)


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return _inline(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str))


def _inline(text: str) -> str:
    """Text that cannot leave its line or its cell."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
