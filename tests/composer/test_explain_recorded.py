"""The record of a ledger explains the number that was given, to the last digit."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import numpy as np
from hypothesis import given, settings

from rlaif_sdk import RewardBatch
from rlaif_sdk.composer.ledger import Ledger
from rlaif_sdk.composer.ledger.record import recorded
from rlaif_sdk.composer.whatif import recombined
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


@settings(max_examples=40, deadline=None)
@given(setups(), runs())
def test_a_record_combined_under_its_own_config_gives_its_totals(setup: Setup, run: list[RewardBatch]) -> None:
    """Conditions decide again as they did, whatever failed, abstained or was not asked; no score is missing."""
    with warnings.catch_warnings(), setup.composer() as then, setup.composer() as again:
        warnings.simplefilter("ignore")
        for batch in run:
            composition = then.compose(batch)
            replayed, unrecorded = recombined(recorded(composition), again.combiner)
            np.testing.assert_array_equal(replayed.totals, composition.totals)
            assert [column.not_asked for column in replayed.rewards.values()] == [
                column.not_asked for column in composition.rewards.values()
            ]
            assert not any(unrecorded.values())
