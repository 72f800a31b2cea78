"""The reward ``factuality``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from rlaif_factuality.claims import Claim, ClaimSupport, find_claims, missing_facts
from rlaif_factuality.entailment import EntailmentScorer
from rlaif_factuality.evidence import find_evidence
from rlaif_factuality.params import FactualityParams
from rlaif_factuality.sentences import sentence_spans, split_sentences
from rlaif_factuality.source import Source
from rlaif_sdk import Credit, CreditSpan, Reward, RewardBatch, Score, load_classifier

_QUOTED_LENGTH = 100


class FactualityReward(Reward):
    """The mean (or least) support of an answer's sentences by the source of its row.

    The support of a sentence is measured by an entailment classifier if one is named, else by evidence in the words
    (`rlaif_factuality.evidence`). A number, date or name that neither source nor prompt has leaves it without support
    by the classifier, and with little by the words. An answer that claims nothing gets 0; a row without a source
    abstains, and so does one where the policy called a tool and said nothing.

    The score's credit marks each sentence with what it takes from full support; 1 is left over.
    """

    name = "factuality"
    version = "4"
    range = (0.0, 1.0)
    ends = ("unsupported", "supported")

    def __init__(self, params: FactualityParams) -> None:
        self.params = params
        self.columns = (params.column,)
        self.inputs = (params.column,)
        self._scorer: EntailmentScorer | None = None

    def setup(self) -> None:
        """Load the classifier, if one is named.

        Raises:
            ConfigError: There is no such classifier, or it has no label for entailment.
            MissingExtraError: What runs it is not installed.
        """
        params = self.params
        if params.model is None:
            return
        classifier = load_classifier(
            params.model, backend=params.backend, device=params.device, revision=params.revision
        )
        self._scorer = EntailmentScorer(classifier, label=params.entailment_label, premise_words=params.premise_words)
        self.version = f"{type(self).version}+{classifier.revision}"

    def score(self, batch: RewardBatch) -> list[Score]:
        """Score a batch of B rows; a classifier is called once for all of them."""
        sources: dict[Source, Source] = {}
        rows = [
            self._claims(text, prompt, source, sources)
            for text, prompt, source in zip(
                self.params.texts(batch), batch.prompt_texts, batch.column(self.params.column), strict=True
            )
        ]
        findings = iter(self._findings([claim for row in rows if not isinstance(row, Score) for claim in row]))
        return [
            row if isinstance(row, Score) else self._score_row([next(findings) for _ in row], text or "")
            for row, text in zip(rows, self.params.texts(batch), strict=True)
        ]

    def close(self) -> None:
        """Release the classifier."""
        if self._scorer is not None:
            self._scorer.classifier.close()
        self._scorer = None

    def _findings(self, claims: Sequence[Claim]) -> list[ClaimSupport]:
        numbers, names = self.params.numbers, self.params.names
        if self.params.model is None:
            return [find_evidence(claim, numbers=numbers, names=names) for claim in claims]
        if self._scorer is None:
            self.setup()
        assert self._scorer is not None
        missing = [
            [] if claim.denies else missing_facts(claim, numbers=numbers, names=names)  # a denial may rest on the lack
            for claim in claims
        ]
        asked = [claim for claim, facts in zip(claims, missing, strict=True) if not facts]
        supports = iter(self._scorer.supports(asked))
        return [
            ClaimSupport(claim, 0.0 if facts else next(supports), facts)
            for claim, facts in zip(claims, missing, strict=True)
        ]

    def _claims(self, text: str | None, prompt: str, source: Any, sources: dict[Source, Source]) -> list[Claim] | Score:
        if text is None:
            return Score.no_words()
        params = self.params
        texts = (source,) if isinstance(source, str) else source
        if texts is None:
            return Score(None, reason=f"the column {params.column!r} is empty, so there is nothing to check against")
        if not isinstance(texts, Sequence) or not all(isinstance(entry, str) for entry in texts):
            return Score.failed(f"the column {params.column!r} must hold a text or a list of texts")
        if not any(split_sentences(entry) for entry in texts):
            return Score(None, reason=f"the column {params.column!r} is empty, so there is nothing to check against")
        known = Source(tuple(texts), prompt if params.trust_prompt else "", _question(prompt))
        return find_claims(text, sources.setdefault(known, known))  # rows of one source share what was read from it

    def _score_row(self, findings: Sequence[ClaimSupport], text: str) -> Score:
        if not findings:
            return Score(
                0.0, reason="no claim to check: the answer is empty or says nothing that a source could support"
            )
        supports = [finding.support for finding in findings]
        if any(map(math.isnan, supports)):
            return Score.failed("the entailment classifier gave no finite logits for a sentence")
        if self.params.aggregate == "min":
            value = min(supports)
            lacking = {supports.index(value): 1.0 - value}
        else:
            value = math.fsum(supports) / len(supports)
            lacking = {place: (1.0 - support) / len(supports) for place, support in enumerate(supports)}
        details = {"sentences": [finding.as_dict() for finding in findings]}
        return Score(value, self._reason(findings), details, self._credit(findings, lacking, text))

    def _credit(self, findings: Sequence[ClaimSupport], lacking: Mapping[int, float], text: str) -> Credit | None:
        """What each sentence takes from full support."""
        if not any(lacking.values()):
            return None
        places = sentence_spans(text)
        spans = tuple(
            CreditSpan(*places[findings[place].claim.number], -amount, findings[place].reason)
            for place, amount in lacking.items()
            if amount
        )
        return Credit(spans=spans, rest=1.0, view=self.params.view, thinking=self.params.thinking)

    def _reason(self, findings: Sequence[ClaimSupport]) -> str:
        unsupported = [finding for finding in findings if finding.support < self.params.threshold]
        count = len(findings)
        summary = f"{count - len(unsupported)} of {count} sentence{'s' * (count > 1)} supported"
        if not unsupported:
            return summary
        first = unsupported[0]
        sentence = first.claim.sentence
        quoted = sentence if len(sentence) <= _QUOTED_LENGTH else f"{sentence[: _QUOTED_LENGTH - 1]}\u2026"
        return f"{summary}; unsupported: \u201c{quoted}\u201d ({first.reason})"


@lru_cache(maxsize=1024)
def _question(prompt: str) -> str:
    """The last question of a prompt, or nothing."""
    return next((sentence for sentence in reversed(split_sentences(prompt)) if "?" in sentence[-3:]), "")
