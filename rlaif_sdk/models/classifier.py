"""What a reward sees of a text classifier, whatever runs it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from rlaif_sdk.exceptions import ConfigError

ProblemType: TypeAlias = Literal["single_label_classification", "multi_label_classification", "regression"]
"""What the logits mean: one of L labels (softmax, or a sigmoid of a single logit), L yes-or-no questions (sigmoid), or
quantities, which are what they are."""


@runtime_checkable
class Classifier(Protocol):
    """Gives every text one logit a label."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The L label names, in the order of the logits."""
        ...

    @property
    def problem_type(self) -> ProblemType:
        """What the logits mean, as the model's config says."""
        ...

    @property
    def revision(self) -> str:
        """Identifies the weights, and changes whenever the same text may get other logits."""
        ...

    @property
    def truncated(self) -> int:
        """How many texts were cut to the maximum length since the classifier was loaded."""
        ...

    def logits(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> NDArray[np.float32]:
        """The raw logits of N texts, or of N pairs ``(texts[i], pairs[i])`` such as premise and hypothesis.

        Returns:
            Shape (N, L), float32, in input order.

        Raises:
            BatchError: An entry is no string, or ``pairs`` has another length than ``texts``.
        """
        ...

    def close(self) -> None:
        """Release the model. Scoring afterwards is an error; closing twice is not."""
        ...


def label_index(labels: Sequence[str], name: str) -> int:
    """The position of the label called ``name``, whatever its case.

    Raises:
        ConfigError: No label, or more than one, has that name; the message lists the labels.
    """
    found = [index for index, label in enumerate(labels) if label.casefold() == name.casefold()]
    if len(found) == 1:
        return found[0]
    problem = "names more than one label" if found else "is no label of this classifier"
    raise ConfigError(f"{name!r} {problem}", hint=f"labels: {', '.join(labels)}")
