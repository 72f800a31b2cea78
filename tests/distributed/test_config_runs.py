"""Runs of PPO from a config, in two processes that each hold a part of the weights. ``nox -s distributed``."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from transformers import AutoModelForCausalLM  # noqa: E402

from tests.distributed.launched import environment  # noqa: E402
from tests.tiny_models import tiny_llama, word_tokenizer  # noqa: E402
from tests.two_processes import run_two  # noqa: E402

WORKER = Path(__file__).with_name("config_worker.py")
pytestmark = pytest.mark.slow


@pytest.fixture(params=["fsdp.yaml", "deepspeed-zero2.yaml"])
def launcher(request: pytest.FixtureRequest) -> dict[str, str]:
    """The project's own examples, in float32."""
    if "deepspeed" in request.param and importlib.util.find_spec("deepspeed") is None:
        pytest.skip("DeepSpeed is not installed")
    return {**environment(request.param), "ACCELERATE_MIXED_PRECISION": "no", "DS_ACCELERATOR": "cpu"}


def write_run(folder: Path, **model: Any) -> None:
    tokenizer = word_tokenizer()
    torch.manual_seed(0)
    tiny_llama(vocab_size=len(tokenizer)).save_pretrained(folder / "start")
    tokenizer.save_pretrained(folder / "start")
    (folder / "rewards.py").write_text("def short(completions):\n    return [1 / (1 + len(t)) for t in completions]\n")
    (folder / "prompts.jsonl").write_text("".join(json.dumps({"prompt": f"w{row} w3"}) + "\n" for row in range(28)))
    settings = {
        "max_steps": 4,
        "per_device_train_batch_size": 2,
        "max_completion_length": 8,
        "learning_rate": 1e-2,
        "save_strategy": "steps",
        "save_steps": 2,
        "critic": "separate" if not model else "shared",
    }
    run = {
        "model": {"name": "start", **model},
        "data": {"train": "prompts.jsonl", "held_out_rows": 5},
        "composition": {"rewards": {"short": {"use": "rewards.py:short"}}},
        "ppo": settings,
        "output": "out",
    }
    (folder / "run.yaml").write_text(json.dumps(run))


@pytest.mark.parametrize("model", [{}, {"lora": {"r": 4}}], ids=["separate", "lora"])
def test_a_run_from_a_config_answers_trains_saves_and_resumes(
    tmp_path: Path, launcher: dict[str, str], model: dict[str, Any]
) -> None:
    """Each process answers a share of the held-out prompts, and a plain model is saved, an adapter merged into it.

    Resumed at a rollout's boundary, the run ends in the same numbers, to the bit.
    """
    write_run(tmp_path, **model)
    first, second = run_two(WORKER, "ppo", str(tmp_path), folder=tmp_path, **launcher)
    assert first == second
    assert [len(answers) for answers in first["answers"]] == [5, 5]
    assert first["answers"][0] != first["answers"][1]
    trained = AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "model").state_dict()
    start = AutoModelForCausalLM.from_pretrained(tmp_path / "start").state_dict()
    assert trained.keys() == start.keys()
    assert any(not torch.equal(trained[name], start[name]) for name in start)

    shutil.rmtree(tmp_path / "out" / "model")
    for checkpoint in (tmp_path / "out" / "checkpoints").glob("checkpoint-*"):
        if checkpoint.name != "checkpoint-2":
            shutil.rmtree(checkpoint)
    manifest = json.loads((tmp_path / "out" / "run.json").read_text())
    (tmp_path / "out" / "run.json").write_text(json.dumps({**manifest, "status": "running"}))
    again, _ = run_two(WORKER, "ppo", str(tmp_path), "resume", folder=tmp_path, **launcher)
    assert again["history"][-1] == first["history"][-1]
    assert again["answers"] == first["answers"]
    resumed = AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "model").state_dict()
    assert all(torch.equal(resumed[name], trained[name]) for name in trained)
