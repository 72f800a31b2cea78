"""``pytest -p tests.pretend_cuda.plugin``: tests see CUDA devices, and train on one where they ask for the CPU.

``DEVICES=2`` pretends two. What cannot pass here is skipped, with its reason from `UNFIT`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from tests.pretend_cuda import device

EXTENSION = device.install(int(os.environ.get("DEVICES", "1")))

from transformers import training_args  # noqa: E402 - it looks for CUDA when it is imported

_plain = training_args.TrainingArguments.__post_init__


def _on_the_device(self: Any) -> None:
    self.use_cpu = False
    _plain(self)


training_args.TrainingArguments.__post_init__ = _on_the_device


UNFIT = {
    ("training/test_ppo_critic.py", "test_it_starts_as_the_policy_and_says_zero"): "builds its tokens on the CPU",
    ("training/test_ppo_critic.py", "test_it_can_start_from_a_reward_model"): "compares with weights on the CPU",
    (
        "training/test_ppo_encoder_decoder.py",
        "test_a_rollout_holds_what_the_decoder_said",
    ): "counts on what the CPU's random numbers draw",
}
"""Why a test cannot pass, by the end of its file's path and the beginning of its name."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        file, _, test = item.nodeid.partition("::")
        for (of_file, of_test), reason in UNFIT.items():
            if file.endswith(of_file) and test.startswith(of_test):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture
def pretend() -> Any:
    """The extension: bytes held, and what `device.Waits` listens to."""
    return EXTENSION


@pytest.fixture
def card() -> Iterator[SimpleNamespace]:
    """What the devices say of themselves, to be changed for one test."""
    before = vars(device.card).copy()
    yield device.card
    vars(device.card).update(before)
