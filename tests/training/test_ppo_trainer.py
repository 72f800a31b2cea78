"""The trainer end to end on small real models: first minibatch, reference, LoRA, masking, evaluation, logging."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from datasets import Dataset  # noqa: E402
from peft import LoraConfig, get_peft_model  # noqa: E402
from transformers import AutoModelForCausalLM, TrainerCallback  # noqa: E402
from transformers.modeling_layers import GradientCheckpointingLayer  # noqa: E402

from rlaif_sdk import Composer, RewardBatch  # noqa: E402
from rlaif_sdk.exceptions import RewardError, TrainingError  # noqa: E402
from rlaif_sdk.training.ppo import PPOTrainer, SamplingMismatchWarning  # noqa: E402
from rlaif_sdk.training.ppo.gae import generalized_advantages, token_rewards  # noqa: E402
from rlaif_sdk.training.ppo.rollout import Tokens  # noqa: E402

Make = Callable[..., PPOTrainer]


class Recorder:
    """Wraps a composer and keeps the batches that it is given."""

    def __init__(self, score: Callable[[RewardBatch], list[float | None]]) -> None:
        self.batches: list[RewardBatch] = []
        self.composer = Composer({"recorded": lambda prompts, completions: score(self.batches[-1])})

    def compose(self, batch: RewardBatch) -> Any:
        self.batches.append(batch)
        return self.composer.compose(batch)


def by_length(batch: RewardBatch) -> list[float | None]:
    return [len(ids) / 8 for ids in batch.completion_ids or []]


def by_rule(completions: list[str], **_: Any) -> list[float]:
    return [len(text) / 40 for text in completions]


def rollouts_of(trainer: PPOTrainer) -> list[dict[str, float]]:
    return [entry for entry in trainer.state.log_history if "reward" in entry]


def lora(model: Any) -> LoraConfig:
    return LoraConfig(
        r=4,
        lora_alpha=8,
        lora_dropout=0.1,
        target_modules="all-linear",
        task_type="SEQ_2_SEQ_LM" if model.config.is_encoder_decoder else "CAUSAL_LM",
        fan_in_fan_out=model.config.model_type == "gpt2",
    )


def state_of(model: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def moved(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}


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


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("adapter", [False, True])
def test_the_divergence_starts_at_zero_and_grows(
    make_trainer: Make, model: Any, adapter: bool, temperature: float
) -> None:
    """Policy and reference are one at step 0, with LoRA too and at any temperature, and part after it."""
    peft_config = lora(model) if adapter else None
    trainer = make_trainer(
        model, by_rule, peft_config=peft_config, kl_coef=0.1, temperature=temperature, learning_rate=1e-2
    )
    trainer.train()
    first, second = rollouts_of(trainer)[:2]
    assert first["kl"] == pytest.approx(0.0, abs=1e-4)
    assert abs(second["kl"]) > 1e-3


def test_the_reference_is_the_policy_in_memory_and_stays(make_trainer: Make, llama: Any, tmp_path: Any) -> None:
    """A policy changed after it was loaded is its own reference: the copy is of memory, not of the path."""
    llama.save_pretrained(tmp_path / "start")
    changed = AutoModelForCausalLM.from_pretrained(tmp_path / "start")
    with torch.no_grad():
        for parameter in changed.parameters():
            parameter.mul_(1.5)
    before = state_of(changed)
    trainer = make_trainer(changed, kl_coef=0.1)
    trainer.train()
    assert not moved(before, trainer.ref_model.state_dict())
    assert not any(parameter.requires_grad for parameter in trainer.ref_model.parameters())
    assert rollouts_of(trainer)[0]["kl"] == pytest.approx(0.0, abs=1e-4)
    assert moved(before, trainer.model.state_dict()) == set(before)


def test_the_policy_is_assessed_while_the_rewards_score(
    make_trainer: Make, llama: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow reward and the forward passes over the rollout run at once: here the reward waits for the passes."""
    assessed = threading.Event()

    def waits(completions: list[str], **_: Any) -> list[float]:
        return [float(assessed.wait(timeout=20))] * len(completions)

    with Composer({"waits": waits}) as composer:
        trainer = make_trainer(llama, reward_funcs=composer, max_steps=1)
        score = trainer._score

        def watched(*args: Any) -> Any:
            assessed.set()
            return score(*args)

        monkeypatch.setattr(trainer, "_score", watched)
        trainer.train()
    assert rollouts_of(trainer)[0]["reward"] == 1.0


def test_without_a_price_no_reference_is_kept(make_trainer: Make, llama: Any) -> None:
    """``kl_coef=0`` holds no second model, and logs a divergence of 0."""
    trainer = make_trainer(llama, kl_coef=0.0)
    trainer.train()
    assert trainer.ref_model is None
    assert [entry["kl"] for entry in rollouts_of(trainer)] == [0.0, 0.0]


def test_lora_trains_adapter_and_head_and_keeps_no_copy(make_trainer: Make, model: Any) -> None:
    """The base model stays as it is, the adapter and the value head move, and there is no reference model."""
    trainer = make_trainer(model, by_rule, peft_config=lora(model), kl_coef=0.1)
    before = state_of(trainer.model)
    trainer.train()
    changed = moved(before, trainer.model.state_dict())
    assert trainer.ref_model is None
    assert {name for name in changed if "lora_" not in name} == {
        "base_model.model.value_head.linear.weight",
        "base_model.model.value_head.linear.bias",
    }
    assert {name for name in before if "lora_" in name} == {name for name in changed if "lora_" in name}


def test_a_trained_adapter_is_its_own_reference(make_trainer: Make, llama: Any) -> None:
    """Going on with an adapter measures the divergence from that adapter, not from the base model."""
    policy = get_peft_model(llama, lora(llama))
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.3)
    trainer = make_trainer(policy, kl_coef=0.1, learning_rate=1e-2)
    trainer.train()
    first, second = rollouts_of(trainer)[:2]
    assert first["kl"] == pytest.approx(0.0, abs=1e-4)
    assert abs(second["kl"]) > 1e-3


def test_rewards_get_prompts_completions_ids_and_columns(make_trainer: Make, llama: Any, prompts: Dataset) -> None:
    """The batch carries everything that the dataset does, and how far training is."""
    recorder = Recorder(by_length)
    make_trainer(llama, recorder, num_generations=2).train()
    wanted = dict(zip(prompts["prompt"], prompts["wanted"], strict=True))
    first, second = recorder.batches
    assert first.columns["wanted"] == [wanted[prompt] for prompt in first.prompts]
    assert first.group == [0, 0, 1, 1, 2, 2, 3, 3]
    assert first.prompts[0] == first.prompts[1]
    assert all(isinstance(completion, str) for completion in first.completions)
    assert (first.progress.step, second.progress.step, first.progress.total) == (0, 2, 4)
    assert first.training


def test_conversational_prompts_give_assistant_messages(make_trainer: Make, llama: Any, tokenizer: Any) -> None:
    """Messages go through the chat template, and the completion comes back as an assistant's message."""
    recorder = Recorder(by_length)
    messages = [[{"role": "user", "content": f"w{row} w2"}] for row in range(8)]
    trainer = make_trainer(llama, recorder, train_dataset=Dataset.from_dict({"prompt": messages}), max_steps=2)
    trainer.train()
    batch = recorder.batches[0]
    assert batch.prompts[0][0]["role"] == "user"
    ((message,), ids) = batch.completions[0], batch.completion_ids[0]
    assert message["role"] == "assistant"
    assert message["content"] == tokenizer.decode(ids, skip_special_tokens=True)
    tokens = trainer._rollout.tokens
    prompt = tokenizer.decode(tokens.prompt_ids_BP[0][tokens.prompt_mask_BP[0].bool()])
    assert prompt == f"user {batch.prompts[0][0]['content']} assistant"


def test_an_unscored_row_trains_nothing(make_trainer: Make, llama: Any) -> None:
    """Rows for which the rewards say None are masked, and counted in the log."""
    recorder = Recorder(lambda batch: [None if row % 2 else 1.0 for row in range(len(batch))])
    trainer = make_trainer(llama, recorder, max_steps=1, steps_per_generation=1, per_device_train_batch_size=8)
    trainer.train()
    assert trainer._rollout.mask_BT.any(dim=1).tolist() == [True, False] * 4
    entry = rollouts_of(trainer)[0]
    assert entry["reward/total/unscored"] == 0.5
    assert entry["reward"] == 1.0


def test_a_rollout_without_any_score_changes_nothing(
    make_trainer: Make, llama: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """When every reward is out of order the policy and the KL price stay, and the log says so."""
    trainer = make_trainer(llama, Recorder(lambda batch: [None] * len(batch)), max_steps=2, kl_target=1.0)
    before = state_of(trainer.model)
    trainer.train()
    assert not moved(before, trainer.model.state_dict())
    assert trainer.kl_controller.coef == 0.05
    assert "no completion of this rollout has a score" in caplog.text


def test_a_reward_that_must_not_fail_ends_training(make_trainer: Make, llama: Any) -> None:
    """An infinite total is an error with a name, not an advantage."""

    class Infinite:
        def compose(self, batch: RewardBatch) -> Any:
            composition = Composer({"one": lambda completions: [1.0] * len(completions)}).compose(batch)
            composition.totals[0] = np.inf
            return composition

    with pytest.raises(RewardError, match="infinite total"):
        make_trainer(llama, Infinite()).train()


def test_the_missing_eos_penalty_reaches_truncated_completions_alone(make_trainer: Make, llama: Any) -> None:
    """A completion that ends with the end-of-sequence token keeps its score."""
    recorder = Recorder(lambda batch: [1.0] * len(batch))
    trainer = make_trainer(
        llama, recorder, kl_coef=0.0, missing_eos_penalty=3.0, temperature=3.0, num_iterations=1, max_steps=2
    )
    trainer.train()
    ended = torch.tensor([ids[-1] == 1 for ids in recorder.batches[0].completion_ids])
    assert ended.any()
    assert not ended.all()
    assert trainer._rollout.returns_BT[:, 0].tolist() == torch.where(ended, 1.0, -2.0).tolist()


def test_the_settings_reach_the_rollout(make_trainer: Make, llama: Any) -> None:
    """Discount, lambda, whitening, clip of the reward and masking of truncated rows are those of the config."""
    recorder = Recorder(by_length)
    trainer = make_trainer(
        llama,
        recorder,
        gamma=0.9,
        gae_lambda=0.8,
        normalize_advantages=False,
        reward_clip_range=(0.0, 0.5),
        mask_truncated_completions=True,
        kl_coef=0.0,
        temperature=3.0,
    )
    with torch.no_grad():
        trainer.value_head.linear.weight.normal_()
    trainer.train()
    rollout, batch = trainer._rollout, recorder.batches[-1]
    ended = torch.tensor([ids[-1] == 1 for ids in batch.completion_ids])
    assert ended.any()
    scores_B = torch.tensor(by_length(batch)).clamp(0.0, 0.5)
    mask_BT = rollout.tokens.completion_mask_BT * ended[:, None]
    rewards_BT = token_rewards(scores_B, torch.zeros(mask_BT.shape), mask_BT, 0.0)
    expected = generalized_advantages(rewards_BT, rollout.old_values_BT, mask_BT, gamma=0.9, lam=0.8)
    torch.testing.assert_close((rollout.advantages_BT, rollout.returns_BT), expected)
    assert torch.equal(rollout.mask_BT, mask_BT)


def test_the_temperature_counts_in_policy_and_reference(make_trainer: Make, llama: Any) -> None:
    """Both are scored at the temperature of sampling, as a dense log-softmax at it says."""
    trainer = make_trainer(llama, kl_coef=0.1, temperature=0.7)
    tokens = Tokens.padded([[6, 7, 8]], [[9, 10]], pad_id=0)
    ids = tokens.input_ids
    for scored in (trainer.model, trainer.ref_model):
        dense = (scored(input_ids=ids).logits[0, 2:4] / 0.7).log_softmax(-1)
        expected = dense.gather(1, ids[0, 3:, None])[:, 0].detach()
        torch.testing.assert_close(trainer._score(scored, tokens).logprobs_BT[0], expected, atol=1e-5, rtol=1e-5)


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


def test_the_price_of_divergence_adapts(make_trainer: Make, llama: Any) -> None:
    """With a target, the logged coefficient moves from rollout to rollout."""
    trainer = make_trainer(llama, kl_coef=0.1, kl_target=5.0, kl_horizon=20.0)
    trainer.train()
    first, second = [entry["kl_coef"] for entry in rollouts_of(trainer)]
    assert first == 0.1
    assert second < 0.1


def test_evaluation_samples_and_scores_without_training(make_trainer: Make, llama: Any, prompts: Dataset) -> None:
    """``evaluate`` reports every reward and the divergence under ``eval_``, marks its batches, moves nothing."""
    recorder = Recorder(by_length)
    trainer = make_trainer(llama, recorder, eval_dataset=prompts.select(range(6)), num_generations=2)
    before = state_of(trainer.model)
    metrics = trainer.evaluate()
    assert [len(batch) for batch in recorder.batches] == [4, 2]
    assert not any(batch.training for batch in recorder.batches)
    assert metrics["eval_reward"] == metrics["eval_reward/recorded/raw_mean"] > 0
    assert metrics["eval_kl"] == pytest.approx(0.0, abs=1e-4)
    assert not moved(before, trainer.model.state_dict())


def test_evaluation_between_steps_does_not_disturb_a_rollout(make_trainer: Make, llama: Any, prompts: Dataset) -> None:
    """Evaluating after every step leaves the number of training rollouts as it is."""
    recorder = Recorder(by_length)
    trainer = make_trainer(llama, recorder, eval_dataset=prompts.select(range(4)), eval_strategy="steps", eval_steps=1)
    trainer.train()
    assert sum(batch.training for batch in recorder.batches) == 2
    assert sum(not batch.training for batch in recorder.batches) == 4
    assert trainer.state.log_history[1]["eval_reward"] > 0


def test_callbacks_and_the_table_of_completions_work(
    make_trainer: Make, llama: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """transformers' callbacks see the logged figures; ``log_completions`` prints samples with their rewards."""
    logged: list[dict[str, float]] = []

    class Keeper(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            logged.append(logs)

    make_trainer(llama, callbacks=[Keeper()], log_completions=True, num_completions_to_print=2, max_steps=1).train()
    assert {"reward", "kl", "entropy", "value_loss", "policy_loss", "approx_kl"} <= logged[0].keys()
    assert "count_wanted" in capsys.readouterr().out


@pytest.mark.parametrize("adapter", [False, True])
@pytest.mark.parametrize("critic", ["shared", "separate"])
@pytest.mark.parametrize("kind", ["llama", "gpt2", "t5"])
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


def test_several_processes_are_refused(make_trainer: Make, llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rather than each whitening its own part."""
    monkeypatch.setattr("rlaif_sdk.training.ppo.config.PPOConfig.world_size", 2)
    with pytest.raises(TrainingError, match="one process, not 2"):
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
