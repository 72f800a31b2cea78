"""The parameters of the rewards of scoring models; imports nothing heavy."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from rlaif_sdk.rewards import ViewParams


class OnnxRewardParams(ViewParams):
    """Parameters of the reward ``onnx``.

    Messages that the model's chat template renders are read whole; ``view`` is what of them is read as text.
    """

    model: str = Field(min_length=1)
    """The folder that ``rlaif export`` wrote, or one of optimum or sentence-transformers."""

    label: str | None = None
    """The label that is rewarded, by name; needed where the model has more than one."""

    output: Literal["logit", "probability", "log_odds"] = "logit"
    """``logit`` is the label's raw logit, as reward models are trained; ``probability`` lies between 0 and 1;
    ``log_odds`` is log(p / (1 - p))."""

    input: Literal["auto", "joined", "pair", "completion", "chat"] = "auto"
    """What the model reads: prompt and completion one after the other, as a pair, the completion alone, or both as
    messages in the model's chat template. ``auto`` takes ``chat`` for rows of messages if the model has a template, and
    what the export was told for others; a folder of another maker is read as ``joined``."""

    variant: str | None = None
    """Which of the folder's variants to run; by default the first."""

    backend: Literal["onnx", "auto"] = "onnx"
    """``auto`` measures once what is fastest on this machine: the folder's variants, PyTorch in bfloat16, OpenVINO."""

    device: str | None = None
    """``cpu``, ``cuda`` or ``cuda:1``; by default a CUDA device when one works."""

    max_length: int | None = Field(default=None, ge=1)
    """Longest input in tokens, if it is to be less than the export's."""

    tokens_per_batch: int | Literal["auto"] = "auto"
    """Most tokens, padding included, in one forward pass; ``auto`` measures it once for the machine."""

    @model_validator(mode="after")
    def _auto_chooses_the_variant(self) -> Self:
        if self.backend == "auto" and self.variant is not None:
            raise ValueError("backend: auto chooses the variant itself; leave out one of both")
        return self


class TextClassificationParams(ViewParams):
    """A text classifier, as a Hugging Face pipeline would run it."""

    model: str
    """Hub name or local folder of a sequence classifier; a folder with an ONNX file takes onnxruntime."""
    label: str | None = None
    """The label whose score counts; not needed where there is one."""
    output: Literal["probability", "log_odds", "logit"] | None = None
    """The label's probability, its log-odds, or its raw logit; null is the probability, and of a regression model its raw
    output. A reward model's number is its logit."""
    pair: bool = False
    """Give the prompt and the completion as a pair, as cross-encoders want it; otherwise the completion alone."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""
    device: str | None = None
    """``cpu``, ``cuda`` or ``cuda:1``; null takes a CUDA device when one works."""
    max_length: int | None = Field(default=None, ge=1)
    """Longest input in tokens; longer ones are cut. By default what the model takes."""
    tokens_per_batch: int | None = Field(default=None, ge=1)
    """Most tokens, padding included, in one forward pass; null is 1,024 on a CPU and 16,384 on a GPU."""
    higher_is_better: bool = True
    """False where the label is something to avoid."""


class RewardModelParams(ViewParams):
    """A reward model, such as ``rlaif train reward-model`` and ``rlaif distill`` leave.

    It reads messages whole, by its chat template; ``thinking`` says whether with the policy's thinking.
    """

    model: str
    """Local folder or hub name of a sequence classifier with one label; a folder with an ONNX file takes onnxruntime."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""
    device: str | None = None
    """``cpu``, ``cuda`` or ``cuda:1``; null takes a CUDA device when one works."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Type of the weights; null is float32. An ONNX file has its own."""
    max_length: int | None = Field(default=None, ge=1)
    """Longest input in tokens; longer ones are cut. By default what the model takes."""
    tokens_per_batch: int | None = Field(default=None, ge=1)
    """Most tokens, padding included, in one forward pass; null is 1,024 on a CPU and 16,384 on a GPU."""
