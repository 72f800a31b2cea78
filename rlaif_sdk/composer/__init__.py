"""Several rewards in, one explained number a row out."""

from rlaif_sdk.composer.aggregators import RewardGroup
from rlaif_sdk.composer.column import RewardColumn
from rlaif_sdk.composer.component import Component
from rlaif_sdk.composer.composer import Composer
from rlaif_sdk.composer.composition import Composition
from rlaif_sdk.composer.constraints import Constraint
from rlaif_sdk.composer.failures import FailurePolicy
from rlaif_sdk.composer.gates import Gate
from rlaif_sdk.composer.ledger import Ledger
from rlaif_sdk.composer.weights import Schedule
from rlaif_sdk.composer.whatif import WhatIf, what_if

__all__ = [
    "Component",
    "Composer",
    "Composition",
    "Constraint",
    "FailurePolicy",
    "Gate",
    "Ledger",
    "RewardColumn",
    "RewardGroup",
    "Schedule",
    "WhatIf",
    "what_if",
]
