"""What the package ``rlaif-conciseness`` promises as a plugin."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points

from rlaif_conciseness import rlaif_rewards
from rlaif_sdk import RewardBatch
from rlaif_sdk.testing import check_reward_contract

SPEC = next(iter(rlaif_rewards()))


def test_the_entry_point_leads_to_the_registration_module() -> None:
    """An installed plugin is found by name and states its API version."""
    (entry,) = entry_points(group="rlaif_sdk", name="conciseness")
    assert entry.load().rlaif_api_version == 1


def test_the_reward_keeps_the_contract() -> None:
    """The checks that the SDK ships for plugin authors pass, for words and for tokens."""
    check_reward_contract(SPEC, params={"target": 20})
    check_reward_contract(
        SPEC,
        params={"target": 3, "unit": "tokens"},
        batch=RewardBatch(prompts=["p", "q"], completions=["a b", ""], completion_ids=[[1, 2], []]),
    )


def test_the_example_in_the_listing_builds() -> None:
    """What `rlaif rewards show conciseness` prints can be pasted into a config."""
    SPEC.build(SPEC.example["params"])


def test_every_parameter_is_documented() -> None:
    """Each field's docstring reaches the JSON schema."""
    assert all(field.description for field in SPEC.params.model_fields.values())


def test_listing_the_plugin_loads_nothing_heavy() -> None:
    """Registration imports neither tokenizers nor torch."""
    code = "import sys, rlaif_conciseness; print({'torch', 'transformers', 'tokenizers', 'numpy'} & set(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "set()"
