"""A SkyRL environment that takes several turns: its steps stay its own, and the episode is scored at its end."""

from __future__ import annotations

from typing import Any

import pytest

from rlaif_sdk import Composer, Reward, RewardBatch, RewardError, Score, view
from rlaif_sdk.integrations import skyrl
from tests.integrations.environment_calls import TextEnv

PAGE = "a page with many words that no policy wrote"


class Search(TextEnv):
    """The shape of SkyRL-Gym's search environment: a tool call is answered until there is an answer."""

    def __init__(self, env_config: Any, extras: Any) -> None:
        super().__init__()
        self.limit = extras.get("max_turns", 3)
        self.cost = env_config["cost"]

    def step(self, action: str) -> Any:
        self.turns += 1
        if "<answer>" in action or self.turns >= self.limit:
            return {"observations": [], "reward": 1.0, "done": True, "metadata": {"turns": self.turns}}
        page = {"role": "user", "content": f"<information>{PAGE}</information>"}
        return {"observations": [page], "reward": -self.cost, "done": False, "metadata": {"tool": "search"}}

    def get_metrics(self) -> dict[str, Any]:
        return {"searches": self.turns - 1}


def episode(composer: Composer, *actions: str, **settings: Any) -> tuple[Any, list[dict[str, Any]]]:
    made = skyrl.environment(composer, Search, **settings)({"cost": 0.25}, {"extra_info": {"label": "purr"}})
    prompt, _ = made.init([{"role": "user", "content": "About cats?"}])
    assert prompt == [{"role": "user", "content": "About cats?"}]
    return made, [made.step(action) for action in actions]


def test_the_reward_is_at_the_last_turn_and_of_all_of_them() -> None:
    """Each word is its speaker's; what the environment itself gave is a column, and its metrics stay."""
    seen: list[Any] = []

    def spy(
        prompts: list[Any], completions: list[Any], label: list[str], environment_reward: list[float]
    ) -> list[float]:
        seen.append((prompts[0], completions[0], label[0], environment_reward[0]))
        return [2.0]

    def words(completion_texts: list[str]) -> list[float]:
        return [float(len(text.split())) for text in completion_texts]

    with Composer({"spy": spy, "words": words}) as composer:
        made, steps = episode(
            composer, "<search>cats</search><|im_end|>", "<search>purr</search>", "<answer>yes they do</answer>"
        )
    assert [(step["reward"], step["done"]) for step in steps] == [(0.0, False), (0.0, False), (7.0, True)]
    assert steps[0]["metadata"] == {"tool": "search"}
    assert PAGE in steps[0]["observations"][0]["content"]
    ((prompt, completion, label, own),) = seen
    assert [turn["role"] for turn in completion] == ["assistant", "user", "assistant", "user", "assistant"]
    assert completion[0]["content"] == "<search>cats</search>"
    assert (prompt, label, own) == ([{"role": "user", "content": "About cats?"}], "purr", 0.5)
    assert steps[2]["metadata"] == {"turns": 3, "spy": 2.0, "words": 5.0, "unscored": 0.0}
    assert made.get_metrics() == {"searches": 2, "spy": 2.0, "words": 5.0, "unscored": 0.0}


def test_an_episode_of_one_turn_is_text() -> None:
    """As that of an environment without turns."""
    seen: list[Any] = []

    def spy(completions: list[Any]) -> list[float]:
        seen.extend(completions)
        return [1.0] * len(completions)

    with Composer({"spy": spy}) as composer:
        _, (step,) = episode(composer, "<answer>yes</answer><|im_end|>")
    assert seen == ["<answer>yes</answer>"]
    assert step["done"]


def test_an_episode_that_does_not_end_is_not_scored() -> None:
    """A turn in its middle costs no call of a judge."""
    asked: list[Any] = []

    def spy(completions: list[Any]) -> list[float]:
        asked.extend(completions)
        return [1.0] * len(completions)

    with Composer({"spy": spy}) as composer:
        made, steps = episode(composer, "<search>cats</search>")
    assert (asked, steps[0]["reward"], made.get_metrics()) == ([], 0.0, {"searches": 0})


def test_an_unscored_episode_raises_at_its_end_or_has_the_stated_reward() -> None:
    """Its turns before that have no reward to lose."""
    with Composer({"quiet": lambda completions: [None] * len(completions)}) as composer:
        with pytest.raises(RewardError, match="unscored"):
            episode(composer, "<search>cats</search>", "<answer>yes</answer>")
        _, steps = episode(composer, "<search>cats</search>", "<answer>yes</answer>", unscored=-1.0)
    assert [step["reward"] for step in steps] == [0.0, -1.0]


def test_an_action_that_the_environment_rewrites_is_scored_as_it_is_trained_on() -> None:
    """SkyRL trains on the rewritten one."""

    class Rewrites(Search):
        def step(self, action: str) -> Any:
            return {**super().step(action), "postprocessed_action": "<answer>cut</answer>"}

    with Composer({"length": lambda completions: [float(len(text)) for text in completions]}) as composer:
        made = skyrl.environment(composer, Rewrites)({"cost": 0.0}, {})
        made.init([{"role": "user", "content": "Hi"}])
        assert made.step("<answer>cut</answer> and much more")["reward"] == float(len("<answer>cut</answer>"))


def test_each_turn_may_get_what_it_adds() -> None:
    """The rewards of the turns sum to the episode's total; of a reward with credit by turn they are that credit."""

    class Calls(Reward):
        """A quarter for each turn that searches, 1 for one that answers; abstains on what is neither."""

        def score(self, batch: RewardBatch) -> list[Score]:
            said = [[view(turn, "assistant") or "" for turn in turns] for turns in batch.policy_turns]
            return [
                Score.of_turns([1.0 if "<answer>" in text else 0.25 for text in texts])
                if all("<" in text for text in texts[-1:])
                else Score(None, "neither")
                for texts in said
            ]

    actions = ("<search>cats</search>", "hm", "<answer>they purr</answer>")
    with Composer({"calls": Calls()}, weights={"calls": 2.0}) as composer:
        _, whole = episode(composer, *actions)
        made, steps = episode(composer, *actions, each_turn=True)
    assert [step["reward"] for step in whole] == [0.0, 0.0, 3.0]
    assert [step["reward"] for step in steps] == [0.5, 0.0, 2.5]
    assert [step["done"] for step in steps] == [False, False, True]
    assert steps[0]["metadata"] == {"tool": "search", "calls": 0.25, "unscored": 0.0}
    assert made.get_metrics()["calls"] == 1.5


def test_an_episode_that_ends_unscored_is_one_with_each_turn_too() -> None:
    """There is no number for it, unless one is stated: the turns' rewards then sum to that."""

    def first_only(completions: list[Any]) -> list[float | None]:
        return [1.0 if isinstance(said, str) else None for said in completions]  # one turn of words is text

    actions = ("<search>cats</search>", "<answer>yes</answer>")
    with Composer({"first": first_only}) as composer:
        with pytest.raises(RewardError, match="unscored"):
            episode(composer, *actions, each_turn=True)
        _, steps = episode(composer, *actions, each_turn=True, unscored=-1.0)
    assert [step["reward"] for step in steps] == [1.0, -2.0]
