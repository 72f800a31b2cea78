"""Encoder-decoder policies: what the encoder and the decoder are given, and what comes back from generation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from datasets import Dataset  # noqa: E402
from trl.trainer.rloo_config import RLOOConfig  # noqa: E402
from trl.trainer.rloo_trainer import RLOOTrainer  # noqa: E402

from rlaif_sdk.exceptions import TrainingError  # noqa: E402
from rlaif_sdk.training.ppo import PPOTrainer  # noqa: E402
from rlaif_sdk.training.ppo.critic import add_value_head  # noqa: E402
from rlaif_sdk.training.ppo.inputs import generating_in_one_row, padded_on_the_right  # noqa: E402
from rlaif_sdk.training.ppo.policy import disable_dropout, score_in_batches, score_in_forward  # noqa: E402
from rlaif_sdk.training.ppo.rollout import Tokens  # noqa: E402

Make = Callable[..., PPOTrainer]

PROMPTS = [[6, 7, 8, 9, 10], [11], [12, 13, 14]]
COMPLETIONS = [[15, 16], [17, 18, 19, 20, 1], [21, 22, 23]]


def test_trl_s_own_trainer_fails_on_an_encoder_decoder_policy(
    build_model: Any, tokenizer: Any, prompts: Dataset, tmp_path: Any
) -> None:
    """The reason for the module: once TRL trains such a policy by itself, this can go. (With a BART it does not fail,
    but takes the prompt for the encoder's and the decoder's at once.)"""
    args = RLOOConfig(
        str(tmp_path),
        per_device_train_batch_size=4,
        max_steps=1,
        max_completion_length=8,
        num_generations=2,
        beta=0.0,
        use_cpu=True,
        report_to=[],
        bf16=False,
        dataloader_pin_memory=False,
    )
    with pytest.raises((RuntimeError, TypeError, ValueError, IndexError, AttributeError)):
        RLOOTrainer(
            build_model("t5"),
            reward_funcs=lambda completions, **_: [float(len(text)) for text in completions],
            args=args,
            train_dataset=prompts,
            processing_class=tokenizer,
        ).train()


def test_padding_moves_behind_the_tokens_which_keep_their_order() -> None:
    """Also where a real token has the padding's id."""
    ids, mask = torch.tensor([[0, 0, 5, 0, 6], [1, 2, 3, 4, 5]]), torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    moved, moved_mask = padded_on_the_right(ids, mask)
    assert moved.tolist() == [[5, 0, 6, 0, 0], [1, 2, 3, 4, 5]]
    assert moved_mask.tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_scores_are_the_decoder_s_whatever_the_padding(encoder_decoder: Any, temperature: float) -> None:
    """Log-probabilities equal the plain way of labels, row by row; values see the states below the same logits."""
    disable_dropout(encoder_decoder)
    score_in_forward(encoder_decoder, temperature=temperature)
    head = add_value_head(encoder_decoder)
    with torch.no_grad():
        head.linear.weight.normal_()
    tokens = Tokens.padded(PROMPTS, COMPLETIONS, pad_id=0)
    scores = score_in_batches(encoder_decoder, tokens, tokens.batches(rows=8))
    for row, (prompt, completion) in enumerate(zip(PROMPTS, COMPLETIONS, strict=True)):
        plain = type(encoder_decoder).forward(
            encoder_decoder,
            input_ids=torch.tensor([prompt]),
            labels=torch.tensor([completion]),
            output_hidden_states=True,
        )
        logprobs = (plain.logits[0] / temperature).log_softmax(-1)
        expected = logprobs.gather(1, torch.tensor(completion)[:, None])[:, 0]
        length = len(completion)
        torch.testing.assert_close(scores.logprobs_BT[row, :length], expected, atol=2e-5, rtol=1e-4)
        values = head(plain.decoder_hidden_states[-1])[0]
        torch.testing.assert_close(scores.values_BT[row, :length], values, atol=2e-5, rtol=1e-4)


def test_completions_are_those_of_plain_generation(encoder_decoder: Any) -> None:
    """Prompts padded on the left give what each gives alone, the decoder's first token left out."""
    encoder_decoder.eval()
    tokens = Tokens.padded(PROMPTS, COMPLETIONS, pad_id=0)
    settings: dict[str, Any] = {"max_new_tokens": 6, "do_sample": False}
    with generating_in_one_row(encoder_decoder):
        rows = encoder_decoder.generate(
            input_ids=tokens.prompt_ids_BP, attention_mask=tokens.prompt_mask_BP, **settings
        )
    assert torch.equal(rows[:, :5], tokens.prompt_ids_BP)
    for row, prompt in zip(rows[:, 5:].tolist(), PROMPTS, strict=True):
        (alone,) = encoder_decoder.generate(input_ids=torch.tensor([prompt]), **settings).tolist()
        assert row[: len(alone) - 1] == alone[1:]
    assert "generate" not in vars(encoder_decoder), "afterwards the model generates as its class does"


def test_a_rollout_holds_what_the_decoder_said(make_trainer: Make, encoder_decoder: Any) -> None:
    """Prompt tokens as the tokenizer gave them, completions cut after the end token, the first ratio 1, KL 0."""
    trainer = make_trainer(encoder_decoder, kl_coef=0.1, temperature=3.0, max_steps=2)
    trainer.train()
    first = trainer.state.log_history[0]
    assert first["ratio"] == pytest.approx(1.0, abs=1e-5)
    assert first["kl"] == pytest.approx(0.0, abs=1e-4)
    tokens = trainer._rollout.tokens
    start = encoder_decoder.config.decoder_start_token_id
    ended = 0
    for ids, mask in zip(tokens.completion_ids_BT.tolist(), tokens.completion_mask_BT, strict=True):
        real = ids[: int(mask.sum())]
        assert 1 not in real[:-1]
        ended += real[-1] == 1
    assert 0 < ended < len(tokens)
    assert (start == 1) or not (tokens.completion_ids_BT[:, 0] == start).all()


def test_evaluation_and_resuming_work(make_trainer: Make, build_model: Any, tmp_path: Any, prompts: Dataset) -> None:
    """Evaluation reports rewards and KL; a run resumed at a rollout boundary has the losses of one that ran through."""
    settings: dict[str, Any] = {
        "max_steps": 4,
        "save_strategy": "steps",
        "save_steps": 2,
        "eval_dataset": prompts.select(range(4)),
        "eval_strategy": "steps",
        "eval_steps": 2,
    }
    through = make_trainer(build_model("t5"), **settings)
    through.train()
    resumed = make_trainer(build_model("t5"), **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    expected, found = (
        {entry["step"]: entry["loss"] for entry in trainer.state.log_history if "loss" in entry}
        for trainer in (through, resumed)
    )
    assert expected == found
    assert [entry["step"] for entry in through.state.log_history if "eval_reward" in entry] == [2, 4]


def test_a_decoder_without_a_first_token_is_refused(make_trainer: Make, build_model: Any) -> None:
    """Before anything is sampled, and with what to set."""
    model = build_model("t5", decoder_start_token_id=None)
    model.generation_config.decoder_start_token_id = None
    with pytest.raises(TrainingError, match="decoder_start_token_id"):
        make_trainer(model)


def test_engines_that_know_decoders_alone_are_refused(make_trainer: Make, build_model: Any) -> None:
    """Continuous batching and vLLM do not generate with an encoder."""
    with pytest.raises(TrainingError, match="use_transformers_continuous_batching does not generate"):
        make_trainer(build_model("t5"), use_transformers_continuous_batching=True)
