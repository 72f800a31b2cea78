"""What it saves to draw the next rollout while this one is scored and learnt from, with a server that is elsewhere.

The server is a double that takes seconds of wall time and no processor time, as one on another GPU; so is the judge. The
policy learns here. The runs go one after another.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

from _report import save
from datasets import Dataset
from transformers import TrainerCallback
from trl.generation import vllm_generation
from trl.generation.vllm_generation import VLLMGeneration

sys.path.insert(0, str(Path(__file__).parents[1]))

from rlaif_sdk import PPOConfig, PPOTrainer
from tests.training.conftest import build_llama, build_tokenizer

ROWS, TOKENS = 16, 64


class ServerElsewhere(VLLMGeneration):
    """Draws words at random after a while."""

    seconds = 1.0

    def _init_vllm(self) -> None:
        self.draw = random.Random(0)

    def sync_weights(self) -> None:
        return

    def generate(self, prompts: Any, images: Any, num_generations: int, profiler: Any = None) -> Any:
        time.sleep(self.seconds)
        completions = [[self.draw.randrange(6, 30) for _ in range(TOKENS)] for _ in prompts]
        return None, completions, [[[-3.4]] * TOKENS for _ in prompts], None


class Stamps(TrainerCallback):
    """When each optimiser step ended."""

    def __init__(self) -> None:
        self.at: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.at.append(time.perf_counter())


def seconds_a_rollout(*, ahead: bool, judge_seconds: float, rollouts: int, hidden: int) -> float:
    """The median of a run's rollouts, without the first."""

    async def judged(completion_texts: list[str]) -> list[float]:
        await asyncio.sleep(judge_seconds)
        return [len(set(text.split())) / TOKENS for text in completion_texts]

    stamps = Stamps()
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = build_tokenizer()
        model = build_llama(hidden_size=hidden, intermediate_size=2 * hidden, num_hidden_layers=4)
        trainer = PPOTrainer(
            model,
            judged,
            args=PPOConfig(
                output_dir=folder,
                per_device_train_batch_size=ROWS // 2,
                max_completion_length=TOKENS,
                max_steps=2 * rollouts,
                use_vllm=True,
                vllm_mode="server",
                one_step_off_policy=ahead,
                save_strategy="no",
                logging_strategy="no",
                report_to=[],
                use_cpu=True,
                disable_tqdm=True,
            ),
            train_dataset=Dataset.from_dict({"prompt": [f"w{row % 28} w{row * 5 % 28}" for row in range(64 * ROWS)]}),
            processing_class=tokenizer,
            callbacks=[stamps],
        )
        trainer.train()
    ends = stamps.at[1::2]
    return statistics.median(after - before for before, after in pairwise(ends))


def main() -> None:
    """Print and save seconds a rollout, by turns and ahead."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rollouts", type=int, default=6)
    parser.add_argument("--hidden", type=int, default=256)
    options = parser.parse_args()
    results, lines = (
        {},
        ["| server (s) | judge (s) | by turns (s) | ahead (s) | ahead to by turns |", "|---|---|---|---|---|"],
    )
    with (
        patch("trl.trainer.rloo_trainer.VLLMGeneration", ServerElsewhere),
        patch.object(vllm_generation, "is_vllm_available", lambda: True),
    ):
        for server, judge in ((1.0, 0.0), (1.0, 0.5), (3.0, 0.5), (3.0, 3.0)):
            ServerElsewhere.seconds = server
            by_turns, drawn_ahead = (
                seconds_a_rollout(ahead=ahead, judge_seconds=judge, rollouts=options.rollouts, hidden=options.hidden)
                for ahead in (False, True)
            )
            results[f"server {server:g} s, judge {judge:g} s"] = {"by turns (s)": by_turns, "ahead (s)": drawn_ahead}
            lines.append(
                f"| {server:g} | {judge:g} | {by_turns:.2f} | {drawn_ahead:.2f} | {drawn_ahead / by_turns:.2f} |"
            )
    lines.append(
        f"\nMedian seconds a rollout of {ROWS} completions of {TOKENS} tokens, of {options.rollouts - 1} rollouts each."
    )
    save("ppo_ahead", results, "\n".join(lines))


if __name__ == "__main__":
    main()
