"""Preferences between completions: how they are made from scores."""

from rlaif_sdk.preferences.pairs import make_pairs, preference_probability

__all__ = ["make_pairs", "preference_probability"]
