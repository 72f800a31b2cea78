"""The reward ``onnx``."""

from __future__ import annotations

import numpy as np

from rlaif_sdk.conversations.templates import exchange
from rlaif_sdk.exceptions import BatchError, ConfigError, ConversationError
from rlaif_sdk.models import finite_score, label_index, label_log_odds, label_probabilities
from rlaif_sdk.models.builtin import OnnxRewardParams
from rlaif_sdk.models.encoding import EncoderInput
from rlaif_sdk.models.scorer import OnnxScorer, Scorable
from rlaif_sdk.rewards import Reward
from rlaif_sdk.types import RewardBatch, Score


class OnnxReward(Reward):
    """An exported model's word on each completion, in the units that ``params.output`` names."""

    name = "onnx"
    inputs = ()

    def __init__(self, params: OnnxRewardParams) -> None:
        self.params = params
        self.range = (0.0, 1.0) if params.output == "probability" else None
        self._scorer: OnnxScorer | None = None
        self._label = 0

    def setup(self) -> None:
        """Load the model and find the label.

        Raises:
            ConfigError: The folder cannot be used, or the label is not clear.
            MissingExtraError: The extra ``onnx`` is not installed.
        """
        self._loaded()

    def _loaded(self) -> OnnxScorer:
        if self._scorer is not None:
            return self._scorer
        params = self.params
        scorer = OnnxScorer(
            params.model,
            variant=params.variant,
            backend=params.backend,
            device=params.device,
            max_length=params.max_length,
            tokens_per_batch=params.tokens_per_batch,
        )
        try:
            self._label = self._chosen_label(scorer)
        except ConfigError:
            scorer.close()
            raise
        self._scorer = scorer
        self.version = scorer.revision
        return scorer

    def _chosen_label(self, scorer: OnnxScorer) -> int:
        params = self.params
        if params.label is None and len(scorer.labels) > 1:
            raise ConfigError("the model has several labels", hint=f"give label: one of {', '.join(scorer.labels)}")
        if params.input == "chat" and scorer.manifest.chat_template is None:
            raise ConfigError("the model has no chat template", hint="give input: joined, pair or completion")
        return 0 if params.label is None else label_index(scorer.labels, params.label)

    def score(self, batch: RewardBatch) -> list[Score]:
        """One score a row; a conversation that the chat template refuses fails alone."""
        scorer = self._loaded()
        inputs: list[EncoderInput] = []
        scores: list[Score | None] = [None] * len(batch)
        for row in range(len(batch)):
            try:
                inputs.append(scorer.prepared(self._scorable(batch, row, scorer), row))
            except (BatchError, ConversationError) as error:
                scores[row] = Score.failed(error.message)
        logits_NL = scorer.logits_of(inputs)
        values_NL = {
            "logit": lambda: logits_NL.astype(np.float64),
            "log_odds": lambda: label_log_odds(logits_NL, multi_label=scorer.multi_label),
            "probability": lambda: label_probabilities(logits_NL, multi_label=scorer.multi_label),
        }[self.params.output]()
        values = iter(values_NL[:, self._label].tolist())
        return [finite_score(next(values)) if score is None else score for score in scores]

    def _scorable(self, batch: RewardBatch, row: int, scorer: OnnxScorer) -> Scorable:
        prompt, completion = batch.prompts[row], batch.completions[row]
        kind: str = self.params.input
        if kind == "auto":
            of_messages = not (isinstance(prompt, str) and isinstance(completion, str))
            kind = "chat" if of_messages and scorer.manifest.chat_template else scorer.manifest.input
        if kind == "chat":
            return exchange(prompt, completion)
        prompt_text, completion_text = batch.prompt_texts[row], batch.completion_texts[row]
        if kind == "pair":
            return prompt_text, completion_text
        return completion_text if kind == "completion" else prompt_text + completion_text

    def close(self) -> None:
        """Release the model."""
        if self._scorer is not None:
            self._scorer.close()
            self._scorer = None
