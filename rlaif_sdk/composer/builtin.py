"""The normalizers and aggregators that come with the SDK, offered through the same hooks as a stranger's."""

from __future__ import annotations

from rlaif_sdk.composer.aggregators import Minimum, Product, ProductParams, WeightedSum
from rlaif_sdk.composer.normalizers import (
    FixedZScore,
    FixedZScoreParams,
    GroupCenter,
    GroupZScore,
    MinMax,
    Passthrough,
    Quantile,
    QuantileParams,
    Rank,
    ZScore,
    ZScoreParams,
)
from rlaif_sdk.composer.panels import Cascade, Panel, PanelParams
from rlaif_sdk.plugins import AggregatorSpec, NormalizerSpec, hookimpl

rlaif_api_version = 1


@hookimpl
def rlaif_normalizers() -> list[NormalizerSpec]:
    """The normalizers that come with the SDK."""
    return [
        NormalizerSpec(name="none", factory=lambda _: Passthrough(), description="the score as it is"),
        NormalizerSpec(name="minmax", factory=lambda _: MinMax(), description="declared range to [0, 1]"),
        NormalizerSpec(name="zscore", factory=ZScore, params=ZScoreParams, description="running z-score"),
        NormalizerSpec(
            name="fixed_zscore", factory=FixedZScore, params=FixedZScoreParams, description="z-score of a stated mean"
        ),
        NormalizerSpec(name="group_zscore", factory=GroupZScore, params=ZScoreParams, description="z-score per prompt"),
        NormalizerSpec(name="group_center", factory=lambda _: GroupCenter(), description="score less mean per prompt"),
        NormalizerSpec(name="rank", factory=lambda _: Rank(), description="mid-rank per prompt, in [-1, 1]"),
        NormalizerSpec(
            name="quantile", factory=Quantile, params=QuantileParams, description="place among all scores, in [-1, 1]"
        ),
    ]


@hookimpl
def rlaif_aggregators() -> list[AggregatorSpec]:
    """The aggregators that come with the SDK."""
    return [
        AggregatorSpec(name="weighted_sum", factory=lambda _: WeightedSum(), description="sum of weight times value"),
        AggregatorSpec(name="minimum", factory=lambda _: Minimum(), description="least of weight times value"),
        AggregatorSpec(
            name="product", factory=Product, params=ProductParams, description="product of positively mapped values"
        ),
        AggregatorSpec(
            name="panel", factory=Panel, params=PanelParams, description="several judges of one thing, less their doubt"
        ),
        AggregatorSpec(name="cascade", factory=lambda _: Cascade(), description="the last member that was asked"),
    ]
