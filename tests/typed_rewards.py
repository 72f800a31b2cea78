"""What a typed column has of a composed row, as `rlaif_sdk.Composition.to_records` says it."""

from __future__ import annotations

from typing import Any


def as_record(reward: dict[str, Any]) -> dict[str, Any]:
    """The record: no penalties are a mapping, and sub-scores stand under their names without what is not said of them."""
    rewards = {name: {**said} for name, said in reward["rewards"].items()}
    for said in rewards.values():
        if parts := said.pop("subscores"):
            said["subscores"] = {
                part["name"]: {
                    key: part[key] for key in part if key == "value" or (part[key] is not None and key != "name")
                }
                for part in parts
            }
    return {**reward, "rewards": rewards, "penalties": reward["penalties"] or {}}
