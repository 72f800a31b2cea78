"""TRL's trainers learn from a composer: a small Llama finds out which words are wanted, and to be brief."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from contextlib import closing
from statistics import fmean
from typing import Any

import pytest

pytest.importorskip("trl")

from datasets import Dataset

from rlaif_sdk import Composer
from rlaif_sdk.composer import Component
from tests.integrations.conftest import build_llama
from tests.judges.conftest import JudgeServer, letters

LENGTH = 16
WANTED = {f"w{index}" for index in range(7)}


def wanted_words(completions: list[str]) -> list[float]:
    return [sum(word in WANTED for word in text.split()) / LENGTH for text in completions]


def words(completions: list[str]) -> list[float]:
    return [float(len(text.split())) for text in completions]


@pytest.mark.slow
def test_a_small_llama_learns_which_words_are_wanted(
    make_trainer: Callable[..., Any], kind: str, record_property: Any
) -> None:
    """In 80 batches of 64 completions, from random words to near the best possible total of 0.84."""
    composer = Composer({"wanted": wanted_words, "words": Component(words, weight=-0.01)})
    trainer = make_trainer(
        kind,
        composer.for_trl(),
        model=build_llama(hidden_size=64, intermediate_size=128),
        train_dataset=Dataset.from_dict({"prompt": [f"w{row % 28} w{row * 5 % 28}" for row in range(256)]}),
        per_device_train_batch_size=64,
        num_generations=8,
        max_completion_length=LENGTH,
        max_steps=80,
        learning_rate=1e-2,
        lr_scheduler_type="constant",
    )
    trainer.train()
    rewards = [entry["reward"] for entry in trainer.state.log_history if "reward" in entry]
    record_property("rewards", {steps: fmean(rewards[steps - 3 : steps]) for steps in (20, 40, 80)})
    assert rewards[0] < 0.15
    assert fmean(rewards[-3:]) > 0.7


SHOWN = re.compile(r"<response_([A-Z])>\n(.*?)\n</response_\1>", re.DOTALL)


def likes_wanted_words(_: int, asked: dict[str, Any]) -> Any:
    """Names the response with the most wanted words as the best, with a doubt."""
    wanted = {label: LENGTH * wanted_words([text])[0] for label, text in SHOWN.findall(asked["messages"][0]["content"])}
    total = sum(map(math.exp, wanted.values()))
    return 200, {}, letters({label: count - math.log(total) for label, count in wanted.items()})


@pytest.mark.slow
def test_places_in_a_group_are_enough_to_learn_from(make_trainer: Callable[..., Any], record_property: Any) -> None:
    """GRPO with the reward ``tournament`` alone: the judge never says how good an answer is, only which is better."""
    seen: list[float] = []
    with closing(JudgeServer()) as server:
        server.answer = likes_wanted_words
        params = {"model": "judge", "base_url": server.url, "scheme": "listwise"}
        with Composer.from_config({"rewards": {"tournament": {"params": params}}}) as composer:
            composer.observers = (lambda composition: seen.append(fmean(wanted_words(composition.batch.completions))),)
            trainer = make_trainer(
                "grpo",
                composer.for_trl(),
                model=build_llama(hidden_size=64, intermediate_size=128),
                train_dataset=Dataset.from_dict({"prompt": [f"w{row % 28} w{row * 5 % 28}" for row in range(256)]}),
                per_device_train_batch_size=64,
                num_generations=8,
                max_completion_length=LENGTH,
                max_steps=40,
                learning_rate=1e-2,
                lr_scheduler_type="constant",
            )
            trainer.train()
    record_property("wanted", {steps: fmean(seen[steps - 3 : steps]) for steps in (10, 20, 40)})
    assert seen[0] < 0.3
    assert fmean(seen[-3:]) > 0.6
