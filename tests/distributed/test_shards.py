"""PPO in two processes that each hold a part of the weights: what one process does. ``nox -s distributed``."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from safetensors.torch import load_file  # noqa: E402

from tests.distributed.launched import environment  # noqa: E402
from tests.two_processes import ROOT, run_two  # noqa: E402

WORKER = Path(__file__).with_name("worker.py")
CRITICS = {"shared": "value_head", "separate": "critic", "lora": "value_head"}
pytestmark = pytest.mark.slow


@pytest.fixture(params=["fsdp.yaml", "deepspeed-zero2.yaml", "deepspeed-zero3.yaml"])
def config(request: pytest.FixtureRequest) -> str:
    """The project's own examples."""
    if "deepspeed" in request.param and importlib.util.find_spec("deepspeed") is None:
        pytest.skip("DeepSpeed is not installed")
    return str(request.param)


def run(scenario: str, folder: Path, config: str, *, mixed: str = "no") -> list[dict[str, Any]]:
    folder.mkdir(parents=True)
    stated = {**environment(config), "ACCELERATE_MIXED_PRECISION": mixed, "DS_ACCELERATOR": "cpu"}
    return run_two(WORKER, scenario, str(folder), folder=folder, **stated)


def alone(scenario: str, folder: Path) -> dict[str, Any]:
    folder.mkdir(parents=True)
    many = ("ACCELERATE_", "FSDP_", "RANK", "WORLD_SIZE", "LOCAL_", "MASTER_")
    env = {name: value for name, value in os.environ.items() if not name.startswith(many)}
    single = {**env, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, str(WORKER), scenario, str(folder)], env=single, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads((folder / "rank0.json").read_text())
    return answer


def assert_close(folder: Path, other: Path, file: str) -> None:
    weights, expected = load_file(folder / file), load_file(other / file)
    assert weights.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.allclose(weights[name], tensor, atol=2e-5, rtol=1e-4), name


@pytest.mark.parametrize("kind", ["shared", "separate", "lora"])
def test_shards_train_and_save_as_one_process(tmp_path: Path, config: str, kind: str) -> None:
    """What is logged is the same, and so are the saved policy and critic, whole."""
    first, second = run(kind, tmp_path / "shards", config)
    single = alone(kind, tmp_path / "single")
    assert first["logged"] == second["logged"]
    for entry, expected in zip(first["logged"], single["logged"], strict=True):
        assert entry == pytest.approx(expected, rel=1e-3, abs=1e-5)
    policy = "adapter_model" if kind == "lora" else "model"
    for name in (policy, CRITICS[kind]):
        for folder in ("run/checkpoint-2", "final"):
            assert_close(tmp_path / "shards" / folder, tmp_path / "single" / folder, f"{name}.safetensors")


def test_statistics_are_of_float32_under_mixed_precision(tmp_path: Path, config: str) -> None:
    """FSDP casts what a module returns, and DeepSpeed its weights: neither rounds log-probabilities, values or returns."""
    answer, _ = run("shared-bf16", tmp_path / "shards", config, mixed="bf16")
    assert set(answer["dtypes"].values()) == {"torch.float32"}


@pytest.mark.parametrize("kind", ["shared", "separate", "lora"])
def test_a_run_on_shards_resumes(tmp_path: Path, config: str, kind: str) -> None:
    """From a checkpoint it ends where the run that was not stopped does, with the KL price and the composer's state."""
    answer, _ = run(f"{kind}-resumed-adam", tmp_path / "shards", config)
    assert "refused" not in answer
    for entry, expected in zip(answer["resumed"], answer["logged"][2:], strict=True):
        assert entry == pytest.approx(expected, rel=1e-3, abs=1e-5)
    assert answer["kl_coef"][0] == pytest.approx(answer["kl_coef"][1])
    policy = "adapter_model" if kind == "lora" else "model"
    for name in (policy, CRITICS[kind]):
        assert_close(tmp_path / "shards" / "again", tmp_path / "shards" / "final", f"{name}.safetensors")


def test_fsdp_brings_the_weights_together_once_a_rollout(tmp_path: Path) -> None:
    """Not once for each token that is sampled."""
    answer, _ = run("shared-sampled", tmp_path / "shards", "fsdp.yaml")
    counted = answer["gathers"]
    assert counted["passes"] >= 8
    assert counted["gathers"] <= 4 * 5, "four rollouts; the embedding, two layers, the head, and the critic"


def test_deepspeed_refuses_a_limit_that_it_cannot_keep(tmp_path: Path) -> None:
    """Its engine steps and clears the gradients by itself, so no step of it can be left out."""
    pytest.importorskip("deepspeed")
    answer, _ = run("shared-early", tmp_path / "shards", "deepspeed-zero2.yaml")
    assert "max_approx_kl" in answer["refused"]


def test_a_critic_that_shares_weights_is_refused_with_weights_in_parts(tmp_path: Path) -> None:
    """Policy and LoRA critic hold the same weights, of which a part has one owner."""
    answer, _ = run("adapted", tmp_path / "shards", "fsdp.yaml")
    assert "LoRA critic" in answer["refused"]
