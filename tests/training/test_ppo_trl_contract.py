"""What the PPO trainer takes from TRL and transformers beyond their public interfaces.

When one of these fails after an upgrade, read the changed method and adapt the trainer before moving the pin.
"""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import pytest

trl = pytest.importorskip("trl")

from packaging.version import Version  # noqa: E402
from transformers import PreTrainedModel, Trainer  # noqa: E402
from trl.generation.vllm_generation import VLLMGeneration  # noqa: E402
from trl.models.utils import disable_gradient_checkpointing, prepare_deepspeed, prepare_fsdp  # noqa: E402
from trl.trainer.rloo_config import RLOOConfig  # noqa: E402
from trl.trainer.rloo_trainer import RLOOTrainer  # noqa: E402
from trl.trainer.utils import RepeatSampler, use_adapter  # noqa: E402

from rlaif_sdk.training.ppo import PPOConfig, PPOTrainer  # noqa: E402


def test_the_version_is_the_one_that_was_read() -> None:
    """The private methods below were read in this minor version."""
    assert Version(trl.__version__).release[:2] == (1, 16)


@pytest.mark.parametrize(
    ("function", "parameters"),
    [
        (RLOOTrainer._generate, ["self", "prompts"]),
        (RLOOTrainer._tokenize_prompts, ["self", "prompts"]),
        (RLOOTrainer._generate_single_turn, ["self", "prompt_ids", "images", "multimodal_fields"]),
        (RLOOTrainer._get_train_sampler, ["self", "dataset"]),
        (RLOOTrainer._prepare_inputs, ["self", "generation_batch"]),
        (RLOOTrainer.training_step, ["self", "model", "inputs", "num_items_in_batch"]),
        (RLOOTrainer.compute_loss, ["self", "model", "inputs", "return_outputs", "num_items_in_batch"]),
        (RLOOTrainer.prediction_step, ["self", "model", "inputs", "prediction_loss_only", "ignore_keys"]),
        (RLOOTrainer.log, ["self", "logs", "start_time"]),
        (Trainer.create_optimizer, ["self", "model"]),
        (Trainer.get_batch_samples, ["self", "epoch_iterator", "num_batches", "device"]),
        (VLLMGeneration.generate, ["self", "prompts", "images", "num_generations", "profiler"]),
        (VLLMGeneration.sync_weights, ["self"]),
        (Trainer._save, ["self", "output_dir", "state_dict"]),
        (Trainer._load_from_checkpoint, ["self", "resume_from_checkpoint", "model"]),
        (Trainer._load_best_model, ["self"]),
        (Trainer._load_optimizer_and_scheduler, ["self", "checkpoint"]),
        (use_adapter, ["model", "adapter_name"]),
        (prepare_fsdp, ["model", "accelerator"]),
        (prepare_deepspeed, ["model", "accelerator"]),
        (disable_gradient_checkpointing, ["model", "gradient_checkpointing_kwargs"]),
        (
            RepeatSampler.__init__,
            ["self", "data_source", "mini_repeat_count", "batch_size", "repeat_count", "shuffle", "seed"],
        ),
    ],
)
def test_signatures_are_as_they_were(function: Any, parameters: list[str]) -> None:
    """Each method that is called or replaced takes what it took."""
    assert list(inspect.signature(function).parameters) == parameters


def test_attributes_are_where_they_were(make_trainer: Any, llama: Any) -> None:
    """What the trainer reads of its base class, and of transformers' models, exists with the expected shape."""
    trainer: PPOTrainer = make_trainer(llama)
    assert trainer._step == 0
    assert trainer._is_vlm is False
    assert trainer.ref_model is not None
    assert trainer.eos_token_ids == [1]
    assert trainer._tokenizer.pad_token_id == 0
    assert (trainer.epsilon_low, trainer.epsilon_high) == (0.2, 0.2)
    assert trainer.loss_is_scaled_for_ga is False
    assert trainer.generation_config.to_dict()["top_k"] == 0
    assert set(trainer._metrics) == {"train", "eval"}
    assert {"prompt", "completion", "rewards", "advantages"} <= set(trainer._logs)
    assert "_keys_to_ignore_on_save" in vars(PreTrainedModel)


def test_generation_returns_ids_and_completions(make_trainer: Any, llama: Any) -> None:
    """Prompt ids, completion ids cut after the end token, and completions as the reward functions get them."""
    prompt_ids, completion_ids, completions = make_trainer(llama, temperature=3.0)._generate(["w1 w2", "w3"])
    assert prompt_ids == [[7, 8], [9]]
    assert all(1 not in ids[:-1] for ids in completion_ids)
    assert all(isinstance(text, str) for text in completions)


def test_the_config_leaves_nothing_out_that_rloo_s_derives() -> None:
    """RLOO's own checks are not run, since they refuse one generation a prompt; what they set is set here."""
    settings: dict[str, Any] = {
        "output_dir": "unused",
        "num_generations": 2,
        "num_generations_eval": 2,
        "use_cpu": True,
        "report_to": [],
        "bf16": False,
        "dataloader_pin_memory": False,
        "activation_checkpointing": False,
        "gradient_accumulation_steps": 2,
        "steps_per_generation": 2,
    }
    theirs, ours = RLOOConfig(**settings), PPOConfig(**settings)
    changed = {
        field.name
        for field in dataclasses.fields(RLOOConfig)
        if getattr(theirs, field.name) != getattr(ours, field.name)
    }
    assert changed - {"logging_dir"} == {
        "learning_rate",
        "adam_epsilon",
        "disable_dropout",
        "normalize_advantages",
        "beta",
    }
