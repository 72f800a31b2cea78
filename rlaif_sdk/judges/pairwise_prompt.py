"""What a judge is asked about two answers: preamble, exemplars, the pair, and the ending that asks for a verdict."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Literal, Self

from pydantic import Field

from rlaif_sdk.config import ConfigModel
from rlaif_sdk.config.documents import Document, load_document, parse_document, validate
from rlaif_sdk.exceptions import ConfigError
from rlaif_sdk.judges.prompts import free_tag

Task = Literal["summarisation", "helpfulness", "harmlessness"]
Detail = Literal["base", "detailed"]

SAMPLE = """The conversation:
{prompt}

Response 1:
{response_1}

Response 2:
{response_2}
"""
ENDING = "Which response is better? Reply with 1 or 2 and nothing else."
RATIONALE = "Explain in a few sentences which response is better, and why."
VERDICT = (
    "First explain in a few sentences which is better, and why. Then end with a line of its own that says 'Preferred: 1' "
    "or 'Preferred: 2'"
)
TIE = ", or 'Preferred: tie' if neither is"
_PLACEHOLDER = re.compile(r"\{(prompt|response_1|response_2)\}")
_NAMES = ("prompt", "response_1", "response_2")


class Exemplar(ConfigModel):
    """A pair with its verdict, shown to the judge before the pair that it is asked about."""

    prompt: str
    """What both answer."""
    response_1: str
    """The first response."""
    response_2: str
    """The second response."""
    preferred: Literal["1", "2"]
    """The better response, as text."""
    rationale: str | None = None
    """Why; shown where the judge writes rationales itself."""


class PairwisePromptFile(ConfigModel):
    """A file that says what a judge is asked about two responses."""

    preamble: str = Field(min_length=1)
    """What the judge is told first: the task, and what makes a response good."""
    sample: str = SAMPLE
    """How a pair is laid out: a text with {prompt}, {response_1} and {response_2}."""
    ending: str = Field(default=ENDING, min_length=1)
    """Asks for the label 1 or 2, and nothing else."""
    rationale: str = Field(default=RATIONALE, min_length=1)
    """Asks for the rationale, where there is to be one before the label."""
    exemplars: tuple[Exemplar, ...] = ()
    """Pairs with their verdicts, shown before the pair."""


@dataclass(frozen=True, slots=True)
class PairwisePrompt:
    """What a judge is asked about two responses (Lee et al. 2023, arXiv 2309.00267, section 2.1).

    Attributes:
        preamble: What the judge is told first.
        sample: How a pair is laid out, with ``{prompt}``, ``{response_1}`` and ``{response_2}``.
        ending: Asks for the label 1 or 2.
        rationale: Asks for a rationale.
        exemplars: Pairs with their verdicts.

    Raises:
        ConfigError: The sample lacks a response.
    """

    preamble: str
    sample: str = SAMPLE
    ending: str = ENDING
    rationale: str = RATIONALE
    exemplars: Sequence[Exemplar] = ()

    def __post_init__(self) -> None:
        found = set(_PLACEHOLDER.findall(self.sample))
        if missing := {"response_1", "response_2"} - found:
            raise ConfigError(f"a judge's sample lacks {{{min(missing)}}}", key="sample")

    @classmethod
    def named(cls, task: Task = "helpfulness", detail: Detail = "detailed") -> Self:
        """One of the prompts that come with the SDK.

        Args:
            task: ``summarisation``, ``helpfulness`` or ``harmlessness``.
            detail: ``base`` asks which is better; ``detailed`` is like the instructions that people get.

        Raises:
            ConfigError: There is no such prompt.
        """
        file = files("rlaif_sdk.judges").joinpath("pairwise_prompts", f"{task}-{detail}.yaml")
        if not file.is_file():
            raise ConfigError(
                f"there is no prompt for {task!r}, {detail!r}",
                hint="tasks are summarisation, helpfulness and harmlessness; details base and detailed",
            )
        return cls._of(parse_document(file.read_text(encoding="utf-8"), file=file.name))

    @classmethod
    def from_file(cls, path: str | Path) -> Self:
        """The prompt of a YAML or JSON file; see `PairwisePromptFile`.

        Raises:
            ConfigError: The file is refused; names the line.
        """
        return cls._of(load_document(path))

    @classmethod
    def _of(cls, document: Document) -> Self:
        return cls(**dict(validate(PairwisePromptFile, document)))

    def with_exemplars(self, exemplars: Sequence[Exemplar]) -> Self:
        """The same prompt with exemplars in the place of its own."""
        return replace(self, exemplars=tuple(exemplars))

    def question(self, prompt: str, first: str, second: str, ending: str, *, rationales: bool = False) -> str:
        """The text that asks about two responses.

        What is the same for every pair comes first. Prompt and responses stand between tags that occur in none of
        them, and placeholders inside them are left as they are.

        Args:
            prompt: What both answer.
            first: The response in the first place.
            second: The response in the second place.
            ending: What is asked at the end.
            rationales: Show the exemplars' rationales.
        """
        parts = [self.preamble.strip()]
        for number, exemplar in enumerate(self.exemplars, start=1):
            pair = self._laid_out(exemplar.prompt, exemplar.response_1, exemplar.response_2)
            reason = f"\n\n{exemplar.rationale.strip()}" if rationales and exemplar.rationale else ""
            parts.append(f"Example {number}:\n\n{pair}{reason}\n\nPreferred: {exemplar.preferred}")
        if self.exemplars:
            parts.append("The pair to judge:")
        return "\n\n".join([*parts, self._laid_out(prompt, first, second), ending.strip()])

    def _laid_out(self, prompt: str, first: str, second: str) -> str:
        texts = dict(zip(_NAMES, (prompt, first, second), strict=True))
        tag = free_tag(_NAMES, texts.values())
        tagged = {name: f"<{name}{tag}>\n{text}\n</{name}{tag}>" for name, text in texts.items()}
        return _PLACEHOLDER.sub(lambda match: tagged[match[1]], self.sample).strip()
