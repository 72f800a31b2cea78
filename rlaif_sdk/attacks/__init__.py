"""Attacks on judges: poor answers dressed up, and which judges fall for them."""

from rlaif_sdk.attacks.corpus import Attack, Case, load_attacks, load_cases
from rlaif_sdk.attacks.refusals import Refusals, measure_refusals
from rlaif_sdk.attacks.run import AttackReport, Trial, Trials, attack_judge
from rlaif_sdk.attacks.targets import load_attacked

__all__ = [
    "Attack",
    "AttackReport",
    "Case",
    "Refusals",
    "Trial",
    "Trials",
    "attack_judge",
    "load_attacked",
    "load_attacks",
    "load_cases",
    "measure_refusals",
]
