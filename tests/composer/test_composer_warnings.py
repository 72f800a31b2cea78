"""What a composer says of settings that are allowed and seldom meant."""

from __future__ import annotations

import pytest

from rlaif_sdk import Composer, ConfigError, RewardBatch
from rlaif_sdk.composer.component import Component
from rlaif_sdk.composer.normalizers import GroupZScore
from rlaif_sdk.rewards import reward


def words(completions):
    return [float(len(text.split())) for text in completions]


@reward(higher_is_better=False)
def harm(completions):
    return [1.0] * len(completions)


def batch(group=None, *, training=True):
    texts = ["a", "a b", "a b c", "a b c d"]
    return RewardBatch(prompts=["p"] * 4, completions=texts, group=group, training=training)


def test_a_negative_weight_in_a_config_is_taken_with_a_warning(tmp_path):
    """It works as it stands, and the warning names the declaration that turns a cost by itself."""
    (tmp_path / "c.yaml").write_text("rewards:\n  words: {use: 'r.py:words', weight: -1}\n")
    (tmp_path / "r.py").write_text("def words(completions):\n    return [float(len(c.split())) for c in completions]\n")
    with pytest.warns(UserWarning, match=r"rewards\.words\.weight .*negative.*higher_is_better"):
        composer = Composer.from_config(tmp_path / "c.yaml")
    with composer:
        assert composer.compose(batch()).to_list() == [-1, -2, -3, -4]


def test_a_cost_with_a_negative_weight_is_warned_of_as_turned_twice():
    """In Python too, since it rewards what it names as bad."""
    with pytest.warns(UserWarning, match=r"'harm' is a cost.*inverted twice"):
        Composer({"harm": harm, "words": words}, weights={"harm": -1.0}).close()


def test_a_negative_weight_in_python_is_a_choice():
    """Nothing is warned of: there it stands beside the reward that it is for."""
    Composer({"words": words}, weights={"words": -0.1}).close()


@pytest.mark.parametrize(
    ("group", "training", "warned"),
    [(None, True, True), ([0, 1, 2, 3], True, True), ([0, 0, 1, 1], True, False), (None, False, False)],
)
@pytest.mark.filterwarnings("default")
def test_a_group_normalizer_without_groups_is_warned_of_once(group, training, warned, recwarn):
    """In training, where no prompt has two completions; evaluation, and prompts with several, are as they should be."""
    with Composer({"words": Component(words, normalizer=GroupZScore())}) as composer:
        composer.compose(batch(group, training=training))
        composer.compose(batch(group, training=training))
    found = [str(warning.message) for warning in recwarn if "completions to the same prompt" in str(warning.message)]
    assert len(found) == warned


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ("liner", r"no schedule is called 'liner' \(did you mean 'linear'\?\)"),
        ("xyz", r".*\(there are linear, cosine, piecewise, step\)"),
    ],
)
def test_a_misspelt_schedule_is_named_with_the_one_meant(tmp_path, schedule, message):
    """The refusal points at the key and its line."""
    file = tmp_path / "c.yaml"
    file.write_text(f"rewards:\n  words:\n    weight: {{schedule: {schedule}, from: 0, to: 1, end: 5}}\n")
    with pytest.raises(ConfigError, match=rf"c\.yaml:3: rewards\.words\.weight\.schedule: {message}"):
        Composer.from_config(file)
