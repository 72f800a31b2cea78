"""Compositions out of a ledger's record, without scoring anything again."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from rlaif_sdk.composer import Composition
from rlaif_sdk.composer.whatif import ReplayedReward, recombined
from rlaif_sdk.exceptions import ConfigError

if TYPE_CHECKING:
    from rlaif_sdk.composer.build import ConfigSource
    from rlaif_sdk.composer.combiner import Combiner
    from rlaif_sdk.composer.ledger import Ledger, RecordedRun

_NEAR = 1e-6


def recorded_compositions(
    ledger: Ledger, run: RecordedRun, config: ConfigSource | None = None
) -> Iterator[Composition]:
    """What was composed in a recorded run, batch by batch.

    The numbers are those of the record. With a config they are computed anew, from the recorded scores.

    Args:
        ledger: The record.
        run: Which run.
        config: The composition that the run had.

    Raises:
        ConfigError: The config is refused, or has other rewards.
        LedgerError: The ledger cannot be read.
    """
    combiner = None if config is None else _combiner(run, config)
    differing = 0
    for recorded in ledger.batches(run):
        composition = recorded.composition(run.rewards) if combiner is None else recombined(recorded, combiner)[0]
        differing += not np.allclose(composition.totals, recorded.totals, rtol=_NEAR, atol=_NEAR, equal_nan=True)
        yield composition
    if differing:
        warnings.warn(
            f"the config gives other totals than were recorded, in {differing} batches: it is not the run's, or the run "
            "was resumed or shared its statistics with other ranks",
            stacklevel=2,
        )


def _combiner(run: RecordedRun, config: ConfigSource) -> Combiner:
    from rlaif_sdk.composer.build import build_combiner

    combiner, _ = build_combiner(config, {name: ReplayedReward(reward) for name, reward in run.rewards.items()})
    if skipped := run.rewards.keys() - combiner.components.keys():
        raise ConfigError(
            f"the config has no reward {', '.join(sorted(skipped))}, and the run has", hint="give the run's config"
        )
    return combiner
