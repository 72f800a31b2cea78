"""Rewards that are made ready before the first batch."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from rlaif_sdk import Composer, RewardBatch, RewardError
from rlaif_sdk.composer import Component
from rlaif_sdk.composer.failures import FailurePolicy
from rlaif_sdk.exceptions import ConfigError, RewardTimeoutError
from rlaif_sdk.testing import FixedReward

BATCH = RewardBatch(prompts=["a"], completions=["b"])


class Counting(FixedReward):
    """Counts how often it is set up, and fails there if told to."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__(1.0)
        self.error = error
        self.times = 0

    def setup(self) -> None:
        self.times += 1
        if self.error is not None:
            raise self.error


def test_rewards_and_fallbacks_are_made_ready_once() -> None:
    """Before a batch, twice asked for, and at the first batch: their setup runs one time."""
    judge, spare = Counting(), Counting()
    with Composer({"judge": Component(judge, fallback="spare")}, fallbacks={"spare": spare}) as composer:
        composer.set_up()
        assert (judge.times, spare.times) == (1, 1)
        composer.set_up()
        composer.compose(BATCH)
        assert (judge.times, spare.times) == (1, 1)


@pytest.mark.parametrize("on_failure", ["raise", "abstain"])
def test_a_reward_that_does_not_become_ready_is_named(on_failure: str) -> None:
    """Whatever its failure policy, which is for batches."""
    broken = Component(Counting(OSError("no weights here")), failure=FailurePolicy(on_failure))
    with (
        Composer({"judge": broken, "other": FixedReward(1.0)}) as composer,
        pytest.raises(RewardError, match=r"judge.*no weights here"),
    ):
        composer.set_up()


def test_an_error_that_no_policy_covers_is_raised_as_it_is() -> None:
    """With its own type, and a note of the reward that it came from."""
    broken = Counting(ConfigError("no such model"))
    with Composer({"judge": broken}) as composer, pytest.raises(ConfigError, match="no such model") as caught:
        composer.set_up()
    assert any("judge" in note for note in caught.value.__notes__)


def test_a_setup_that_hangs_ends_at_its_limit() -> None:
    """The limit of a reward's setup holds here too."""
    import threading

    go = threading.Event()

    class Hanging(FixedReward):
        def setup(self) -> None:
            go.wait(20)

    with Composer({"judge": Component(Hanging(1.0), setup_timeout=0.2)}) as composer:
        try:
            with pytest.raises(RewardTimeoutError, match="judge"):
                composer.set_up()
        finally:
            go.set()


def test_every_worker_process_of_a_reward_is_made_ready(tmp_path: Path) -> None:
    """With concurrency, each process loads its own copy, and none of them at the first batch."""
    (tmp_path / "rewards.py").write_text(
        "import os, pathlib\n"
        "from rlaif_sdk import Reward\n"
        "class Loads(Reward):\n"
        "    def setup(self):\n"
        f"        pathlib.Path({str(tmp_path)!r}, f'ready-{{os.getpid()}}').touch()\n"
        "    def score(self, batch):\n"
        "        return [1.0] * len(batch)\n"
    )
    execution = {"isolation": "process", "concurrency": 2, "chunk": 1}
    rewards = {"loads": {"use": f"{tmp_path}/rewards.py:Loads", "execution": execution}}
    with Composer.from_config({"rewards": rewards}) as composer:
        composer.set_up()
        made = {path.name for path in tmp_path.glob("ready-*")}
        assert len(made) == 2
        assert f"ready-{os.getpid()}" not in made
        composer.compose(BATCH)
        assert {path.name for path in tmp_path.glob("ready-*")} == made


def test_a_reward_that_loads_while_another_fails_is_closed_like_any_other() -> None:
    """Nothing that was begun is left behind when set_up has raised."""
    said: list[str] = []

    class Slow(FixedReward):
        def setup(self) -> None:
            time.sleep(0.3)
            said.append("ready")

        def close(self) -> None:
            said.append("closed")

    rewards = {"bad": Counting(OSError("none")), "slow": Slow(1.0)}
    with Composer(rewards) as composer, pytest.raises(RewardError, match="bad"):
        composer.set_up()
    assert said == ["ready", "closed"]
