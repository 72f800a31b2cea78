"""A composer as one reward function a reward, for GDPO."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("trl")

from rlaif_sdk import Composer, Composition, ConfigError
from rlaif_sdk.composer import Component, Constraint, Gate, RewardGroup, Schedule
from rlaif_sdk.composer.aggregators import Minimum
from rlaif_sdk.composer.normalizers import ZScore
from rlaif_sdk.composer.weights import Linear

GDPO = {"multi_objective_aggregation": "normalize_then_sum"}


def wanted_words(completions: list[str], wanted: list[str]) -> list[float]:
    return [float(text.split().count(word)) for text, word in zip(completions, wanted, strict=True)]


def length(completions: list[str]) -> list[float]:
    return [float(len(text.split())) for text in completions]


def first_word(completions: list[str]) -> list[float | None]:
    return [None if not text else float(text.split()[0][1:]) for text in completions]


def build(**settings: Any) -> Composer:
    rewards = {
        "wanted": wanted_words,
        "length": Component(length, weight=-0.25, normalizer=ZScore()),
        "first": first_word,
    }
    return Composer(rewards, weights={"wanted": 2.0, "first": 0.0}, **settings)


def test_there_is_a_function_for_each_reward_that_has_a_weight() -> None:
    """Named as in the composition, with its weight beside it; what is only recorded is left out."""
    functions, weights = build().for_trl(separate=True)
    assert [function.__name__ for function in functions] == ["wanted", "length"]
    assert weights == [2.0, -0.25]


def test_advantages_are_gdpo_s_of_the_composition(make_trainer: Callable[..., Any]) -> None:
    """TRL's advantages of the separate rewards are those that the composition itself computes, missing scores too."""
    seen: list[Composition] = []

    def mostly(completions: list[str]) -> list[float | None]:
        return [None if row in {1, 4, 5, 6} else float(row * row % 7) for row in range(len(completions))]

    rewards = {"wanted": wanted_words, "mostly": Component(mostly, weight=0.5), "length": length}
    composer = Composer(rewards, weights={"length": -0.1}, observers=[seen.append])
    functions, weights = composer.for_trl(separate=True)
    trainer = make_trainer("grpo", functions, reward_weights=weights, **GDPO)
    trainer.train()
    expected = seen[-1].gdpo_advantages()
    assert np.abs(expected).max() > 0.5
    np.testing.assert_allclose(list(trainer._logs["advantages"]), expected, atol=1e-3)


def test_a_batch_is_scored_once_for_all_functions(make_trainer: Callable[..., Any]) -> None:
    """Each reward is called once a batch, and running statistics see each batch once."""
    calls: list[int] = []

    def counted(completions: list[str]) -> list[float]:
        calls.append(len(completions))
        return length(completions)

    composer = Composer({"wanted": wanted_words, "counted": Component(counted, normalizer=ZScore())})
    functions, weights = composer.for_trl(separate=True)
    trainer = make_trainer("grpo", functions, reward_weights=weights, **GDPO)
    trainer.train()
    assert calls == [8, 8]
    assert composer.state_dict()["rewards"]["counted"]["state"]["count"] == 16
    assert {"rewards/wanted/mean", "rewards/counted/mean", "reward/counted/raw_mean"} <= set(
        trainer.state.log_history[0]
    )


def test_equal_texts_in_another_call_are_another_batch() -> None:
    """Answers are shared within a call, not between calls: rewards may be random, and statistics move on."""
    seen: list[Composition] = []
    (wanted, long), _ = build(observers=[seen.append]).for_trl(separate=True)
    for _ in range(2):
        fields = {"prompts": ["p"], "completions": ["w1"], "wanted": ["w1"]}
        wanted(**fields)
        long(**fields)
    assert len(seen) == 2


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"gates": [Gate("length", max=3, floor=-1.0)]}, "gates hold over the total"),
        ({"constraints": [Constraint("length", max=3)]}, "constraints are taken off the total"),
        ({"groups": {"both": RewardGroup(["length", "first"])}}, "groups are aggregated before"),
        ({"aggregator": Minimum()}, "TRL adds the rewards up"),
    ],
)
def test_what_holds_over_the_total_is_refused(settings: dict[str, Any], reason: str) -> None:
    """Nothing that was configured is dropped on the way, and the refusal says why."""
    rewards = {"length": length, "first": first_word}
    with pytest.raises(ConfigError, match=reason):
        Composer(rewards, **settings).for_trl(separate=True)


def test_schedules_are_refused() -> None:
    """TRL takes weights once."""
    composer = Composer({"length": length, "first": Component(first_word, weight=Schedule(Linear(0.0, 1.0, end=10)))})
    with pytest.raises(ConfigError, match=r"constant, and first has a schedule"):
        composer.for_trl(separate=True)


def test_a_trainer_that_sums_before_it_normalises_is_refused(make_trainer: Callable[..., Any], kind: str) -> None:
    """Their plain sum would not be the total: missing scores and the composer's rules are lost. RLOO can do no other."""
    functions, weights = build().for_trl(separate=True)
    trainer = make_trainer(kind, functions, reward_weights=weights)
    with pytest.raises(ConfigError, match="must be normalised before they are summed"):
        trainer.train()


def test_other_weights_in_the_trainer_are_refused(make_trainer: Callable[..., Any]) -> None:
    """Forgotten or mixed up weights are found by name."""
    functions, weights = build().for_trl(separate=True)
    for given in (None, weights[::-1]):
        with pytest.raises(ConfigError, match=r"'wanted' has the weight .* in the trainer and 2 in the composition"):
            functions[0].check(make_trainer("grpo", list(functions), reward_weights=given, **GDPO))


def test_a_function_that_is_left_out_is_missed(make_trainer: Callable[..., Any]) -> None:
    """All of the composition's weights are trained on."""
    functions, _ = build().for_trl(separate=True)
    with pytest.raises(ConfigError, match="the reward 'length' is left out"):
        functions[0].check(make_trainer("grpo", functions[:1], reward_weights=[2.0], **GDPO))
