"""Proximal policy optimisation of language models, with any composer as the reward.

The arithmetic is in small pure modules (`gae`, `losses`, `kl`, `masked`, `logprobs`), which need torch alone; the
trainer joins it to generation, logging, PEFT and checkpoints as TRL's online trainers have them::

    trainer = PPOTrainer(model, composer, args=PPOConfig("out"), train_dataset=prompts, processing_class=tokenizer)
    trainer.train()
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from rlaif_sdk.exceptions import MissingExtraError

if TYPE_CHECKING:
    from rlaif_sdk.training.ppo.config import PPOConfig
    from rlaif_sdk.training.ppo.sampling import SamplingMismatchWarning
    from rlaif_sdk.training.ppo.trainer import PPOTrainer

__all__ = ["PPOConfig", "PPOTrainer", "SamplingMismatchWarning"]

_HOME_OF = {"PPOConfig": "config", "PPOTrainer": "trainer", "SamplingMismatchWarning": "sampling"}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = import_module(f"{__name__}.{_HOME_OF[name]}")
    except ModuleNotFoundError as error:
        if error.name and error.name.partition(".")[0] in {"torch", "transformers", "trl", "accelerate", "datasets"}:
            raise MissingExtraError(error.name, extra="train") from error
        raise
    value = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
