"""The rewards of scoring models: ``text_classification``, ``reward_model`` and ``onnx``."""

from __future__ import annotations

from abc import abstractmethod
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rlaif_sdk.conversations.templates import exchange
from rlaif_sdk.exceptions import BatchError, ConfigError, ConversationError
from rlaif_sdk.models.batching import BatchedClassifier, checked_texts
from rlaif_sdk.models.classifier import finite_score, label_index, label_log_odds, label_probabilities
from rlaif_sdk.models.encoding import EncoderInput, JoinedText
from rlaif_sdk.models.loader import load_classifier
from rlaif_sdk.models.reward_params import OnnxRewardParams, RewardModelParams, TextClassificationParams
from rlaif_sdk.models.scorer import OnnxScorer
from rlaif_sdk.rewards import Reward
from rlaif_sdk.types import RewardBatch, Score

RowInput: TypeAlias = Literal["joined", "pair", "completion", "chat"]
Output: TypeAlias = Literal["logit", "probability", "log_odds"]


_OF_LOADING = {"model", "revision", "device", "dtype", "max_length", "tokens_per_batch"}


class ScoringReward(Reward):
    """One output of a scoring model on each completion.

    A row that cannot be put to the model, and one that it gives no finite number for, fails alone.
    """

    inputs = ()
    output: Output = "logit"
    params: TextClassificationParams | RewardModelParams | OnnxRewardParams

    def __init__(self) -> None:
        self._model: BatchedClassifier | None = None
        self._label = 0

    def _load(self) -> BatchedClassifier:
        return load_classifier(**self.params.model_dump(include=_OF_LOADING))

    @abstractmethod
    def _configure(self, model: BatchedClassifier) -> None:
        """Choose the label and what else depends on the model.

        Raises:
            ConfigError: The model does not fit the parameters.
        """

    @abstractmethod
    def _kind(self, batch: RewardBatch, row: int) -> RowInput:
        """How a row is put to the model."""

    def setup(self) -> None:
        """Load the model and find the label.

        Raises:
            ConfigError: The model cannot be used, or the label is not clear.
            MissingExtraError: A library is not installed.
        """
        self._loaded()

    def _loaded(self) -> BatchedClassifier:
        if self._model is None:
            model = self._load()
            try:
                self._configure(model)
            except ConfigError:
                model.close()
                raise
            self._model = model
        return self._model

    def score(self, batch: RewardBatch) -> list[Score]:
        """One score a row."""
        model = self._loaded()
        inputs: list[EncoderInput] = []
        scores: list[Score | None] = [None] * len(batch)
        for row, text in enumerate(self.params.texts(batch)):
            kind = self._kind(batch, row)
            if text is None and kind != "chat":
                scores[row] = Score.no_words()
                continue
            try:
                inputs.append(self._input(model, batch, row, kind, text or ""))
            except (BatchError, ConversationError) as error:
                scores[row] = Score.failed(error.message)
        values = iter(self._values(model, model.logits_of(inputs))[:, self._label].tolist())
        return [finite_score(next(values)) if score is None else score for score in scores]

    def _input(self, model: BatchedClassifier, batch: RewardBatch, row: int, kind: RowInput, text: str) -> EncoderInput:
        if kind == "chat":
            return model.rendered(exchange(batch.prompts[row], batch.completions[row], thinking=self.params.thinking))
        prompt, completion = checked_texts("row", [batch.prompt_texts[row], text])
        if kind == "pair":
            return prompt, completion
        return completion if kind == "completion" else JoinedText(prompt + completion)

    def _values(self, model: BatchedClassifier, logits_NL: NDArray[np.float32]) -> NDArray[np.float64]:
        if self.output == "log_odds":
            return label_log_odds(logits_NL, problem_type=model.problem_type)
        if self.output == "probability":
            return label_probabilities(logits_NL, problem_type=model.problem_type)
        return logits_NL.astype(np.float64)

    def close(self) -> None:
        """Release the model."""
        if self._model is not None:
            self._model.close()
            self._model = None


class TextClassification(ScoringReward):
    """See `rlaif_sdk.models.reward_params.TextClassificationParams`."""

    params: TextClassificationParams
    name = "text_classification"
    ends = ("other labels", "the label")

    def __init__(self, params: TextClassificationParams) -> None:
        super().__init__()
        self.params = params
        self.higher_is_better = params.higher_is_better
        self.range = (0.0, 1.0) if params.output in (None, "probability") else None

    def _configure(self, model: BatchedClassifier) -> None:
        self._label = _chosen_label(self.params, model)
        self.output = _fitting_output(self.params.output, model)
        self.range = (0.0, 1.0) if self.output == "probability" else None
        self.revision = model.revision

    def _kind(self, batch: RewardBatch, row: int) -> RowInput:
        return "pair" if self.params.pair else "completion"


class RewardModel(ScoringReward):
    """A row's logit, the row being put to the model as TRL's ``RewardTrainer`` put its pairs.

    Messages are prompt and completion in the tokenizer's chat template, without a generation prompt. Texts are one after
    the other, ended as the saved tokenizer ends them (`SoftRewardTrainer.save_reward`). Special tokens that a message
    spells out are broken up, so that a completion cannot end its own turn. Whatever is too long loses its beginning.
    """

    params: RewardModelParams
    name = "reward_model"
    ends = ("worse", "better")

    def __init__(self, params: RewardModelParams) -> None:
        super().__init__()
        self.params = params

    def _configure(self, model: BatchedClassifier) -> None:
        if len(model.labels) != 1:
            raise ConfigError(
                f"{self.params.model} is no reward model: it has {len(model.labels)} labels",
                key="params.model",
                hint="use: text_classification rewards one label of a classifier",
            )
        self.version = f"{model.revision} in {self.params.dtype}" if self.params.dtype else model.revision

    def _kind(self, batch: RewardBatch, row: int) -> RowInput:
        return "chat" if _of_messages(batch, row) else "joined"


class OnnxReward(ScoringReward):
    """An exported model's word on each completion, in the units that ``params.output`` names."""

    params: OnnxRewardParams
    name = "onnx"
    ends = ("worse", "better")

    def __init__(self, params: OnnxRewardParams) -> None:
        super().__init__()
        self.params = params
        self.output = params.output
        self.range = (0.0, 1.0) if params.output == "probability" else None

    def _load(self) -> BatchedClassifier:
        named = self.params.model_dump(include={"variant", "backend", "device", "max_length", "tokens_per_batch"})
        self._scorer = OnnxScorer(self.params.model, **named)
        return self._scorer.classifier

    def _configure(self, model: BatchedClassifier) -> None:
        self._label = _chosen_label(self.params, model)
        self.output = _fitting_output(self.params.output, model)
        self._takes_messages = model.chat.template is not None
        if self.params.input == "chat" and not self._takes_messages:
            raise ConfigError("the model has no chat template", hint="give input: joined, pair or completion")
        self.version = self._scorer.revision

    def _kind(self, batch: RewardBatch, row: int) -> RowInput:
        if self.params.input != "auto":
            return self.params.input
        return "chat" if self._takes_messages and _of_messages(batch, row) else self._scorer.input


def _of_messages(batch: RewardBatch, row: int) -> bool:
    return not (isinstance(batch.prompts[row], str) and isinstance(batch.completions[row], str))


def _chosen_label(params: TextClassificationParams | OnnxRewardParams, model: BatchedClassifier) -> int:
    if params.label is not None:
        return label_index(model.labels, params.label)
    if len(model.labels) > 1:
        labels = ", ".join(model.labels)
        raise ConfigError(
            f"{params.model} has several labels, and none is chosen", key="params.label", hint=f"one of {labels}"
        )
    return 0


def _fitting_output(wanted: Output | None, model: BatchedClassifier) -> Output:
    """The output that is asked for; by default the probability, and of a regression model what it gives.

    Raises:
        ConfigError: A probability or log-odds is asked of a regression model.
    """
    if wanted is None:
        return "logit" if model.problem_type == "regression" else "probability"
    if wanted != "logit" and model.problem_type == "regression":
        raise ConfigError(
            f"a regression model (problem_type in its config.json) has no {wanted}: its outputs are quantities",
            key="params.output",
            hint="output: logit is its raw output",
        )
    return wanted
