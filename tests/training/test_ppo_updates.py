"""The optimiser's steps: minibatches, losses, accumulation, recomputation."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from transformers.modeling_layers import GradientCheckpointingLayer  # noqa: E402

from rlaif_sdk.training.ppo import PPOTrainer  # noqa: E402
from tests.training.ppo_runs import Recorder, by_length, lora, state_of  # noqa: E402

Make = Callable[..., PPOTrainer]


def test_on_the_first_minibatch_the_ratio_is_one_and_nothing_is_clipped(make_trainer: Make, model: Any) -> None:
    """The policy agrees with itself: dropout, padding and batch make no difference between sampling and training."""
    trainer = make_trainer(model, kl_coef=0.1)
    minibatches: list[Any] = []
    compute_loss = trainer.compute_loss

    def watched(policy: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if not minibatches:
            tokens = inputs.tokens
            scores = policy(
                input_ids=tokens.input_ids,
                attention_mask=tokens.attention_mask,
                completion_length=tokens.completion_length,
            )
            real = inputs.mask_BT.bool()
            torch.testing.assert_close(scores.logprobs_BT[real], inputs.old_logprobs_BT[real], atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(scores.values_BT[real], inputs.old_values_BT[real], atol=1e-6, rtol=1e-5)
        minibatches.append(inputs)
        return compute_loss(policy, inputs, *args, **kwargs)

    with torch.no_grad():
        trainer.value_head.linear.weight.normal_()
    trainer.compute_loss = watched
    trainer.train()
    first = trainer.state.log_history[0]
    assert len(minibatches) == 4
    assert first["ratio"] == pytest.approx(1.0, abs=1e-5)
    assert first["clip_ratio/policy"] == first["clip_ratio/value"] == 0.0


def test_the_settings_reach_the_loss(make_trainer: Make, llama: Any) -> None:
    """The coefficients weigh the parts of the logged loss, and narrow clips act after the first step."""
    trainer = make_trainer(
        llama,
        Recorder(by_length),
        steps_per_generation=1,
        num_iterations=2,
        max_steps=2,
        value_loss_coef=2.0,
        entropy_coef=0.3,
        epsilon=1e-7,
        value_clip=1e-7,
    )
    trainer.train()
    first, second = trainer.state.log_history[:2]
    assert first["loss"] == pytest.approx(
        first["policy_loss"] + 2 * first["value_loss"] - 0.3 * first["entropy"], abs=1e-5
    )
    assert first["clip_ratio/value"] == 0.0
    assert second["clip_ratio/policy"] > 0.2
    assert second["clip_ratio/value"] > 0.2


@pytest.mark.parametrize("budget", [1, 30])
def test_log_probabilities_by_a_budget_of_tokens_change_no_step(
    make_trainer: Make, make_llama: Any, budget: int
) -> None:
    """Whatever rows share a pass, each gets its own numbers back: row by row, or some by their length."""
    logged = []
    for tokens in (None, budget):
        trainer = make_trainer(make_llama(), Recorder(by_length), kl_coef=0.1, logprob_batch_tokens=tokens)
        trainer.train()
        logged.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
    assert logged[1] == pytest.approx(logged[0], abs=1e-5)


def test_gradient_accumulation_does_not_change_the_step(make_trainer: Make, make_llama: Any) -> None:
    """One minibatch of 8 and two accumulated ones of 4 make the same optimiser step, with ragged completions."""
    ended = []
    for size, accumulation in ((8, 1), (4, 2)):
        trainer = make_trainer(
            make_llama(),
            Recorder(by_length),
            per_device_train_batch_size=size,
            gradient_accumulation_steps=accumulation,
            steps_per_generation=accumulation,
            max_steps=1,
            optim="sgd",
            temperature=3.0,
            max_grad_norm=0.0,
            value_learning_rate=0.1,
        )
        trainer.train()
        assert len(set(trainer._rollout.mask_BT.sum(dim=1).tolist())) > 1
        ended.append((trainer.state.log_history[0]["loss"], state_of(trainer.model)))
    (loss, state), (accumulated_loss, accumulated_state) = ended
    assert loss == pytest.approx(accumulated_loss, abs=1e-6)
    torch.testing.assert_close(state, accumulated_state, atol=1e-6, rtol=1e-5)


def test_a_rollout_is_gone_through_several_times_in_new_orders(make_trainer: Make, llama: Any) -> None:
    """``num_iterations`` passes over one rollout, one scoring, another order each pass."""
    recorder = Recorder(by_length)
    trainer = make_trainer(llama, recorder, num_iterations=3, max_steps=6)
    seen: list[Any] = []
    compute_loss = trainer.compute_loss
    trainer.compute_loss = lambda model, inputs, **kwargs: (
        seen.append(inputs.old_logprobs_BT[:, 0].tolist()),
        compute_loss(model, inputs, **kwargs),
    )[1]
    trainer.train()
    assert len(recorder.batches) == 1
    passes = [seen[start] + seen[start + 1] for start in (0, 2, 4)]
    assert sorted(passes[0]) == sorted(passes[1]) == sorted(passes[2])
    assert passes[0] != passes[1] != passes[2]


@pytest.mark.parametrize(
    ("kind", "critic", "adapter"),
    [
        ("llama", "shared", False),
        ("t5", "separate", True),
        ("llama", "lora", True),
        *(
            pytest.param(*each, marks=pytest.mark.slow)
            for each in itertools.product(["llama", "gpt2", "t5"], ["shared", "separate"], [False, True])
            if each not in {("llama", "shared", False), ("t5", "separate", True)}
        ),
        pytest.param("gpt2", "lora", True, marks=pytest.mark.slow),
    ],
)
def test_gradient_checkpointing_gives_the_same_step(
    make_trainer: Make, build_model: Any, kind: str, critic: str, adapter: bool
) -> None:
    """Recomputed activations change memory, not the result; and they are recomputed, in a critic of its own too."""
    losses, states, passes = [], [], []
    for recompute in (False, True):
        model = build_model(kind)
        trainer = make_trainer(
            model,
            Recorder(by_length),
            peft_config=lora(model) if adapter else None,
            activation_checkpointing=recompute,
            critic=critic,
            max_steps=2,
            kl_coef=0.1,
            optim="sgd",
        )
        layers: dict[str, int] = {"critic": 0, "policy": 0}
        for name, module in trainer.model.named_modules():
            if isinstance(module, GradientCheckpointingLayer):
                part = "critic" if ".critic." in f".{name}" else "policy"
                first = next(leaf for leaf in module.modules() if not list(leaf.children()))
                first.register_forward_hook(
                    lambda *_, part=part, layers=layers: layers.update({part: layers[part] + 1})
                )
        trainer.train()
        passes.append(layers)
        losses.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
        states.append(state_of(trainer.model))
    for part in ("policy", "critic") if critic == "separate" else ("policy",):
        assert passes[1][part] > passes[0][part] > 0
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    torch.testing.assert_close(*states, atol=1e-5, rtol=1e-4)
