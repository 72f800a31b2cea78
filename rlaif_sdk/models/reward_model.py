"""The reward ``reward_model``: the score of a model that was trained on preferences."""

from __future__ import annotations

from rlaif_sdk.conversations.templates import ChatTemplate, exchange
from rlaif_sdk.exceptions import BatchError, ConfigError, ConversationError
from rlaif_sdk.models import finite_score, load_classifier
from rlaif_sdk.models.batching import BatchedClassifier
from rlaif_sdk.models.builtin import RewardModelParams
from rlaif_sdk.models.encoding import EncoderInput, TemplatedText
from rlaif_sdk.rewards import Reward
from rlaif_sdk.types import RewardBatch, Score


class RewardModel(Reward):
    """A row's logit, the row being put to the model as TRL's ``RewardTrainer`` put its pairs.

    Messages are prompt and completion in the tokenizer's chat template, without a generation prompt. Texts are one after
    the other, ended as the saved tokenizer ends them (`SoftRewardTrainer.save_reward`). Special tokens that a message
    spells out are broken up, so that a completion cannot end its own turn.
    """

    name = "reward_model"
    inputs = ()

    def __init__(self, params: RewardModelParams) -> None:
        self.params = params
        self._classifier: BatchedClassifier | None = None
        self._template: ChatTemplate | None = None

    def setup(self) -> None:
        """Load the model.

        Raises:
            ConfigError: It cannot be loaded, or has several labels.
            MissingExtraError: torch, transformers or, for a chat template, jinja2 is not installed.
        """
        params = self.params
        classifier = load_classifier(
            params.model,
            backend="transformers",
            device=params.device,
            dtype=params.dtype,
            max_length=params.max_length,
            revision=params.revision,
        )
        assert isinstance(classifier, BatchedClassifier)
        if len(classifier.labels) != 1:
            classifier.close()
            raise ConfigError(
                f"{params.model} is no reward model: it has {len(classifier.labels)} labels",
                key="params.model",
                hint="use: text_classification rewards one label of a classifier",
            )
        self._classifier, self.version = classifier, f"{classifier.revision} in {params.dtype}"
        self._template = _chat_template(params, classifier)

    def score(self, batch: RewardBatch) -> list[Score]:
        """One score a row; a conversation that cannot be rendered fails alone."""
        classifier = self._classifier
        assert classifier is not None
        inputs: list[EncoderInput] = []
        scores: list[Score | None] = [None] * len(batch)
        for row in range(len(batch)):
            try:
                inputs.append(self._input(batch, row))
            except (BatchError, ConversationError) as error:
                scores[row] = Score.failed(error.message)
        logits = iter(classifier.logits_of(inputs)[:, 0].tolist() if inputs else [])
        return [finite_score(next(logits)) if score is None else score for score in scores]

    def _input(self, batch: RewardBatch, row: int) -> EncoderInput:
        prompt, completion = batch.prompts[row], batch.completions[row]
        if isinstance(prompt, str) and isinstance(completion, str):
            return prompt + completion
        if self._template is None:
            raise BatchError(f"{self.params.model} has no chat template, and the row is of messages")
        return TemplatedText(self._template.render(exchange(prompt, completion)))

    def close(self) -> None:
        """Release the model."""
        if self._classifier is not None:
            self._classifier.close()


def _chat_template(params: RewardModelParams, classifier: BatchedClassifier) -> ChatTemplate | None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(params.model, revision=params.revision or "main", trust_remote_code=False)
    return ChatTemplate.of(tokenizer, inert=classifier.encoder.special.inert)
