"""The record of a ledger explains the number that was given, to the last digit."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

from hypothesis import given, settings

from rlaif_sdk import RewardBatch
from rlaif_sdk.composer.ledger import Ledger
from tests.composer.random_compositions import Setup, runs, setups


@settings(max_examples=60, deadline=None)
@given(setups(), runs())
def test_an_explanation_from_the_record_is_that_of_the_moment(setup: Setup, run: list[RewardBatch]) -> None:
    """Every digit, every word: what normalizers, schedules and multipliers have learned since plays no part."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), setup.composer() as composer:
        warnings.simplefilter("ignore")
        with Ledger(Path(folder) / "ledger.sqlite") as ledger:
            recorder = ledger.recorder(composer.components)
            given_then = []
            for batch in run:
                composition = composer.compose(batch)
                recorder.write(composition)
                given_then.append([composition.explain(row) for row in range(len(batch))])
            found = ledger.run()
            for entry, then in zip(ledger.batches(), given_then, strict=True):
                composition = entry.composition(found.rewards)
                now = [composition.explain(row) for row in range(len(then))]
                assert [one.record() for one in now] == [one.record() for one in then]
                assert list(map(str, now)) == list(map(str, then))
