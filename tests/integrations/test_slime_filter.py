"""slime's filter of groups: those that teach nothing are left out, by the total or by a reward's own score."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from rlaif_sdk import Composer
from rlaif_sdk.exceptions import ConfigError
from rlaif_sdk.integrations.slime import group_filter, group_reward_model


class SlimeSample(SimpleNamespace):
    """The fields of slime's ``Sample`` that rewards and filters touch."""

    def get_reward_value(self, args: Any) -> float:
        return self.reward


ARGS = SimpleNamespace(group_rm=True)


def right(completions):
    return [None if text == "?" else float(text == "4") for text in completions]


def length(completions):
    return [None if text == "?" else float(len(text)) for text in completions]


def scored(*texts: str) -> list[SlimeSample]:
    """A group as slime has it after ``--group-rm``."""
    samples = [SlimeSample(prompt="2 + 2?", response=text, label=None, metadata=None) for text in texts]
    with Composer({"right": right, "length": length}, weights={"right": 1.0, "length": 0.1}) as composer:
        for sample, reward in zip(samples, asyncio.run(group_reward_model(composer)(ARGS, samples)), strict=True):
            sample.reward = reward
    return samples


@pytest.mark.parametrize(
    ("texts", "reward", "kept"),
    [
        (["4", "5"], None, True),
        (["4", "4"], None, False),
        (["5", "6"], "right", False),
        (["5", "66"], "right", False),
        (["5", "66"], None, True),
        (["4", "5"], "length", False),
        (["4", "4", "?"], None, False),
        (["4", "?"], None, False),
        (["4", "5", "?"], "right", True),
    ],
)
def test_a_group_is_kept_where_its_scored_samples_differ(texts, reward, kept):
    """An unscored sample, which slime is given the mean for, counts neither way."""
    assert group_filter(reward)(ARGS, scored(*texts), extra=None) is kept


def test_a_reward_that_is_not_there_is_named():
    """A wrong name would leave out every group."""
    with pytest.raises(ConfigError, match="no reward 'correct'; there are right, length"):
        group_filter("correct")(ARGS, scored("4", "5"))
