"""Scoring completions in one forward pass: log-probabilities, entropies, values, padding, positions, dropout."""

from __future__ import annotations

import contextlib
import copy
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

pytest.importorskip("peft")

from peft import LoraConfig, get_peft_model  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from transformers import (  # noqa: E402
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)

from rlaif_sdk.training.models import feed_head_contiguously  # noqa: E402
from rlaif_sdk.training.ppo.critic import add_value_head, without_critic  # noqa: E402
from rlaif_sdk.training.ppo.policy import (  # noqa: E402
    CompletionScores,
    disable_dropout,
    frozen_copy,
    score_in_batches,
    score_in_forward,
)
from rlaif_sdk.training.ppo.rollout import Tokens  # noqa: E402

PROMPTS = [[6, 7, 8, 9, 10], [11], [12, 13, 14]]
COMPLETIONS = [[15, 16], [17, 18, 19, 20, 1], [21, 22, 23]]
SMALL: dict[str, Any] = {
    "vocab_size": 34,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "bos_token_id": None,
    "eos_token_id": 1,
    "pad_token_id": 0,
    "initializer_range": 0.2,
}


def dense(model: Any, prompt: list[int], completion: list[int], temperature: float) -> Tensor:
    """Log-probabilities of one completion the plain way: no padding, all logits, log-softmax."""
    if model.config.is_encoder_decoder:
        ids, labels = torch.tensor([prompt]), torch.tensor([completion])
        logits = type(model).forward(model, input_ids=ids, labels=labels).logits[0]
    else:
        ids = torch.tensor([[*prompt, *completion]])
        logits = type(model).forward(model, input_ids=ids).logits[0, len(prompt) - 1 : -1]
    return (logits.double() / temperature).log_softmax(-1).gather(1, torch.tensor(completion)[:, None])[:, 0]


def prepared(model: Any, temperature: float = 1.0) -> Any:
    disable_dropout(model)
    score_in_forward(model, temperature=temperature)
    head = add_value_head(model)
    with torch.no_grad():
        head.linear.weight.normal_()
    return model


def score(model: Any, tokens: Tokens) -> CompletionScores:
    return score_in_batches(model, tokens, tokens.batches(rows=8))


def tokens_of(prompts: list[list[int]], completions: list[list[int]]) -> Tokens:
    return Tokens.padded(prompts, completions, pad_id=0)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_logprobs_equal_a_dense_log_softmax(model: Any, temperature: float) -> None:
    """Each token has the log-probability that a plain, unpadded pass gives it, at the sampling temperature."""
    prepared(model, temperature)
    logprobs_BT = score(model, tokens_of(PROMPTS, COMPLETIONS)).logprobs_BT
    for row, (prompt, completion) in enumerate(zip(PROMPTS, COMPLETIONS, strict=True)):
        expected = dense(model, prompt, completion, temperature).float()
        torch.testing.assert_close(logprobs_BT[row, : len(completion)], expected, atol=2e-5, rtol=1e-4)


def test_padding_on_either_side_and_company_change_nothing(model: Any) -> None:
    """A row scores the same alone, in a batch, and with more padding on its left or right."""
    prepared(model)
    together = score(model, tokens_of(PROMPTS, COMPLETIONS))
    for row, (prompt, completion) in enumerate(zip(PROMPTS, COMPLETIONS, strict=True)):
        alone = tokens_of([prompt], [completion])
        wide = Tokens(
            prompt_ids_BP=torch.nn.functional.pad(alone.prompt_ids_BP, (7, 0)),
            prompt_mask_BP=torch.nn.functional.pad(alone.prompt_mask_BP, (7, 0)),
            completion_ids_BT=torch.nn.functional.pad(alone.completion_ids_BT, (0, 4)),
            completion_mask_BT=torch.nn.functional.pad(alone.completion_mask_BT, (0, 4)),
        )
        padded = model(
            input_ids=wide.input_ids, attention_mask=wide.attention_mask, completion_length=wide.completion_length
        )
        length = len(completion)
        for whole, single, spread in zip(together, score(model, alone), padded, strict=True):
            torch.testing.assert_close(whole[row, :length], single[0], atol=2e-5, rtol=1e-4)
            torch.testing.assert_close(spread[0, :length], single[0], atol=2e-5, rtol=1e-4)


class LargestOf(TorchDispatchMode):
    """Notes the most rows of a vocabulary each that an operation makes."""

    def __init__(self, vocabulary: int, weight: torch.Size) -> None:
        super().__init__()
        self.vocabulary, self.weight, self.rows = vocabulary, set(weight), 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple) else (made,):
            if (
                isinstance(tensor, Tensor)
                and tensor.shape[-1:] == (self.vocabulary,)
                and set(tensor.shape) != self.weight
            ):
                self.rows = max(self.rows, tensor.numel() // self.vocabulary)
        return made


def test_no_token_has_all_its_logits_at_once(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither of a prompt nor of a completion, forwards or backwards; the model runs once."""
    monkeypatch.setattr("rlaif_sdk.training.ppo.logprobs.MADE_ELEMENTS_CPU", 15 * 4)
    feed_head_contiguously(model)  # a hook before the head, as training from a config has it, changes nothing here
    prepared(model)
    head, calls = model.get_output_embeddings(), []
    head.register_forward_hook(lambda *_: calls.append(1))
    tokens = tokens_of(PROMPTS, COMPLETIONS)
    with LargestOf(34, head.weight.shape) as largest:
        scores = model(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask, completion_length=5)
        assert largest.rows == 0
        sum(part.sum() for part in scores).backward()
    assert largest.rows == 0
    assert calls == [1]


def gemma2() -> Any:
    return Gemma2ForCausalLM(Gemma2Config(head_dim=8, final_logit_softcapping=2.0, query_pre_attn_scalar=8, **SMALL))


def cohere() -> Any:
    return CohereForCausalLM(CohereConfig(logit_scale=0.3, use_qk_norm=False, **SMALL))


def adapted() -> Any:
    model = LlamaForCausalLM(LlamaConfig(**SMALL))
    policy = get_peft_model(model, LoraConfig(r=2, target_modules=["lm_head"], init_lora_weights=False))
    return policy.get_base_model()


def hooked() -> Any:
    model = LlamaForCausalLM(LlamaConfig(**SMALL))
    model.lm_head.register_forward_hook(lambda _, __, logits: logits.tanh())
    return model


@pytest.mark.parametrize("build", [gemma2, cohere, adapted, hooked])
def test_a_head_that_is_not_the_last_word_is_left_to_the_model(build: Any) -> None:
    """Logits that are capped, scaled or hooked after the head, or come of an adapted one, are the model's own."""
    torch.manual_seed(0)
    model = build()
    disable_dropout(model)
    score_in_forward(model, temperature=0.7)
    with torch.no_grad():
        logprobs_BT = score(model.eval(), tokens_of(PROMPTS, COMPLETIONS)).logprobs_BT
        for row, (prompt, completion) in enumerate(zip(PROMPTS, COMPLETIONS, strict=True)):
            expected = dense(model, prompt, completion, 0.7).float()
            torch.testing.assert_close(logprobs_BT[row, : len(completion)], expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("mixed", [False, True])
def test_gradients_are_those_of_whole_logits(model: Any, monkeypatch: pytest.MonkeyPatch, mixed: bool) -> None:
    """Scores and every weight's gradient, from chunks and from whole logits, in float32 and in mixed precision."""
    monkeypatch.setattr("rlaif_sdk.training.ppo.logprobs.MADE_ELEMENTS_CPU", 15 * 4)
    tokens = tokens_of(PROMPTS, COMPLETIONS)
    figures = []
    for sharded in (False, True):
        policy = copy.deepcopy(model)
        disable_dropout(policy)
        score_in_forward(policy, temperature=0.7, sharded=sharded)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed):
            scores = policy(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask, completion_length=5)
        (scores.logprobs_BT.square().sum() + 0.3 * scores.entropies_BT.sum()).backward()
        figures.append((scores[:2], {name: weight.grad for name, weight in policy.named_parameters()}))
    (scores, grads), (whole, whole_grads) = figures
    torch.testing.assert_close(scores, whole)
    for name, grad in grads.items():
        size = float(whole_grads[name].norm())
        assert float((grad - whole_grads[name]).norm()) <= (0.02 if mixed else 1e-5) * size + 1e-6, name


def test_preparing_a_model_leaves_its_mode(model: Any) -> None:
    """Looking at what follows the head changes neither training mode nor a weight's gradient."""
    for training in (True, False):
        model.train(training)
        score_in_forward(model, temperature=1.0)
        assert all(module.training is training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_one_call_trains_policy_and_head(model: Any) -> None:
    """Log-probabilities, entropies and values come from one forward pass, and all carry gradients."""
    prepared(model)
    calls: list[int] = []
    model.get_output_embeddings().register_forward_hook(lambda *_: calls.append(1))
    tokens = tokens_of(PROMPTS, COMPLETIONS)
    scores = model(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask, completion_length=5)
    sum(part.sum() for part in scores).backward()
    assert calls == [1]
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_the_value_head_starts_at_zero(model: Any) -> None:
    """A fresh head says 0 everywhere, so the first advantages are the plain returns."""
    score_in_forward(model, temperature=1.0)
    add_value_head(model)
    assert not score(model, tokens_of(PROMPTS, COMPLETIONS)).values_BT.any()


def test_values_see_the_state_before_their_token(model: Any) -> None:
    """The value of a token does not depend on that token, nor on later ones."""
    prepared(model)
    one = score(model, tokens_of([[6, 7]], [[8, 9, 10]])).values_BT
    other = score(model, tokens_of([[6, 7]], [[8, 20, 21]])).values_BT
    torch.testing.assert_close(one[:, :2], other[:, :2])
    assert not torch.allclose(one[:, 2], other[:, 2])


def test_dropout_is_off_in_training_mode(model: Any) -> None:
    """Two passes in training mode agree, for dropout as a module (GPT-2) and as a function (Llama's attention)."""
    model.config.attention_dropout = 0.5
    for module in model.modules():
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.5
    prepared(model).train()
    tokens = tokens_of(PROMPTS, COMPLETIONS)
    first, second = score(model, tokens), score(model, tokens)
    torch.testing.assert_close(first.logprobs_BT, second.logprobs_BT, atol=0, rtol=0)


def test_the_reference_is_a_frozen_copy_of_the_model_in_memory(model: Any) -> None:
    """It equals the policy as it was, takes no gradient, and stays when the policy moves."""
    disable_dropout(model)
    score_in_forward(model, temperature=1.0)
    reference = frozen_copy(model)
    tokens = tokens_of(PROMPTS, COMPLETIONS)
    before = score(model, tokens).logprobs_BT
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    assert not any(parameter.requires_grad for parameter in reference.parameters())
    torch.testing.assert_close(score(reference, tokens).logprobs_BT, before, atol=0, rtol=0)
    assert not torch.allclose(score(model, tokens).logprobs_BT, before)


def test_a_deep_copy_scores_with_its_own_parameters(model: Any) -> None:
    """The forward method is bound to the object: a copy does not look through to the original, head included."""
    prepared(model)
    copied = copy.deepcopy(model)
    tokens = tokens_of(PROMPTS, COMPLETIONS)
    before = score(copied, tokens)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    for part, same in zip(score(copied, tokens), before, strict=True):
        torch.testing.assert_close(part, same, atol=0, rtol=0)


def test_a_saved_policy_has_no_extra_keys(model: Any, tmp_path: Path) -> None:
    """``save_pretrained`` leaves the value head out, and ``from_pretrained`` finds all it needs."""
    prepared(model)
    model.save_pretrained(tmp_path)
    loaded, info = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert not info["unexpected_keys"]
    assert not info["missing_keys"]
    score_in_forward(loaded, temperature=1.0)
    tokens = tokens_of(PROMPTS, COMPLETIONS)
    torch.testing.assert_close(score(loaded, tokens).logprobs_BT, score(model, tokens).logprobs_BT)


def test_the_head_can_be_taken_off_for_a_while(model: Any) -> None:
    """Code that walks over parameters by name does not meet it; afterwards it is back, also after an error."""
    head = prepared(model).value_head
    with without_critic(model):
        assert not [name for name, _ in model.named_parameters() if "value_head" in name]
    assert model.value_head is head

    with contextlib.suppress(RuntimeError), without_critic(model):
        raise RuntimeError
    assert model.value_head is head


def test_generation_is_untouched(model: Any) -> None:
    """Greedy decoding gives the same tokens before and after the model is prepared."""
    ids = torch.tensor([[6, 7, 8]])
    before = model.eval().generate(input_ids=ids, max_new_tokens=5, do_sample=False)
    after = prepared(model).eval().generate(input_ids=ids, max_new_tokens=5, do_sample=False)
    assert before.tolist() == after.tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_value_head_keeps_float32_under_autocast(model: Any, dtype: Any) -> None:
    """Mixed precision does not round values to bfloat16, nor the softmax."""
    prepared(model)
    tokens = tokens_of(PROMPTS, COMPLETIONS)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype is torch.bfloat16):
        scores = score(model, tokens)
    assert {part.dtype for part in scores} == {torch.float32}
    assert not torch.equal(scores.values_BT, scores.values_BT.bfloat16().float())
