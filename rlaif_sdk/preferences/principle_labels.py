"""AI preferences under a constitution: each pair is judged by one principle, drawn for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rlaif_sdk.conversations import USER, view
from rlaif_sdk.judges.backends import JudgeBackend
from rlaif_sdk.judges.pairwise import Pair, PairLabel, PairwiseLabeler
from rlaif_sdk.judges.prompts import PairwisePrompt
from rlaif_sdk.preferences.constitution import Constitution, Principle


class PrincipleLabeler(PairwiseLabeler):
    """A labeler that tells the judge one principle of a constitution in its preamble (Bai et al. 2022, section 4.1).

    Which one is drawn by the seed and the pair's texts, so that a pair always meets the same, whatever is labelled with
    it. Each label names its principle.

    Args:
        backend: The model.
        constitution: The principles; those with a ``preference`` take part.
        prompt: What the judge is asked; the principle follows its preamble.
        seed: Of the drawing.
        **options: Of `PairwiseLabeler`.

    Raises:
        ConfigError: No principle has a preference, or an option is refused.
    """

    def __init__(
        self,
        backend: JudgeBackend,
        constitution: Constitution,
        prompt: PairwisePrompt | None = None,
        *,
        seed: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(backend, prompt, **options)
        self._constitution = constitution
        self._seed = seed
        self._labelers = {
            principle.name: PairwiseLabeler(backend, _told(self.prompt, principle), **options)
            for principle in constitution.preferences()
        }

    @property
    def settings(self) -> Mapping[str, Any]:
        """As a `PairwiseLabeler`'s, with the principles and the seed."""
        told = {name: labeler.settings["prompt"] for name, labeler in self._labelers.items()}
        return {**super().settings, "constitution": [told, self._seed]}

    async def label(self, pairs: Sequence[Pair]) -> list[PairLabel]:
        """Label B pairs, each under its principle; see `PairwiseLabeler.label`."""
        drawn = [self._principle(pair).name for pair in pairs]
        labels: dict[int, PairLabel] = {}
        for name in dict.fromkeys(drawn):
            rows = [row for row, principle in enumerate(drawn) if principle == name]
            found = await self._labelers[name].label([pairs[row] for row in rows])
            labels |= {row: replace(label, principle=name) for row, label in zip(rows, found, strict=True)}
        return [labels[row] for row in range(len(pairs))]

    def _principle(self, pair: Pair) -> Principle:
        prompt = view(pair.prompt, "transcript", role=USER)
        responses = sorted(view(response, "transcript") for response in (pair.response_1, pair.response_2))
        return self._constitution.drawn_preference(self._seed, prompt, *responses)


def _told(prompt: PairwisePrompt, principle: Principle) -> PairwisePrompt:
    preference = (principle.preference or "").strip()
    return replace(prompt, preamble=f"{prompt.preamble.strip()}\n\nJudge by this principle above all: {preference}")
