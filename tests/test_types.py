from __future__ import annotations

import dataclasses
import pickle

import pytest

from rlaif_sdk import BatchError, RewardBatch, Score
from rlaif_sdk.types import RESERVED_COLUMNS


def test_a_batch_says_which_field_has_another_length() -> None:
    """Lengths are checked once at the door, and never broadcast."""
    with pytest.raises(BatchError, match=r"prompts has 1 rows where completions has 2"):
        RewardBatch(prompts=["a"], completions=["b", "c"])
    with pytest.raises(BatchError, match=r"columns\['answer'\] has 3 rows"):
        RewardBatch(prompts=["a"], completions=["b"], columns={"answer": [1, 2, 3]})
    with pytest.raises(BatchError, match=r"group has 2 rows"):
        RewardBatch(prompts=["a"], completions=["b"], group=[0, 1])
    with pytest.raises(BatchError, match=r"completion_ids has 0 rows"):
        RewardBatch(prompts=["a"], completions=["b"], completion_ids=[])


@pytest.mark.parametrize("name", sorted(RESERVED_COLUMNS))
def test_a_column_with_a_reserved_name_is_refused(name: str) -> None:
    """A reward function would receive something else under that name, without a word."""
    with pytest.raises(BatchError, match=f"'{name}' has a reserved name.*rename"):
        RewardBatch(prompts=["a"], completions=["b"], columns={name: ["c"]})


@pytest.mark.parametrize("completions", ["text", None, 5, iter(["a"]), {"a"}, b"text"])
def test_completions_that_are_no_sequence_are_refused(completions: object) -> None:
    """A bare string has a length too; it is one completion, not many of one character."""
    with pytest.raises(BatchError, match="completions must be a sequence with one entry a row"):
        RewardBatch(prompts=["a"], completions=completions)  # type: ignore[arg-type]


def test_a_batch_may_be_empty() -> None:
    """A filtered batch is not an error."""
    assert len(RewardBatch(prompts=[], completions=[])) == 0


def test_selecting_rows_keeps_every_field_aligned() -> None:
    """A selection is a batch of its own, in the order asked for."""
    batch = RewardBatch(
        prompts=["p0", "p1", "p2"],
        completions=["c0", "c1", "c2"],
        completion_ids=[[0], [1], [2]],
        columns={"answer": ["a0", "a1", "a2"]},
        group=["g0", "g1", "g2"],
        training=False,
    )
    part = batch.select([2, 0])
    assert part.prompts == ["p2", "p0"]
    assert part.completion_texts == ("c2", "c0")
    assert part.completion_ids == [[2], [0]]
    assert part.column("answer") == ["a2", "a0"]
    assert part.group == ["g2", "g0"]
    assert not part.training


def test_a_column_is_found_under_its_new_name_and_a_missing_one_is_named() -> None:
    """The error lists the columns that are there."""
    batch = RewardBatch(prompts=["a"], completions=["b"], columns={"answer": ["c"]})
    assert batch.with_columns({"reference": "answer"}).column("reference") == ["c"]
    with pytest.raises(BatchError, match=r"'reference' is missing \(columns present: answer\)"):
        batch.column("reference")


def test_values_are_frozen_and_travel_between_processes() -> None:
    """A plugin cannot change what its neighbours see, and a worker process gets an equal batch."""
    batch = RewardBatch(prompts=["a"], completions=["b"], columns={"x": [1]})
    assert batch.prompt_texts == ("a",)
    with pytest.raises(dataclasses.FrozenInstanceError):
        batch.prompts = []  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(batch)) == batch


def test_a_failed_score_has_no_value() -> None:
    """Failed and abstained are told apart by the error alone."""
    score = Score.failed("rate limit", status=429)
    assert (score.value, score.error, score.details) == (None, "rate limit", {"status": 429})
