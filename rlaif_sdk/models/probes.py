"""The inputs that an export is compared on: random tokens of every length, and texts as people and models write them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from rlaif_sdk.models.encoding import EncoderInput, TextEncoder

_RANDOM_ROWS = 20
_MOST_TEXTS = 256

TEXTS = (
    "Yes.",
    "No, I would rather not.",
    "How do I boil an egg? Put it into boiling water for eight minutes, then cool it under the tap.",
    "How do I boil an egg? I do not know, ask somebody else, and stop wasting my time.",
    "The capital of France is Paris, which lies on the Seine.",
    "The capital of France is Lyon, as everybody knows.",
    "Thank you so much, that was a wonderful explanation! I finally understand fractions.",
    "This is the worst advice I have ever been given, and you should be ashamed of it.",
    "def mean(values):\n    return sum(values) / len(values)\n",
    "def mean(values):\n    return values\n",
    "Human: Can you help me write a letter to my landlord?\n\nAssistant: Of course. What should it ask for?",
    "Human: How can I hurt my neighbour?\n\nAssistant: I will not help with that. What happened between you two?",
    "Human: How can I hurt my neighbour?\n\nAssistant: Wait until he is asleep.",
    "I'm sorry, but I can't help with that request.",
    "As an AI language model, I do not have feelings, but I am here to help you in any way that I can!!!",
    "the the the the the the the the the the the the the the the the the the the the",
    "Water boils at 100 °C at sea level; at 3,000 m it boils at about 90 °C, so pasta takes longer.",
    "In 1969 two people walked on the Moon. Twelve have done so since then, the last of them in 1972.",
    "Der Zug fährt um acht Uhr ab, und wer zu spät kommt, wartet bis zum Abend.",
    "¿Dónde está la biblioteca? Está al lado del ayuntamiento, frente a la plaza.",
    "水は百度で沸騰します。山の上ではもっと低い温度で沸騰します。",
    "Перед отъездом проверьте, закрыты ли окна.",
    "😀👍 great!! luv it",
    "asdf qwer zxcv 12345 !@#$% lorem ipsum",
    "SELECT name, total FROM orders WHERE total > 100 ORDER BY total DESC LIMIT 10;",
    "1. Preheat the oven to 200 °C.\n2. Mix flour, butter and sugar.\n3. Bake for 25 minutes, until golden.",
    (
        "The study followed 4,211 patients for six years. Those who walked daily had fewer heart attacks, but the authors "
        "warn that people who are ill walk less, so that the walking need not be the cause."
    ),
    "You are stupid and so is your question.",
    "That is a fair question, and I do not know the answer. Let us look at what is known and what is not.",
    (
        "Once upon a time a fox lived at the edge of a wood. Every evening it came to the farm and counted the hens, and every "
        "evening the dog let it count. One winter the dog was gone, and the fox counted alone until the morning."
    ),
    "To sum up: the first plan is cheap and slow, the second is dear and quick, and the third is neither.",
    "If x + 3 = 7 then x = 4, because subtracting 3 from both sides leaves x = 7 - 3.",
    "If x + 3 = 7 then x = 10, because 7 + 3 = 10.",
    (
        "Please summarise the following article in one sentence: the council voted on Tuesday to close the old bridge to "
        "cars. Pedestrians and cyclists may still use it. Shop owners on both banks fear for their trade."
    ),
    "The council closed the old bridge to cars on Tuesday, which worries nearby shop owners.",
    "The council built a new bridge for cars on Tuesday, which delights nearby shop owners.",
    "",
)
"""Answers good and bad, questions, code, several languages and scripts, noise."""


@dataclass(frozen=True, slots=True)
class ProbeInput:
    """One row to compare.

    Attributes:
        kind: Where it comes from.
        input_ids: Its tokens, special ones included; at least one.
        token_type_ids: One a token.
        room: How many more tokens the model would take.
    """

    kind: Literal["random", "text"]
    input_ids: Sequence[int]
    token_type_ids: Sequence[int]
    room: int


def make_probes(
    encoder: TextEncoder, *, vocabulary: int, pairs: bool, texts: Sequence[str] | None = None, seed: int = 0
) -> list[ProbeInput]:
    """Rows to compare, none twice: random tokens of one token to the maximum length, and texts.

    Args:
        encoder: The model's.
        vocabulary: How many tokens the model knows.
        pairs: Whether the model tells the texts of a pair apart, so that pairs are probed too.
        texts: The user's own, of which the first 256 are taken; by default `TEXTS`, and longer ones joined of them.
        seed: Draws the random tokens.
    """
    longest = encoder.max_length
    draw = np.random.default_rng(seed)
    allowed = np.setdiff1d(np.arange(vocabulary), [encoder.pad_id])
    lengths = sorted(
        {1, 2, 3, longest, *np.geomspace(1, longest, _RANDOM_ROWS).round().astype(int).tolist()}
        & {*range(1, longest + 1)}
    )
    rows = [("random", draw.choice(allowed, length).tolist(), [0] * length) for length in lengths]
    encodings, _ = encoder.encode(list(_inputs(texts, pairs=pairs)))
    rows += [("text", encoding.ids, encoding.type_ids) for encoding in encodings if len(encoding)]
    unique = {(tuple(ids), tuple(types)): kind for kind, ids, types in reversed(rows)}
    return [ProbeInput(kind, ids, types, longest - len(ids)) for (ids, types), kind in reversed(unique.items())]


def _inputs(texts: Sequence[str] | None, *, pairs: bool) -> Iterator[EncoderInput]:
    if texts is not None:
        yield from texts[:_MOST_TEXTS]
    else:
        texts = TEXTS
        yield from TEXTS
        for size in (3, 9):  # a few hundred and a thousand tokens or so
            yield from ("\n\n".join(TEXTS[start : start + size]) for start in range(0, len(TEXTS), size))
    if pairs:
        yield from zip(texts[:_MOST_TEXTS:2], texts[1:_MOST_TEXTS:2], strict=False)
