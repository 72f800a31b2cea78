"""A critic with weights of its own: where it starts, what trains it, what is saved of it, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from peft import LoraConfig  # noqa: E402
from safetensors import safe_open  # noqa: E402
from transformers import AutoModel, AutoModelForSequenceClassification, LlamaForSequenceClassification  # noqa: E402

from rlaif_sdk.exceptions import ConfigError, StateError, TrainingError  # noqa: E402
from rlaif_sdk.training.ppo import PPOConfig, PPOTrainer  # noqa: E402
from rlaif_sdk.training.ppo.critic import SeparateCritic  # noqa: E402
from rlaif_sdk.training.ppo.rollout import Tokens  # noqa: E402

Make = Callable[..., PPOTrainer]

TOKENS = Tokens.padded([[6, 7, 8, 9, 10], [11]], [[15, 16], [17, 18, 19, 20, 1]], pad_id=0)


def by_rule(completions: list[str], **_: Any) -> list[float]:
    return [len(text) / 40 for text in completions]


def lora(model: Any) -> LoraConfig:
    return LoraConfig(r=4, target_modules="all-linear", fan_in_fan_out=model.config.model_type == "gpt2")


def losses(trainer: PPOTrainer) -> dict[int, float]:
    return {entry["step"]: entry["loss"] for entry in trainer.state.log_history if "loss" in entry}


def parameters(module: Any) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


@pytest.mark.parametrize("adapter", [False, True])
def test_it_starts_as_the_policy_and_says_zero(make_trainer: Make, model: Any, adapter: bool) -> None:
    """Under a head of some weights, both kinds of critic value every token alike before training."""
    shared = make_trainer(model, peft_config=lora(model) if adapter else None)
    assert not shared._score(shared.model, TOKENS).values_BT.any()
    head = {name: torch.randn_like(parameter) for name, parameter in shared.value_head.named_parameters()}
    shared.value_head.load_state_dict(head)
    expected = shared._score(shared.model, TOKENS)
    delattr(shared._policy, "value_head")
    policy = shared.model.unload() if adapter else model

    separate = make_trainer(policy, peft_config=lora(model) if adapter else None, critic="separate")
    assert not separate._score(separate.model, TOKENS).values_BT.any()
    separate.value_head.load_state_dict(head)
    for one, other in zip(separate._score(separate.model, TOKENS), expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_it_holds_no_language_model_head(make_trainer: Make, build_model: Any) -> None:
    """It is the transformer alone, and shares no memory with the policy."""
    for kind in ("llama", "gpt2", "t5", "bart"):
        model = build_model(kind)
        bare = AutoModel.from_config(model.config)
        trainer = make_trainer(model, critic="separate")
        critic = trainer.critic
        assert isinstance(critic, SeparateCritic)
        assert type(critic.backbone) is type(bare)
        assert sum(p.numel() for p in critic.backbone.parameters()) == sum(p.numel() for p in bare.parameters())
        own = {p.data_ptr() for p in critic.parameters()}
        assert not own & {p.data_ptr() for name, p in model.named_parameters() if not name.startswith("critic.")}


def test_the_value_loss_leaves_the_policy_alone(make_trainer: Make, build_model: Any) -> None:
    """However much the value loss weighs, the policy makes the same step; with a shared critic it does not."""
    for critic, alike in (("separate", True), ("shared", False)):
        policies = []
        for weight in (0.1, 10.0):
            model = build_model("llama")
            settings: dict[str, Any] = {"critic": critic, "value_loss_coef": weight, "max_grad_norm": 0.0}
            trainer = make_trainer(model, by_rule, optim="sgd", steps_per_generation=1, max_steps=1, **settings)
            with torch.no_grad():
                trainer.value_head.linear.weight.fill_(0.1)
            trainer.train()
            policies.append({k: v for k, v in parameters(model).items() if not k.startswith(("critic.", "value_"))})
        equal = all(torch.equal(a, b) for a, b in zip(*(p.values() for p in policies), strict=True))
        assert equal is alike


def test_policy_critic_and_head_train_each_at_its_rate(make_trainer: Make, model: Any) -> None:
    """In three parameter groups of one optimiser; all weights of the critic move."""
    rates: dict[str, Any] = {"learning_rate": 1e-4, "critic_learning_rate": 2e-4, "value_learning_rate": 1e-2}
    trainer = make_trainer(model, by_rule, critic="separate", lr_scheduler_type="constant", **rates)
    with torch.no_grad():
        trainer.value_head.linear.weight.normal_()
    before = parameters(trainer.critic)
    trainer.train()
    rate_of = {id(p): group["lr"] for group in trainer.optimizer.param_groups for p in group["params"]}
    assert sum(len(group["params"]) for group in trainer.optimizer.param_groups) == len(rate_of)
    for name, parameter in model.named_parameters():
        expected = 1e-4
        if name.startswith("critic."):
            expected = 1e-2 if ".value_head." in name else 2e-4
        assert rate_of[id(parameter)] == expected, name
    assert not [name for name, old in before.items() if torch.equal(old, dict(trainer.critic.named_parameters())[name])]


def test_with_lora_the_critic_trains_whole_and_in_float32(make_trainer: Make, build_model: Any) -> None:
    """The policy's own weights stay, in the type that they have; the critic beside it has no adapter."""
    model = build_model("llama").to(torch.bfloat16)
    trainer = make_trainer(model, by_rule, critic="separate", peft_config=lora(model), kl_coef=0.1)
    assert trainer.ref_model is None
    assert {p.dtype for p in trainer.critic.parameters()} == {torch.float32}
    assert not [name for name, _ in trainer.critic.named_parameters() if "lora" in name]
    before = parameters(trainer.model)
    trainer.train()
    moved = {name for name, p in trainer.model.named_parameters() if not torch.equal(p, before[name])}
    assert {name for name in moved if "lora_" not in name} == {name for name in before if ".critic." in name}
    assert trainer.state.log_history[0]["kl"] == pytest.approx(0.0, abs=1e-3)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_lora_critic_trains_an_adapter_on_the_policy_s_own_weights(
    make_trainer: Make, build_model: Any, kind: str
) -> None:
    """It starts where the policy does, holds nothing twice, trains apart from it, and moves no frozen weight."""
    model = build_model(kind).to(torch.bfloat16)
    trainer = make_trainer(model, by_rule, critic="lora", peft_config=lora(model), critic_learning_rate=1e-2)
    of_policy = {p.data_ptr() for name, p in trainer.model.named_parameters() if ".critic." not in name}
    own = {name: p for name, p in trainer.critic.named_parameters() if p.data_ptr() not in of_policy}
    assert all("lora_" in name or "value_head" in name for name in own)
    assert {p.dtype for p in own.values()} == {torch.float32}
    before = parameters(trainer.model)
    with torch.no_grad():
        trainer.value_head.linear.weight.normal_()
    trainer.train()
    now = dict(trainer.model.named_parameters())
    moved = {name for name in before if not torch.equal(before[name], now[name])}
    assert all("lora_" in name or "value_head" in name for name in moved)
    assert any(".critic." in name and "lora_B" in name for name in moved)
    assert any(".critic." not in name and "lora_B" in name for name in moved)
    rate_of = {id(p): group["initial_lr"] for group in trainer.optimizer.param_groups for p in group["params"]}
    assert {rate_of[id(p)] for name, p in own.items() if "lora_" in name} == {1e-2}


def test_a_lora_critic_says_what_one_with_the_policy_s_weights_says(make_trainer: Make, make_llama: Any) -> None:
    """An adapter that has learnt nothing changes nothing; and one that has changes values, not the policy."""
    found = []
    for critic in ("separate", "lora"):
        trainer = make_trainer(make_llama(), by_rule, critic=critic, peft_config=lora(make_llama()))
        torch.manual_seed(1)
        with torch.no_grad():
            trainer.value_head.linear.weight.normal_()
        found.append(trainer._score(trainer.model, TOKENS))
    torch.testing.assert_close(*found, atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        for name, weight in trainer.critic.named_parameters():
            if "lora_B" in name:
                weight.normal_()
    after = trainer._score(trainer.model, TOKENS)
    assert torch.equal(after.logprobs_BT, found[1].logprobs_BT)
    assert not torch.allclose(after.values_BT, found[1].values_BT, atol=1e-3)


def test_a_lora_critic_needs_a_policy_with_an_adapter(make_trainer: Make, build_model: Any) -> None:
    """Without one there are no weights that both could leave as they are; T5 has no transformer apart from its head."""
    with pytest.raises(TrainingError, match="needs a policy with LoRA"):
        make_trainer(build_model("llama"), critic="lora")
    with pytest.raises(TrainingError, match="no transformer to adapt"):
        make_trainer(build_model("t5"), critic="lora", peft_config=lora(build_model("t5")))


@pytest.mark.parametrize(
    ("kind", "critic", "adapter"),
    [("llama", "separate", False), ("t5", "separate", False), ("llama", "separate", True), ("llama", "lora", True)],
)
def test_a_checkpoint_keeps_it_apart_and_resumes_bit_for_bit(
    make_trainer: Make, build_model: Any, tmp_path: Path, kind: str, critic: str, adapter: bool
) -> None:
    """The policy's files are a plain model's; the critic lies beside them, each tied weight once."""
    settings: dict[str, Any] = {"max_steps": 6, "save_strategy": "steps", "save_steps": 2, "critic": critic}

    def trainer() -> PPOTrainer:
        model = build_model(kind)
        return make_trainer(model, by_rule, peft_config=lora(model) if adapter else None, **settings)

    through = trainer()
    through.train()
    folder = tmp_path / "run" / "checkpoint-4"
    with safe_open(folder / "critic.safetensors", "pt") as weights:
        assert set(weights.keys()) == {name for name, p in through.critic.named_parameters() if p.requires_grad}
    if adapter:
        with safe_open(folder / "adapter_model.safetensors", "pt") as weights:
            assert not [name for name in weights.keys() if "critic" in name]  # noqa: SIM118 - no mapping
    else:
        _, info = type(build_model(kind)).from_pretrained(folder, output_loading_info=True)
        assert not info["unexpected_keys"]
        assert not info["missing_keys"]
    resumed = trainer()
    resumed.train(resume_from_checkpoint=str(folder))
    assert {step: loss for step, loss in losses(resumed).items() if step > 4} == {
        step: loss for step, loss in losses(through).items() if step > 4
    }
    for one, other in zip(through.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_checkpoint_of_the_other_kind_is_refused(make_trainer: Make, make_llama: Any, tmp_path: Path) -> None:
    """A run with a value head does not go on with a critic of its own, nor with one of another size."""
    settings: dict[str, Any] = {"save_strategy": "steps", "save_steps": 2, "max_steps": 2}
    make_trainer(make_llama(), **settings).train()
    folder = tmp_path / "run" / "checkpoint-2"
    with pytest.raises(StateError, match=r"critic\.safetensors is missing"):
        make_trainer(make_llama(), critic="separate", **settings).train(resume_from_checkpoint=str(folder))
    (folder / "value_head.safetensors").rename(folder / "critic.safetensors")
    with pytest.raises(StateError, match=r"critic\.safetensors does not fit the model"):
        make_trainer(make_llama(), critic="separate", **settings).train(resume_from_checkpoint=str(folder))


def test_it_can_start_from_a_reward_model(make_trainer: Make, make_llama: Any, tmp_path: Path) -> None:
    """Its transformer is taken and its scores' layer left; a critic may be smaller than the policy."""
    config = make_llama(num_hidden_layers=1, hidden_size=16, intermediate_size=32).config
    config.num_labels = 1
    reward_model = LlamaForSequenceClassification(config)
    reward_model.save_pretrained(tmp_path / "rewards")
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path / "rewards")
    trainer = make_trainer(make_llama(), by_rule, critic="separate", critic_model=str(tmp_path / "rewards"))
    loaded = dict(trainer.critic.backbone.named_parameters())
    for name, parameter in reward_model.model.named_parameters():
        assert torch.equal(loaded[name], parameter)
    trainer.train()
    assert trainer.value_head.linear.weight.shape == (1, 16)


def test_a_critic_that_cannot_judge_the_policy_is_refused(make_trainer: Make, build_model: Any, tmp_path: Path) -> None:
    """One of another kind, one of another vocabulary, one that is not there: each is named with what to do."""
    for name, model, message in (
        ("kind", build_model("t5"), "the critic is an encoder-decoder model and the policy a decoder"),
        ("vocabulary", build_model("llama", vocab_size=40), "a vocabulary of 40 tokens and the policy one of 34"),
        ("absent", None, "'.*absent' cannot be loaded"),
    ):
        if model is not None:
            model.save_pretrained(tmp_path / name)
        with pytest.raises(TrainingError, match=message):
            make_trainer(build_model("llama"), critic="separate", critic_model=str(tmp_path / name))


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"critic": "both"}, "critic"),
        ({"critic_model": "folder"}, "critic_model"),
        ({"critic_learning_rate": 1e-5}, "critic_learning_rate"),
        ({"critic": "separate", "critic_learning_rate": -1.0}, "critic_learning_rate"),
        ({"critic": "lora", "critic_model": "folder"}, "critic_model"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], key: str) -> None:
    """A separate critic's settings without one would be passed over in silence."""
    with pytest.raises(ConfigError) as caught:
        PPOConfig("unused", use_cpu=True, report_to=[], **settings)
    assert caught.value.key == key
