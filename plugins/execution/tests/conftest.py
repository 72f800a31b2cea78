"""What the tests of this plugin share."""

import asyncio
import subprocess

import pytest

from rlaif_execution import policy, rlaif_rewards
from rlaif_sdk import RewardBatch

SPEC = next(iter(rlaif_rewards()))


@pytest.fixture(params=["landlock", pytest.param("bubblewrap", marks=pytest.mark.slow)])
def sandbox(request, monkeypatch):
    """The name of the sandbox that programs run in; skips where the machine does not have it."""
    if request.param == "bubblewrap":
        use_bubblewrap(monkeypatch)
    elif lacks := policy._what_landlock_lacks()[0]:
        pytest.skip(lacks)
    return request.param


def use_bubblewrap(monkeypatch):
    """Run programs in bubblewrap, as on a kernel without Landlock; skips where it does not run."""
    try:
        subprocess.run(["bwrap", "--unshare-all", "--ro-bind", "/", "/", "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"bubblewrap does not run here: {error}")
    monkeypatch.setattr(policy, "_what_landlock_lacks", lambda: ("no Landlock", ""))


@pytest.fixture(scope="session")
def built():
    """Rewards by their parameters, set up once."""
    rewards = {}
    yield rewards
    for reward in rewards.values():
        reward.close()


@pytest.fixture
def score(built, sandbox):
    """Scores one answer, the code alone, against its tests."""

    def scored(answer, tests, *, name="f", prompt="", **params):
        key = (sandbox, *sorted(params.items()))
        if key not in built:
            built[key] = SPEC.build({"code": "whole", **params})
            built[key].setup()
        batch = RewardBatch([prompt], [answer], columns={"tests": [tests], "entry_point": [name]})
        return asyncio.run(built[key].score(batch))[0]

    return scored
