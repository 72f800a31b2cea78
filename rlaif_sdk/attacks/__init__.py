"""Attacks before a policy makes them: on judges, by poor answers dressed up; on compositions, by edits of real answers."""

from rlaif_sdk.attacks.corpus import Attack, Case, load_attacks, load_cases
from rlaif_sdk.attacks.edits import Edit, load_edits
from rlaif_sdk.attacks.refusals import Refusals, measure_refusals
from rlaif_sdk.attacks.remedies import Remedy
from rlaif_sdk.attacks.rewards import (
    ClosingChange,
    EditExample,
    EditResult,
    Overpayment,
    Overrated,
    RewardAttack,
    RewardAttackReport,
    attack_rewards,
)
from rlaif_sdk.attacks.run import AttackReport, Trial, Trials, attack_judge
from rlaif_sdk.attacks.targets import load_attacked

__all__ = [
    "Attack",
    "AttackReport",
    "Case",
    "ClosingChange",
    "Edit",
    "EditExample",
    "EditResult",
    "Overpayment",
    "Overrated",
    "Refusals",
    "Remedy",
    "RewardAttack",
    "RewardAttackReport",
    "Trial",
    "Trials",
    "attack_judge",
    "attack_rewards",
    "load_attacked",
    "load_attacks",
    "load_cases",
    "load_edits",
    "measure_refusals",
]
