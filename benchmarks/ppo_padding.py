"""The padding of a PPO step with rows as they were drawn, and with rows of like length in a pass.

Rows are the quickstart's questions with their reference answers, real text of many lengths, in SmolLM2's tokens. A rollout is
64 of them. Passes without gradients compute log-probabilities; passes of the update are the minibatches of an optimiser step of
the whole rollout. Processor time is that of log-probabilities of 16 of the rows under a small Llama, the three ways taking turns.
"""

from __future__ import annotations

import os
import random
import statistics
import time
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}

import torch
from _ppo_worker import model_config
from _report import interleaved, median_ratio, save
from transformers import AutoTokenizer, LlamaForCausalLM

from rlaif_sdk.io.tables import read_rows
from rlaif_sdk.quickstart.model import prepare_policy
from rlaif_sdk.training.models import prompt_ids
from rlaif_sdk.training.ppo.policy import score_in_batches, score_in_forward
from rlaif_sdk.training.ppo.rollout import Rollout, Tokens

ROLLOUT, ROLLOUTS = 64, 20


def padding(passes: Sequence[Tokens]) -> float:
    """The share of padding in what is computed."""
    computed = sum(part.attention_mask.numel() for part in passes)
    return 1 - sum(int(part.attention_mask.sum()) for part in passes) / computed


def real_rows() -> list[tuple[list[int], list[int]]]:
    """Tokens of question and answer."""
    tokenizer = AutoTokenizer.from_pretrained(prepare_policy())
    rows = [*read_rows(str(files("rlaif_sdk.quickstart") / "data" / "train.jsonl"))]
    return [
        (prompt_ids(row["prompt"], tokenizer, {}), tokenizer(row["reference"])["input_ids"])
        for row in rows
        if row["reference"]
    ]


def as_drawn(tokens: Tokens, size: int) -> list[torch.Tensor]:
    return [torch.arange(start, start + size) for start in range(0, len(tokens), size)]


def update_passes(tokens: Tokens, accumulation: int) -> list[Tokens]:
    """The minibatches of one optimiser step, as the trainer makes them."""
    zeros_BT = torch.zeros(tokens.completion_ids_BT.shape)
    known: dict[str, Any] = dict.fromkeys(("old_logprobs_BT", "old_values_BT", "advantages_BT", "returns_BT"), zeros_BT)
    rollout = Rollout(tokens=tokens, ref_logprobs_BT=None, mask_BT=tokens.completion_mask_BT, **known)
    return [part.tokens for part in rollout.minibatches(accumulation, accumulation=accumulation)]


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    draw, rows = random.Random(0), real_rows()
    rollouts = []
    for _ in range(ROLLOUTS):
        prompts, answers = zip(*draw.choices(rows, k=ROLLOUT), strict=True)
        rollouts.append(Tokens.padded(prompts, answers, pad_id=0))
    config = model_config()
    config.vocab_size = 49_152
    model = LlamaForCausalLM(config).eval()
    score_in_forward(model, temperature=1.0)
    results: dict[str, Any] = {}
    lines = [
        (
            f"Share of padding among the tokens computed, mean of {ROLLOUTS} rollouts of {ROLLOUT} rows, {len(rows)} different ones "
            "of the quickstart's questions with their reference answers; processor time over that of rows as drawn."
        ),
        "",
        "| rows a pass | as drawn | by length | by a budget of as many tokens | update, by length | time, by length | time, by budget |",
        "|---|---|---|---|---|---|---|",
    ]
    few = rollouts[0].rows(slice(0, 16))
    for size in (4, 8, 16):
        ways: dict[str, list[list[torch.Tensor]]] = {"as drawn": [as_drawn(tokens, size) for tokens in rollouts]}
        ways["by length"] = [tokens.batches(rows=size) for tokens in rollouts]
        budget = size * max(sum(each) for tokens in rollouts for each in tokens.lengths)
        ways["by budget"] = [tokens.batches(rows=size, budget=budget) for tokens in rollouts]
        shares = {
            name: statistics.mean(padding([tokens.rows(batch) for batch in batches]) for tokens, batches in pairs)
            for name, pairs in ((name, [*zip(rollouts, each, strict=True)]) for name, each in ways.items())
        }
        shares["update"] = statistics.mean(padding(update_passes(tokens, ROLLOUT // size)) for tokens in rollouts)
        timed = {"as drawn": as_drawn(few, size), "by length": few.batches(rows=size)}
        timed["by budget"] = few.batches(rows=size, budget=budget)
        seconds = interleaved(
            {name: lambda batches=batches: score_in_batches(model, few, batches) for name, batches in timed.items()},
            repeats=3,
            clock=time.process_time,
        )
        times = {name: median_ratio(seconds[name], seconds["as drawn"]) for name in ("by length", "by budget")}
        results[f"{size} rows"] = {"padding": shares, "time over as drawn": times}
        cells = [f"{share:.1%}" for share in shares.values()] + [f"{ratio:.2f}" for ratio in times.values()]
        lines.append(f"| {size} | {' | '.join(cells)} |")
    save("ppo_padding", results, "\n".join(lines))


if __name__ == "__main__":
    main()
