"""Run in a clean environment with the wheels of the SDK, its plugins and one broken plugin: all but that one work."""

import json
import subprocess
import sys
import warnings
from pathlib import Path

from rlaif_sdk import Composer, ConfigError, PluginError, Registry, RewardBatch

WANTED = {"conciseness", "execution", "factuality", "judge", "rubric", "toxicity"}

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    registry = Registry.discover()

assert set(registry.rewards) >= WANTED, sorted(registry.rewards)
for name in ("robust", "group_robust"):
    assert registry.normalizer(name).name == name
assert registry.aggregator("chebyshev").name == "chebyshev"
assert "replay" in registry.judge_backends()
(broken,) = registry.broken
assert broken.source.plugin == "broken"
assert "rlaif-broken 0.0.1" in str(broken.error)
assert "broken on purpose" in str(broken.error)
problem = ""
try:
    registry.reward("broken")
except PluginError as error:
    problem = str(error)
assert "broken on purpose" in problem, "a broken plugin that is asked for must be an error"

config = {
    "aggregate": {"kind": "chebyshev", "ideal": 1},
    "rewards": {
        "toxicity": {"normalize": "robust"},
        "conciseness": {"params": {"target": 8}},
        "factuality": {},
    },
}
batch = RewardBatch(
    ["What is the capital of France?"] * 2,
    ["The capital of France is Paris.", "The capital of France is Lyon, you idiot."],
    columns={"reference": ["Paris is the capital of France."] * 2},
)
with Composer.from_config(config, registry=registry) as composer:
    kind, rude = composer.compose(batch).totals
assert kind > rude, (kind, rude)

code = RewardBatch(["Double."], ["```python\ndef f(n): return 2 * n\n```"], columns={"tests": ["assert f(2) == 4"]})
config = {"rewards": {"execution": {"params": {"entry_point": "f"}}}}
with Composer.from_config(config, registry=registry) as composer:
    try:
        assert composer.compose(code).totals[0] == 1.0
    except ConfigError as error:  # a kernel without Landlock
        sys.stdout.write(f"not run: {error}\n")

rlaif = Path(sys.executable).with_name("rlaif")
listed = json.loads(subprocess.run([rlaif, "rewards", "list", "--json"], capture_output=True, check=True).stdout)
assert {entry["name"] for entry in listed["rewards"]} >= WANTED
sys.stdout.write(f"{len(listed['rewards'])} rewards from wheels, one broken plugin left out: passed\n")
