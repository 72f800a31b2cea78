"""What an exported folder says of itself: ``manifest.json``, the last file to be written and the first to be read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationError

from rlaif_sdk.config import ConfigModel
from rlaif_sdk.exceptions import ConfigError
from rlaif_sdk.io.digests import file_digest
from rlaif_sdk.models.classifier import ProblemType

MANIFEST_FILE = "manifest.json"

InputKind = Literal["joined", "pair", "completion"]
"""How a row of text becomes the model's input: prompt and completion one after the other, as a pair, or the completion
alone."""


def _plain_name(name: str) -> str:
    if not name or Path(name).name != name or name in (".", ".."):
        raise ValueError("it must be the name of a file in the folder")
    return name


FileName = Annotated[str, AfterValidator(_plain_name)]


class ParityMetrics(ConfigModel):
    """How far an exported model's logits are from PyTorch's in float32, over R rows and every label."""

    rows: int
    """How many inputs were compared, of one token to the maximum length."""
    max_difference: float
    """The greatest difference of a logit, over all paddings."""
    spread: float
    """The standard deviation of PyTorch's logits over the rows, which the difference is to be seen beside."""
    pearson: float
    """Correlation of the logits, the least of any label and padding over random tokens and over texts; as below."""
    spearman: float
    """Correlation of their ranks."""
    flipped: float
    """Share of pairs of rows whose order is another one."""


class Variant(ConfigModel):
    """One graph of a folder."""

    file: FileName
    """The ONNX file."""
    cpu_file: FileName | None = None
    """What a CPU runs in its place: of ``bf16``, the same operations in float32, each result rounded to bfloat16."""
    opset: int
    """Version of the ONNX operators."""
    parity: ParityMetrics
    """What was measured when it was exported."""
    compared_on: str | None = None
    """The execution provider that it was measured on."""


class Manifest(ConfigModel):
    """What an exported folder holds, and what it was made of."""

    format: Literal[1] = 1
    """Version of this layout."""
    source: str
    """The hub name of what was exported, or the way to its folder from this one."""
    revision: str
    """Identifies the weights that were exported."""
    architecture: str
    """The model's class in transformers."""
    labels: tuple[str, ...]
    """The names of the logits, in their order."""
    problem_type: ProblemType
    """What the logits mean."""
    max_length: int = Field(ge=1)
    """Longest input in tokens; longer ones are cut."""
    truncation_side: Literal["left", "right"]
    """Where they are cut."""
    input: InputKind
    """What the reward ``onnx`` gives the model of a row of text."""
    chat_template: str | None = None
    """Jinja source that renders messages."""
    special_tokens: dict[str, str] = Field(default_factory=dict)
    """Tokens by the name that the chat template knows them by, such as ``bos_token``."""
    variants: dict[str, Variant] = Field(min_length=1)
    """The graphs by name; the first one is the default."""
    files: dict[FileName, str]
    """SHA-256 of every other file of the folder."""
    made_with: dict[str, str] = Field(default_factory=dict)
    """Versions of the libraries that made it."""

    def variant(self, name: str | None = None) -> Variant:
        """The variant of that name; without a name the default.

        Raises:
            ConfigError: There is none of that name.
        """
        if name is None:
            return next(iter(self.variants.values()))
        if name not in self.variants:
            raise ConfigError(f"it has no variant {name!r}", hint=f"there are {', '.join(self.variants)}")
        return self.variants[name]


def read_manifest(folder: Path) -> Manifest:
    """The manifest of an exported folder, after every file is compared with its digest.

    Raises:
        ConfigError: It has none, it is not one, a graph is not among its files, or a file is missing or was changed.
    """
    file = folder / MANIFEST_FILE
    try:
        manifest = Manifest.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        raise ConfigError(
            f"has no {MANIFEST_FILE}", file=str(folder), hint="give a folder that rlaif export wrote"
        ) from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"])) or None
        raise ConfigError(
            f"is no manifest of an export: {first['msg']}", file=str(file), key=key, hint="export the model again"
        ) from None
    graphs = {name for variant in manifest.variants.values() for name in (variant.file, variant.cpu_file) if name}
    unlisted = sorted(graphs - manifest.files.keys())
    if unlisted:
        raise ConfigError(f"lists no digest of {', '.join(unlisted)}", file=str(file), hint="export the model again")
    for name, digest in manifest.files.items():
        if not (folder / name).is_file():
            raise ConfigError(f"its file {name} is missing", file=str(folder), hint="export the model again")
        if file_digest(folder / name) != digest:
            raise ConfigError(
                f"its file {name} is not the one that was exported", file=str(folder), hint="export the model again"
            )
    return manifest
