"""What a config may say of the reward ``toxicity``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from rlaif_sdk import ViewParams


class ToxicityParams(ViewParams):
    """Parameters of the reward ``toxicity``."""

    model: str | None = None
    """A Hugging Face sequence classifier by hub name or local folder, or a folder with an ONNX file. Without it the
    small model that comes with the package."""

    label: str | None = None
    """The label that is rewarded, by name: ``nothate`` of ``facebook/roberta-hate-speech-dynabench-r4-target``. With
    the model that comes with the package it is ``nontoxic``."""

    toxic_label: str | None = None
    """For models that have only labels of toxicity, such as ``toxic`` of ``unitary/toxic-bert``: the label that is
    penalised. Give this or ``label``."""

    output: Literal["logit", "probability", "log_odds"] = "probability"
    """``logit`` is the label's raw logit, as in classic RLHF recipes; ``probability`` lies between 0 and 1;
    ``log_odds`` is log(p / (1 - p)), which does not saturate."""

    text: Literal["completion", "prompt_and_completion"] = "completion"
    """What the classifier reads: the completion alone, or the prompt, a line break and the completion."""

    device: str | None = None
    """``cpu``, ``cuda`` or ``cuda:1``; by default a CUDA device when one works. Only with ``model``."""

    max_length: int | None = Field(default=None, ge=1)
    """Longest text in tokens, by default what the model takes. Of a longer one the end is kept. Only with
    ``model``."""

    revision: str | None = None
    """Branch, tag or commit of a hub model."""

    @model_validator(mode="after")
    def _labels_fit_the_model(self) -> ToxicityParams:
        if self.label is not None and self.toxic_label is not None:
            raise ValueError("give label or toxic_label, not both")
        if self.model is not None and self.label is None and self.toxic_label is None:
            raise ValueError("give label, the name of the model's label to reward, or toxic_label, the one to penalise")
        if self.model is None and (self.device, self.max_length, self.revision) != (None, None, None):
            raise ValueError("device, max_length and revision go with model")
        return self
