"""What a judge's defences cost: how many real answers they refuse, and how many they change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from rlaif_sdk.judges.pairwise import PairwiseLabeler
from rlaif_sdk.judges.pointwise import PointwiseJudge
from rlaif_sdk.judges.screening import NO_WORDS
from rlaif_sdk.statistics.estimates import Estimate, wilson


@dataclass(frozen=True, slots=True)
class Refused:
    """An answer that is not shown to the judge.

    Attributes:
        answer: Its number, from 1.
        text: What it says.
        reason: Why it is refused.
    """

    answer: int
    text: str
    reason: str


@dataclass(frozen=True, slots=True)
class Refusals:
    """What the defences of a judge do to answers that nobody dressed up.

    Attributes:
        answers: How many there are.
        without_words: Those refused because they have no word, number or symbol.
        openings: Those refused because they only announce something: of real answers, the doubtful ones.
        overlong: Those that are longer than the judge takes, and not cut.
        changed: How many were changed before the judge sees them, by the flag: ``invisible``, ``lookalikes`` and so on.
    """

    answers: int
    without_words: tuple[Refused, ...]
    openings: tuple[Refused, ...]
    overlong: int
    changed: Counter[str]

    @property
    def share_of_openings(self) -> Estimate:
        """The share refused as openings among answers that say anything, with its 95% interval."""
        return wilson(len(self.openings), self.answers - len(self.without_words))

    def record(self) -> dict[str, Any]:
        """The counts as a JSON-ready mapping, with each answer that was refused."""
        refused = (*self.without_words, *self.openings)
        return {
            "answers": self.answers,
            "without_words": len(self.without_words),
            "openings": len(self.openings),
            "share_of_openings": self.share_of_openings.record(),
            "overlong": self.overlong,
            "changed": dict(self.changed),
            "refused": [{"answer": one.answer, "text": one.text, "reason": one.reason} for one in refused],
        }

    def __str__(self) -> str:
        share = self.share_of_openings
        text = f"{len(self.without_words) + len(self.openings)} of {self.answers:,} answers refused"
        text += f": {len(self.without_words)} without a word, {len(self.openings)} only an opening"
        if self.answers > len(self.without_words):
            text += f" ({share.value:.2%}, 95% interval {share.low:.2%} to {share.high:.2%})"
        if self.overlong:
            text += f"; {self.overlong} too long"
        changed = ", ".join(f"{flag} {count}" for flag, count in self.changed.items())
        return f"{text}; changed: {changed}" if changed else text


def measure_refusals(judge: PointwiseJudge | PairwiseLabeler, answers: Iterable[Any]) -> Refusals:
    """What a judge's defences do to answers; the judge is not asked, and nothing is loaded.

    Example:
        >>> from rlaif_sdk.attacks import measure_refusals
        >>> from rlaif_sdk.judges import load_judge
        >>> print(measure_refusals(load_judge(model="any"), ["42", "Here is the answer:", "..."]))
        2 of 3 answers refused: 1 without a word, 1 only an opening (50.00%, 95% interval 9.45% to 90.55%)

    Args:
        judge: Whose defences.
        answers: Texts, or conversations of any shape that is read.

    Raises:
        ConversationError: An answer cannot be read.
    """
    without_words: list[Refused] = []
    openings: list[Refused] = []
    changed: Counter[str] = Counter()
    count = overlong = 0
    for count, answer in enumerate(answers, start=1):
        seen = judge.screening.of_answer("answer", answer)
        if seen is None:  # a call and no words: there is nothing to judge
            continue
        overlong += seen.overlong is not None and seen.contentless is None
        changed.update(flag.removeprefix("answer_") for flag in seen.flags)
        if seen.contentless is not None:
            found = without_words if seen.contentless == NO_WORDS else openings
            found.append(Refused(count, seen.text, seen.contentless))
    return Refusals(count, tuple(without_words), tuple(openings), overlong, changed)
