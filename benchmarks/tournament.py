"""The reward ``tournament`` behind a loopback server, scheme by scheme; with a local model, a list beside single pairs."""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}

import aiohttp
from _judge import judge_server
from _report import interleaved, median_ratio, save

from rlaif_sdk import Composer, RewardBatch

SCHEMES = ("listwise", "anchor", "swiss", "round_robin")
WORDS = ["salt", "water", "rivers", "rocks", "rain", "sea", "stone", "sand", "wave", "tide"]


def groups_of(groups: int, size: int) -> RewardBatch:
    """Groups of different answers of some 40 words each."""
    rows = [(group, member) for group in range(groups) for member in range(size)]
    return RewardBatch(
        prompts=[f"Question {group}: why is the sea salt?" for group, _ in rows],
        completions=[
            " ".join(WORDS[(group + member * word) % len(WORDS)] for word in range(40)) + f" {group}.{member}"
            for group, member in rows
        ],
        group=[group for group, _ in rows],
    )


def composed(scheme: str, **params: Any) -> Composer:
    """The tournament by itself."""
    return Composer.from_config({"rewards": {"tournament": {"params": {"scheme": scheme, **params}}}})


def rounds_of(scheme: str, size: int, groups: int) -> list[int]:
    """How many calls each round makes for all groups."""
    if scheme == "swiss":
        return [2 * (size // 2) * groups] * math.ceil(math.log2(size))
    calls = {"listwise": 2, "anchor": 2 * (size - 1), "round_robin": size * (size - 1)}
    return [calls[scheme] * groups]


def bare_client(port: int, rounds: list[int], at_once: int) -> None:
    """The same number of calls by aiohttp alone: of a body that is ready, and of answers that are read as JSON."""
    body = {"model": "judge", "messages": [{"role": "user", "content": " ".join(WORDS * 25)}], "max_tokens": 1}
    url = f"http://127.0.0.1:{port}/v1/chat/completions"

    async def play() -> None:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=at_once)) as session:

            async def call() -> None:
                async with session.post(url, json=body) as answer:
                    json.loads(await answer.read())

            for count in rounds:
                await asyncio.gather(*(call() for _ in range(count)))

    asyncio.run(play())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--groups", type=int, default=64)
    parser.add_argument("--size", type=int, default=8, help="completions of a group")
    parser.add_argument("--latency", type=float, default=0.1, help="seconds that the server takes for a request")
    parser.add_argument("--at-once", type=int, default=64, help="requests that are allowed at once")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--model", help="a local model's folder; by default a small one with random weights")
    parser.add_argument("--local-groups", type=int, default=2)
    options = parser.parse_args()
    batch = groups_of(options.groups, options.size)
    load = os.getloadavg()[0]
    results: dict[str, float] = {}
    lines = []
    with judge_server(options.latency, chat=True) as port:
        server = {"model": "judge", "base_url": f"http://127.0.0.1:{port}/v1", "concurrency": options.at_once}
        composers = {scheme: composed(scheme, **server) for scheme in SCHEMES}
        sides = {scheme: lambda composer=composer: composer.compose(batch) for scheme, composer in composers.items()}
        for scheme in SCHEMES:
            rounds = rounds_of(scheme, options.size, options.groups)
            sides[f"{scheme}: bare"] = lambda rounds=rounds: bare_client(port, rounds, options.at_once)
        seconds = interleaved(sides, repeats=options.repeats)
        for scheme, composer in composers.items():
            since = time.process_time()
            composition = composer.compose(batch)
            processor = time.process_time() - since
            assert None not in composition.to_list(), composition.rewards["tournament"].reason(0)
            entries = composition.rewards["tournament"].entries
            calls = sum(entry.details.get("usage", {}).get("calls", 0) for entry in entries)
            rounds = rounds_of(scheme, options.size, options.groups)
            assert calls == sum(rounds), (scheme, calls, rounds)
            ideal = sum(options.latency * math.ceil(count / options.at_once) for count in rounds)
            median, least = statistics.median(seconds[scheme]), min(seconds[scheme])
            bare = statistics.median(seconds[f"{scheme}: bare"])
            results |= {
                f"{scheme}: calls": calls,
                f"{scheme}: ideal (s)": ideal,
                f"{scheme} (s)": median,
                f"{scheme}: over ideal": median / ideal,
                f"{scheme}: least over ideal": least / ideal,
                f"{scheme}: a bare client over ideal": bare / ideal,
                f"{scheme}: processor time of a call (ms)": 1e3 * processor / calls,
            }
            composer.close()
            lines.append(
                f"| {scheme} | {calls} | {ideal:.2f} | {median:.2f} | {median / ideal:.3f} | {least / ideal:.3f} "
                f"| {bare / ideal:.3f} | {1e3 * processor / calls:.2f} |"
            )
    parts = [
        (
            f"{options.groups} groups of {options.size} completions, a judge of {1e3 * options.latency:.0f} ms behind HTTP, "
            f"{options.at_once} requests at once, beside aiohttp alone with ready bodies; medians and least of {options.repeats} rounds, on "
            f"{os.cpu_count()} cores under a load of {load:.1f}: where that is far above 1, only the processor time tells:"
        ),
        "",
        "| scheme | calls | ideal (s) | s | over ideal | least | a bare client over ideal | processor time of a call (ms) |",
        "|---|---|---|---|---|---|---|---|",
        *lines,
    ]
    with tempfile.TemporaryDirectory() as folder:
        model = options.model or small_model(Path(folder) / "a-small-llama")
        local, table = with_a_local_model(model, options.local_groups, options.size, options.repeats)
    results |= local
    parts += ["", *table]
    save("tournament", results, "\n".join(parts))


def small_model(folder: Path) -> str:
    """A Llama of four small layers with random weights and made-up words, which costs what its tokens cost."""
    import torch
    from _words import word_tokenizer
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    shape = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 4}
    tokenizer = word_tokenizer(1000, roles=["user", "assistant", "1", "2", *"ABCDEFGH"])
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }} {{ m.content }} {% endfor %}assistant "
    tokenizer.save_pretrained(folder)
    LlamaForCausalLM(LlamaConfig(vocab_size=1000, max_position_embeddings=4096, **shape)).save_pretrained(folder)
    return str(folder)


def with_a_local_model(model: str, groups: int, size: int, repeats: int) -> tuple[dict[str, float], list[str]]:
    """Processor seconds of a list, of pairs that share their beginning, and of pairs each by itself."""
    batch = groups_of(groups, size)
    common = {"model": model, "device": "cpu", "dtype": "float32"}
    variants = {
        "one call about all, in two orders": composed("listwise", **common),
        "pairs in batches": composed("round_robin", **common),
        "pairs, each a call of its own": composed(
            "round_robin", **common, batch_size=1, backend_options={"share_prefix": False}
        ),
    }
    seconds = interleaved(
        {name: lambda composer=composer: composer.compose(batch) for name, composer in variants.items()},
        repeats=repeats,
        clock=time.process_time,
    )
    results, lines = {}, []
    alone = seconds["pairs, each a call of its own"]
    for name, own in seconds.items():
        variants[name].close()
        median, share = statistics.median(own), median_ratio(own, alone)
        results |= {f"local, {name}: processor time (s)": median, f"local, {name}: of single pairs": share}
        lines.append(f"| {name} | {median:.2f} | {share:.3f} |")
    head = f"{groups} groups of {size} completions, {Path(model).name} in this process; processor time, medians of {repeats} rounds:"
    return results, [head, "", "| | s | of single pairs |", "|---|---|---|", *lines]


if __name__ == "__main__":
    main()
