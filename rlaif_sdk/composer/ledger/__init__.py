"""The ledger: a cache of scores and a record of what was composed of them, in one SQLite file."""

from rlaif_sdk.composer.ledger.cache import CachedReward
from rlaif_sdk.composer.ledger.ledger import FILE_NAME, Ledger, ledger_of
from rlaif_sdk.composer.ledger.record import RecordedBatch, RecordedReward, RecordedRun

__all__ = ["FILE_NAME", "CachedReward", "Ledger", "RecordedBatch", "RecordedReward", "RecordedRun", "ledger_of"]
