"""What is found out about a run before any model is loaded."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from datasets import Dataset  # noqa: E402
from peft import LoraConfig, get_peft_model  # noqa: E402
from rich.console import Console  # noqa: E402
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification  # noqa: E402

from rlaif_sdk import ConfigError  # noqa: E402
from rlaif_sdk.reporting.preflight_report import report_check  # noqa: E402
from rlaif_sdk.training.methods import get_method, load_run, trainer_settings  # noqa: E402
from rlaif_sdk.training.preflight import checks, estimate_memory, find_model  # noqa: E402
from rlaif_sdk.training.preflight.memory import (  # noqa: E402
    Machine,
    Workload,
    activation_bytes,
    backward_bytes,
    container_limit,
    model_dims,
)
from rlaif_sdk.training.run_folder import check  # noqa: E402

REWARDS = "def wanted(completions, target):\n    return [1.0] * len(completions)\n"


@pytest.fixture
def config(tmp_path: Path, llama: Any, tokenizer: Any) -> dict[str, Any]:
    llama.save_pretrained(tmp_path / "start")
    tokenizer.save_pretrained(tmp_path / "start")
    (tmp_path / "rewards.py").write_text(REWARDS)
    rows = [{"prompt": f"w{row} w3", "target": "w5"} for row in range(12)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {
        "model": {"name": str(tmp_path / "start")},
        "data": {"train": str(tmp_path / "prompts.jsonl"), "held_out_rows": 4},
        "composition": {"rewards": {"wanted": {"use": f"{tmp_path}/rewards.py:wanted"}}},
        "ppo": {
            "per_device_train_batch_size": 4,
            "max_completion_length": 8,
            "use_cpu": True,
            "steps_per_generation": 1,
        },
        "output": str(tmp_path / "out"),
    }


def found_in(config: dict[str, Any]) -> list[str]:
    return [str(problem) for problem in check(load_run("ppo", config)).problems]


def test_a_sound_run_is_described_and_leaves_nothing_behind(config, tmp_path, llama):
    """Rows with their digest, the policy twice (its reference), its exact size; no folder, no ledger."""
    config["composition"]["ledger"] = str(tmp_path / "scores.sqlite")
    found = check(load_run("ppo", config))
    assert found.problems == []
    assert {name: table["rows"] for name, table in found.data.items()} == {"train": 8, "held_out": 4}
    (policy,) = found.models
    assert (policy.role, policy.copies, policy.files.dtype) == ("policy", 2, "F32")
    assert policy.files.parameters == sum(weight.numel() for weight in llama.parameters())
    assert found.memory is not None
    assert found.memory.weights == found.memory.reference == found.memory.gradients == policy.files.parameters * 4
    assert found.memory.optimizer == 2 * found.memory.gradients
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "scores.sqlite").exists()


def test_every_problem_is_found_at_once_each_with_its_place(config):
    """A misspelt setting, reward and model, in one go."""
    config["ppo"]["max_step"] = 3
    config["composition"]["rewards"]["toxisity"] = {}
    config["model"]["name"] = "./nowhere"
    problems = found_in(config)
    assert len(problems) == 3
    assert "ppo.max_step: unknown key (did you mean 'max_steps'?)" in problems[0]
    assert "'toxisity'" in problems[1]
    assert "did you mean 'toxicity'" in problems[1] or "installed:" in problems[1]
    assert problems[2].startswith("model.name: the model folder './nowhere' does not exist")


def test_a_column_that_a_reward_needs_is_missed_before_anything_loads(config, tmp_path):
    """In the training rows and in the held-out ones, by name."""
    (tmp_path / "held.jsonl").write_text('{"prompt": "w1"}\n')
    config["data"]["held_out"] = str(tmp_path / "held.jsonl")
    (problem,) = found_in(config)
    assert "data.held_out: reward 'wanted' needs the column 'target'" in problem


def test_too_few_prompts_for_one_rollout_are_missed(config):
    """An incomplete rollout is left out, so that a run would end without a step and call itself trained."""
    config["ppo"] |= {"steps_per_generation": 3}
    (problem,) = found_in(config)
    assert "data.train: there are 8 prompts to train on, and a rollout takes 12: no step would be made" in problem
    config["ppo"] |= {"num_generations": 2}
    assert found_in(config) == []


def test_a_single_completion_is_missed_where_a_reward_compares_them(config, tmp_path):
    """Each would be alone in its group, and the reward would score nothing."""
    (tmp_path / "shares.py").write_text(
        "from rlaif_sdk import reward\n@reward(scope='group')\ndef share(completion_texts):\n    return [0.5] * 2\n"
    )
    config["composition"]["rewards"]["share"] = {"use": f"{tmp_path}/shares.py:share"}
    (problem,) = found_in(config)
    assert "ppo.num_generations: 'share' compares the completions to one prompt, and there is one" in problem
    config["ppo"] |= {"num_generations": 2}
    assert found_in(config) == []


def test_a_costly_reward_that_is_asked_in_full_for_lack_of_groups_is_told(config, tmp_path):
    """With one completion a prompt there is no advantage within a group, and no call that could be saved."""
    (tmp_path / "judges.py").write_text(
        "from rlaif_sdk import reward\n@reward(range=(0, 1))\ndef judge(completion_texts):\n    return [0.5] * len(completion_texts)\n"
    )
    config["composition"]["rewards"]["judge"] = {"use": f"{tmp_path}/judges.py:judge", "ask": "advantage"}
    said = "rewards.judge.ask saves nothing: ppo.num_generations is 1"
    assert [warning for warning in check(load_run("ppo", config)).warnings if said in warning]
    config["ppo"] |= {"num_generations": 2}
    assert not [warning for warning in check(load_run("ppo", config)).warnings if said in warning]


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"gates": [{"reward": "wanted", "min": 0.0, "floor": -1.0}]}, "gates hold over the total"),
        ({"constraints": [{"reward": "wanted", "min": 0.5}]}, "constraints are taken off the total"),
        ({"groups": {"all": {"members": ["wanted"], "weight": 1.0}}}, "groups are aggregated before they are weighed"),
        (
            {"rewards": {"wanted": {"weight": {"schedule": "linear", "from": 0, "to": 1, "start": 0, "end": 4}}}},
            "wanted has a schedule",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_what_holds_over_totals_is_missed_where_grpo_normalises_each_reward(config, part, message):
    """GDPO takes a composition apart; one that cannot be is told of before a model loads, with its place."""
    config["grpo"] = {**config.pop("ppo"), "num_generations": 4, "multi_objective_aggregation": "normalize_then_sum"}
    assert check(load_run("grpo", config)).problems == []
    rewards = part.pop("rewards", {})
    config["composition"] |= part
    config["composition"]["rewards"]["wanted"] |= rewards.get("wanted", {})
    (problem,) = check(load_run("grpo", config)).problems
    assert str(problem).startswith("composition: ")
    assert message in str(problem)


def test_a_column_of_a_reserved_name_is_told_with_its_table(config, tmp_path):
    """Before anything loads, as a missing one is."""
    rows = [{"prompt": "w1", "target": "w5", "completions": "w2"}] * 4
    (tmp_path / "more.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config["data"]["held_out"] = str(tmp_path / "more.jsonl")
    assert found_in(config) == [
        "data.held_out: the column 'completions' has a reserved name (rename the column in the dataset)"
    ]


def test_a_column_under_another_name_counts(config, tmp_path):
    """What ``columns:`` of the reward maps is there."""
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "w1", "answer": "w2"}\n' * 12)
    config["composition"]["rewards"]["wanted"]["columns"] = {"target": "answer"}
    assert found_in(config) == []
    config["composition"]["rewards"]["wanted"]["columns"] = {"target": "anser"}
    (first, _) = found_in(config)
    assert "reward 'wanted': the column 'anser' is missing" in first


def test_another_model_s_tokenizer_is_refused(config, tokenizer):
    """It knows tokens that the embedding has no row for."""
    tokenizer.add_tokens([f"extra{index}" for index in range(5)])
    tokenizer.save_pretrained(config["model"]["name"])
    (problem,) = found_in(config)
    assert "model.name: the tokenizer knows 39 tokens and the model 34" in problem


def test_a_model_that_a_reward_names_is_looked_for_and_counted(config, tmp_path):
    """By the convention of the parameter ``model``, before it is loaded."""
    toxicity = {"model": str(tmp_path / "start"), "label": "nontoxic"}
    pytest.importorskip("rlaif_toxicity")
    config["composition"]["rewards"]["toxicity"] = {"params": toxicity}
    run = load_run("ppo", config)
    tables = dict(zip(("train", "held_out"), get_method("ppo").load_rows(run), strict=True))
    with run.composer(ledger=False) as composer:
        found = checks.check_run(run, trainer_settings(run), tables, composer)
    assert [model.role for model in found.models] == ["policy", "reward toxicity"]
    assert found.memory is not None
    assert found.memory.rewards == found.models[1].files.bytes > 0
    toxicity["model"] = str(tmp_path / "gone")
    (problem,) = found_in(config)
    assert "composition.rewards.toxicity.params.model" in problem
    assert "does not exist" in problem


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda file: file.write_bytes(file.read_bytes()[:-100]), "is truncated"),
        (lambda file: file.write_bytes(b"torn"), "is no safetensors file"),
        (lambda file: file.write_bytes(struct.pack("<Q", 4) + b"{,,}"), "no readable header"),
        (lambda file: file.unlink(), "holds no weights"),
        (
            lambda file: (file.parent / "model.safetensors.index.json").write_text(
                '{"weight_map": {"a": "model-00002.safetensors"}}'
            ),
            "lacks model-00002.safetensors",
        ),
    ],
)
def test_damaged_or_missing_weights_are_told_from_their_headers(config, damage, message):
    """A download that broke off is found before half of it is read."""
    damage(Path(config["model"]["name"]) / "model.safetensors")
    (problem,) = found_in(config)
    assert message in problem


def test_an_adapter_counts_what_it_trains(config, llama):
    """The frozen weights have no gradient, no optimiser's state and no copy for reference; the adapter's are exact."""
    config["model"]["lora"] = {"r": 2}
    found = check(load_run("ppo", config))
    frozen = sum(weight.numel() for weight in llama.parameters())
    adapted = get_peft_model(llama, LoraConfig(task_type="CAUSAL_LM", r=2, target_modules="all-linear"))
    trainable = sum(weight.numel() for weight in adapted.parameters() if weight.requires_grad)
    assert found.memory is not None
    assert (found.memory.gradients, found.memory.optimizer) == (4 * trainable, 8 * trainable)
    assert (found.memory.weights, found.memory.reference) == (4 * (frozen + trainable), 0)
    config["model"]["lora"]["target_modules"] = ["no_such_layer"]
    (problem,) = found_in(config)
    assert "model.lora.target_modules: the adapter does not fit" in problem


@pytest.mark.parametrize("autocast", [False, True])
def test_an_adapter_s_copies_of_what_it_reads_are_counted(autocast):
    """In bfloat16 the estimate of a layer's activations is within a tenth of what autograd keeps, by itself and mixed."""
    shape = {"hidden_size": 96, "intermediate_size": 256, "num_hidden_layers": 6, "vocab_size": 34}
    settings = LlamaConfig(num_attention_heads=6, num_key_value_heads=2, **shape)
    adapter = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules="all-linear")
    weights = torch.float32 if autocast else torch.bfloat16
    model = get_peft_model(LlamaForCausalLM(settings).to(weights), adapter).base_model.model.model
    rows, length = 3, 61
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.numel() % (rows * length) == 0:  # no weight's size is
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), torch.autocast("cpu", enabled=autocast):
        model(input_ids=torch.ones(rows, length, dtype=torch.long)).last_hidden_state.sum()
    work = Workload(rows=rows, length=length, compute_bytes=2, adapter_bytes=2 if autocast else 4)
    estimate = activation_bytes(model_dims(settings, "CAUSAL_LM", adapter), work)
    assert estimate == pytest.approx(sum(storage.nbytes() for storage in kept.values()), rel=0.1)


def test_the_dimensions_are_read_without_allocating_weights():
    """A model of eight billion parameters is measured to the last one."""
    shape = {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32}
    config = LlamaConfig(vocab_size=128256, num_attention_heads=32, num_key_value_heads=8, **shape)
    dims = model_dims(config, "CAUSAL_LM")
    assert dims.parameters == 8_030_261_248
    assert (dims.keys, dims.layers) == (1024, 32)
    estimate = estimate_memory(dims, Workload(rows=1, length=128, references=1))
    assert estimate.sure == 5 * 4 * dims.parameters


def test_what_cannot_fit_is_refused_and_what_may_not_is_warned_of(config, monkeypatch):
    """Weights, gradients and Adam's state are sure; activations are an estimate and refuse nothing."""
    machine = Machine(ram=10**5, ram_free=10**5, cuda=None, cuda_free=None, process=0)
    monkeypatch.setattr(checks.Machine, "look", classmethod(lambda cls, device: machine))
    (problem,) = found_in(config)
    assert "weights, gradients and optimiser take" in problem
    assert "model.lora" in problem
    machine = Machine(ram=10**9, ram_free=500_000, cuda=None, cuda_free=None, process=0)
    found = check(load_run("ppo", config))
    assert found.problems == []
    assert "training may take" in found.warnings[0]


def test_activations_are_recomputed_where_only_that_fits(config, monkeypatch):
    """On a GPU, unless the config says otherwise, and it is said; a config that says no is told what yes would take."""
    config["ppo"] |= {"per_device_train_batch_size": 8}
    memory = check(load_run("ppo", config)).memory
    config["ppo"]["gradient_checkpointing"] = True
    less = check(load_run("ppo", config)).memory
    kept, recomputed = (each.peak - each.process for each in (memory, less))
    assert recomputed < kept
    between = (kept + recomputed) // 2
    machine = Machine(ram=10**12, ram_free=10**12, cuda=between, cuda_free=between, process=10**9)
    monkeypatch.setattr(checks.Machine, "look", classmethod(lambda cls, device: machine))
    del config["ppo"]["gradient_checkpointing"]
    run = load_run("ppo", config)
    settings = trainer_settings(run)
    tables = dict(zip(("train", "held_out"), get_method("ppo").load_rows(run), strict=True))
    found = checks.check_run(run, settings, tables)
    assert settings.gradient_checkpointing is True
    assert found.memory.peak - found.memory.process == recomputed
    assert "gradient_checkpointing is on" in found.warnings[-1]
    config["ppo"]["gradient_checkpointing"] = False
    run = load_run("ppo", config)
    settings = trainer_settings(run)
    found = checks.check_run(run, settings, tables)
    assert settings.gradient_checkpointing is False
    assert "gradient_checkpointing: true makes it" in found.warnings[-1]


def test_processes_on_a_cpu_share_its_memory(config, monkeypatch):
    """What one process has room for, several may not: each holds the whole model."""
    memory = check(load_run("ppo", config)).memory
    room = int(1.5 * memory.sure)
    machine = Machine(ram=room, ram_free=room, cuda=None, cuda_free=None, process=0)
    monkeypatch.setattr(checks.Machine, "look", classmethod(lambda cls, device: machine))
    assert found_in(config) == []
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    (problem,) = found_in(config)
    assert "for each of 2 processes" in problem


@pytest.mark.parametrize(
    ("stage", "in_parts"), [(None, ""), (2, "gradients optimizer"), (3, "weights reference gradients optimizer")]
)
def test_what_a_launcher_has_in_parts_is_divided(config, stage, in_parts):
    """By the processes; data parallelism divides nothing, and holds the gradients twice."""
    dims = model_dims(LlamaConfig(num_hidden_layers=2, hidden_size=64, vocab_size=100), "CAUSAL_LM")
    parts = {"gradient_parts": 4, "optimizer_parts": 4} if stage else {"buckets": True}
    work = Workload(rows=1, length=8, references=1)
    alone, one_of_four = (
        estimate_memory(dims, each) for each in (work, replace(work, **parts, weight_parts=4 if stage == 3 else 1))
    )
    for part in ("weights", "reference", "gradients", "optimizer"):
        divided = getattr(alone, part) // (4 if part in in_parts.split() else 1)
        assert getattr(one_of_four, part) == divided, part
    assert one_of_four.buckets == (0 if stage else alone.gradients)


def test_a_pass_adds_its_gradients_only_to_those_of_an_earlier_one():
    """Of the head and of a layer the larger counts, since one is done first; 8-bit Adam keeps a quarter of the bytes."""
    dims = model_dims(LlamaConfig(num_hidden_layers=2, hidden_size=64, vocab_size=100), "CAUSAL_LM")
    work = Workload(rows=64, length=64, logit_tokens=64)
    once, several = (estimate_memory(dims, replace(work, accumulates=each)) for each in (False, True))
    assert backward_bytes(dims, work) > once.logits > 0
    assert once.passing == once.copies + once.activations > once.gradients
    assert several.passing == once.passing + once.gradients
    assert estimate_memory(dims, replace(work, optimizer="adamw_bnb_8bit")).optimizer * 4 == once.optimizer


def test_a_wide_pass_without_gradients_may_be_the_peak():
    """``logprob_batch_tokens`` counts where it is more than an update takes."""
    dims = model_dims(LlamaConfig(num_hidden_layers=2, hidden_size=64, vocab_size=100), "CAUSAL_LM")
    narrow = estimate_memory(dims, Workload(rows=1, length=8, scored_tokens=8))
    wide = estimate_memory(dims, Workload(rows=1, length=8, scored_tokens=100_000))
    assert narrow.passing == estimate_memory(dims, Workload(rows=1, length=8)).passing
    assert wide.passing > narrow.passing + 100_000 * dims.vocabulary


def test_vllm_s_share_of_the_device_takes_the_place_of_sampling(config, tmp_path):
    """It is held all the time, beside the training."""
    dims = model_dims(LlamaConfig(num_hidden_layers=2, hidden_size=64, vocab_size=100), "CAUSAL_LM")
    work = Workload(rows=1, length=8, generated_rows=512, generated_length=8, prompt_length=4)
    sampled = estimate_memory(dims, work)
    shared = estimate_memory(dims, replace(work, vllm=10**6))
    assert sampled.generation > 0 == shared.generation
    assert shared.peak == sampled.peak - sampled.passing + shared.passing + 10**6


def test_a_container_s_limit_is_the_machine_s_memory(tmp_path):
    """Of either version of control groups; "max" is none."""
    (tmp_path / "two").write_text("max\n")
    (tmp_path / "one").write_text("1073741824\n")
    assert container_limit((tmp_path / "two",)) is None
    assert container_limit((tmp_path / "gone", tmp_path / "two", tmp_path / "one")) == 2**30


def test_a_model_that_was_never_downloaded_is_refused_offline(monkeypatch):
    """It says so at once, where the library would try the network first."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ConfigError, match=r"never downloaded.*hf download nobody/nothing"):
        find_model("nobody/nothing")


@pytest.mark.parametrize("kind", ["dpo", "reward_model", "grpo"])
def test_each_kind_of_run_can_be_checked(config, tmp_path, kind):
    """Their own settings, rows and heads; a problem in the settings is found too."""
    rows = [{"prompt": "w1 ", "chosen": "w2", "rejected": "w3", "target": "w5"}] * 12
    Dataset.from_list(rows).to_json(tmp_path / "prompts.jsonl")
    del config["ppo"]
    config[kind] = {"use_cpu": True, "per_device_train_batch_size": 2}
    if kind == "grpo":
        config[kind] |= {"num_generations": 2, "max_completion_length": 8}
        run = load_run("grpo", config)
    else:
        del config["composition"]
        run = load_run(kind, config)
    found = check(run)
    assert found.problems == []
    assert found.memory is not None
    assert found.memory.reference == (found.memory.weights if kind == "dpo" else 0)
    assert (found.memory.logits == 0) == (kind == "reward_model")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("    return [undefined_name] * len(completions)", "NameError"),
        ("    return [float('nan')] * len(completions)", "nan"),
        ("    return [1.0]*99", "99"),
        ("    raise RuntimeError('the judge is out')", "the judge is out"),
    ],
)
def test_a_reward_that_cannot_score_is_found_by_scoring_one_row(config, tmp_path, body, said):
    """With its name and the cause, whatever its failure policy."""
    (tmp_path / "broken.py").write_text(f"def wanted(completions, target):\n{body}\n")
    config["composition"]["rewards"]["wanted"] = {
        "use": f"{tmp_path}/broken.py:wanted",
        "on_failure": {"policy": "abstain", "fail_fast": False},
    }
    (problem,) = found_in(config)
    assert "'wanted'" in problem
    assert said in problem


def test_the_check_says_what_each_reward_gives(config):
    """For the first row, answered by a stated text, and also of the rewards of the evaluation."""
    config["evaluation"] = config["composition"]
    found = check(load_run("ppo", config))
    assert found.problems == []
    assert {key: given.rewards["wanted"].raw.tolist() for key, given in found.scored.items()} == {
        "composition": [1.0],
        "evaluation": [1.0],
    }
    console = Console(record=True, width=120)
    report_check(found, console)
    assert "answered by 'This is a short answer.'" in console.export_text()


@pytest.mark.parametrize(("dtype", "width"), [(None, 4), ("bfloat16", 2)])
def test_a_reward_model_counts_as_it_is_held(
    config: dict[str, Any], tmp_path: Path, tokenizer: Any, dtype: str | None, width: int
) -> None:
    """It loads in float32 unless told otherwise, whatever its file has."""
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    scorer = LlamaForSequenceClassification(LlamaConfig(vocab_size=34, num_labels=1, pad_token_id=0, **shape))
    scorer.to(torch.bfloat16).save_pretrained(tmp_path / "scorer")
    tokenizer.save_pretrained(tmp_path / "scorer")
    params = {"model": str(tmp_path / "scorer"), "dtype": dtype}
    config["composition"]["rewards"]["liked"] = {"use": "reward_model", "params": params}
    memory = check(load_run("ppo", config)).memory
    assert memory.rewards == width * sum(weight.numel() for weight in scorer.parameters())
