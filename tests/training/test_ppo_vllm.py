"""PPO whose completions vLLM makes, with a stand-in for it: what it is sent and told, and what is refused.

The real one generates in ``test_ppo_with_vllm.py``.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from peft import LoraConfig  # noqa: E402
from transformers import AutoConfig  # noqa: E402
from trl.generation import vllm_generation  # noqa: E402
from trl.generation.vllm_generation import VLLMGeneration  # noqa: E402

from rlaif_sdk.exceptions import MissingExtraError, TrainingError  # noqa: E402
from rlaif_sdk.training.ppo import PPOTrainer  # noqa: E402
from rlaif_sdk.training.ppo.critic import SeparateCritic, ValueHead  # noqa: E402
from rlaif_sdk.training.ppo.sampling import SamplingMismatchWarning  # noqa: E402

Make = Callable[..., PPOTrainer]
Load = Callable[[str], Any]

SETTINGS: dict[str, Any] = {"use_vllm": True, "vllm_mode": "colocate"}


def by_rule(completions: list[str], **_: Any) -> list[float]:
    return [len(text) / 40 for text in completions]


def lora(model: Any) -> LoraConfig:
    return LoraConfig(r=4, target_modules="all-linear", fan_in_fan_out=model.config.model_type == "gpt2")


class EngineDouble(VLLMGeneration):
    """TRL's own walk over the weights, with a list in vLLM's place and the same answer to everything."""

    def _init_vllm(self) -> None:
        self.sent: list[str] = []
        runner = type("Runner", (), {})()
        runner.model = runner
        runner.load_weights = lambda weights: self.sent.extend(name for name, _ in weights)
        self.llm = runner
        runner.llm_engine = runner.model_executor = runner.driver_worker = runner
        runner.model_runner = runner
        runner.reset_prefix_cache = lambda: None

    def generate(self, prompts: Any, **_: Any) -> Any:
        return None, [[6, 7, 8, 1] for _ in prompts], None, None


class SayingDouble(EngineDouble):
    """Says log-probabilities that are further down by a constant, but for one token that it knows nothing of."""

    def generate(self, prompts: Any, **_: Any) -> Any:
        assert self.logprobs == 0, "those of the tokens drawn are asked for"
        _, completions, _, _ = super().generate(prompts)
        self.said = [[[-4.0], [-3.5], [None], [-5.0]] for _ in completions]
        return None, completions, self.said, None


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trl.trainer.rloo_trainer.VLLMGeneration", EngineDouble)
    monkeypatch.setattr(vllm_generation, "is_vllm_available", lambda: True)


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("adapter", [False, True])
@pytest.mark.parametrize("critic", ["shared", pytest.param("separate", marks=pytest.mark.slow)])
def test_vllm_gets_the_policy_s_weights_alone(make_trainer: Make, load_model: Load, critic: str, adapter: bool) -> None:
    """What TRL sends to vLLM is every weight of a plain model under its own name, and no critic."""
    model = load_model("llama")
    names = {name for name, _ in model.named_parameters()}
    trainer = make_trainer(
        model, by_rule, peft_config=lora(model) if adapter else None, critic=critic, kl_coef=0.1, **SETTINGS
    )
    trainer.train()
    assert set(trainer.vllm_generation.sent) == names
    assert len(trainer.vllm_generation.sent) == 2 * len(names), "once a rollout"
    assert isinstance(trainer.critic, ValueHead if critic == "shared" else SeparateCritic)
    first = next(entry for entry in trainer.state.log_history if "kl" in entry)
    assert first["kl"] == pytest.approx(0.0, abs=1e-4)
    assert json.dumps(first["completions/mean_length"]) == "4.0"


@pytest.mark.usefixtures("stand_in")
def test_what_an_adapter_is_on_stays_as_it_was_loaded(make_trainer: Make, load_model: Load) -> None:
    """Merging for a sync and taking out again rounds bfloat16 weights each time, and they would drift away."""
    model = load_model("llama").bfloat16()
    trainer = make_trainer(model, by_rule, peft_config=lora(model), learning_rate=1e-2, max_steps=6, **SETTINGS)
    frozen = {name: weight.clone() for name, weight in trainer.model.named_parameters() if ".base_layer." in name}
    trainer.train()
    assert len(trainer.vllm_generation.sent) > 0
    adapted = [weight for name, weight in trainer.model.named_parameters() if "lora_B" in name]
    assert any(weight.any() for weight in adapted)
    for name, weight in trainer.model.named_parameters():
        assert name not in frozen or torch.equal(weight, frozen[name]), name


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize(
    ("setting", "found"),
    [
        ({"top_p": 0.9}, "top_p=0.9"),
        ({"vllm_structured_outputs_regex": "w1+"}, "structured_outputs='w1.'"),
        ({"generation_kwargs": {"presence_penalty": 0.5}}, "presence_penalty=0.5"),
        ({"generation_kwargs": {"min_tokens": 4}}, "min_tokens=4"),
    ],
)
def test_what_bends_vllm_s_sampling_is_warned_of(
    make_trainer: Make, load_model: Load, setting: dict[str, Any], found: str
) -> None:
    """Be it among the trainer's settings or among those that go to vLLM alone."""
    with pytest.warns(SamplingMismatchWarning, match=found):
        make_trainer(load_model("llama"), **SETTINGS, **setting)


@pytest.mark.usefixtures("stand_in")
def test_the_model_s_own_generation_config_is_not_warned_of(make_trainer: Make, load_model: Load) -> None:
    """TRL gives all sampling settings to vLLM, so those in the model's folder have no part in it."""
    model = load_model("llama")
    model.generation_config.top_p = 0.8
    model.generation_config.repetition_penalty = 1.05
    with warnings.catch_warnings():
        warnings.simplefilter("error", SamplingMismatchWarning)
        make_trainer(model, **SETTINGS)


@pytest.mark.usefixtures("stand_in")
def test_where_completions_stop_is_the_user_s_to_say(make_trainer: Make, load_model: Load) -> None:
    """Without a word, at the trainer's end tokens; the settings given stay as they were."""
    plain = make_trainer(load_model("llama"), **SETTINGS)
    assert plain.vllm_generation.generation_kwargs == {"stop_token_ids": [1]}
    chosen = {"stop_token_ids": [9], "seed": 3}
    trainer = make_trainer(load_model("llama"), **SETTINGS, generation_kwargs=chosen)
    assert trainer.vllm_generation.generation_kwargs == {"stop_token_ids": [9], "seed": 3}
    assert chosen == {"stop_token_ids": [9], "seed": 3}


def test_a_missing_vllm_is_said_with_the_command(
    make_trainer: Make, load_model: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As any optional dependency is, before the model is looked at."""
    monkeypatch.setattr(vllm_generation, "is_vllm_available", lambda: False)
    for model in (load_model("llama"), "no/such/folder"):
        with pytest.raises(MissingExtraError, match="vLLM is not installed") as caught:
            make_trainer(model, **SETTINGS)
        assert 'pip install "rlaif-sdk[vllm]"' in str(caught.value)


@pytest.mark.usefixtures("stand_in")
def test_a_model_that_vllm_cannot_load_is_refused(make_trainer: Make, make_llama: Any) -> None:
    """One made in memory has no folder; a server has a copy of its own, so there it may train."""
    with pytest.raises(TrainingError, match="made in memory"):
        make_trainer(make_llama(), **SETTINGS)
    make_trainer(make_llama(), use_vllm=True, vllm_mode="server")


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("by_name", [False, True])
def test_encoder_decoders_are_refused_before_vllm_starts(
    make_trainer: Make, load_model: Load, monkeypatch: pytest.MonkeyPatch, by_name: bool
) -> None:
    """It would refuse them in its own words, after a while."""
    monkeypatch.setattr(EngineDouble, "_init_vllm", lambda _: pytest.fail("vLLM was started"))
    model = load_model("t5")
    with pytest.raises(TrainingError, match="use_vllm does not generate with encoder-decoder models"):
        make_trainer(model.name_or_path if by_name else model, **SETTINGS)


@pytest.mark.usefixtures("stand_in")
def test_a_config_is_read_from_where_the_model_is(make_trainer: Make, load_model: Load, tmp_path: Path) -> None:
    """As ``model_init_kwargs`` says: an encoder-decoder in a subfolder is found there, and refused."""
    load_model("t5")
    with pytest.raises(TrainingError, match="use_vllm does not generate with encoder-decoder models"):
        make_trainer(str(tmp_path), model_init_kwargs={"subfolder": "t5", "local_files_only": True}, **SETTINGS)


@pytest.mark.usefixtures("stand_in")
def test_a_config_is_read_with_the_same_rights_as_the_model(
    make_trainer: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A private model's token and the cache it lies in, and nothing that a config does not take."""
    asked: dict[str, Any] = {}

    def read(_: str, **settings: Any) -> Any:
        asked.update(settings)
        return SimpleNamespace(is_encoder_decoder=True)

    monkeypatch.setattr(AutoConfig, "from_pretrained", read)
    where = {"token": "t", "cache_dir": "c", "revision": "r"}
    with pytest.raises(TrainingError, match="encoder-decoder"):
        make_trainer("some/model", model_init_kwargs={**where, "dtype": "bfloat16"}, **SETTINGS)
    assert asked == where


def test_the_loss_is_weighed_by_what_vllm_says_of_its_tokens(
    make_trainer: Make, load_model: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each token's weight is how much likelier it is to the policy; one of which vLLM says nothing has the weight 1."""
    monkeypatch.setattr("trl.trainer.rloo_trainer.VLLMGeneration", SayingDouble)
    monkeypatch.setattr(vllm_generation, "is_vllm_available", lambda: True)
    trainer = make_trainer(load_model("llama"), by_rule, max_steps=2, vllm_importance_sampling_clip_max=2.0, **SETTINGS)
    collect, rollouts = trainer._collect, []
    trainer._collect = lambda rows: rollouts.append(collect(rows)) or rollouts[-1]
    trainer.train()
    old_BT, drawn_BT = rollouts[0].old_logprobs_BT, rollouts[0].drawn_logprobs_BT
    assert drawn_BT[0].tolist() == [-4.0, -3.5, old_BT[0, 2].item(), -5.0]
    first, second, *_ = trainer.state.log_history
    apart_BT = old_BT - drawn_BT
    assert first["sampling/sampling_logp_difference/mean"] == pytest.approx(apart_BT.abs().mean().item(), rel=1e-4)
    ratio = "sampling/importance_sampling_ratio/mean"
    weights = apart_BT.exp().clamp(max=2.0)
    assert (first[ratio] + second[ratio]) / 2 == pytest.approx(weights.mean().item(), rel=1e-4), (
        "of the steps' minibatches"
    )
    assert apart_BT.exp().max() > 2.0, "one is cut off"


def test_without_the_correction_vllm_is_not_asked(
    make_trainer: Make, load_model: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Log-probabilities cost vLLM time; nothing is logged of them."""
    monkeypatch.setattr("trl.trainer.rloo_trainer.VLLMGeneration", EngineDouble)
    monkeypatch.setattr(vllm_generation, "is_vllm_available", lambda: True)
    trainer = make_trainer(
        load_model("llama"), by_rule, max_steps=1, vllm_importance_sampling_correction=False, **SETTINGS
    )
    trainer.train()
    assert trainer.vllm_generation.logprobs is None
    assert not any(name.startswith("sampling/") for entry in trainer.state.log_history for name in entry)
