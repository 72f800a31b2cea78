"""ms-swift's own GRPO trainer trains on a server that learns, where it is installed: ``nox -s adapters``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from rlaif_sdk import Composer, RewardBatch
from rlaif_sdk.types import Progress
from tests.integrations.conftest import build_llama, build_tokenizer
from tests.integrations.test_adapters_in_their_stacks import stack
from tests.serving.loopback import serving

STEPS, GROUPS, GENERATIONS = 3, 4, 4
REWARDS = """
def wanted(completion_texts):
    return [float(sum(word < "w20" for word in text.split())) for text in completion_texts]


def words(completion_texts):
    return [float(len(set(text.split()))) for text in completion_texts]
"""
CONFIG = f"""
rewards:
  wanted: {{use: "rewards.py:wanted", normalize: group_zscore}}
  words:
    use: "rewards.py:words"
    normalize: zscore
    weight: {{schedule: linear, from: 0.1, to: 1, end: {STEPS}}}
constraints:
  - {{reward: words, min: 8, step_size: 0.5}}
"""
"""A group's comparison, a running statistic, a schedule by step and a multiplier."""
PLUGIN = """
from swift.rewards import orms
from rlaif_sdk.integrations.swift import orm

orms["composed"] = orm({url!r})
"""
COMMAND = f"""
--rlhf_type grpo --reward_funcs composed --external_plugins plugin.py --use_vllm false --use_hf true --use_cpu true
--model policy --model_type llama --template dummy --tuner_type full --torch_dtype float32
--dataset prompts.jsonl --split_dataset_ratio 0 --max_length 16 --max_completion_length 8
--num_generations {GENERATIONS} --per_device_train_batch_size {GROUPS * GENERATIONS} --max_steps {STEPS}
--learning_rate 1e-3 --beta 0 --seed 3 --logging_steps 1 --log_completions true --report_to none
--output_dir run --add_version false --save_strategy no --eval_strategy no
"""


def train(folder: Path, url: str) -> list[dict[str, Any]]:
    """What ``swift rlhf --rlhf_type grpo`` logs of each step's completions: the texts, and what they got.

    It logs the last step's once more at the end.
    """
    build_llama().save_pretrained(folder / "policy")
    tokenizer = build_tokenizer()
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }} {% endfor %}"
    tokenizer.save_pretrained(folder / "policy")
    rows = [{"messages": [{"role": "user", "content": f"w{row % 28} w{row * 5 % 28}"}]} for row in range(64)]
    (folder / "prompts.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (folder / "plugin.py").write_text(PLUGIN.format(url=url))
    done = subprocess.run(
        [sys.executable, "-m", "swift.cli.rlhf", *COMMAND.split()],
        check=False,
        cwd=folder,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    logged = [json.loads(line) for line in (folder / "run" / "completions.jsonl").read_text().splitlines()]
    return [*{one["step"][0]: one for one in logged}.values()]


@pytest.mark.slow
def test_ms_swifts_trainer_trains_on_a_server_that_learns(tmp_path: Path) -> None:
    """Its completions, step by step, get what a composer that learns from them says: groups, statistics, step, multiplier."""
    stack("swift")
    if not version("trl").startswith("0."):
        pytest.skip("ms-swift's trainer wants trl below 1")
    (tmp_path / "rewards.py").write_text(REWARDS)
    config = tmp_path / "rewards.yaml"
    config.write_text(CONFIG)
    with serving(config, cohort=True) as server:
        steps = train(tmp_path, server.url)
        learned = server.app.state.service.learned()
    assert len(steps) == STEPS
    with Composer.from_config(config) as composer:
        for step, logged in enumerate(steps):
            batch = RewardBatch(
                prompts=logged["prompt"],
                completions=logged["completion"],
                group=[row // GENERATIONS for row in range(GROUPS * GENERATIONS)],
                progress=Progress(step),
            )
            assert logged["ComposedReward"] == pytest.approx(composer.compose(batch).to_list(), rel=1e-5, abs=1e-6)
        assert composer.state_dict() == {name: value for name, value in learned.items() if name != "groups_scored"}
    assert learned["groups_scored"] == STEPS * GROUPS
    assert learned["constraints"]["words/min"]["state"]["multiplier"] > 0, "after a step in which it was broken"
