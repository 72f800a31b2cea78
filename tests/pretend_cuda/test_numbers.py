"""What is computed on the device, and how often the host waits for it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import torch
from datasets import Dataset
from trl import RLOOConfig, RLOOTrainer

from rlaif_sdk.judges.backends.shared_prefix import Pack, attention_mask
from rlaif_sdk.preferences.policy import LocalPolicy
from rlaif_sdk.training.ppo import PPOConfig, PPOTrainer
from rlaif_sdk.training.ppo.logprobs import head_logprobs
from tests.pretend_cuda.device import Waits
from tests.tiny_models import WORDS, tiny_llama, word_tokenizer

CHAT = "{% for m in messages %}{{ m.content + ' ' }}{% endfor %}"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_log_probabilities_are_of_logits_that_nothing_has_rounded(pretend: Any, dtype: torch.dtype) -> None:
    """The products of half-precision numbers are summed in float32, and kept so: the ratio is no per cent off."""
    torch.manual_seed(0)
    states_BTH, weight_VH = (x.to(dtype) for x in (torch.randn(2, 8, 64), torch.randn(100, 64) / 2))
    ids_BT = torch.randint(0, 100, (2, 8))
    exact, entropies = head_logprobs(states_BTH.float(), weight_VH.float(), ids_BT)
    found, found_entropies = head_logprobs(states_BTH.cuda(), weight_VH.cuda(), ids_BT.cuda())
    torch.testing.assert_close(found.cpu(), exact, atol=1e-5, rtol=0)
    torch.testing.assert_close(found_entropies.cpu(), entropies, atol=1e-5, rtol=0)


def test_gradients_of_half_precision_heads_are_those_of_float32(pretend: Any) -> None:
    """The backward pass makes the same logits again."""
    torch.manual_seed(0)
    states_NH, weight_VH = torch.randn(1, 8, 16).bfloat16(), torch.randn(40, 16).bfloat16()
    ids_BT = torch.randint(0, 40, (1, 8))
    grads = []
    for states, weight, ids in (
        (states_NH.float(), weight_VH.float(), ids_BT),
        (states_NH.cuda(), weight_VH.cuda(), ids_BT.cuda()),
    ):
        inputs = states.requires_grad_(), weight.requires_grad_()
        head_logprobs(*inputs, ids)[0].sum().backward()
        grads.append([x.grad.float().cpu() for x in inputs])
    for exact, found in zip(*grads, strict=True):
        torch.testing.assert_close(found, exact, atol=3e-2, rtol=3e-2)


def test_weighing_answers_waits_once_a_batch(pretend: Any) -> None:
    """Not once or twice for each row."""
    tokenizer = word_tokenizer(chat_template=CHAT)
    policy = LocalPolicy(tiny_llama(vocab_size=len(tokenizer)).cuda(), tokenizer, batch_size=8)
    pairs = [(f"w{row} w2", f"w{row} w4 w5") for row in range(8)]
    asyncio.run(policy.answer_logprobs(pairs))
    with Waits(pretend) as counted:
        found = asyncio.run(policy.answer_logprobs(pairs))
    on_cpu = LocalPolicy(tiny_llama(vocab_size=len(tokenizer)), tokenizer, batch_size=8)
    assert found == pytest.approx(asyncio.run(on_cpu.answer_logprobs(pairs)), abs=1e-4)
    assert sum(counted.of("preferences/policy.py").values()) == 1


def test_the_mask_of_a_pack_is_made_where_it_is_used(pretend: Any) -> None:
    """The host sends a byte for each pair of tokens of the pack, and nothing for what was read before it."""
    size, start = 32, 4096
    pack = Pack([0, 1], list(range(size)), list(range(size)), [(0, list(range(20))), (20, list(range(size)))])
    sent = []
    pretend.listen(lambda kind, what, n: sent.append(n) if kind.startswith("h2d") else None)
    mask = attention_mask(pack, start, torch.float32, "cuda")
    pretend.listen(None)
    assert mask.is_cuda
    assert sum(sent) == size * size
    assert torch.equal(mask.cpu(), attention_mask(pack, start, torch.float32))


def small_run(folder: str, kind: Any = PPOTrainer, settings_of: Any = PPOConfig, **settings: Any) -> Any:
    tokenizer = word_tokenizer(chat_template=CHAT)
    prompts = [" ".join(WORDS[(row + k) % 28] for k in range(1 + row % 4)) for row in range(16)]
    defaults = {
        "output_dir": f"{folder}/run",
        "max_steps": 3,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "steps_per_generation": 2,
        "max_completion_length": 16,
        "gradient_checkpointing": False,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
    }
    tiny_llama(vocab_size=len(tokenizer)).save_pretrained(folder)  # RLOO loads its reference from there
    return kind(
        folder,
        lambda completions, **_: [len(text) / 40 for text in completions],
        args=settings_of(**{**defaults, **settings}),
        train_dataset=Dataset.from_dict({"prompt": prompts}),
        processing_class=tokenizer,
    )


@pytest.mark.parametrize("critic", ["shared", "separate"])
def test_ppo_waits_for_the_device_a_few_times_a_step(pretend: Any, tmp_path: Any, critic: str) -> None:
    """Two micro-batches of four completions and three steps: what waits is sampling, and what is logged."""
    trainer = small_run(str(tmp_path), critic=critic)
    with Waits(pretend) as counted:
        trainer.train()
    first = trainer.state.log_history[0]
    assert first["ratio"] == pytest.approx(1.0, abs=0.02)
    assert first["kl"] == pytest.approx(0.0, abs=0.02)
    own = counted.of("rlaif_sdk/training/")
    assert sum(own.values()) / 3 <= 5, own


def test_ppo_waits_less_than_rloo(pretend: Any, tmp_path: Any) -> None:
    """At most 0.7 times as often, with a reference each, sampling and logging included."""
    waits = {}
    for name, trainer in (
        ("ppo", small_run(str(tmp_path / "ppo"))),
        ("rloo", small_run(str(tmp_path / "rloo"), RLOOTrainer, RLOOConfig, num_generations=2)),
    ):
        with Waits(pretend) as counted:
            trainer.train()
        waits[name] = sum(counted.of("").values()) / 3
    assert waits["ppo"] <= 0.7 * waits["rloo"], waits
