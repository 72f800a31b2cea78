"""Proximal policy optimisation of language models, with any composer as the reward.

The arithmetic is in small pure modules (`advantages`, `losses`, `kl`, `masked`, `logprobs`), which need torch alone; the
trainer joins it to generation, logging, PEFT and checkpoints as TRL's online trainers have them::

    trainer = PPOTrainer(model, composer, args=PPOConfig("out"), train_dataset=prompts, processing_class=tokenizer)
    trainer.train()
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rlaif_sdk.exceptions import needs_extra
from rlaif_sdk.io.lazy_names import lazy_names

if TYPE_CHECKING:
    from rlaif_sdk.training.ppo.config import PPOConfig
    from rlaif_sdk.training.ppo.sampling import SamplingMismatchWarning
    from rlaif_sdk.training.ppo.trainer import PPOTrainer
else:
    _get, __dir__ = lazy_names(
        __name__,
        {"config": ("PPOConfig",), "sampling": ("SamplingMismatchWarning",), "trainer": ("PPOTrainer",)},
    )

    def __getattr__(name: str) -> Any:
        with needs_extra("train"):
            return _get(name)


__all__ = ["PPOConfig", "PPOTrainer", "SamplingMismatchWarning"]
