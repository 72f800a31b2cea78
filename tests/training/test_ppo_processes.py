"""PPO in two processes: what one process with all the rows would do, and written once."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from safetensors.torch import load_file  # noqa: E402

from rlaif_sdk.exceptions import ConfigError  # noqa: E402
from rlaif_sdk.training.ppo import PPOConfig  # noqa: E402
from rlaif_sdk.training.ppo.masked import explained_variance, masked_whiten  # noqa: E402
from rlaif_sdk.training.ppo.processes import Processes  # noqa: E402

WORKER = Path(__file__).with_name("ppo_worker.py")


def run_two(folder: Path, scenario: str) -> list[dict[str, Any]]:
    """What each of two processes tells of a scenario in ``ppo_worker.py``."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    started = [
        subprocess.Popen(
            [sys.executable, str(WORKER), scenario, str(folder)],
            env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    try:
        errors = [process.communicate(timeout=240)[1] for process in started]
        assert [process.returncode for process in started] == [0, 0], "\n\n".join(errors)
    finally:
        for process in started:
            process.kill()
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.parametrize(
    "scenario", ["llama-shared", *(pytest.param(name, marks=pytest.mark.slow) for name in ("t5-separate", "gpt2-lora"))]
)
def test_two_processes_train_as_one(tmp_path: Path, scenario: str) -> None:
    """Critic and policy end equal on both, as do the KL price, the composer and what is logged; a run goes on too.

    One process that has the rows of both, one rollout of ragged completions, makes the same optimiser step: the
    advantages are whitened over all rows, and a token weighs the same on either process.
    """
    first, second = run_two(tmp_path, scenario)
    for rank in (0, 1):
        assert load_file(tmp_path / f"end{rank}.safetensors").keys() == load_file(tmp_path / "end0.safetensors").keys()
    ends = [load_file(tmp_path / f"end{rank}.safetensors") for rank in (0, 1)]
    starts = load_file(tmp_path / "start.safetensors")
    for name, weights in ends[0].items():
        assert torch.equal(weights, ends[1][name]), name
    critic = [name for name in starts if "value_head" in name or "critic." in name]
    assert any(not torch.equal(starts[name], ends[0][name]) for name in critic)

    assert not set(first["prompts"]) & set(second["prompts"]), "each samples prompts of its own"
    assert first["completions"] != second["completions"], "with a random state of its own"
    for key in ("kl_coef", "composer", "normalizer", "logged"):
        assert first[key] == second[key], key
    assert first["composer"]["rewards"]["letters"]["state"]["count"] == first["scored"] + second["scored"]
    assert first["kl_coef"] != 0.1

    single = load_file(tmp_path / "single.safetensors")
    together = load_file(tmp_path / "step0.safetensors")
    for name, weights in single.items():
        torch.testing.assert_close(together[name], weights, atol=2e-6, rtol=1e-4, msg=name)
    for name, figure in first["single"].items():
        assert first["together"][name] == pytest.approx(figure, abs=1e-5), name
    assert any((single[name] - starts[name]).abs().max() > 1e-4 for name in single)

    assert first["resumed"] == second["resumed"] == first["losses_after_resuming"]
    assert first["written"], "rank 0 writes"
    assert not second["written"], "and no other"


def test_statistics_over_processes_are_those_of_all_rows() -> None:
    """Whitening and explained variance of two parts, each with the totals of both, equal those of the whole."""
    torch.manual_seed(0)
    x, y, mask = torch.randn(6, 5), torch.randn(6, 5), (torch.rand(6, 5) > 0.3).long()
    meet = threading.Barrier(2, timeout=20)
    given: list[Any] = [None, None]

    def part(process: int) -> tuple[torch.Tensor, torch.Tensor]:
        def total(value: torch.Tensor) -> torch.Tensor:
            given[process] = value
            meet.wait()
            both = given[0] + given[1]
            meet.wait()
            return both

        rows = (slice(0, 2), slice(2, 6))[process]
        return masked_whiten(x[rows], mask[rows], total), explained_variance(x[rows], y[rows], mask[rows], total)

    with ThreadPoolExecutor(2) as pool:
        (first, variance), (second, same) = pool.map(part, (0, 1))
    torch.testing.assert_close(torch.cat([first, second]), masked_whiten(x, mask))
    assert variance == same == pytest.approx(float(explained_variance(x, y, mask)), abs=1e-6)


def test_figures_of_several_processes_become_one() -> None:
    """Counts are added, the slowest counts for time, the rest is a mean of what is known."""
    processes = Processes.__new__(Processes)
    parts = [
        {"reward": 1.0, "reward/a/failed": 1.0, "reward/a/seconds": 2.0, "reward/b/raw_mean": float("nan")},
        {"reward": 2.0, "reward/a/failed": 2.0, "reward/a/seconds": 1.0, "reward/b/raw_mean": 4.0, "only": 3.0},
    ]
    processes._gather = lambda _: parts  # type: ignore[method-assign]
    assert processes.figures({}) == {
        "reward": 1.5,
        "reward/a/failed": 3.0,
        "reward/a/seconds": 2.0,
        "reward/b/raw_mean": 4.0,
        "only": 3.0,
    }


def test_a_prompt_s_completions_are_not_torn_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each process compares its own rows; a group that would lie on two is refused before anything loads."""
    monkeypatch.setattr("rlaif_sdk.training.ppo.config.PPOConfig.world_size", 2)
    with pytest.raises(ConfigError, match="a rollout of 4 completions in a process is no multiple"):
        PPOConfig("unused", per_device_train_batch_size=4, num_generations=8, use_cpu=True, report_to=[])
