"""The ledger: a cache of scores and a record of what was composed of them, in one SQLite file."""

from rlaif_sdk.composer.ledger.entries import RecordedBatch, RecordedReward, Run
from rlaif_sdk.composer.ledger.ledger import Ledger
from rlaif_sdk.composer.ledger.scores import CachedReward

__all__ = ["CachedReward", "Ledger", "RecordedBatch", "RecordedReward", "Run"]
