"""Trainers of TRL on a small Llama that is built from its config: nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
trl = pytest.importorskip("trl")

from datasets import Dataset  # noqa: E402
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast  # noqa: E402

from rlaif_sdk import Composer, Composition  # noqa: E402
from rlaif_sdk.composer import Component  # noqa: E402
from rlaif_sdk.composer.normalizers import ZScore  # noqa: E402
from tests.tiny_models import (  # noqa: E402
    WORDS,
    accept_renamed_checkpointing,
    quiet_and_single_threaded,  # noqa: F401 - a fixture
    tiny_llama,
    word_tokenizer,
)

TRAINERS = {"grpo": (trl.GRPOTrainer, trl.GRPOConfig), "rloo": (trl.RLOOTrainer, trl.RLOOConfig)}


def wanted_words(completions: list[str], wanted: list[str]) -> list[float]:
    """How often the wanted word of a row occurs."""
    return [float(text.split().count(word)) for text, word in zip(completions, wanted, strict=True)]


def length(completions: list[str]) -> list[float]:
    """How many words there are."""
    return [float(len(text.split())) for text in completions]


def build_tokenizer() -> PreTrainedTokenizerFast:
    return word_tokenizer()


def build_llama(**overrides: Any) -> LlamaForCausalLM:
    return tiny_llama(**{"vocab_size": 31, **overrides})


def build_prompts(rows: int = 16) -> Dataset:
    return Dataset.from_dict(
        {"prompt": [f"w{row} w{row + 1}" for row in range(rows)], "wanted": [WORDS[row] for row in range(rows)]}
    )


def build_trainer(
    kind: str,
    reward_funcs: Any,
    folder: Path,
    *,
    train_dataset: Any = None,
    eval_dataset: Any = None,
    model: Any = None,
    rollout_func: Any = None,
    **settings: Any,
) -> Any:
    """A trainer of TRL: two prompts of four completions a batch, settings of its config as keywords."""
    trainer, config = TRAINERS[kind]
    defaults = {
        "output_dir": str(folder / "run"),
        "per_device_train_batch_size": 8,
        "per_device_eval_batch_size": 8,
        "num_generations": 4,
        "max_completion_length": 6,
        "max_steps": 2,
        "logging_steps": 1,
        "save_strategy": "no",
        "learning_rate": 1e-3,
        "beta": 0.0,  # TRL loads the reference from a folder, and this model has none
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "bf16": False,
    }
    return trainer(
        model=model or build_llama(),
        reward_funcs=reward_funcs,
        args=config(**{**defaults, **settings}),
        train_dataset=build_prompts() if train_dataset is None else train_dataset,
        eval_dataset=eval_dataset,
        processing_class=build_tokenizer(),
        **({"rollout_func": rollout_func} if rollout_func else {}),
    )


@pytest.fixture
def make_trainer(tmp_path: Path) -> Callable[..., Any]:
    """`build_trainer` in the test's folder."""

    def make(kind: str, reward_funcs: Any, **settings: Any) -> Any:
        return build_trainer(kind, reward_funcs, tmp_path, **settings)

    return make


@pytest.fixture
def seen() -> list[Composition]:
    """The compositions that were made."""
    return []


@pytest.fixture
def composer(seen: list[Composition]) -> Composer:
    """Two rewards, one of which learns the scale of its scores."""
    rewards = {"wanted": wanted_words, "length": Component(length, weight=-0.1, normalizer=ZScore())}
    return Composer(rewards, observers=[seen.append])


@pytest.fixture(params=sorted(TRAINERS))
def kind(request: pytest.FixtureRequest) -> str:
    """Either trainer."""
    return str(request.param)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    accept_renamed_checkpointing(items, Path(__file__).parent)
