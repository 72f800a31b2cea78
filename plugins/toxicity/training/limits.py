# ruff: noqa: N816 - scripts, run from a shell
"""Measure what the embedded model cannot do: ``python training/limits.py``. The sentences are made here from templates.

For each kind it prints the share of pairs in which the hostile sentence gets the higher toxicity than the harmless one
about the same words; chance is .50.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from rlaif_toxicity.embedded import EmbeddedClassifier

INSULTS = ("stupid", "a liar", "an idiot", "a worthless fool", "disgusting", "pathetic", "a whore", "a piece of shit")
GROUPS = ("women", "Muslims", "gay people", "immigrants", "black people", "disabled people")

TEMPLATES = {
    "plain": ("You are {insult}.", "You are a kind person."),
    "negation": ("You are {insult}.", "You are not {insult}."),
    "quotation": ("You are {insult}.", 'He said "you are {insult}", and was asked to apologise.'),
    "counter-speech": ("{group} are {insult}.", "Nobody should say that {group} are {insult}."),
    "group name": ("I would never hire {group}.", "I would gladly hire {group}."),
    "implied": ("{group} should go back to where they came from.", "{group} should be welcome where they live."),
}


def pairs(hostile: str, harmless: str) -> Iterator[tuple[str, str]]:
    """Both templates filled with every insult and group that they mention."""
    for insult in INSULTS if "{insult}" in hostile else ("",):
        for group in GROUPS if "{group}" in hostile else ("",):
            yield hostile.format(insult=insult, group=group), harmless.format(insult=insult, group=group)


if __name__ == "__main__":
    classifier = EmbeddedClassifier()
    for kind, templates in TEMPLATES.items():
        filled = list(pairs(*templates))
        hostile_N, harmless_N = (classifier.logits(side)[:, 1] for side in zip(*filled, strict=True))
        passed = float(np.mean(harmless_N < 0))
        print(
            f"{kind:15} {np.mean(hostile_N > harmless_N):.2f}  harmless read as harmless {passed:.2f}  n={len(filled)}"
        )
