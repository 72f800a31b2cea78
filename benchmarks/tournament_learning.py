"""GRPO with the rewards ``tournament`` and ``rubric`` beside GRPO with ``judge``, of one simulated judge behind HTTP.

A small Llama with random weights is paid for wanted words. The judge sees how many there are through a haze: each time it
reads an answer it is off by a standard deviation of 0.1 of the share. Asked about one answer it gives whole points from 1 to 10;
asked about several it says how likely each is the best; asked about a criterion, whether so many are wanted, it says yes or no.
It is no language model: the curves show that places alone teach, and verdicts alone, and what each costs.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import re
import statistics
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}

import torch
from _report import save
from ppo_learning import LENGTH, ROLLOUT, WANTED, grpo_trainer

from rlaif_sdk import Composer

HAZE, DOUBT = 0.1, 0.05
_ANSWERS = re.compile(r"<(answer|response_\w)>\n(.*?)\n</\1>", re.DOTALL)
_CRITERION = re.compile(r"Criterion: At least (\d+) of 100")
REWARDS: dict[str, tuple[str, dict[str, Any]]] = {
    "judge": ("judge", {}),
    "tournament, listwise": ("tournament", {"scheme": "listwise"}),
    "tournament, anchor": ("tournament", {"scheme": "anchor"}),
    "rubric": (
        "rubric",
        {"criteria": [f"At least {least} of 100 words are wanted." for least in (10, 25, 50, 75, 100)]},
    ),
}


def share_of_wanted(text: str) -> float:
    """What the judge means to see."""
    return sum(word in WANTED for word in text.split()) / LENGTH


def verdict(question: str) -> dict[str, float]:
    """The probability of each label."""
    draw = random.Random(question)
    seen = {tag: share_of_wanted(text) + draw.gauss(0, HAZE) for tag, text in _ANSWERS.findall(question)}
    if asked := _CRITERION.search(question):
        return {"AB"[seen["answer"] >= int(asked[1]) / 100]: 1.0}
    if "answer" in seen:
        return {"ABCDEFGHIJ"[round(9 * min(1, max(0, seen["answer"])))]: 1.0}
    weights = {tag.removeprefix("response_"): math.exp(value / DOUBT) for tag, value in seen.items()}
    return {label: weight / sum(weights.values()) for label, weight in weights.items()}


@contextmanager
def simulated_judge() -> Iterator[tuple[str, list[int]]]:
    """The address of the judge, and a list that grows by an entry a call."""
    calls: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            calls.append(1)
            found = verdict(asked["messages"][0]["content"])
            top = [{"token": label, "logprob": math.log(max(chance, 1e-12))} for label, chance in found.items()]
            message = {"role": "assistant", "content": top[0]["token"]}
            choice = {"index": 0, "message": message, "logprobs": {"content": [{**top[0], "top_logprobs": top}]}}
            body = json.dumps({"choices": [choice]}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1", calls
    server.shutdown()
    server.server_close()


def run(name: str, seed: int, rollouts: int) -> tuple[list[float], int, float]:
    """The share of wanted words by rollout, the calls of the judge, and the processor seconds."""
    use, params = REWARDS[name]
    shares: list[float] = []
    with simulated_judge() as (url, calls), tempfile.TemporaryDirectory() as folder:
        reward = {"use": use, "params": {"model": "judge", "base_url": url, **params}}
        with Composer.from_config({"rewards": {"judged": reward}}) as composer:
            composer.observers = (
                lambda made: shares.append(statistics.mean(map(share_of_wanted, made.batch.completion_texts))),
            )
            trainer = grpo_trainer(composer.for_trl(), seed, rollouts, folder)
            since = time.process_time()
            trainer.train()
        return shares, len(calls), time.process_time() - since


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--rollouts", type=int, default=40)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", FutureWarning)
    at = [rollout for rollout in (5, 10, 20, 40) if rollout <= options.rollouts]
    results: dict[str, Any] = {}
    lines = []
    for name in REWARDS:
        runs = [run(name, seed, options.rollouts) for seed in options.seeds]
        means = [
            statistics.mean(statistics.mean(shares[rollout - 3 : rollout]) for shares, _, _ in runs) for rollout in at
        ]
        calls = statistics.mean(calls for _, calls, _ in runs) / options.rollouts
        results[name] = {"share of wanted words": dict(zip(at, means, strict=True)), "calls a rollout": calls}
        lines.append(f"| {name} | {' | '.join(f'{mean:.3f}' for mean in means)} | {calls:.0f} |")
    table = "\n".join(
        [
            (
                f"Share of wanted words in the three rollouts up to a rollout (of {ROLLOUT} completions in groups of 8), over "
                f"seeds {', '.join(map(str, options.seeds))}, by GRPO at one learning rate; a simulated judge:"
            ),
            "",
            f"| reward | {' | '.join(f'at {rollout}' for rollout in at)} | calls a rollout |",
            f"|---{'|---' * len(at)}|---|",
            *lines,
        ]
    )
    save("tournament_learning", results, table)


if __name__ == "__main__":
    main()
