"""What the tests of this plugin share."""

import asyncio

import pytest

from rlaif_execution import rlaif_rewards
from rlaif_sdk import RewardBatch

SPEC = next(iter(rlaif_rewards()))


@pytest.fixture(scope="session")
def sandbox():
    """Skips what needs a sandbox where the kernel has none."""
    sandlock = pytest.importorskip("sandlock", reason="sandlock is for Linux")
    found, needed = sandlock.landlock_abi_version(), sandlock.min_landlock_abi()
    if found < needed:
        pytest.skip(f"this kernel has Landlock {found}; the sandbox needs {needed}")


@pytest.fixture(scope="session")
def built(sandbox):
    """Rewards by their parameters, set up once."""
    rewards = {}
    yield rewards
    for reward in rewards.values():
        reward.close()


@pytest.fixture
def score(built):
    """Scores one answer, the code alone, against its tests."""

    def scored(answer, tests, *, name="f", prompt="", **params):
        key = tuple(sorted(params.items()))
        if key not in built:
            built[key] = SPEC.build({"code": "whole", **params})
            built[key].setup()
        batch = RewardBatch([prompt], [answer], columns={"tests": [tests], "entry_point": [name]})
        return asyncio.run(built[key].score(batch))[0]

    return scored
