"""What can be set about the judges of answers and of groups in a config."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from rlaif_sdk import JudgeModelParams, ViewParams


class JudgeParams(JudgeModelParams):
    """Settings of the judge.

    Those that are None keep the default of the SDK or of the backend. A setting that the backend in use does not know
    is refused.
    """

    model: str
    """Hub name or local folder of a causal language model, or the model's name at the server."""
    criteria: str = "helpfulness"
    """What makes an answer good: ``helpfulness``, ``harmlessness``, ``summarisation``, or a text of your own."""
    mode: Literal["likelihood", "rating"] = "likelihood"
    """``likelihood``: the mean of the scale's scores under the judge's own probabilities. ``rating``: the judge writes
    a justification, which becomes the score's reason, and a rating with two decimals."""
    scale: tuple[int, int] | None = None
    """The least and the greatest score: by default [1, 10] in likelihood mode, [1, 5] in rating mode."""
    labels: Literal["letters", "numbers"] = "letters"
    """How the judge names a score in likelihood mode. ``numbers`` needs a local model."""
    preamble: str | None = None
    """What the judge is told first."""
    template: str | None = None
    """The whole prompt: a text with {preamble}, {criteria}, {prompt}, {reference}, {answer} and {verdict}."""
    reference_column: str | None = Field(default=None, min_length=1)
    """The column with a row's reference answer, which the judge sees beside the answer; a row without one is judged without
    it."""
    max_chars: int | None = Field(default=None, ge=1)
    """The most characters of a prompt, and of an answer: 24,000 by default."""
    overlong: Literal["error", "keep_start", "keep_end"] = "error"
    """What becomes of a longer one: unscored, or cut and flagged."""
    max_new_tokens: int | None = Field(default=None, ge=1)
    """The longest reply in rating mode: 256 tokens by default."""
    blame: bool = False
    """Rating mode: let the judge name the turn of the policy that takes most from the rating. What the score lacks of 1 is
    credit on that turn; a turn that is not there gets none, which the reason says."""

    @field_validator("criteria", mode="before")
    @classmethod
    def _not_a_rubric(cls, value: Any) -> Any:
        if isinstance(value, list | dict):
            raise ValueError("'criteria' is one text; criteria with a verdict each are judged by the reward 'rubric'")  # noqa: TRY004 - pydantic tells of ValueErrors
        return value


class TournamentParams(JudgeModelParams):
    """Settings of the tournament: who is compared with whom, and by what judge.

    The score of a completion is its place among the completions to its prompt, from -1 to 1.
    """

    model: str
    """Hub name or local folder of a causal language model, or the model's name at the server."""
    scheme: Literal["listwise", "round_robin", "swiss", "information", "anchor"] = "round_robin"
    """``round_robin``: each with each, n(n-1) calls for a group of n. ``swiss``: rounds in which those meet who have won
    alike, about n calls a round. ``information``: the pairs whose verdicts teach most of the strengths, given the verdicts so
    far, as many as ``comparisons`` says. ``anchor``: each with one, 2(n-1) calls. ``listwise``: all at once, ``orders`` calls. Pairs
    are asked about in both orders; equal completions tie without a call."""
    criteria: str = "helpfulness"
    """What makes an answer good: ``helpfulness``, ``harmlessness``, ``summarisation``, or a text of your own."""
    mode: Literal["likelihood", "verdict"] = "likelihood"
    """``likelihood``: the judge's own probabilities, of which is better or, of a list, the best. ``verdict``: the judge
    explains itself and writes its verdict, a ranking as JSON of a list; for servers without log-probabilities."""
    strength: Literal["bradley_terry", "win_share"] = "bradley_terry"
    """What becomes of the games: ``bradley_terry``, the chance to beat one of average strength, which knows how strong the
    opponents were; ``win_share``, the share of the games won. Both are mapped from [0, 1] to [-1, 1]."""
    rounds: int | None = Field(default=None, ge=1)
    """Scheme ``swiss``: how many rounds; log2 of the group's size by default, rounded up."""
    comparisons: int | None = Field(default=None, ge=1)
    """Scheme ``information``: how many pairs of a group are compared, each in two calls; by default as many as ``swiss`` would.
    They are at least one fewer than its different completions, since fewer leave some apart."""
    reference_column: str | None = Field(default=None, min_length=1)
    """Scheme ``anchor``: the column with a row's reference. The score is then the chance to beat it, mapped to [-1, 1]. By
    default the anchor is the group's completion of median length, in characters."""
    orders: int = Field(default=2, ge=1)
    """Scheme ``listwise``: how often a group is asked about, each second time in the reverse order."""
    seed: int = 0
    """Scheme ``listwise``: of the orders."""
    max_chars: int | None = Field(default=None, ge=1)
    """The most characters of a prompt, and of an answer: 24,000 by default."""
    overlong: Literal["error", "keep_start", "keep_end"] = "error"
    """What becomes of a longer one: unscored, or cut and flagged."""
    max_new_tokens: int | None = Field(default=None, ge=1)
    """The longest reply in verdict mode: 256 tokens by default, 512 of a list."""

    _SCHEME_OF: ClassVar = {
        "rounds": "swiss",
        "comparisons": "information",
        "reference_column": "anchor",
        "orders": "listwise",
        "seed": "listwise",
    }

    @model_validator(mode="after")
    def _each_setting_has_its_scheme(self) -> Self:
        for name, scheme in self._SCHEME_OF.items():
            if name in self.model_fields_set and self.scheme != scheme:
                raise ValueError(f"{name!r} is of scheme {scheme!r}, and this is {self.scheme!r}: leave it out")
        if self.reference_column is not None and "strength" in self.model_fields_set:
            raise ValueError(
                "'strength' has no use with 'reference_column': the score is the chance to beat the reference"
            )
        if not self.criteria.strip():
            raise ValueError("'criteria' is empty: write a text, or one of helpfulness, harmlessness, summarisation")
        return self

    def judge_settings(self) -> dict[str, Any]:
        """The settings of the judge of pairs or lists that are set."""
        names = {"mode", "max_chars", "overlong", "max_new_tokens", *ViewParams.model_fields}
        return {name: value for name, value in self if name in names and value is not None}
