"""The normalizers and aggregators that come with the SDK, offered through the same hooks as a stranger's."""

from __future__ import annotations

from rlaif_sdk.composer.aggregate import WeightedSum
from rlaif_sdk.composer.normalize import GroupZScore, Identity, MinMax, Rank, ZScore, ZScoreParams
from rlaif_sdk.hookspecs import hookimpl
from rlaif_sdk.rewards import AggregatorSpec, NormalizerSpec

rlaif_api_version = 1


@hookimpl
def rlaif_normalizers() -> list[NormalizerSpec]:
    return [
        NormalizerSpec(name="none", factory=lambda _: Identity(), description="the score as it is"),
        NormalizerSpec(name="minmax", factory=lambda _: MinMax(), description="declared range to [0, 1]"),
        NormalizerSpec(name="zscore", factory=ZScore, params=ZScoreParams, description="running z-score"),
        NormalizerSpec(name="group_zscore", factory=GroupZScore, params=ZScoreParams, description="z-score per prompt"),
        NormalizerSpec(name="rank", factory=lambda _: Rank(), description="mid-rank per prompt, in [-1, 1]"),
    ]


@hookimpl
def rlaif_aggregators() -> list[AggregatorSpec]:
    return [
        AggregatorSpec(name="weighted_sum", factory=lambda _: WeightedSum(), description="sum of weight times value")
    ]
