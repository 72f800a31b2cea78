"""The same judges asked as carelessly as many are: what their defences are worth.

No screening, no tags around the texts, placeholders inside texts expanded, one order of a pair. What belongs to the
backend (special tokens stay inert) and to the verdict (the judge's own last line counts) remains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

from rlaif_sdk.judges.pairwise import Ordered, PairwiseLabeler, Preference
from rlaif_sdk.judges.pointwise import PointwiseJudge
from rlaif_sdk.judges.prompts import CRITERIA, JudgePrompt, PairwisePrompt
from rlaif_sdk.types import Message, Score


async def rate_carelessly(judge: PointwiseJudge, asked: Sequence[tuple[str, str]]) -> list[float | None]:
    """The scores in [-1, 1] of B prompts with answers; None where one failed."""
    requests = [_rendered(judge.prompt, prompt, answer, judge.verdict.instruction) for prompt, answer in asked]
    found = await judge.verdict.ask(judge.backend, requests)
    return [verdict.value if isinstance(verdict, Score) else None for verdict in found]


async def prefer_carelessly(labeler: PairwiseLabeler, asked: Sequence[Ordered]) -> list[float | None]:
    """The probabilities that the first of B ordered pairs is better; None where one failed."""
    careless = _CarelessPrompt(**{field.name: getattr(labeler.prompt, field.name) for field in fields(labeler.prompt)})
    found = await replace(labeler.verdict, prompt=careless).ask(labeler.backend, asked)
    return [verdict.prob_first if isinstance(verdict, Preference) else None for verdict in found]


@dataclass(frozen=True, slots=True)
class _CarelessPrompt(PairwisePrompt):
    def _laid_out(self, prompt: str, first: str, second: str) -> str:
        return _filled(self.sample, {"prompt": prompt, "response_1": first, "response_2": second}).strip()


def _rendered(asked: JudgePrompt, prompt: str, answer: str, verdict: str) -> list[Message]:
    values = {
        "preamble": asked.preamble,
        "criteria": CRITERIA.get(asked.criteria, asked.criteria),
        "prompt": prompt,
        "answer": answer,
        "verdict": verdict,
    }
    return [{"role": "user", "content": _filled(asked.template, values)}]


def _filled(template: str, values: Mapping[str, str]) -> str:
    """One placeholder after the other, so that a value's own placeholders are filled as well."""
    for name, value in values.items():
        template = template.replace(f"{{{name}}}", value)
    return template
