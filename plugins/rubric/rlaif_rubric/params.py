"""What can be set about a rubric in a config."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from rlaif_rubric.criteria import CriterionParams, check_names
from rlaif_sdk import JudgeModelParams


class RubricParams(JudgeModelParams):
    """Settings of a rubric: its criteria, who judges them, and how verdicts become a score.

    The criteria are those of ``criteria``, ``file`` and ``column`` together; one of them must be given. ``model`` may be
    left out where code checks every criterion.
    """

    criteria: tuple[CriterionParams, ...] = ()
    """The criteria of every row."""
    file: str | None = Field(default=None, min_length=1)
    """A YAML, TOML or JSON file with criteria of every row; relative to the working directory."""
    column: str | None = Field(default=None, min_length=1)
    """The batch column with a row's own criteria, as a list or its JSON text. They are for the judge: a check stands in the
    config. A row without any criterion abstains."""
    reference_column: str | None = Field(default=None, min_length=1)
    """The batch column with an answer that is known to be good, which the judge is shown; an empty one is not."""
    mode: Literal["likelihood", "verdict"] = "likelihood"
    """``likelihood``: each criterion is asked by itself, and its value is the mean of its choices under the judge's own
    probabilities. ``verdict``: the judge writes a reason, quotes the answer, and chooses; what it quotes must stand in the
    answer."""
    criteria_per_call: PositiveInt | None = None
    """In verdict mode: the most criteria in one call; all of a row by default."""
    aggregate: Literal["explicit", "implicit"] = "explicit"
    """``explicit``: the sum of the points met, divided by the sum of the positive points. ``implicit``: one call in which
    the judge reads the whole rubric and rates from 1 to 10, which is mapped to 0 to 1."""
    on_failed_criterion: Literal["unscored", "skipped"] = "unscored"
    """What becomes of a row of which a criterion has no verdict: unscored, or scored by the others."""
    preamble: str | None = None
    """What the judge is told first about criteria."""
    max_chars: int | None = Field(default=None, ge=1)
    """The most characters of a prompt, of an answer, and of a reference: 24,000 by default."""
    overlong: Literal["error", "keep_start", "keep_end"] = "error"
    """What becomes of a longer one: the row is unscored, or it is cut and flagged."""
    max_new_tokens: int | None = Field(default=None, ge=1)
    """The longest reply in words: 160 tokens a criterion by default."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not (self.criteria or self.file or self.column):
            raise ValueError("a rubric has no criteria: give criteria, a file or a column")
        check_names(criterion for criterion in self.criteria if criterion.name)
        if self.mode == "likelihood" and self.criteria_per_call not in (None, 1):
            raise ValueError("under likelihoods each criterion is asked by itself: drop criteria_per_call, or set mode")
        return self

    def judging(self) -> dict[str, Any]:
        """The settings of the judge."""
        return {name: value for name, value in self.judge_settings().items() if name in _JUDGING}


_JUDGING = frozenset(
    {"mode", "criteria_per_call", "preamble", "max_chars", "overlong", "max_new_tokens", "view", "thinking"}
)
