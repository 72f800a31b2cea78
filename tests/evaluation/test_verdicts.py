"""What people said of pairs, in each of the forms in which tables say it."""

from __future__ import annotations

from typing import Any

import pytest

from rlaif_sdk import Composer, DataError
from rlaif_sdk.evaluation import VerdictColumns
from rlaif_sdk.evaluation.verdicts import PairVerdicts, read_judged_pairs


def read(*rows: dict[str, Any], human: str | None = None) -> list[PairVerdicts]:
    """Pairs of a composition that reads the texts alone."""
    with Composer({"length": lambda completion_texts: [float(len(text)) for text in completion_texts]}) as composer:
        return read_judged_pairs(composer, [[*rows]], VerdictColumns(human=human))


def votes(pair: PairVerdicts, first: str) -> list[float]:
    """For a completion, for the other one, and for neither; whichever stands first."""
    return pair.votes if pair.answers[0] == first else pair.swapped().votes


CHOSEN = {"prompt": "q", "chosen": "good", "rejected": "bad"}
"""The better completion is ``good``."""


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, [1, 0, 0]),
        ({"chosen_prob": 0.75}, [0.75, 0.25, 0]),
        ({"chosen_prob": 0.5}, [0, 0, 1]),
        ({"verdicts": ["1", "2", "1", "tie"]}, [2, 1, 1]),
        ({"verdicts": [], "human_prob_1": None}, [0, 0, 0]),
        ({"human_prob_1": 0.75}, [0.75, 0.25, 0]),
        ({"human_prob_1": 0.75, "chosen_response": 2}, [0.25, 0.75, 0]),
        ({"source": "human-edit", "human_prob_1": 0.0, "chosen_prob": 0.5}, [1, 0, 0]),
    ],
)
def test_of_a_chosen_and_a_rejected_one(said: dict[str, Any], expected: list[float]) -> None:
    """A review's verdicts count before a share; an edit is better than what was edited."""
    [pair] = read({**CHOSEN, **said})
    assert votes(pair, "good") == expected


@pytest.mark.parametrize(("number", "expected"), [(1, [1, 0, 0]), (2, [0, 1, 0])])
def test_a_column_of_people_counts_responses_as_the_label_did(number: int, expected: list[float]) -> None:
    """Where the judge chose response 2, 1 stands for the rejected one."""
    [plain] = read({**CHOSEN, "human": number}, human="human")
    [turned] = read({**CHOSEN, "human": number, "chosen_response": 2}, human="human")
    assert votes(plain, "good") == expected
    assert votes(turned, "bad") == expected


@pytest.mark.parametrize("rows", [[], [{**CHOSEN, "rejected": "good"}]])
def test_twice_the_same_completion_is_no_pair(rows: list[dict[str, Any]]) -> None:
    """It says nothing of any reward; a table of nothing else is refused."""
    assert len(read(*rows, CHOSEN)) == 1
    with pytest.raises(DataError, match="has no pair of different completions"):
        read(*rows)


def test_texts_without_a_prompt_are_about_themselves() -> None:
    """Else all of such a table would be one group, which no fold tears apart."""
    pairs = read({"chosen": "good", "rejected": "bad"}, {"chosen": "better", "rejected": "worse"})
    assert len({pair.group for pair in pairs}) == 2
    pairs = read(CHOSEN, {**CHOSEN, "chosen": "better"})
    assert len({pair.group for pair in pairs}) == 1
