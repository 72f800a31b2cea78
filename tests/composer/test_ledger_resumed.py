"""A ledger knows which of its runs are one training run that was resumed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from rlaif_sdk import Composer, RewardBatch
from rlaif_sdk.composer import Ledger, what_if
from rlaif_sdk.types import Progress


def length(completion_texts: Sequence[str]) -> list[float]:
    return [float(len(text)) for text in completion_texts]


def other(completion_texts: Sequence[str]) -> list[float]:
    return [0.0 for _ in completion_texts]


def compose(path: Path, words: str, *, start: int = 0, reward: str = "length", held_out: bool = False) -> None:
    """What one process trains on, a word a step from a step on; and at last the words again as held-out answers."""
    rewards = {"length": length, "other": other}
    with Ledger(path) as ledger, Composer({reward: rewards[reward]}, ledger=ledger) as composer:
        for step, word in enumerate(words.split(), start):
            composer.compose(RewardBatch(["p"], [word], progress=Progress(step, 8), training=True))
        if held_out:
            last = Progress(start + len(words.split()), 8)
            composer.compose(RewardBatch(["p"], ["held-out"], progress=last, training=False))


def recorded_words(path: Path) -> list[str]:
    with Ledger.find(path) as ledger:
        return [entry.batch.completions[0] for entry in ledger.batches()]


@pytest.mark.parametrize(
    ("parts", "whole"),
    [
        pytest.param([("a b c", 0), ("d e", 3)], "a b c d e", id="at the end of the first part"),
        pytest.param([("a b lost lost", 0), ("c d", 2)], "a b c d", id="what came after the checkpoint"),
        pytest.param([("a b c lost", 0), ("d e lost", 3), ("f", 5)], "a b c d e f", id="twice"),
        pytest.param([("a b lost lost", 0), ("lost", 2), ("c d", 2)], "a b c d", id="twice from one checkpoint"),
        pytest.param([("lost lost", 0), ("a b", 0)], "a b", id="begun anew"),
        pytest.param([("another run", 0), ("a lost", 0), ("b", 1)], "a b", id="after a run of another time"),
    ],
)
def test_the_last_run_is_read_with_what_it_resumed(tmp_path, parts, whole):
    """Up to the checkpoint: what was trained after it was trained anew. Each part is there alone, by its number."""
    path = tmp_path / "ledger.sqlite"
    for words, start in parts:
        compose(path, words, start=start)
    assert recorded_words(path) == whole.split()
    with Ledger.find(path) as ledger:
        assert sum(part.rows for part in ledger.run().parts) == len(whole.split())
        for number, (words, _) in enumerate(parts, 1):
            alone = ledger.run(number)
            assert (alone.parts, alone.rows) == ((alone,), len(words.split()))
            assert [entry.batch.completions[0] for entry in ledger.batches(alone)] == words.split()
    assert list(what_if(path, {"rewards": {"length": {"weight": 2.0}}}).completions) == whole.split()


def test_a_run_that_resumed_after_its_last_step_has_all_before(tmp_path):
    """It only answers the held-out prompts; those of the run that it resumed belong to it as well."""
    path = tmp_path / "ledger.sqlite"
    compose(path, "a b", held_out=True)
    compose(path, "", start=2, held_out=True)
    assert recorded_words(path) == ["a", "b", "held-out", "held-out"]


def test_runs_of_other_rewards_are_not_what_was_resumed(tmp_path):
    """Their scores would have no column."""
    path = tmp_path / "ledger.sqlite"
    compose(path, "x y", reward="other")
    compose(path, "c d", start=2)
    assert recorded_words(path) == ["c", "d"]
