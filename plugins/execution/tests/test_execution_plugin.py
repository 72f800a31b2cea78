"""What the package ``rlaif-execution`` promises as a plugin."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points

from rlaif_execution import rlaif_rewards
from rlaif_sdk import RewardBatch
from rlaif_sdk.testing import check_reward_contract

SPEC = next(iter(rlaif_rewards()))


def test_the_entry_point_leads_to_the_registration_module() -> None:
    """An installed plugin is found by name and states its API version."""
    (entry,) = entry_points(group="rlaif_sdk", name="execution")
    assert entry.load().rlaif_api_version == 1


def test_the_reward_keeps_the_contract(sandbox: None) -> None:
    """The checks that the SDK ships for plugin authors pass, for cases, programs, asserts and rows without tests."""
    batch = RewardBatch(
        prompts=["Add.", "Echo.", "def f(x):\n", "Nothing.", "Prose."],
        completions=[
            "Here:\n```python\ndef f(a, b):\n    return a + b\n```",
            "```python\nprint(input())\n```",
            "```python\n    return x\n```",
            "```python\nf = 1\n```",
            "I cannot.",
        ],
        columns={
            "tests": [
                [{"args": [1, 2], "expected": 3}, {"args": [1, 1], "expected": 3}],
                '[{"stdin": "a\\n", "stdout": "a\\n"}]',
                "def check(candidate):\n    assert candidate(3) == 3\n",
                None,
                [{"args": [], "expected": 1}],
            ],
            "entry_point": ["f"] * 5,
        },
    )
    assert check_reward_contract(SPEC, batch=batch) == [0.5, 1.0, 1.0, None, 0.0]


def test_the_example_in_the_listing_builds() -> None:
    """What `rlaif rewards show execution` prints can be pasted into a config."""
    SPEC.build(SPEC.example["params"])


def test_every_parameter_is_documented() -> None:
    """Each field's docstring reaches the JSON schema."""
    assert all(field.description for field in SPEC.params.model_fields.values())


def test_listing_the_plugin_loads_nothing_heavy() -> None:
    """Registration imports neither the sandbox nor numpy."""
    code = "import sys, rlaif_execution; print({'sandlock', 'torch', 'numpy'} & set(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "set()"
