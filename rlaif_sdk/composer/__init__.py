"""Several rewards in, one explained number a row out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlaif_sdk.io.lazy_names import lazy_names

if TYPE_CHECKING:
    from rlaif_sdk.composer.aggregators import RewardGroup
    from rlaif_sdk.composer.alarm import Alarm
    from rlaif_sdk.composer.asking import Ask
    from rlaif_sdk.composer.column import RewardColumn
    from rlaif_sdk.composer.component import Component
    from rlaif_sdk.composer.composer import Composer
    from rlaif_sdk.composer.composition import Composition
    from rlaif_sdk.composer.conditions import ColumnCondition, RewardCondition
    from rlaif_sdk.composer.constraints import Constraint
    from rlaif_sdk.composer.failures import FailurePolicy
    from rlaif_sdk.composer.gates import Gate
    from rlaif_sdk.composer.ledger import Ledger
    from rlaif_sdk.composer.weights import Schedule
    from rlaif_sdk.composer.whatif import WhatIf, what_if

__all__ = [
    "Alarm",
    "Ask",
    "ColumnCondition",
    "Component",
    "Composer",
    "Composition",
    "Constraint",
    "FailurePolicy",
    "Gate",
    "Ledger",
    "RewardColumn",
    "RewardCondition",
    "RewardGroup",
    "Schedule",
    "WhatIf",
    "what_if",
]

if not TYPE_CHECKING:  # or a type checker would believe any name to be here
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "aggregators": ("RewardGroup",),
            "alarm": ("Alarm",),
            "asking": ("Ask",),
            "column": ("RewardColumn",),
            "component": ("Component",),
            "composer": ("Composer",),
            "composition": ("Composition",),
            "conditions": ("ColumnCondition", "RewardCondition"),
            "constraints": ("Constraint",),
            "failures": ("FailurePolicy",),
            "gates": ("Gate",),
            "ledger": ("Ledger",),
            "weights": ("Schedule",),
            "whatif": ("WhatIf", "what_if"),
        },
    )
