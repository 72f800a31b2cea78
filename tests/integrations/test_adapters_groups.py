"""Where a stack tells groups, a composition that compares the completions to one prompt gives the composer's numbers."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from rlaif_sdk import Composer, ConfigError, RewardError
from rlaif_sdk.integrations import slime, swift, verifiers
from tests.integrations.adapters import GROUPED
from tests.integrations.cases import GROUPS, Case, build_group_composer, by_composer_in_groups
from tests.integrations.environment_calls import Rubric
from tests.integrations.test_adapters_equal import assert_equal
from tests.integrations.trainer_calls import SlimeSample


@pytest.fixture(params=GROUPED, ids=str)
def adapter(request: pytest.FixtureRequest) -> str:
    """Every adapter whose stack tells groups."""
    return str(request.param)


def scored_by(adapter: str, groups: Sequence[Sequence[Case]]) -> list[Any]:
    with build_group_composer() as composer:
        return GROUPED[adapter](composer, groups)


def test_the_groups_differ_and_have_an_unscored_member() -> None:
    """Else the suite would prove little."""
    totals = [total for total, _ in by_composer_in_groups(GROUPS)]
    assert totals.count(None) == 1
    assert len({total for total in totals if total is not None}) > 6
    alone = [row for cases in GROUPS for case in cases for row in by_composer_in_groups([[case]])]
    assert [total for total, _ in alone] != totals


def test_groups_get_the_composers_numbers(adapter: str) -> None:
    """Normalisers and rewards that compare see each group whole, whatever else is scored at the same time."""
    assert_equal(adapter, scored_by(adapter, GROUPS), by_composer_in_groups(GROUPS))


def test_the_order_of_groups_and_members_does_not_matter(adapter: str) -> None:
    """Each member keeps its number."""
    generator = random.Random(3)
    shuffled = [generator.sample(cases, len(cases)) for cases in generator.sample(GROUPS, len(GROUPS))]
    assert_equal(adapter, scored_by(adapter, shuffled), by_composer_in_groups(shuffled))


class TestSlime:
    """``--group-rm`` tells groups; ``remove_sample`` leaves a sample out."""

    @staticmethod
    def samples(texts: Sequence[str], **fields: Any) -> list[SlimeSample]:
        return [SlimeSample("Shout.", text, "quiet", **fields) for text in texts]

    def score(self, composer: Composer, samples: Any, **settings: Any) -> Any:
        rm = slime.group_reward_model(composer, **settings)

        async def run() -> Any:
            return await rm(SimpleNamespace(group_rm=True), samples)

        return asyncio.run(run())

    def test_without_group_rm_what_compares_is_refused(self) -> None:
        """At once where slime asks for samples one by one, and where it was not told to hand over groups."""
        with build_group_composer() as composer:
            with pytest.raises(ConfigError, match=r"GroupZScore compares .* slime's rm does not tell"):
                slime.reward_model(composer)
            with pytest.raises(ConfigError, match="no group") as said:
                self.score(composer, *self.samples(["quiet"]))
        assert said.value.hint == "add --group-rm"

    def test_an_unscored_sample_is_removed_and_changes_no_mean(self) -> None:
        """It gets the mean of the others, so their advantages are what they would be without it."""
        samples = self.samples(["quiet", "abstain fail", "DAMN"])
        with build_group_composer() as composer:
            rewards = self.score(composer, samples)
        assert [sample.remove_sample for sample in samples] == [False, True, False]
        assert rewards[1] == pytest.approx((rewards[0] + rewards[2]) / 2)

    def test_a_group_of_which_none_is_scored_has_no_mean(self) -> None:
        """It ends the call with the reason, or all are removed where a number is stated."""
        samples = self.samples(["abstain fail"] * 2)
        with build_group_composer() as composer:
            with pytest.raises(RewardError, match="unscored"):
                self.score(composer, samples)
            assert self.score(composer, samples, unscored=-1.0) == [-1.0, -1.0]
        assert all(sample.remove_sample for sample in samples)

    def test_members_may_know_different_things(self) -> None:
        """What partial rollouts note in the metadata of some stands as None in the others."""
        samples = self.samples(["quiet", "be quiet"])
        samples[1].metadata["start_rollout_id"] = 3
        seen: list[Any] = []

        def spy(completions: list[str], start_rollout_id: list[Any]) -> list[float]:
            seen.append(list(start_rollout_id))
            return [1.0] * len(completions)

        with Composer({"spy": spy}) as composer:
            self.score(composer, samples)
        assert seen == [[None, 3]]


def test_a_verifiers_rubric_says_that_it_compares() -> None:
    """As verifiers' own group rewards do; a rollout by itself is refused rather than scored 0."""
    state: dict[str, Any] = {"prompt": "Shout.", "completion": "quiet", "input": {"label": "quiet"}}
    with build_group_composer() as composer:
        rubric = verifiers.rubric(composer, Rubric)
        assert rubric.has_group_rewards
        with pytest.raises(ConfigError, match="without their groups") as said:
            asyncio.run(rubric.score_rollout(state))
    assert "independent_scoring" in (said.value.hint or "")
    with Composer({"length": lambda completions: [float(len(text)) for text in completions]}) as composer:
        rubric = verifiers.rubric(composer, Rubric)
        assert not rubric.has_group_rewards
        asyncio.run(rubric.score_rollout(state))
        asyncio.run(rubric.score_group([]))
    assert state["reward"] == 5.0


def test_swift_without_prompt_ids_tells_no_groups() -> None:
    """Rows of unknown groups are not compared with each other."""
    talk = [{"role": "user", "content": "Shout."}, {"role": "assistant", "content": "quiet"}]
    with build_group_composer() as composer, pytest.raises(ConfigError, match="without their groups"):
        swift.orm(composer)()(["quiet"] * 2, messages=[talk] * 2, label=["quiet"] * 2)
