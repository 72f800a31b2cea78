"""Every adapter's way to score the suite's samples, as its stack calls it, and a loop of one's own.

Where a stack's package is installed its own reward-calling code runs, in ``test_adapters_in_their_stacks.py`` and
``test_trl_online_dpo.py``; here the calls have the shapes that its source has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rlaif_sdk import Composer
from tests.integrations.cases import Case, Row
from tests.integrations.environment_calls import (
    by_nemo_gym,
    by_nemo_rl,
    by_nemo_rl_parts,
    by_skyrl,
    by_verifiers_groups,
    by_verifiers_rubric,
    by_verifiers_task,
)
from tests.integrations.trainer_calls import (
    by_async_loop,
    by_loop,
    by_openrlhf,
    by_openrlhf_batch,
    by_slime,
    by_slime_groups,
    by_slime_list,
    by_swift,
    by_swift_async,
    by_swift_groups,
    by_trl,
    by_trl_groups,
    by_trl_online_dpo,
    by_verl,
    by_verl_at_once,
    by_verl_batch,
    by_verl_groups,
    by_verl_manager,
)

ADAPTERS: dict[str, Callable[[Composer, Sequence[Case]], list[Row]]] = {
    "trl": by_trl,
    "trl, online dpo": by_trl_online_dpo,
    "verl": by_verl,
    "verl, at once": by_verl_at_once,
    "verl, a batch": by_verl_batch,
    "verl, a manager": by_verl_manager,
    "openrlhf": by_openrlhf,
    "openrlhf, a batch": by_openrlhf_batch,
    "ms-swift": by_swift,
    "ms-swift, async": by_swift_async,
    "slime": by_slime,
    "slime, a list": by_slime_list,
    "nemo gym": by_nemo_gym,
    "nemo rl": by_nemo_rl,
    "nemo rl, parts": by_nemo_rl_parts,
    "skyrl": by_skyrl,
    "verifiers, a rubric": by_verifiers_rubric,
    "verifiers, a task": by_verifiers_task,
}
"""Every adapter, by its name and how it is called."""

GROUPED: dict[str, Callable[[Composer, Sequence[Sequence[Case]]], list[Row]]] = {
    "trl": by_trl_groups,
    "verl, a manager": by_verl_groups,
    "ms-swift": by_swift_groups,
    "slime": by_slime_groups,
    "verifiers, a rubric": by_verifiers_groups,
}
"""Adapters whose stacks tell which completions answer the same prompt, scoring groups."""

LOOPS = {"a loop": by_loop, "a loop, at once": by_async_loop}
"""What needs no adapter."""
