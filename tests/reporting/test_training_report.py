"""What a training run's report says of its result."""

from __future__ import annotations

import numpy as np
import pytest

from rlaif_sdk.reporting.training_report import verdict
from rlaif_sdk.statistics.estimates import paired_change

NAN = float("nan")


@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        ([0.0, 0.1, 0.2], [0.5, 0.7, 0.6], "rose by more than its standard error: +0.500 ± 0.058 over 3 prompts"),
        ([0.0, 0.1, 0.2], [0.5, 0.1, -0.3], "did not rise by more than its standard error: +0.000 ± 0.289 over 3"),
        ([0.0, NAN], [0.5, 0.1], "did not rise by more than its standard error: +0.500 over 1 prompts"),
        ([NAN, 0.1], [0.5, NAN], "is not known"),
    ],
)
def test_the_verdict_claims_what_was_measured(before: list[float], after: list[float], sentence: str) -> None:
    """A rise is one beyond its error; from one prompt there is no error, and from none no verdict."""
    text = verdict(paired_change(np.array(before), np.array(after)))
    assert sentence in text
    assert "nan" not in text
