"""The parameters of the reward ``factuality``."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from rlaif_sdk import ViewParams


class FactualityParams(ViewParams):
    """Where the source is, and how the support of a sentence by it is measured."""

    view: Literal["answer", "assistant", "transcript"] = "answer"
    """What of a completion is checked: ``answer``, the policy's last words; ``assistant``, all that it said;
    ``transcript``, everything, with the calls of tools and their results."""

    column: str = Field(default="reference", min_length=1)
    """The batch column with the source of each row: a text, or a list of texts of which any may give support."""

    model: str | None = Field(default=None, min_length=1)
    """An entailment (NLI) classifier: a hub name or a local folder. Without one, words are aligned with the source."""

    entailment_label: str = Field(default="entailment", min_length=1)
    """The classifier's label for "the first text implies the second", in any case."""

    backend: Literal["auto", "transformers", "onnx"] = "auto"
    """What runs the classifier; `auto` takes ONNX for a folder with an `.onnx` file."""

    device: str | None = None
    """`cpu`, `cuda` or `cuda:1` for the classifier; by default a CUDA device when one works."""

    revision: str | None = None
    """Branch, tag or commit of a hub model."""

    premise_words: int = Field(default=150, ge=10)
    """Longest piece of the source, in words, that the classifier reads at once; the best piece counts."""

    aggregate: Literal["mean", "min"] = "mean"
    """How the support of the sentences becomes the score: their mean, or the least of them."""

    threshold: float = Field(default=0.5, gt=0, le=1)
    """Support below which the reason calls a sentence unsupported; the score does not depend on it."""

    numbers: bool = True
    """Whether a sentence with a number that the source lacks is unsupported."""

    names: bool = True
    """Whether a sentence with a name that the source lacks is unsupported. Names are found by English capitals."""

    trust_prompt: bool = True
    """Whether numbers and names of the prompt may be used freely; its words then weigh little in the alignment."""

    @model_validator(mode="after")
    def _classifier_settings_need_a_model(self) -> Self:
        given = self.model_fields_set & {"entailment_label", "backend", "device", "revision", "premise_words"}
        if given and self.model is None:
            raise ValueError(f"{', '.join(sorted(given))}: only used with 'model'")
        return self
