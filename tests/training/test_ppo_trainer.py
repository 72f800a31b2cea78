"""How the trainer is set up: optimisers, warnings, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from datasets import Dataset  # noqa: E402

from rlaif_sdk.exceptions import TrainingError  # noqa: E402
from rlaif_sdk.training.ppo import PPOTrainer, SamplingMismatchWarning  # noqa: E402
from tests.training.ppo_runs import by_rule, lora  # noqa: E402

Make = Callable[..., PPOTrainer]


def test_the_value_head_has_its_own_learning_rate(make_trainer: Make, llama: Any) -> None:
    """Once, in a parameter group of its own, also after a second call of ``train``."""
    trainer = make_trainer(llama, learning_rate=1e-4, value_learning_rate=5e-2, lr_scheduler_type="constant")
    trainer.train()
    trainer.train()
    groups = trainer.optimizer.param_groups
    (head,) = [group for group in groups if any(p is trainer.value_head.linear.weight for p in group["params"])]
    assert head["lr"] == 5e-2
    assert {group["lr"] for group in groups if group is not head} == {1e-4}
    assert trainer.value_head.linear.weight.any()


def test_sampling_that_is_not_scored_is_warned_of(make_trainer: Make, llama: Any) -> None:
    """From the trainer's own settings, and from what a model's generation config brings along."""
    with pytest.warns(SamplingMismatchWarning, match="top_p=0.9"):
        make_trainer(llama, top_p=0.9)
    llama.generation_config.no_repeat_ngram_size = 3
    with pytest.warns(SamplingMismatchWarning, match="no_repeat_ngram_size=3"):
        make_trainer(llama)


def test_training_weights_too_coarse_for_its_steps_is_warned_of(make_trainer: Make, make_llama: Any) -> None:
    """A whole model in bfloat16 hardly moves; an adapter on one trains in float32, and nothing is said of it."""
    coarse = make_llama().to(torch.bfloat16)
    with pytest.warns(UserWarning, match="trained in bfloat16, in which steps of 3e-06"):
        make_trainer(coarse, learning_rate=3e-6)
    make_trainer(make_llama().to(torch.bfloat16), peft_config=lora(coarse))


def test_an_optimizer_of_one_s_own_gets_the_value_head(make_trainer: Make, llama: Any, prompts: Dataset) -> None:
    """The head is one parameter group more; a scheduler, which has fixed its groups already, is refused."""
    optimizer = torch.optim.SGD(llama.parameters(), lr=0.5)
    arguments = {
        "args": make_trainer(llama, lr_scheduler_type="constant").args,
        "train_dataset": prompts,
        "processing_class": make_trainer(llama).processing_class,
    }
    trainer = PPOTrainer(llama, by_rule, optimizers=(optimizer, None), **arguments)
    trainer.train()
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 1e-3]
    scheduler = torch.optim.lr_scheduler.ConstantLR(torch.optim.SGD(llama.parameters(), lr=0.5))
    with pytest.raises(TrainingError, match="lr_scheduler_type"):
        PPOTrainer(llama, by_rule, optimizers=(optimizer, scheduler), **arguments)


def test_a_tokenizer_without_padding_is_refused(make_trainer: Make, llama: Any, tokenizer: Any) -> None:
    """Before anything is sampled, and with what to set."""
    tokenizer.pad_token = tokenizer.eos_token = None
    with pytest.raises(TrainingError, match="pad_token"):
        make_trainer(llama)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_one_gpu_trains(make_trainer: Make, llama: Any) -> None:
    """On a GPU with bfloat16 autocast the ratio still starts near 1 and the divergence near 0."""
    trainer = make_trainer(llama, use_cpu=False, kl_coef=0.1)
    trainer.train()
    first = trainer.state.log_history[0]
    assert first["ratio"] == pytest.approx(1.0, abs=0.05)
    assert first["kl"] == pytest.approx(0.0, abs=0.1)
    assert trainer.value_head.linear.weight.is_cuda
