from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif_sdk import Composer, ConfigError, Registry, RewardBatch
from rlaif_sdk.composer.normalizers import Limited, LimitParams, MinMax, Passthrough, ZScore
from rlaif_sdk.exceptions import ConfigError as Refused

numbers = st.lists(st.floats(-100, 100), min_size=1, max_size=30)
KINDS = ("none", "minmax", "zscore", "group_zscore", "group_center", "rank", "quantile")


@given(numbers, numbers, st.floats(0, 0.4))
def test_scores_beyond_the_quantiles_are_moved_to_them(known: list[float], asked: list[float], share: float) -> None:
    """Beside numpy's own quantiles of everything seen in training."""
    limited = Limited(Passthrough(), LimitParams(winsorize=share))
    limited.update(np.array(known), None)
    low, high = np.quantile(known, [share, 1 - share])
    np.testing.assert_allclose(limited.normalize(np.array(asked), None), np.clip(asked, low, high))


def test_what_the_inner_normalizer_learns_is_winsorised_too() -> None:
    """One outlier moves neither mean nor deviation by more than the quantile that it is moved to."""
    values_B = np.r_[np.arange(99.0), 1e9]
    limited, plain = Limited(ZScore(), LimitParams(winsorize=(0.0, 0.98))), ZScore()
    limited.update(values_B, None)
    plain.update(values_B, None)
    assert limited.inner.mean < 60 < plain.mean


def test_nothing_is_winsorised_before_anything_was_seen() -> None:
    """An evaluation before training measures scores as they are."""
    limited = Limited(Passthrough(), LimitParams(winsorize=0.1))
    assert limited.normalize(np.array([1e9, np.nan]), None)[0] == 1e9


def test_the_quantiles_go_on_from_a_checkpoint() -> None:
    """The sample is saved beside the inner normalizer's state."""
    params = LimitParams(winsorize=0.25)
    first, second = Limited(ZScore(), params), Limited(ZScore(), params)
    first.update(np.arange(9.0), None)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    asked = np.array([-100.0, 1.0, 5.0, 100.0])
    assert second.normalize(asked, None).tolist() == first.normalize(asked, None).tolist()
    assert second.normalize(asked, None)[0] > -2


def test_clip_limits_what_comes_out_of_any_normalizer() -> None:
    """Also where the normalizer has none of its own."""
    assert Limited(Passthrough(), LimitParams(clip=2.0)).normalize(np.array([-5.0, 1.0, 5.0]), None).tolist() == [
        -2,
        1,
        2,
    ]


def test_the_declared_range_reaches_the_inner_normalizer() -> None:
    """minmax needs it, limited or not."""
    limited = Limited(MinMax(), LimitParams(clip=0.5))
    limited.bind((0.0, 10.0))
    assert limited.normalize(np.array([2.0, 10.0]), None).tolist() == [0.2, 0.5]
    with pytest.raises(Refused, match="finite declared range"):
        limited.bind(None)


@pytest.mark.filterwarnings("ignore:.*compares completions to the same prompt")
@pytest.mark.parametrize("kind", KINDS)
def test_winsorize_and_clip_go_with_every_normalizer_in_a_config(
    kind: str, write: Callable[[str, str], Path], registry: Registry
) -> None:
    """The keys stand beside the normalizer's own parameters."""
    write(
        "scores.py",
        """
        from rlaif_sdk import reward
        @reward(range=(0, 1e6))
        def score(prompts, completions):
            return [0.0] * 50 + [1.0] * 49 + [1e6]
        """,
    )
    normalize = f"{{kind: {kind}, winsorize: [0, 0.98], clip: 0.75}}"
    path = write("c.yaml", f'rewards: {{a: {{use: "./scores.py:score", normalize: {normalize}}}}}')
    with Composer.from_config(path, registry=registry) as composer:
        normalized = composer.compose(RewardBatch(["p"] * 100, ["c"] * 100)).rewards["a"].normalized
    assert np.abs(normalized).max() <= 0.75
    assert normalized[99] == normalized[60]
    assert normalized[60] > normalized[0]


@pytest.mark.parametrize(
    ("normalize", "problem"),
    [
        ("{kind: none, winsorize: 0.5}", r"normalize\.winsorize: the quantiles must be in order"),
        ("{kind: none, winsorize: 1" + "0" * 400 + "}", r"normalize\.winsorize: the quantiles must be in order"),
        ("{kind: none, winsorize: .nan}", r"normalize\.winsorize: the quantiles must be in order"),
        ("{kind: rank, winsorize: [0.9, 0.1]}", r"normalize\.winsorize: the quantiles must be in order"),
        ("{kind: rank, winsorize: [-0.1, 1]}", r"normalize\.winsorize: the quantiles must be in order"),
        ("{kind: rank, winsorize: yes}", r"normalize\.winsorize: "),
        ("{kind: rank, clip: 0}", r"normalize\.clip: input should be greater than 0"),
        ("{kind: zscore, clip: -1}", r"normalize\.clip: input should be greater than 0"),
        ("{kind: quantile, capacity: 0}", r"normalize\.capacity: input should be greater than or equal to 2"),
        ("{kind: quantile, winsorise: 0.1}", r"normalize\.winsorise: unknown key"),
    ],
)
def test_ill_formed_limits_are_refused_at_load_with_their_line(
    normalize: str, problem: str, write: Callable[[str, str], Path], registry: Registry
) -> None:
    """The message names the file, the line and the key."""
    write("scores.py", "def score(prompts, completions): return [1.0] * len(prompts)")
    path = write("c.yaml", f'rewards:\n  a:\n    use: "./scores.py:score"\n    normalize: {normalize}\n')
    with pytest.raises(ConfigError, match=rf"c\.yaml:4: rewards\.a\.{problem}"):
        Composer.from_config(path, registry=registry)
