"""Where models land, with two devices and a launcher's rank, and what a card computes in."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForSequenceClassification

from rlaif_sdk import Composer, RewardBatch, load_classifier
from rlaif_sdk.judges.backends.local import TransformersBackend
from rlaif_sdk.training.methods import load_run, trainer_settings
from rlaif_sdk.training.models import quantization
from rlaif_sdk.training.ppo import PPOConfig
from rlaif_sdk.training.run_folder import check
from tests.tiny_models import tiny_llama, word_tokenizer

CHAT = "{% for m in messages %}{{ m.content + ' ' }}{% endfor %}"


@pytest.fixture
def devices(pretend: Any) -> Any:
    """A function that sets how many devices there are, for one test."""
    before = pretend.device_count()
    yield pretend.set_device_count
    pretend.set_device(0)
    pretend.set_device_count(before)


@pytest.fixture
def judge(tmp_path: Path) -> str:
    tokenizer = word_tokenizer(chat_template=CHAT)
    tiny_llama(vocab_size=len(tokenizer)).save_pretrained(tmp_path / "judge")
    tokenizer.save_pretrained(tmp_path / "judge")
    return str(tmp_path / "judge")


@pytest.fixture
def reward_model(tmp_path: Path) -> str:
    tokenizer = word_tokenizer()
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    ids = {"bos_token_id": None, "eos_token_id": 1, "pad_token_id": 0}
    LlamaForSequenceClassification(
        LlamaConfig(vocab_size=len(tokenizer), num_key_value_heads=2, num_labels=1, **shape, **ids)
    ).save_pretrained(tmp_path / "rm")
    tokenizer.save_pretrained(tmp_path / "rm")
    return str(tmp_path / "rm")


@pytest.mark.parametrize("stated", [{}, {"device": "cuda"}])
def test_a_reward_model_lands_on_the_gpu_of_its_process(
    devices: Any, monkeypatch: pytest.MonkeyPatch, reward_model: str, stated: dict[str, str]
) -> None:
    """The composer loads it in a thread, whose current device is the first one whatever the process was given."""
    devices(2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    torch.cuda.set_device(1)
    composer = Composer.from_config(
        {"rewards": {"rm": {"use": "reward_model", "params": {"model": reward_model, **stated}}}}
    )
    with composer:
        composition = composer.compose(RewardBatch(prompts=["w1 w2"] * 2, completions=[" w3", " w4 w5"]))
        assert not composition.rewards["rm"].failures
        assert composer.components["rm"].reward._model._network.device == torch.device("cuda:1")


def test_a_classifier_and_a_judge_land_on_the_gpu_of_their_process(
    devices: Any, monkeypatch: pytest.MonkeyPatch, reward_model: str, judge: str
) -> None:
    """A stated index is kept; a launcher that shows each process one device counts from it."""
    devices(2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    for device, expected in ((None, 1), ("cuda", 1), ("cuda:0", 0)):
        classifier = load_classifier(reward_model, device=device)
        assert classifier._network.device == torch.device("cuda", expected)
        backend = TransformersBackend(judge, device=device or "auto")
        backend.setup()
        assert backend._model.device == torch.device("cuda", expected)
    devices(1)
    assert load_classifier(reward_model)._network.device == torch.device("cuda:0")


@pytest.fixture
def ppo(tmp_path: Path, judge: str) -> dict[str, Any]:
    (tmp_path / "rewards.py").write_text(
        "def short(completions):\n    return [1 / (1 + len(text)) for text in completions]\n"
    )
    (tmp_path / "prompts.jsonl").write_text("".join(f'{{"prompt": "w{row} w3"}}\n' for row in range(12)))
    return {
        "model": {"name": judge},
        "data": {"train": str(tmp_path / "prompts.jsonl"), "held_out_rows": 4},
        "composition": {"rewards": {"short": {"use": f"{tmp_path}/rewards.py:short"}}},
        "output": str(tmp_path / "out"),
    }


def test_a_run_takes_the_first_of_two_gpus_and_says_how_to_take_both(devices: Any, ppo: dict[str, Any]) -> None:
    """Without a launcher transformers would wrap the model in DataParallel, which TRL refuses."""
    devices(2)
    for method in ("ppo", "grpo"):
        settings = {"per_device_train_batch_size": 4, "max_completion_length": 8, "num_generations": 2}
        run = load_run(method, {**ppo, method: settings})
        assert trainer_settings(run).n_gpu == 1
        said = [warning for warning in check(run).warnings if "GPU" in warning]
        assert len(said) == 1
        assert "torchrun --nproc_per_node 2" in said[0]
    devices(1)
    assert not [warning for warning in check(run).warnings if "GPU" in warning]


@pytest.mark.parametrize(("capability", "native"), [((7, 0), False), ((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_a_card_that_emulates_bfloat16_is_not_made_to(
    card: SimpleNamespace, tmp_path: Path, ppo: dict[str, Any], capability: tuple[int, int], native: bool
) -> None:
    """A V100 and a T4 compute in float32 unless told otherwise; torch says that they support bfloat16."""
    card.capability = capability
    assert PPOConfig(str(tmp_path)).bf16 is native
    run = load_run("grpo", {**ppo, "grpo": {"per_device_train_batch_size": 8}})
    assert trainer_settings(run).bf16 is native
    half = load_run("grpo", {**ppo, "grpo": {"per_device_train_batch_size": 8, "fp16": True}})
    assert (trainer_settings(half).bf16, trainer_settings(half).fp16) == (False, True)
    compute = quantization("4bit").bnb_4bit_compute_dtype
    assert compute is (torch.bfloat16 if native else torch.float32)


def test_a_policy_that_does_not_fit_the_card_is_refused_before_it_loads(
    card: SimpleNamespace, ppo: dict[str, Any]
) -> None:
    """What is counted are the bytes of the card, not of the machine."""
    card.memory = 200 * 2**10
    run = load_run("ppo", {**ppo, "ppo": {"per_device_train_batch_size": 4, "max_completion_length": 8}})
    assert any("CUDA device" in str(problem) for problem in check(run).problems)


def test_numbers_are_those_of_the_cpu(judge: str) -> None:
    """What this device computes is what a CPU computes."""
    model = AutoModelForCausalLM.from_pretrained(judge)
    ids = torch.tensor([[3, 4, 5]])
    on_cpu = model(ids).logits
    on_device = model.to("cuda")(ids.to("cuda")).logits
    assert on_device.is_cuda
    assert torch.allclose(on_device.cpu(), on_cpu, atol=1e-6)
    with pytest.raises(RuntimeError, match="same device"):
        on_device + on_cpu


def test_a_classifier_reads_more_at_once_on_a_gpu(reward_model: str) -> None:
    """A thousand tokens would leave it idle; a reward's parameters may say another number."""
    assert load_classifier(reward_model, device="cpu").tokens_per_batch == 1024
    assert load_classifier(reward_model).tokens_per_batch == 16_384
    stated = {"model": reward_model, "tokens_per_batch": 2048}
    with Composer.from_config({"rewards": {"rm": {"use": "reward_model", "params": stated}}}) as composer:
        composer.compose(RewardBatch(prompts=["w1"], completions=[" w2"]))
        assert composer.components["rm"].reward._model.tokens_per_batch == 2048
