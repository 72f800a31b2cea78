"""Checkpoints: what is in them, and that training goes on as if it had not stopped."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from peft import LoraConfig, PeftModel  # noqa: E402
from safetensors import safe_open  # noqa: E402

from rlaif_sdk import Composer, reward  # noqa: E402
from rlaif_sdk.composer import Component  # noqa: E402
from rlaif_sdk.composer.normalizers import ZScore  # noqa: E402
from rlaif_sdk.exceptions import ConfigError, StateError, TrainingError  # noqa: E402
from rlaif_sdk.training.ppo import PPOConfig, PPOTrainer  # noqa: E402
from rlaif_sdk.training.ppo.checkpoint import fingerprint  # noqa: E402

Make = Callable[..., PPOTrainer]


@reward(name="words")
def words(completions: list[str]) -> list[float]:
    """Number of words."""
    return [float(len(text.split())) for text in completions]


def normalising_composer() -> Composer:
    return Composer({"words": Component(words, normalizer=ZScore())})


def losses(trainer: PPOTrainer) -> dict[int, float]:
    return {entry["step"]: entry["loss"] for entry in trainer.state.log_history if "loss" in entry}


@pytest.mark.parametrize(
    ("stop", "adapter"),
    [
        *[(2, False), (4, True)],
        *(pytest.param(*each, marks=pytest.mark.slow) for each in [(2, True), (4, False), (6, False), (6, True)]),
    ],
)
def test_resuming_at_a_rollout_boundary_gives_identical_losses(
    make_trainer: Make, make_llama: Any, tmp_path: Path, stop: int, adapter: bool
) -> None:
    """Weights, optimiser, random state, KL price, composer and sampling order all go on, in later epochs too."""
    settings: dict[str, Any] = {"max_steps": 8, "save_strategy": "steps", "save_steps": 2, "kl_target": 2.0}

    def trainer() -> PPOTrainer:
        peft_config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM") if adapter else None
        return make_trainer(make_llama(), normalising_composer(), peft_config=peft_config, **settings)

    through = trainer()
    through.train()
    resumed = trainer()
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / f"checkpoint-{stop}"))
    expected = losses(through)
    assert len(expected) == 8
    assert {step: loss for step, loss in losses(resumed).items() if step > stop} == {
        step: loss for step, loss in expected.items() if step > stop
    }
    assert resumed.composer.state_dict() == through.composer.state_dict()
    assert resumed.kl_controller == through.kl_controller


@pytest.mark.parametrize(
    ("settings", "saved"),
    [
        ({"save_steps": 1}, [2, 4, 6]),
        ({"save_steps": 3}, [4, 6]),
        ({"save_steps": 0.5}, [4, 6]),
        ({"save_steps": 1, "num_iterations": 3}, [6]),
        ({"save_steps": 3, "gradient_accumulation_steps": 2}, [3, 6]),
    ],
)
def test_checkpoints_are_made_between_rollouts(
    make_trainer: Make, llama: Any, tmp_path: Path, settings: dict[str, Any], saved: list[int]
) -> None:
    """A rollout is not saved, so the next whole one is waited for; the last step's is made in any case."""
    make_trainer(llama, max_steps=6, save_strategy="steps", **settings).train()
    assert sorted(int(folder.name.split("-")[1]) for folder in (tmp_path / "run").glob("checkpoint-*")) == saved


def test_a_checkpoint_from_within_a_rollout_is_not_resumed(make_trainer: Make, make_llama: Any, tmp_path: Path) -> None:
    """A run that ended there was whole; longer, it would sample the rollout again and learn from more than its share."""
    settings: dict[str, Any] = {"save_strategy": "steps", "save_steps": 2}
    make_trainer(make_llama(), max_steps=3, **settings).train()
    folder = str(tmp_path / "run" / "checkpoint-3")
    make_trainer(make_llama(), max_steps=3, **settings).train(resume_from_checkpoint=folder)
    with pytest.raises(
        TrainingError, match=r"(?s)step 3 was made after 1 of a rollout's 2 optimiser steps.*a multiple of 2"
    ):
        make_trainer(make_llama(), max_steps=8, **settings).train(resume_from_checkpoint=folder)
    longer = make_trainer(make_llama(), max_steps=8, **settings)
    longer.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    assert [entry["step"] for entry in longer.state.log_history if "reward" in entry] == [1, 3, 5, 7]


def test_the_best_model_is_looked_for_where_checkpoints_are() -> None:
    """An evaluation within a rollout has no checkpoint to go back to."""
    settings: dict[str, Any] = {"load_best_model_at_end": True, "eval_strategy": "steps", "save_strategy": "steps"}
    with pytest.raises(ConfigError, match=r"(?s)save_steps \(3\) falls inside of a rollout of 2"):
        PPOConfig("unused", use_cpu=True, report_to=[], save_steps=3, eval_steps=3, **settings)
    assert PPOConfig("unused", use_cpu=True, report_to=[], save_steps=4, eval_steps=2, **settings).save_steps == 4


def test_a_checkpoint_is_a_plain_model_and_its_extras(make_trainer: Make, model: Any, tmp_path: Path) -> None:
    """The policy loads by ``from_pretrained`` without missing or extra keys; head and state lie beside it."""
    normalised = normalising_composer()
    make_trainer(model, normalised, max_steps=2, save_strategy="steps", save_steps=2).train()
    folder = tmp_path / "run" / "checkpoint-2"
    _, info = type(model).from_pretrained(folder, output_loading_info=True)
    assert not info["unexpected_keys"]
    assert not info["missing_keys"]
    with safe_open(folder / "model.safetensors", "pt") as weights:
        assert not [name for name in weights.keys() if "value_head" in name]  # noqa: SIM118 - no mapping
    with safe_open(folder / "value_head.safetensors", "pt") as weights:
        assert sorted(weights.keys()) == ["linear.bias", "linear.weight"]
    state = json.loads((folder / "ppo_state.json").read_text())
    assert state["composer"] == json.loads(json.dumps(normalised.state_dict()))


def test_save_model_writes_a_policy_for_use(make_trainer: Make, model: Any, tmp_path: Path) -> None:
    """The final model, with its tokenizer, loads and generates."""
    trainer = make_trainer(model, max_steps=1)
    trainer.train()
    trainer.save_model(str(tmp_path / "final"))
    loaded = type(model).from_pretrained(tmp_path / "final")
    inputs = {"input_ids": torch.tensor([[6, 7, 8]])}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = torch.tensor([[0, 9, 10]])
    expected = trainer.model.eval()(**inputs).logits
    torch.testing.assert_close(loaded.eval()(**inputs).logits, expected)


def test_an_adapter_checkpoint_holds_the_adapter_alone(make_trainer: Make, make_llama: Any, tmp_path: Path) -> None:
    """With LoRA the base model is not written, and the adapter loads onto it."""
    peft_config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    trainer = make_trainer(make_llama(), peft_config=peft_config, max_steps=1)
    trainer.train()
    trainer.save_model(str(tmp_path / "adapter"))
    assert not (tmp_path / "adapter" / "model.safetensors").exists()
    with safe_open(tmp_path / "adapter" / "adapter_model.safetensors", "pt") as weights:
        assert all("lora_" in name for name in weights.keys())  # noqa: SIM118 - no mapping
    ids = torch.tensor([[6, 7, 8]])
    loaded = PeftModel.from_pretrained(make_llama(), tmp_path / "adapter").eval()
    torch.testing.assert_close(loaded(input_ids=ids).logits, trainer.model.eval()(input_ids=ids).logits)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "ppo_state.json").unlink(), "ppo_state.json is missing"),
        (lambda folder: (folder / "value_head.safetensors").unlink(), "value_head.safetensors is missing"),
        (lambda folder: (folder / "value_head.safetensors").write_bytes(b"torn"), "cannot be read"),
        (lambda folder: (folder / "ppo_state.json").write_text('{"format": 1'), "cannot be read"),
        (lambda folder: (folder / "ppo_state.json").write_text('{"format": 99}'), "format 99 where 3 is known"),
    ],
)
def test_a_damaged_checkpoint_is_refused(
    make_trainer: Make, make_llama: Any, tmp_path: Path, damage: Callable[[Path], Any], message: str
) -> None:
    """Training does not go on with a fresh head or forgotten statistics in silence."""
    settings: dict[str, Any] = {"save_strategy": "steps", "save_steps": 2}
    make_trainer(make_llama(), **settings).train()
    folder = tmp_path / "run" / "checkpoint-2"
    damage(folder)
    with pytest.raises(StateError, match=message):
        make_trainer(make_llama(), **settings).train(resume_from_checkpoint=str(folder))


def test_state_of_other_rewards_is_refused(make_trainer: Make, make_llama: Any, tmp_path: Path) -> None:
    """A checkpoint's statistics are not given to a composer of other rewards."""
    settings: dict[str, Any] = {"save_strategy": "steps", "save_steps": 2}
    make_trainer(make_llama(), normalising_composer(), **settings).train()
    with pytest.raises(StateError, match="of the rewards"):
        make_trainer(make_llama(), **settings).train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))


def test_a_composer_without_state_is_saved_as_such(make_trainer: Make, make_llama: Any, tmp_path: Path) -> None:
    """``state_dict`` is optional for an object of a composer's shape."""

    class Bare:
        def compose(self, batch: Any) -> Any:
            return normalising_composer().compose(batch)

    settings: dict[str, Any] = {"save_strategy": "steps", "save_steps": 2}
    make_trainer(make_llama(), Bare(), **settings).train()
    folder = tmp_path / "run" / "checkpoint-2"
    assert json.loads((folder / "ppo_state.json").read_text())["composer"] is None
    make_trainer(make_llama(), Bare(), **settings).train(resume_from_checkpoint=str(folder))


def shifted(model: Any) -> Any:
    """The same model after a step of training, say."""
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(1e-4)
    return model


def test_a_run_that_began_with_another_model_is_not_gone_on_with(
    make_trainer: Make, make_llama: Any, tmp_path: Path
) -> None:
    """The divergence would be measured from another reference, unannounced; so it is with the checkpoint as the model."""
    settings: dict[str, Any] = {"save_strategy": "steps", "save_steps": 2, "output_dir": str(tmp_path / "run")}
    make_trainer(make_llama(), max_steps=2, **settings).train()
    folder = tmp_path / "run" / "checkpoint-2"
    for other in (shifted(make_llama()), type(make_llama()).from_pretrained(folder), make_llama(num_hidden_layers=1)):
        with pytest.raises(StateError, match="began with another model, from which its divergence is measured"):
            make_trainer(other, max_steps=3, **settings)._load_from_checkpoint(str(folder))
    make_trainer(make_llama(), max_steps=3, **settings).train(resume_from_checkpoint=str(folder))
    alone = make_trainer(shifted(make_llama()), max_steps=3, kl_coef=0.0, **settings)
    alone.train(resume_from_checkpoint=str(folder))


def test_an_adapter_goes_on_over_the_model_that_it_began_on(
    make_trainer: Make, make_llama: Any, tmp_path: Path
) -> None:
    """Its own first weights are drawn anew, and are no part of the reference."""
    settings: dict[str, Any] = {"save_strategy": "steps", "save_steps": 2, "output_dir": str(tmp_path / "run")}
    lora = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    make_trainer(make_llama(), max_steps=2, peft_config=lora, **settings).train()
    folder = tmp_path / "run" / "checkpoint-2"
    torch.manual_seed(9)
    make_trainer(make_llama(), max_steps=3, peft_config=lora, **settings).train(resume_from_checkpoint=str(folder))
    with pytest.raises(StateError, match="began with another model"):
        make_trainer(shifted(make_llama()), max_steps=3, peft_config=lora, **settings)._load_from_checkpoint(
            str(folder)
        )


def test_a_fingerprint_reads_the_ends_of_tensors_of_any_size() -> None:
    """Beyond 2**24 numbers a place counted in float32 lay outside of the tensor."""
    large = torch.zeros(28_311_552, dtype=torch.bool)
    found = fingerprint([("weight", large)])
    large[-1] = True
    changed = fingerprint([("weight", large)])
    large[0] = True
    assert len({found, changed, fingerprint([("weight", large)])}) == 3
    assert fingerprint([("empty", torch.zeros(0))]) != fingerprint([("one", torch.zeros(1))])
