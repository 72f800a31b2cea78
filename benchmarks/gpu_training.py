"""Tokens a second of generation and update on a GPU: PPO beside TRL's RLOO, on a model of about half a billion weights.

The model has the shape of Qwen2-0.5B and random weights; every completion runs to its full length. Without a GPU this
says so and measures nothing; ``--try-on-cpu`` runs a tiny model, to see that the script works, and saves no result.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import tempfile
import time
from collections.abc import Mapping
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}

import torch
from _report import save
from _words import word_tokenizer
from datasets import Dataset
from transformers import PrinterCallback, Qwen2Config, Qwen2ForCausalLM, TrainerCallback
from trl import RLOOConfig, RLOOTrainer

from rlaif_sdk.training.ppo import PPOConfig, PPOTrainer

TRAINERS: Mapping[str, tuple[Any, Any, Mapping[str, Any]]] = {
    "PPO": (PPOTrainer, PPOConfig, {"kl_coef": 0.05}),
    "PPO, critic of its own": (PPOTrainer, PPOConfig, {"kl_coef": 0.05, "critic": "separate"}),
    "TRL's RLOO": (RLOOTrainer, RLOOConfig, {"beta": 0.05, "num_generations": 2}),
}
SHAPES: Mapping[str, dict[str, int]] = {
    "gpu": {
        "vocab_size": 151_936,
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
    },
    "cpu": {
        "vocab_size": 1000,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
}


def now() -> float:
    """Seconds, after the device has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


class StepTimes(TrainerCallback):
    """The seconds from the end of each step to the end of the next, and those of them that generation took."""

    def __init__(self) -> None:
        self.generation = 0.0
        self.ended: float | None = None
        self.steps: list[tuple[float, float]] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        ended = now()
        if self.ended is not None:  # the first step warms up
            self.steps.append((self.generation, ended - self.ended))
        self.ended, self.generation = ended, 0.0


def timed(trainer_class: Any, times: StepTimes) -> Any:
    """The trainer's class, its generation timed."""

    class Timed(trainer_class):  # type: ignore[misc]
        def _generate(self, *args: Any, **kwargs: Any) -> Any:
            since = now()
            generated = super()._generate(*args, **kwargs)
            times.generation += now() - since
            return generated

    return Timed


def run(name: str, options: argparse.Namespace, shape: dict[str, int], *, on_gpu: bool) -> dict[str, float]:
    """Train a few steps: medians of what each took."""
    trainer_class, config_class, settings = TRAINERS[name]
    draw, words = random.Random(0), shape["vocab_size"] - 3
    prompts = [" ".join(f"w{draw.randrange(words)}" for _ in range(options.prompt)) for _ in range(1024)]
    torch.manual_seed(0)
    times = StepTimes()
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    with tempfile.TemporaryDirectory() as folder:
        config = Qwen2Config(**shape, tie_word_embeddings=True, bos_token_id=None, eos_token_id=1, pad_token_id=0)
        Qwen2ForCausalLM(config).save_pretrained(folder)
        trainer = timed(trainer_class, times)(
            folder,  # RLOO loads its reference from where the policy came from
            reward_funcs=lambda completions, **_: [text.count("1") / options.tokens for text in completions],
            args=config_class(
                output_dir=f"{folder}/run",
                model_init_kwargs={"dtype": "float32"},
                per_device_train_batch_size=options.minibatch,
                gradient_accumulation_steps=options.batch // options.minibatch,
                steps_per_generation=options.batch // options.minibatch,  # each step has a rollout of its own
                max_completion_length=options.tokens,
                generation_kwargs={"suppress_tokens": [1]},
                max_steps=options.steps + 1,
                learning_rate=1e-6,
                gradient_checkpointing=False,
                bf16=on_gpu,
                use_cpu=not on_gpu,
                save_strategy="no",
                report_to=[],
                disable_tqdm=True,
                **settings,
            ),
            train_dataset=Dataset.from_dict({"prompt": prompts}),
            processing_class=word_tokenizer(shape["vocab_size"]),
            callbacks=[times],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    tokens = options.batch * options.tokens
    generation = statistics.median(generation for generation, _ in times.steps)
    update = statistics.median(step - generation for generation, step in times.steps)
    return {
        "generation (tokens/s)": tokens / generation,
        "update (tokens/s)": tokens / update,
        "share of generation": statistics.median(generation / step for generation, step in times.steps),
        "peak memory (GiB)": torch.cuda.max_memory_allocated() / 2**30 if on_gpu else float("nan"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=64, help="completions a step")
    parser.add_argument("--minibatch", type=int, default=16, help="completions in one forward pass of the update")
    parser.add_argument("--prompt", type=int, default=64, help="tokens of a prompt")
    parser.add_argument("--tokens", type=int, default=256, help="tokens of a completion")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=2, help="how often each trainer has its turn")
    parser.add_argument("--try-on-cpu", action="store_true", help="run a tiny model, and save no result")
    options = parser.parse_args()
    on_gpu = torch.cuda.is_available()
    if not on_gpu and not options.try_on_cpu:
        print("gpu_training: there is no CUDA device here, so nothing was measured")
        return
    shape = SHAPES["gpu" if on_gpu else "cpu"]
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in TRAINERS}
    for _ in range(options.rounds):
        for name, measured in rounds.items():
            measured.append(run(name, options, shape, on_gpu=on_gpu))
    results = {
        name: {figure: statistics.median(one[figure] for one in measured) for figure in measured[0]}
        for name, measured in rounds.items()
    }
    device = torch.cuda.get_device_name() if on_gpu else "a CPU (a trial of the script, no result)"
    table = "\n".join(
        [
            (
                f"Tokens a second of {options.batch} completions of {options.tokens} tokens, with a reference, on {device}; update "
                f"is all but generation: scores of the policy, the reference and the critic, loss, optimiser; medians of "
                f"{options.rounds} turns of {options.steps} steps:"
            ),
            "",
            "| | generation | update | share of generation | peak GiB |",
            "|---|---|---|---|---|",
            *(
                f"| {name} | {one['generation (tokens/s)']:,.0f} | {one['update (tokens/s)']:,.0f} "
                f"| {one['share of generation']:.2f} | {one['peak memory (GiB)']:.1f} |"
                for name, one in results.items()
            ),
        ]
    )
    if on_gpu:
        save("gpu_training", {"device": device, **results}, table)
    else:
        print(table)


if __name__ == "__main__":
    main()
