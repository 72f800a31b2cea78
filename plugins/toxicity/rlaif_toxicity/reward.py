"""The reward ``toxicity``: a classifier's word on each completion."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rlaif_sdk import (
    Classifier,
    ConfigError,
    Reward,
    RewardBatch,
    Score,
    label_index,
    label_log_odds,
    label_probabilities,
    load_classifier,
)
from rlaif_toxicity.params import ToxicityParams

EMBEDDED = Path(__file__).with_name("model")
"""The folder of the model that comes with the package: see ``MODEL_CARD.md`` for its data, its quality and its limits."""


class ToxicityReward(Reward):
    """Higher is less toxic, in the units that ``params.output`` names.

    With ``toxic_label`` the score is that of the label's opposite: minus the logit or log-odds, one minus the
    probability. A score's details carry ``toxic_probability`` and the label that was read.
    """

    name = "toxicity"
    ends = ("toxic", "harmless")
    inputs = ()

    def __init__(self, params: ToxicityParams) -> None:
        self.params = params
        self.range = (0.0, 1.0) if params.output == "probability" else None
        self._classifier: Classifier | None = None
        self._label = 0

    def setup(self) -> None:
        """Load the classifier and find the label.

        Raises:
            ConfigError: The model cannot be loaded, or has no such label.
        """
        self._loaded()

    def _loaded(self) -> Classifier:
        if self._classifier is not None:
            return self._classifier
        params = self.params
        classifier = load_classifier(
            EMBEDDED if params.model is None else params.model,
            device="cpu" if params.model is None else params.device,
            max_length=params.max_length,
            truncation_side="left",
            revision=params.revision,
        )
        if classifier.problem_type == "regression":
            classifier.close()
            raise ConfigError(
                f"{params.model} is a regression model (problem_type in its config.json), which has no probabilities",
                hint="use: text_classification rewards its raw output",
            )
        self._label = label_index(classifier.labels, params.toxic_label or params.label or "nontoxic")
        self._classifier = classifier
        self.version = classifier.revision
        return classifier

    def score(self, batch: RewardBatch) -> list[Score]:
        """One score a completion; an empty one is scored like any other, and one that only calls a tool abstains."""
        classifier = self._loaded()
        texts = {row: text for row, text in enumerate(self.params.texts(batch)) if text is not None}
        if self.params.text == "prompt_and_completion":
            texts = {row: f"{batch.prompt_texts[row]}\n{text}" for row, text in texts.items()}
        scores = dict(zip(texts, self._scores(classifier, list(texts.values())) if texts else (), strict=True))
        return [scores.get(row, Score.no_words()) for row in range(len(batch))]

    def _scores(self, classifier: Classifier, texts: list[str]) -> list[Score]:
        logits_NL = classifier.logits(texts)
        probability_N = label_probabilities(logits_NL, problem_type=classifier.problem_type)[:, self._label]
        values_N = {
            "logit": logits_NL.astype(np.float64)[:, self._label],
            "log_odds": label_log_odds(logits_NL, problem_type=classifier.problem_type)[:, self._label],
            "probability": probability_N,
        }[self.params.output]
        toxic_N = 1 - probability_N
        if self.params.toxic_label is not None:
            toxic_N = probability_N
            values_N = 1 - probability_N if self.params.output == "probability" else -values_N
        return [
            Score(
                value=float(value),
                reason=f"toxic with probability {toxic:.3f}",
                details={"toxic_probability": float(toxic), "label": classifier.labels[self._label]},
            )
            for value, toxic in zip(values_N, toxic_N, strict=True)
        ]

    def close(self) -> None:
        """Release the classifier."""
        if self._classifier is not None:
            self._classifier.close()
            self._classifier = None
