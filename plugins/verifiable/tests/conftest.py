"""What the tests of this plugin share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from rlaif_sdk import RewardBatch, Score
from rlaif_verifiable import rlaif_rewards

SPECS = {spec.name: spec for spec in rlaif_rewards()}


def _scores(
    name: str,
    completions: Sequence[Any],
    params: Mapping[str, Any] | None = None,
    *,
    columns: Mapping[str, Sequence[Any]] | None = None,
    completion_ids: Sequence[Sequence[int]] | None = None,
    group: Sequence[Any] | None = None,
) -> list[Score]:
    reward = SPECS[name].build(params or {})
    batch = RewardBatch(
        prompts=["p"] * len(completions),
        completions=list(completions),
        columns=dict(columns or {}),
        completion_ids=None if completion_ids is None else list(completion_ids),
        group=group,
    )
    try:
        reward.setup()
        return list(reward.score(batch))
    finally:
        reward.close()


@pytest.fixture(scope="session")
def scores() -> Callable[..., list[Score]]:
    """What a reward, by its name, says of some completions."""
    return _scores


@pytest.fixture(scope="session")
def values() -> Callable[..., list[float | None]]:
    """The values of what it says."""
    return lambda *arguments, **keywords: [score.value for score in _scores(*arguments, **keywords)]
