"""The kinds of model that a run's config can name: encoder-decoder models, quantised ones, critics in folders."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from datasets import Dataset  # noqa: E402
from rich.console import Console  # noqa: E402
from transformers import AutoModelForCausalLM, T5ForConditionalGeneration  # noqa: E402

from rlaif_sdk import ConfigError, MissingExtraError  # noqa: E402
from rlaif_sdk.reporting.live_view import watch_run  # noqa: E402
from rlaif_sdk.training.generation import answer_prompts, loaded_policy  # noqa: E402
from rlaif_sdk.training.methods import load_run, train, trainer_settings  # noqa: E402
from rlaif_sdk.training.models import load_policy  # noqa: E402
from tests.training.ppo_runs import TWO_STEPS  # noqa: E402

REWARDS = """\
def letters(prompts, completions):
    return [len(text) / 40 for text in completions]
"""


@pytest.fixture
def config(tmp_path: Path, tokenizer: Any) -> dict[str, Any]:
    """A run of two steps on eight prompts of text; the model is to be saved in ``start``."""
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path / "start")
    (tmp_path / "rewards.py").write_text(REWARDS)
    (tmp_path / "prompts.jsonl").write_text(
        "".join(json.dumps({"prompt": " ".join(["w4"] * (1 + row % 3))}) + "\n" for row in range(8))
    )
    return {
        "model": {"name": str(tmp_path / "start")},
        "data": {"train": str(tmp_path / "prompts.jsonl"), "held_out": str(tmp_path / "prompts.jsonl")},
        "composition": {"rewards": {"letters": {"use": f"{tmp_path}/rewards.py:letters"}}},
        "ppo": {**TWO_STEPS, "learning_rate": 1e-2},
        "output": str(tmp_path / "out"),
    }


@pytest.mark.parametrize("lora", [None, pytest.param({"r": 2, "alpha": 4}, marks=pytest.mark.slow)])
@pytest.mark.parametrize("critic", ["shared", pytest.param("separate", marks=pytest.mark.slow)])
def test_a_run_trains_an_encoder_decoder_model(
    config: dict[str, Any], build_model: Any, lora: dict[str, Any] | None, critic: str
) -> None:
    """From a folder in the shape of Flan-T5, without a chat template, to one that loads as such a model."""
    model = build_model("t5")
    model.save_pretrained(config["model"]["name"])
    config["model"]["lora"] = lora
    config["ppo"]["critic"] = critic
    result = train("ppo", config)
    trained, loading = T5ForConditionalGeneration.from_pretrained(result.model_folder, output_loading_info=True)
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    assert any(not torch.equal(a, b) for a, b in zip(trained.parameters(), model.parameters(), strict=True))
    samples = [json.loads(line) for line in (result.output / "samples.jsonl").read_text().splitlines()]
    assert all(isinstance(sample["after"]["completion"], str) for sample in samples)
    assert result.history[0]["kl"] == pytest.approx(0.0, abs=1e-4)


def test_an_encoder_decoder_model_s_answers_are_what_the_decoder_says(config: dict[str, Any], build_model: Any) -> None:
    """Without learning the answers before and after are the same, and no prompt stands in them."""
    build_model("t5").save_pretrained(config["model"]["name"])
    config["ppo"] |= {"learning_rate": 0.0, "temperature": 2.0}
    result = train("ppo", config)
    before, after = result.before.answers, result.after.answers
    assert before.completion_ids == after.completion_ids
    assert all(len(ids) <= 8 for ids in before.completion_ids)
    assert {ids[-1] == 1 for ids in before.completion_ids} == {True, False}
    assert [ids[-1] != 1 for ids in before.completion_ids] == list(before.truncated)


def test_the_report_says_how_such_a_model_is_loaded(config: dict[str, Any], build_model: Any) -> None:
    """By the class that has an encoder."""
    build_model("t5").save_pretrained(config["model"]["name"])
    printed = io.StringIO()
    watch_run(load_run("ppo", config), Console(file=printed, width=200))
    assert "AutoModelForSeq2SeqLM.from_pretrained" in printed.getvalue()


def test_other_methods_refuse_an_encoder_decoder_model(config: dict[str, Any], build_model: Any) -> None:
    """By name, with the method that trains it, before anything is generated."""
    build_model("t5").save_pretrained(config["model"]["name"])
    config["grpo"] = {**config.pop("ppo"), "num_generations": 2}
    with pytest.raises(ConfigError, match=r"model\.name.*an encoder and a decoder.*PPO.*rlaif train ppo"):
        train("grpo", load_run("grpo", config))


@pytest.mark.parametrize("bits", ["4bit", pytest.param("8bit", marks=pytest.mark.slow)])
def test_a_quantised_model_trains_its_adapter_and_is_saved_whole(
    config: dict[str, Any], build_model: Any, monkeypatch: pytest.MonkeyPatch, bits: str
) -> None:
    """The weights are held by bitsandbytes while training; what is saved is the model's own, the adapter merged."""
    bitsandbytes = pytest.importorskip("bitsandbytes")
    kind = {"4bit": bitsandbytes.nn.Linear4bit, "8bit": bitsandbytes.nn.Linear8bitLt}[bits]
    start = build_model("llama", hidden_size=64, intermediate_size=128)
    start.save_pretrained(config["model"]["name"])
    config["model"] |= {"quantization": bits, "lora": {"r": 2, "alpha": 4}}
    policy, _ = load_policy(load_run("ppo", config))
    assert isinstance(policy.model.layers[0].mlp.up_proj, kind)
    policy.eval()(input_ids=torch.tensor([[6, 7]]))
    states = torch.randn(1, 2, 64, requires_grad=True)
    policy.train().model.layers[0].mlp(states).sum().backward()
    assert states.grad.abs().min() > 0, "an evaluation before training does not take the gradients away"

    result = train("ppo", config)
    assert result.history[0]["kl"] == pytest.approx(0.0, abs=0.05)
    trained, loading = AutoModelForCausalLM.from_pretrained(result.model_folder, output_loading_info=True)
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    assert "quantization_config" not in trained.config.to_dict()
    for name, parameter in trained.named_parameters():
        moved = (parameter - start.get_parameter(name)).abs().max()
        assert (moved > 0) == ("_proj" in name), name
        assert torch.linalg.matrix_rank(parameter - start.get_parameter(name), tol=1e-4) <= 2 if moved else True


def test_quantised_weights_need_an_adapter(config: dict[str, Any]) -> None:
    """They do not train themselves."""
    config["model"]["quantization"] = "4bit"
    with pytest.raises(ConfigError, match="quantization takes an adapter"):
        load_run("ppo", config)


def test_without_bitsandbytes_the_way_to_install_it_is_named(
    config: dict[str, Any], build_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The extra, as a pip command."""
    build_model("llama").save_pretrained(config["model"]["name"])
    config["model"] |= {"quantization": "4bit", "lora": {"r": 2}}
    find = "rlaif_sdk.training.models.importlib.util.find_spec"
    monkeypatch.setattr(find, lambda name, *_: None if name == "bitsandbytes" else object())
    with pytest.raises(MissingExtraError, match=r"bitsandbytes is not installed.*rlaif-sdk\[quantization\]"):
        load_policy(load_run("ppo", config))


def test_a_quantised_policy_is_no_start_for_a_critic(config: dict[str, Any], build_model: Any) -> None:
    """A critic trains all its weights; one is to be named. In the config's own folder it is found by its name."""
    pytest.importorskip("bitsandbytes")
    from rlaif_sdk.exceptions import TrainingError

    build_model("llama", hidden_size=64, intermediate_size=128).save_pretrained(config["model"]["name"])
    config["model"] |= {"quantization": "4bit", "lora": {"r": 2}}
    config["ppo"]["critic"] = "separate"
    with pytest.raises(TrainingError, match=r"quantised policy.*critic_model"):
        train("ppo", config)
    folder = Path(config["model"]["name"]).parent
    build_model("llama", num_hidden_layers=1).save_pretrained(folder / "judge")
    config["ppo"]["critic_model"] = "judge"
    file = folder / "run.yaml"
    file.write_text(json.dumps(config))
    with pytest.warns(UserWarning, match="failed before its first checkpoint: it begins anew"):
        assert train("ppo", file).steps == 2


def test_the_head_of_a_loaded_policy_reads_memory_of_its_own(config: dict[str, Any], build_model: Any) -> None:
    """Sampling cuts the last states out of those of a prompt; a frozen head would be multiplied once a row, copied."""
    build_model("llama").save_pretrained(config["model"]["name"])
    model, _ = load_policy(load_run("ppo", config))
    head = model.requires_grad_(requires_grad=False).get_output_embeddings()
    read: list[Any] = []
    head.register_forward_hook(lambda _, states, __: read.append(states[0]))
    model.generate(input_ids=torch.tensor([[4, 5, 6], [5, 6, 7]]), max_new_tokens=2, do_sample=False)
    assert [tuple(states.shape[:2]) for states in read] == [(2, 1), (2, 1)]
    assert all(states.is_contiguous() for states in read)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_attention_is_computed_as_the_config_says(config: dict[str, Any], llama: Any, attention: str) -> None:
    """By the policy, and by a reference that TRL loads anew."""
    llama.save_pretrained(config["model"]["name"])
    config["model"]["attn_implementation"] = attention
    assert load_policy(load_run("ppo", config))[0].config._attn_implementation == attention
    batches = {"grpo": {"per_device_train_batch_size": 2, "num_generations": 2, "use_cpu": True}}
    run = load_run("grpo", {name: value for name, value in config.items() if name != "ppo"} | batches)
    assert trainer_settings(run).model_init_kwargs == {"attn_implementation": attention}


def test_a_policy_that_is_let_go_of_leaves_no_weights_behind(config: dict[str, Any], llama: Any) -> None:
    """Also where the caller's name still holds it: a loop loads two after each other, and has memory for one."""
    llama.save_pretrained(config["model"]["name"])
    with loaded_policy(load_run("ppo", config)) as (model, _):
        assert next(model.parameters()).abs().sum() > 0
    assert all(weight.is_meta for weight in model.parameters())


@pytest.mark.parametrize(("settings", "dtype"), [({"bf16": True}, torch.bfloat16), ({}, torch.float32)])
def test_held_out_prompts_are_answered_in_the_arithmetic_of_training(
    config: dict[str, Any], llama: Any, tokenizer: Any, settings: dict[str, bool], dtype: torch.dtype
) -> None:
    """Before training too, when nothing has put the model under autocast yet."""
    llama.save_pretrained(config["model"]["name"])
    arguments = trainer_settings(load_run("ppo", {**config, "ppo": {**config["ppo"], **settings}}))
    said = []
    llama.lm_head.register_forward_hook(lambda _, __, logits: said.append(logits.dtype))
    answer_prompts(llama, tokenizer, Dataset.from_dict({"prompt": ["w1 w2"]}), arguments)
    assert set(said) == {dtype}
