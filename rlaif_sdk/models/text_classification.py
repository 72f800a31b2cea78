"""The reward ``text_classification``: a label's score by any classifier."""

from __future__ import annotations

import numpy as np

from rlaif_sdk.exceptions import ConfigError
from rlaif_sdk.models import Classifier, label_index, label_log_odds, label_probabilities, load_classifier
from rlaif_sdk.models.builtin import TextClassificationParams
from rlaif_sdk.rewards import Reward, Scores
from rlaif_sdk.types import RewardBatch, Score


class TextClassification(Reward):
    """See `rlaif_sdk.models.builtin.TextClassificationParams`."""

    name = "text_classification"

    def __init__(self, params: TextClassificationParams) -> None:
        self.params = params
        self.higher_is_better = params.higher_is_better
        self.inputs = ()
        if params.output == "probability":
            self.range = (0.0, 1.0)
        self._classifier: Classifier | None = None
        self._label = 0

    def setup(self) -> None:
        params = self.params
        classifier = load_classifier(
            params.model, revision=params.revision, device=params.device, max_length=params.max_length
        )
        try:
            self._label = self._chosen_label(classifier)
        except ConfigError:
            classifier.close()
            raise
        self._classifier, self.revision = classifier, classifier.revision

    def _chosen_label(self, classifier: Classifier) -> int:
        if self.params.label is not None:
            return label_index(classifier.labels, self.params.label)
        if len(classifier.labels) > 1:
            raise ConfigError(
                f"{self.params.model} has several labels, and none is chosen",
                key="params.label",
                hint=f"one of {', '.join(classifier.labels)}",
            )
        return 0

    def score(self, batch: RewardBatch) -> Scores:
        classifier = self._classifier
        assert classifier is not None
        texts = {row: text for row, text in enumerate(self.params.texts(batch)) if text is not None}
        if not texts:
            return [Score.no_words()] * len(batch)
        if self.params.pair:
            logits_NL = classifier.logits([batch.prompt_texts[row] for row in texts], list(texts.values()))
        else:
            logits_NL = classifier.logits(list(texts.values()))
        if self.params.output == "logit":
            scores_NL = np.asarray(logits_NL, dtype=np.float64)
        elif self.params.output == "log_odds":
            scores_NL = label_log_odds(logits_NL, multi_label=classifier.multi_label)
        else:
            scores_NL = label_probabilities(logits_NL, multi_label=classifier.multi_label)
        scores = dict(zip(texts, scores_NL[:, self._label].tolist(), strict=True))
        return [scores.get(row, Score.no_words()) for row in range(len(batch))]

    def close(self) -> None:
        if self._classifier is not None:
            self._classifier.close()
