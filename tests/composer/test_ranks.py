"""Several ranks learn as one process would."""

from __future__ import annotations

import itertools
import json
import os
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlaif_sdk import RewardBatch
from rlaif_sdk.composer import Component, Composer
from rlaif_sdk.composer.all_gather import AllGather, torch_all_gather
from rlaif_sdk.composer.normalizers import Normalizer, ZScore
from tests.composer.random_compositions import Reading, Setup, runs, setups


class Ranks:
    """An exchange between threads that stand for ranks."""

    def __init__(self, size: int) -> None:
        self._slots: list[np.ndarray | None] = [None] * size
        self._barrier = threading.Barrier(size, timeout=30)
        self.calls = 0

    def all_gather(self, rank: int) -> AllGather:
        def exchange(rows: np.ndarray) -> Sequence[np.ndarray]:
            self._slots[rank] = rows
            self._barrier.wait()
            found = [slot.copy() for slot in self._slots]
            self._barrier.wait()
            self.calls += rank == 0
            return found

        return exchange


def shards(batch: RewardBatch, ranks: int) -> list[RewardBatch]:
    """Whole groups a rank, in order; the last ranks may have none."""
    groups = len(set(batch.group))
    cuts = [2 * round(groups * rank / ranks) for rank in range(ranks + 1)]
    return [batch.select(range(start, end)) for start, end in itertools.pairwise(cuts)]


def run_ranks(setup: Setup, run: list[RewardBatch], ranks: int) -> tuple[list[np.ndarray], list[dict], int]:
    exchange = Ranks(ranks)
    parts = [[replace(part, training=batch.training) for part in shards(batch, ranks)] for batch in run]

    def work(rank: int) -> tuple[list[np.ndarray], dict]:
        with setup.composer(all_gather=exchange.all_gather(rank)) as composer:
            return [composer.compose(part[rank]).totals for part in parts], composer.state_dict()

    with ThreadPoolExecutor(ranks) as pool:
        results = list(pool.map(work, range(ranks)))
    totals = [np.concatenate([result[0][index] for result in results]) for index in range(len(run))]
    return totals, [result[1] for result in results], exchange.calls


@given(setups(), runs(), st.integers(2, 3))
@settings(max_examples=60)
def test_several_ranks_equal_one_process(setup: Setup, run: list[RewardBatch], ranks: int) -> None:
    """Totals and state are those of one process with all rows, to the bit, even where a rank has no rows."""
    with setup.composer() as composer:
        expected = [composer.compose(batch).totals for batch in run]
        state = composer.state_dict()
    found, states, calls = run_ranks(setup, run, ranks)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    assert states == [state] * ranks
    assert calls == sum(batch.training for batch in run)


def test_without_sync_ranks_learn_apart() -> None:
    """The seam is what makes them equal."""
    batch = RewardBatch(["p"] * 4, ["c"] * 4, columns={"a": [0.0, 1.0, 10.0, 11.0]}, group=[0, 0, 1, 1])
    states = []
    for part in shards(batch, 2):
        with Composer({"a": Component(Reading("a"), normalizer=ZScore())}) as composer:
            composer.compose(part)
            states.append(composer.state_dict())
    assert states[0] != states[1]


class GroupSizes(Normalizer):
    """Learns how many groups of which size there were."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def update(self, values_B: np.ndarray, group_B: np.ndarray | None) -> None:
        self.sizes += [] if group_B is None else np.bincount(group_B).tolist()

    def normalize(self, values_B: np.ndarray, group_B: np.ndarray | None) -> np.ndarray:
        return values_B

    def state_dict(self) -> dict:
        return {"sizes": self.sizes}


@pytest.mark.parametrize("grouped", [True, False])
def test_the_groups_of_different_ranks_stay_apart(grouped: bool) -> None:
    """A normalizer that learns from groups sees those of all ranks; without groups it sees none."""
    exchange = Ranks(2)
    labels = [["x", "y", "x"], ["x", "x"]]

    def work(rank: int) -> dict:
        rows = len(labels[rank])
        group = labels[rank] if grouped else None
        batch = RewardBatch(["p"] * rows, ["c"] * rows, columns={"a": [1.0] * rows}, group=group)
        reward = Component(Reading("a"), normalizer=GroupSizes())
        with Composer({"a": reward}, all_gather=exchange.all_gather(rank)) as composer:
            composer.compose(batch)
            return composer.state_dict()["rewards"]["a"]["state"]

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(work, range(2))) == [{"sizes": [2, 1, 2] if grouped else []}] * 2


def test_torch_sync_is_none_without_a_process_group() -> None:
    """One process needs no exchange."""
    assert torch_all_gather() is None


WORKER = """
    import json, sys
    from rlaif_sdk import Composer, RewardBatch
    from rlaif_sdk.composer import Component
    from rlaif_sdk.composer.constraints import Constraint
    from rlaif_sdk.composer.normalizers import ZScore
    from rlaif_sdk.composer.normalizers import Quantile
    from rlaif_sdk.composer.all_gather import torch_all_gather
    from tests.composer.random_compositions import Reading

    if sys.argv[1] == "alone":
        rows = range(6)
    else:
        import torch.distributed as dist
        dist.init_process_group("gloo")
        rows = [range(0, 5), range(5, 6)][dist.get_rank()]
    rewards = {"a": Component(Reading("a"), normalizer=ZScore()), "b": Component(Reading("b"), normalizer=Quantile())}
    composer = Composer(rewards, constraints=[Constraint("b", max=0.25, step_size=0.5)], all_gather=torch_all_gather())
    totals = []
    for shift in (0.0, 1.0, 0.5):
        columns = {"a": [row * 1.1 + shift for row in range(6)], "b": [None, 1.0, 0.3, 0.0, 1.0, shift]}
        batch = RewardBatch(["p"] * 6, ["c"] * 6, columns=columns).select(rows)
        totals += [composer.compose(batch).to_list()]
    print(json.dumps({"totals": totals, "state": composer.state_dict()}))
    composer.close()
    if sys.argv[1] == "rank":
        dist.destroy_process_group()
"""


def test_two_gloo_processes_equal_one(tmp_path: Path) -> None:
    """The real thing: torch.distributed, ranks with unequal numbers of rows."""
    pytest.importorskip("torch")
    script = tmp_path / "worker.py"
    script.write_text(textwrap.dedent(WORKER), encoding="utf-8")
    root = Path(__file__).parents[2]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def start(role: str, rank: int) -> subprocess.Popen:
        ranks = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "RANK": str(rank)}
        return subprocess.Popen(
            [sys.executable, str(script), role],
            env={**os.environ, **ranks, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    processes = [start("alone", 0), start("rank", 0), start("rank", 1)]
    outputs = []
    for process in processes:
        out, error = process.communicate(timeout=120)
        assert process.returncode == 0, error
        outputs.append(json.loads(out))
    alone, first, second = outputs
    assert first["state"] == second["state"] == alone["state"]
    assert [a + b for a, b in zip(first["totals"], second["totals"], strict=True)] == alone["totals"]
