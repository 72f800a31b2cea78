"""DPO on soft labels, with margins."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from datasets import Dataset  # noqa: E402
from peft import LoraConfig  # noqa: E402
from transformers import Qwen2MoeConfig, Qwen2MoeForCausalLM  # noqa: E402
from trl.trainer.dpo_config import DPOConfig  # noqa: E402
from trl.trainer.dpo_trainer import DPOTrainer  # noqa: E402

from rlaif_sdk import ConfigError, DataError  # noqa: E402
from rlaif_sdk.exceptions import StateError, TrainingError  # noqa: E402
from rlaif_sdk.training.dpo import SoftDPOTrainer  # noqa: E402
from tests.training.preference_models import SETTINGS, first_batch, loss_and_gradients, planted_pairs  # noqa: E402

LORA = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM", init_lora_weights=False)


@pytest.fixture
def make_dpo_trainer(tmp_path: Path, tokenizer: Any, make_llama: Any) -> Any:
    def make(
        dataset: Dataset,
        *,
        kind: Any = SoftDPOTrainer,
        ref_model: Any = None,
        eval_dataset: Any = None,
        peft_config: Any = None,
        compute_metrics: Any = None,
        **settings: Any,
    ) -> Any:
        return kind(
            make_llama(),
            ref_model,
            DPOConfig(**{"output_dir": str(tmp_path / "run"), **SETTINGS, **settings}),
            train_dataset=dataset,
            eval_dataset=eval_dataset,
            processing_class=tokenizer,
            peft_config=peft_config,
            compute_metrics=compute_metrics,
        )

    return make


def another(model: Any) -> Any:
    """A reference that the policy has moved away from."""
    torch.manual_seed(5)
    reference = copy.deepcopy(model)
    with torch.no_grad():
        for weight in reference.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    return reference


HARD = ("chosen_prob", "margin")


@pytest.mark.parametrize("adapter", [None, LORA])
def test_a_label_of_one_is_trls_own_loss_to_the_bit(make_dpo_trainer: Any, make_llama: Any, adapter: Any) -> None:
    """Beside TRL's trainer on one batch, loss and every gradient are equal, with an adapter too."""
    pairs = planted_pairs(8, chosen_prob=[1.0] * 8, margin=[0.0] * 8)
    trainers = [
        make_dpo_trainer(
            pairs, kind=kind, ref_model=None if adapter else another(make_llama()), peft_config=copy.deepcopy(adapter)
        )
        for kind in (SoftDPOTrainer, DPOTrainer)
    ]
    batch = first_batch(trainers[0])
    hard = {name: value for name, value in batch.items() if name not in HARD}
    assert set(batch) - set(hard) == set(HARD)
    loss, gradients = loss_and_gradients(trainers[0], batch)
    their_loss, their_gradients = loss_and_gradients(trainers[1], hard)
    assert loss.item() != pytest.approx(0.6931, abs=1e-3)
    assert torch.equal(loss, their_loss)
    assert len(gradients) == len(their_gradients) > 0
    assert all(map(torch.equal, gradients, their_gradients))


def test_a_mixture_of_experts_keeps_the_loss_of_its_router(tmp_path: Path, tokenizer: Any) -> None:
    """At p = 1 loss and gradients are TRL's to the bit, the router's part included."""
    pairs = planted_pairs(8, chosen_prob=[1.0] * 8)
    found = []
    for kind in (SoftDPOTrainer, DPOTrainer):
        trainer = kind(
            build_mixture(),
            build_mixture(),
            DPOConfig(**{"output_dir": str(tmp_path), **SETTINGS}),
            train_dataset=pairs,
            processing_class=tokenizer,
        )
        batch = first_batch(trainer)
        batch.pop("chosen_prob", None)
        found.append(loss_and_gradients(trainer, batch))
    (loss, gradients), (their_loss, their_gradients) = found
    assert loss.item() > 0.75, "log 2 alone is 0.69"
    assert torch.equal(loss, their_loss)
    assert all(map(torch.equal, gradients, their_gradients))


def build_mixture() -> Qwen2MoeForCausalLM:
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "router_aux_loss_coef": 0.1}
    ids = {"vocab_size": 34, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None}
    return Qwen2MoeForCausalLM(
        Qwen2MoeConfig(num_key_value_heads=2, shared_expert_intermediate_size=16, **shape, **experts, **ids)
    )


def test_without_soft_labels_a_run_is_trls_own(make_dpo_trainer: Any, make_llama: Any) -> None:
    """Two steps of training give the same weights to the bit, and the figures that both log are equal."""
    pairs = planted_pairs(8, chosen_prob=None)
    ours = make_dpo_trainer(pairs, ref_model=another(make_llama()))
    theirs = make_dpo_trainer(pairs, kind=DPOTrainer, ref_model=another(make_llama()))
    ours.train()
    theirs.train()
    assert all(map(torch.equal, ours.model.parameters(), theirs.model.parameters()))
    for name in ("loss", "rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins", "logps/chosen"):
        assert ours.state.log_history[0][name] == pytest.approx(theirs.state.log_history[0][name], abs=1e-6), name


@pytest.mark.parametrize("experts", [False, True])
@pytest.mark.parametrize("columns", [{}, {"chosen_prob": [0.3] * 8}, {"margin": [0.5] * 8}])
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_every_metric_of_trl_s_is_logged(
    tmp_path: Path, tokenizer: Any, make_llama: Any, experts: bool, columns: dict[str, Any], mode: str
) -> None:
    """On one batch with its value: entropy, tokens, logits, accuracy of tokens, and the router's loss of a mixture."""
    build = build_mixture if experts else make_llama
    noted = []
    for kind in (SoftDPOTrainer, DPOTrainer):
        trainer = kind(
            build(),
            another(build()),
            DPOConfig(**{"output_dir": str(tmp_path), **SETTINGS}),
            train_dataset=planted_pairs(8, **{"chosen_prob": None, **columns}),
            processing_class=tokenizer,
        )
        batch = first_batch(trainer)
        trainer.model.train(mode == "train")
        trainer.compute_loss(
            trainer.model, {name: batch[name] for name in batch if kind is SoftDPOTrainer or name not in HARD}
        )
        noted.append({name: values[-1] for name, values in trainer._metrics[mode].items()})
    ours, theirs = noted
    assert {"entropy", "num_tokens", "logits/chosen", "logits/rejected", "mean_token_accuracy"} <= theirs.keys()
    assert ("aux_loss" in theirs) is experts
    assert ours.keys() - theirs.keys() <= {"agreement"}
    assert {name: ours[name] for name in theirs} == pytest.approx(theirs, abs=1e-6)


def slow_differences(trainer: Any, batch: dict[str, Any]) -> torch.Tensor:
    """h, from dense log-softmaxes of policy and reference."""
    sums = []
    for model in (trainer.model, trainer.ref_model):
        with torch.no_grad():
            logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        dense = logits[:, :-1].log_softmax(-1).gather(-1, batch["input_ids"][:, 1:, None]).squeeze(-1)
        sums.append((dense * batch["completion_mask"][:, 1:]).sum(1))
    chosen, rejected = (sums[0] - sums[1]).chunk(2)
    return trainer.beta * (chosen - rejected)


def test_the_loss_is_the_conservative_one_of_each_pair(make_dpo_trainer: Any, make_llama: Any) -> None:
    """-p log s(h - m) - (1 - p) log s(m - h), with h from dense log-softmaxes."""
    trainer = make_dpo_trainer(
        planted_pairs(8, margin=[0.2 * row for row in range(8)]), ref_model=another(make_llama())
    )
    batch = first_batch(trainer)
    loss, _ = loss_and_gradients(trainer, batch)
    ahead = slow_differences(trainer, batch) - batch["margin"]
    prob = batch["chosen_prob"]
    expected = -(prob * torch.sigmoid(ahead).log() + (1 - prob) * torch.sigmoid(-ahead).log()).mean()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)


def test_at_the_start_the_loss_is_that_of_an_undecided_model(make_dpo_trainer: Any) -> None:
    """The reference is a copy of the model that was given, so h is 0, and even labels move nothing at all."""
    trainer = make_dpo_trainer(planted_pairs(8, chosen_prob=[0.5] * 8))
    loss, gradients = loss_and_gradients(trainer, first_batch(trainer))
    assert loss.item() == pytest.approx(0.6931472, abs=1e-6)
    assert max(gradient.abs().max().item() for gradient in gradients) == 0
    assert not any(weight.requires_grad for weight in trainer.ref_model.parameters())
    assert not trainer.ref_model.training


def test_swapping_the_completions_and_their_label_changes_nothing(make_dpo_trainer: Any, make_llama: Any) -> None:
    """Chosen and rejected are only names; a margin changes its sign with them."""
    pairs = planted_pairs(8, margin=[0.2 * row for row in range(8)])
    swapped = pairs.rename_columns({"chosen": "rejected", "rejected": "chosen"}).map(
        lambda row: {"chosen_prob": 1 - row["chosen_prob"], "margin": -row["margin"]}
    )
    losses = []
    for dataset in (pairs, swapped):
        trainer = make_dpo_trainer(dataset, ref_model=another(make_llama()))
        losses.append(loss_and_gradients(trainer, first_batch(trainer))[0].item())
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)


def test_labels_and_margins_reach_no_model(make_dpo_trainer: Any) -> None:
    """Neither policy nor reference is called with a column that is no input of theirs."""
    trainer = make_dpo_trainer(planted_pairs(8, margin=[0.1] * 8))
    given: set[str] = set()
    for model in (trainer.model, trainer.ref_model):
        model.register_forward_pre_hook(lambda _, args, kwargs: given.update(kwargs), with_kwargs=True)
    loss_and_gradients(trainer, first_batch(trainer))
    assert "input_ids" in given
    assert not given & set(HARD)


def test_precomputed_reference_log_probabilities_give_the_same_loss(make_dpo_trainer: Any, make_llama: Any) -> None:
    """Soft labels and margins do not reach the reference model, and stay with their rows."""
    pairs = planted_pairs(8, margin=[0.1] * 8)
    losses = []
    for precompute in (False, True):
        trainer = make_dpo_trainer(pairs, ref_model=another(make_llama()), precompute_ref_log_probs=precompute)
        losses.append(loss_and_gradients(trainer, first_batch(trainer))[0].item())
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)


def test_training_follows_the_labels(make_dpo_trainer: Any) -> None:
    """Pairs whose label says that the rejected one is better move the policy towards the rejected one."""
    moved = {}
    for label in (0.95, 0.05):
        trainer = make_dpo_trainer(planted_pairs(8, chosen_prob=[label] * 8), max_steps=6, num_train_epochs=3)
        trainer.train()
        moved[label] = trainer.state.log_history[-2]["rewards/margins"]
        assert trainer.state.log_history[-2]["agreement"] > 0.5
    assert moved[0.95] > 0 > moved[0.05]


def test_an_evaluation_reports_calibration_and_agreement(make_dpo_trainer: Any, make_llama: Any) -> None:
    """The belief of a DPO policy is the logistic of its implicit reward difference."""
    trainer = make_dpo_trainer(
        planted_pairs(8), eval_dataset=planted_pairs(10, seed=1), ref_model=another(make_llama())
    )
    metrics = trainer.evaluate()
    assert {"eval_loss", "eval_ece", "eval_agreement", "eval_label_distance", "eval_rewards/margins"} <= set(metrics)
    assert trainer.calibration.pairs == 10
    batch = trainer._prepare_inputs(next(iter(trainer.get_eval_dataloader())))
    gaps, labels = slow_differences(trainer, batch), batch["chosen_prob"]
    distance = (torch.sigmoid(gaps) - labels).abs().mean().item()
    small = trainer.evaluate(planted_pairs(10, seed=1).select(range(4)))
    assert small["eval_label_distance"] == pytest.approx(distance, abs=1e-5)


@pytest.mark.parametrize(
    "setting",
    [
        {"loss_type": "ipo"},
        {"loss_type": ["sigmoid", "sft"]},
        {"f_divergence_type": "js_divergence"},
        {"ld_alpha": 0.5},
        {"use_weighting": True},
        {"label_smoothing": 0.1},
    ],
)
def test_settings_of_other_losses_are_refused(make_dpo_trainer: Any, setting: dict[str, Any]) -> None:
    """A setting that would be without effect is named."""
    with pytest.raises(ConfigError) as caught:
        make_dpo_trainer(planted_pairs(4), **setting)
    assert caught.value.key == next(iter(setting))


def test_a_row_that_cannot_be_used_is_named(make_dpo_trainer: Any) -> None:
    """As for reward models."""
    with pytest.raises(DataError, match="train set:2: 'margin' must be a finite number"):
        make_dpo_trainer(planted_pairs(2, margin=[0.0, float("inf")]))


def test_metrics_that_need_logits_are_refused(make_dpo_trainer: Any) -> None:
    """The loss is made without them."""
    trainer = make_dpo_trainer(planted_pairs(4), eval_dataset=planted_pairs(4), compute_metrics=lambda _: {})
    with pytest.raises(TrainingError, match="compute_metrics"):
        trainer.evaluate()


@pytest.mark.parametrize(
    "variant", [*(pytest.param(name, marks=pytest.mark.slow) for name in ("whole", "precomputed")), "adapter"]
)
def test_training_that_began_with_another_model_is_not_resumed(
    make_dpo_trainer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variant: str
) -> None:
    """The reference would be another one, unannounced; the same model is taken, whatever its adapter begins with."""
    settings = {"max_steps": 2, "save_strategy": "steps", "save_steps": 1}
    settings |= {"whole": {}, "adapter": {"peft_config": LORA}, "precomputed": {"precompute_ref_log_probs": True}}[
        variant
    ]
    make_dpo_trainer(planted_pairs(8), **settings).train()
    checkpoint = str(tmp_path / "run" / "checkpoint-1")
    torch.manual_seed(9)
    make_dpo_trainer(planted_pairs(8), **settings).train(resume_from_checkpoint=checkpoint)
    original = SoftDPOTrainer.__init__
    monkeypatch.setattr(
        SoftDPOTrainer, "__init__", lambda self, model, *given, **named: original(self, another(model), *given, **named)
    )
    with pytest.raises(StateError, match="began with another model, which is its reference"):
        make_dpo_trainer(planted_pairs(8), **settings).train(resume_from_checkpoint=checkpoint)
