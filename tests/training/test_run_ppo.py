"""A PPO run from a config, end to end on a tiny real model."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from peft import PeftModel  # noqa: E402
from safetensors.torch import save as tensors  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402

from rlaif_sdk import ConfigError  # noqa: E402
from rlaif_sdk.training.generation import answer_prompts, repeated_ngrams  # noqa: E402
from rlaif_sdk.training.methods import (  # noqa: E402
    load_run,
    train,
    trainer_settings,
)
from rlaif_sdk.training.models import load_policy  # noqa: E402
from rlaif_sdk.training.ppo import SamplingMismatchWarning  # noqa: E402
from tests.training.ppo_runs import TWO_STEPS  # noqa: E402

REWARDS = """\
def wanted(prompts, completions, target):
    texts = [c if isinstance(c, str) else c[0]["content"] for c in completions]
    return [None if t is None else text.split().count(t) / 8 for text, t in zip(texts, target)]
"""


@pytest.fixture
def config(tmp_path: Path, llama: Any, tokenizer: Any) -> dict[str, Any]:
    """A run on a tiny Llama and eight conversations, of which one has no target."""
    llama.save_pretrained(tmp_path / "start")
    tokenizer.save_pretrained(tmp_path / "start")
    (tmp_path / "rewards.py").write_text(REWARDS)
    rows = [
        {"prompt": [{"role": "user", "content": f"w{row} w3"}], "target": None if row == 1 else "w5"}
        for row in range(8)
    ]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {
        "model": {"name": str(tmp_path / "start"), "lora": {"r": 2, "alpha": 4}},
        "data": {"train": str(tmp_path / "prompts.jsonl"), "held_out": str(tmp_path / "prompts.jsonl")},
        "composition": {"rewards": {"wanted": {"use": f"{tmp_path}/rewards.py:wanted"}}},
        "ppo": {**TWO_STEPS, "learning_rate": 1e-2},
        "output": str(tmp_path / "out"),
    }


def test_a_run_leaves_a_plain_model_and_what_was_measured(config: dict[str, Any]):
    """The trained policy loads with plain from_pretrained, an adapter merged, and answers as the run's policy did."""
    result = train("ppo", config)
    model, loading = AutoModelForCausalLM.from_pretrained(result.model_folder, output_loading_info=True)
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    start = AutoModelForCausalLM.from_pretrained(config["model"]["name"])
    assert any(not torch.equal(a, b) for a, b in zip(model.parameters(), start.parameters(), strict=True))
    assert AutoTokenizer.from_pretrained(result.model_folder).chat_template

    samples = [json.loads(line) for line in (result.output / "samples.jsonl").read_text().splitlines()]
    assert len(samples) == 8
    assert samples[0]["after"]["completion"][0]["role"] == "assistant"
    history = [json.loads(line) for line in (result.output / "history.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in history] == [1, 2]
    assert "kl" in history[0]


def test_a_lora_critic_s_adapter_is_not_merged_into_the_policy(config: dict[str, Any]):
    """Both are on the same weights; the saved model has the policy's adapter and nothing of the critic's."""
    saving = {"save_strategy": "steps", "save_steps": 2, "critic": "lora", "critic_learning_rate": 1e-1}
    result = train("ppo", {**config, "ppo": {**config["ppo"], **saving}})
    saved = AutoModelForCausalLM.from_pretrained(result.model_folder).state_dict()
    start = AutoModelForCausalLM.from_pretrained(config["model"]["name"])
    checkpoint = max((result.output / "checkpoints").glob("checkpoint-*"))
    merged = PeftModel.from_pretrained(start, checkpoint).merge_and_unload().state_dict()
    assert saved.keys() == merged.keys()
    for name, weight in merged.items():
        torch.testing.assert_close(saved[name], weight)


def test_a_lora_critic_without_lora_is_refused_in_its_line(config: dict[str, Any]):
    """Before a model is loaded."""
    config["model"].pop("lora")
    with pytest.raises(ConfigError, match="needs a policy with LoRA"):
        trainer_settings(load_run("ppo", {**config, "ppo": {**config["ppo"], "critic": "lora"}}))


def test_rewards_before_and_after_are_of_the_same_prompts_and_abstentions_stay_apart(config: dict[str, Any]):
    """The row without a target is unscored in both, and every other row has a score."""
    result = train("ppo", config)
    for side in (result.before, result.after):
        scores = side.rewards()["wanted"]
        assert np.flatnonzero(np.isnan(scores)).tolist() == [1]
        assert np.array_equal(np.isnan(side.rewards()["composed_reward"]), np.isnan(scores))
    assert result.before.answers.prompts == result.after.answers.prompts


@pytest.mark.parametrize("lora", [True, False])
def test_without_learning_the_answers_stay_the_same(config: dict[str, Any], lora: bool):
    """At learning rate 0 before equals after: the sampling has one seed, and nothing else changes the policy."""
    config["ppo"] |= {"learning_rate": 0.0, "value_learning_rate": 1e-3}
    if not lora:
        del config["model"]["lora"]
    result = train("ppo", config)
    assert result.before.answers.completion_ids == result.after.answers.completion_ids


@pytest.mark.parametrize("lora", [None, {"r": 2, "alpha": 4}])
def test_a_trained_model_is_saved_before_it_answers(
    config: dict[str, Any], lora: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory that runs out while the held-out prompts are answered costs the answers, and not the training."""
    config["model"]["lora"] = lora
    answered: list[Any] = []

    def answer_once(*args: Any, **kwargs: Any) -> Any:
        if answered:
            raise MemoryError("no room for answers")
        answered.append(answer_prompts(*args, **kwargs))
        return answered[0]

    monkeypatch.setattr("rlaif_sdk.training.generation.answer_prompts", answer_once)
    with pytest.raises(MemoryError, match="no room"):
        train("ppo", config)
    output = Path(config["output"])
    trained = AutoModelForCausalLM.from_pretrained(output / "model").state_dict()
    start = AutoModelForCausalLM.from_pretrained(config["model"]["name"]).state_dict()
    assert any(not torch.equal(weights, start[name]) for name, weights in trained.items())
    assert (output / "history.jsonl").read_text().count("\n") == config["ppo"]["max_steps"]
    assert json.loads((output / "run.json").read_text())["status"] == "failed"


def test_a_run_whose_answers_failed_goes_on_from_its_last_checkpoint(
    config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The figures that were lost are made without training anew; then it is finished, and refused."""
    config["ppo"] |= {"save_strategy": "steps", "save_steps": 1, "max_steps": 3}
    fail_the_second_answers(monkeypatch)
    with pytest.raises(MemoryError, match="no room"):
        train("ppo", config)
    trained = (Path(config["output"]) / "model" / "model.safetensors").read_bytes()
    result = train("ppo", config, resume=True)
    assert result.steps == 3, "in the middle of an epoch"
    assert [entry["step"] for entry in result.history] == [1, 2, 3]
    assert (result.output / "samples.jsonl").read_text().count("\n") == 8
    assert (result.model_folder / "model.safetensors").read_bytes() == trained
    with pytest.raises(ConfigError, match=r"already holds a trained model.*model\.name of a new run"):
        train("ppo", config, resume=True)


def test_without_a_checkpoint_a_run_whose_answers_failed_says_where_its_model_is(
    config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was trained stays, and the message says how to begin anew."""
    fail_the_second_answers(monkeypatch)
    with pytest.raises(MemoryError, match="no room"):
        train("ppo", config)
    with pytest.raises(ConfigError, match=r"no complete checkpoint.*model holds the model as trained; to begin anew"):
        train("ppo", config, resume=True)
    assert (Path(config["output"]) / "model" / "config.json").is_file()


def fail_the_second_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the first answers after training fail, and no others."""
    turn = iter(range(9))

    def answer(*args: Any, **kwargs: Any) -> Any:
        if next(turn) == 1:
            raise MemoryError("no room for answers")
        return answer_prompts(*args, **kwargs)

    monkeypatch.setattr("rlaif_sdk.training.generation.answer_prompts", answer)


def test_a_finished_run_is_not_overwritten(config: dict[str, Any]):
    """A second run into the same folder is refused before anything is loaded."""
    (Path(config["output"]) / "model").mkdir(parents=True)
    with pytest.raises(ConfigError, match="already holds a trained model"):
        train("ppo", config)


def test_resuming_without_a_checkpoint_says_what_makes_one(config: dict[str, Any]):
    """The message names the setting that is missing."""
    with pytest.raises(ConfigError, match="save_strategy"):
        train("ppo", config, resume=True)


def test_a_run_goes_on_from_its_checkpoint(config: dict[str, Any]):
    """A run that ended early is taken up at its last checkpoint and finished."""
    config["ppo"] |= {"save_strategy": "steps", "save_steps": 1, "max_steps": 1}
    first = train("ppo", config)
    first.model_folder.rename(first.output / "early")
    config["ppo"]["max_steps"] = 2
    with pytest.raises(ConfigError, match=r"(?s)ppo\.max_steps: 1 → 2.*--allow-changed"):
        train("ppo", config, resume=True)
    changed = dataclasses.replace(load_run("ppo", config), allow_changed=True)
    assert [entry["step"] for entry in train("ppo", changed, resume=True).history] == [1, 2]


def test_a_base_model_does_not_take_messages(config: dict[str, Any], tokenizer: Any):
    """Without a chat template the prompts have to be text; the refusal says so before anything is sampled."""
    tokenizer.chat_template = None
    tokenizer.save_pretrained(config["model"]["name"])
    (Path(config["model"]["name"]) / "chat_template.jinja").unlink()
    with pytest.raises(ConfigError, match=r"model\.name.*no chat template.*prompts as text"):
        train("ppo", config)


def test_a_model_that_is_not_there_is_named(config: dict[str, Any]):
    """The refusal points at ``model.name``."""
    config["model"]["name"] = "no/such-model"
    with pytest.raises(ConfigError, match=r"model\.name"):
        train("ppo", config)


@pytest.mark.parametrize(
    ("model", "dtype"),
    [
        ({"lora": None}, torch.float32),
        ({}, torch.bfloat16),
        ({"lora": None, "dtype": "bfloat16"}, torch.bfloat16),
        ({"dtype": "float32"}, torch.float32),
    ],
)
def test_weights_that_train_are_float32_unless_said_otherwise(config: dict[str, Any], model: Any, dtype: Any):
    """A model saved in bfloat16 keeps that under an adapter; without one, PPO's steps would round to nothing."""
    start = config["model"]["name"]
    AutoModelForCausalLM.from_pretrained(start).to(torch.bfloat16).save_pretrained(start)
    config["model"] |= model
    policy, _ = load_policy(load_run("ppo", config))
    assert policy.dtype == dtype


def test_answering_leaves_the_random_state_of_training_alone(config: dict[str, Any]):
    """An evaluation more or less does not change what training samples next."""
    run = load_run("ppo", config)
    model, tokenizer = load_policy(run)
    from datasets import Dataset

    prompts = Dataset.from_list([{"prompt": "w1 w2"}, {"prompt": "w1"}, {"prompt": "w4 w4 w4"}])
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    answers = answer_prompts(model, tokenizer, prompts, trainer_settings(run))
    assert torch.equal(torch.rand(3), expected)
    assert all(isinstance(completion, str) for completion in answers.completions), "text in, text out"
    ended = [ids[-1] == tokenizer.eos_token_id for ids in answers.completion_ids]
    assert list(answers.truncated) == [not end for end in ended]


@pytest.fixture
def tokenizer_with_bos(tokenizer: Any) -> Any:
    """One that begins a text with a token of its own, as Llama's does, and whose chat template takes an argument."""
    from tokenizers.processors import TemplateProcessing

    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="system $A", special_tokens=[("system", 5)])
    tokenizer.chat_template += "{% if hint is defined %} {{ hint }}{% endif %}"
    return tokenizer


@pytest.mark.parametrize("conversational", [False, True])
def test_held_out_prompts_are_encoded_and_sampled_as_in_training(
    make_trainer: Any, llama: Any, tokenizer_with_bos: Any, monkeypatch: pytest.MonkeyPatch, conversational: bool
):
    """Prompt tokens, special ones included, and the distribution are training's, whatever the model's own config."""
    from datasets import Dataset

    texts = ["w1 w2", "w3"]
    prompts: Any = [[{"role": "user", "content": text}] for text in texts] if conversational else texts
    llama.generation_config.repetition_penalty = 1.3
    llama.generation_config.top_k = 5
    with pytest.warns(SamplingMismatchWarning, match="min_new_tokens"):
        trainer = make_trainer(llama, chat_template_kwargs={"hint": "w27"}, generation_kwargs={"min_new_tokens": 3})
    calls: list[dict[str, Any]] = []
    prepare = type(llama)._prepare_generation_config

    def watched(model: Any, *args: Any, **kwargs: Any) -> Any:
        config, rest = prepare(model, *args, **kwargs)
        calls.append({**config.to_dict(), "ids": None})
        return config, rest

    generate = llama.generate

    def with_ids(**kwargs: Any) -> Any:
        output = generate(**kwargs)
        calls[-1]["ids"] = kwargs["input_ids"].tolist()
        return output

    monkeypatch.setattr(type(llama), "_prepare_generation_config", watched)
    monkeypatch.setattr(llama, "generate", with_ids)
    trainer._generate(list(prompts))
    answer_prompts(llama, tokenizer_with_bos, Dataset.from_dict({"prompt": prompts}), trainer.args)
    training, held_out = calls
    assert held_out["ids"] == training["ids"]
    assert any(5 in row for row in training["ids"]) is not conversational
    assert any(33 in row for row in training["ids"]) is conversational
    for setting in ("repetition_penalty", "top_k", "top_p", "temperature", "min_new_tokens", "max_new_tokens"):
        assert held_out[setting] == training[setting], setting


def test_answering_leaves_every_random_generator_alone(config: dict[str, Any]):
    """Those of Python and NumPy too, which rewards and data sets may draw from."""
    import random

    from datasets import Dataset

    run = load_run("ppo", config)
    model, tokenizer = load_policy(run)
    states = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002 - the global one is what is at stake
    answer_prompts(model, tokenizer, Dataset.from_list([{"prompt": "w1"}]), trainer_settings(run))
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states  # noqa: NPY002


@pytest.mark.parametrize(
    ("ids", "share"), [([1, 2, 3, 4], 0.0), ([1, 1, 1, 1], 0.5), ([1, 2, 3, 1, 2, 3], 0.25), ([1, 2], 0.0), ([], 0.0)]
)
def test_repetition_is_the_share_of_ngrams_seen_before(ids: list[int], share: float):
    """Distinct trigrams over all trigrams, from 1."""
    assert repeated_ngrams(ids) == share


def test_a_checkpoint_that_was_cut_short_is_passed_over(tmp_path: Path) -> None:
    """Training resumes from the newest checkpoint that was written whole: no file of it is missing or ends early."""
    from rlaif_sdk.training.run_folder import last_checkpoint

    assert last_checkpoint(tmp_path) is None
    for step in (5, 40, 100):
        (tmp_path / f"checkpoint-{step}").mkdir()
    assert last_checkpoint(tmp_path) is None
    for step in (5, 40):
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text("{}")
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-40"

    weights = {"model.safetensors": tensors({"w": torch.ones(8)}), "optimizer.pt": b"", "trainer_state.json": b"{}"}
    with io.BytesIO() as stream:
        torch.save({"step": 1}, stream)
        weights["optimizer.pt"] = stream.getvalue()
    for name, content in weights.items():
        (tmp_path / "checkpoint-100" / name).write_bytes(content)
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-100"
    for name, content in weights.items():
        for torn in (content[: len(content) - 1], b""):
            (tmp_path / "checkpoint-100" / name).write_bytes(torn)
            assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-40", (name, torn)
        (tmp_path / "checkpoint-100" / name).write_bytes(content)
