"""What a policy does to its text where that pays: it repeats itself, refuses, dresses up; and which rows are paid for it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import numpy as np

from rlaif_sdk.statistics.arrays import Array, Labels
from rlaif_sdk.statistics.groups import rows_of_groups

_NGRAM = 4
_OPENING = 200
_REFUSAL = re.compile(
    r"\b(i['\u2019]?m (very |so |really )?(sorry|afraid)|i am (very |so |really )?(sorry|afraid)|i apologi[sz]e|my apologies|"
    r"i (can['\u2019]?t|cannot|can not|won['\u2019]?t|will not|am unable to|must decline|am not able to)|"
    r"i['\u2019]?m (unable|not able) to|(as|i['\u2019]?m|i am) an ai\b|as a (large )?language model|unfortunately, i)",
    re.IGNORECASE,
)
_MARKED = re.compile(r"\s*(#{1,6}\s|[-*+\u2022]\s|\d{1,3}[.)]\s|>|\||```|(\*\*|__)\S|([-*_]\s*){3,}$)")


def repetition(text: str) -> float:
    """The share of a text's runs of four words that stand in it before; 0 with fewer than five words.

    seq-rep-4 of Welleck et al. (2020), *Neural text generation with unlikelihood training*, over words.
    """
    words = text.split()
    runs = [tuple(words[at : at + _NGRAM]) for at in range(len(words) - _NGRAM + 1)]
    return 1.0 - len(set(runs)) / len(runs) if runs else 0.0


def refusal(text: str) -> float:
    """1 where the first 200 characters have a phrase of English refusals, such as "I'm sorry" or "I cannot"; else 0.

    Phrases of the kind that Zou et al. (2023), *Universal and transferable adversarial attacks*, appendix B, tell refusals by.
    An apology that answers all the same counts too.
    """
    return float(_REFUSAL.search(text[:_OPENING]) is not None)


def markup(text: str) -> float:
    """The share of a text's lines, empty ones aside, that begin with Markdown: heading, list, quote, table, code, bold, rule."""
    lines = [line for line in text.splitlines() if line.strip()]
    return sum(_MARKED.match(line) is not None for line in lines) / len(lines) if lines else 0.0


TEXT_MEASURES: Mapping[str, Callable[[str], float]] = {"repetition": repetition, "refusal": refusal, "markup": markup}
"""Measures of one text, in [0, 1], by name."""


def concordance(values_KB: Array, totals_B: Array, group_B: Labels) -> Array:
    """(K, G) how far the totals order the rows of each group as each of K values does: Kendall's tau-a, in [-1, 1].

    The mean over pairs of rows of the product of both differences' signs, so that a tie counts as 0 (Kendall, 1938). NaN in
    groups with fewer than two rows that have a total and all values.

    Args:
        values_KB: K values of B rows, NaN where there is none.
        totals_B: What the rows are paid.
        group_B: Labels from 0.
    """
    present_B = ~np.isnan(totals_B) & ~np.isnan(values_KB).any(axis=0)
    groups = [[row for row in rows if present_B[row]] for rows in rows_of_groups(group_B)]
    found_KG = np.full((len(values_KB), len(groups)), np.nan)
    for size in {len(rows) for rows in groups} - {0, 1}:
        places = [place for place, rows in enumerate(groups) if len(rows) == size]
        rows_Gn = np.array([groups[place] for place in places])
        first, second = np.triu_indices(size, 1)
        paid = np.sign(totals_B[rows_Gn[:, first]] - totals_B[rows_Gn[:, second]])
        values_KGn = values_KB[:, rows_Gn]
        found_KG[:, places] = (np.sign(values_KGn[..., first] - values_KGn[..., second]) * paid).mean(axis=-1)
    return found_KG
