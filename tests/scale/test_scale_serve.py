"""``rlaif serve --engine ray`` as a user runs it, with a real Ray Serve on the loopback address."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from rlaif_sdk.exceptions import ConfigError
from rlaif_sdk.integrations import Host, Sample
from rlaif_sdk.scale import Autoscaling, deploy
from rlaif_sdk.serving import ServeSettings
from tests.serving.certificates import make_certificate
from tests.serving.loopback import until

pytest.importorskip("ray")

KEY = "k3y-0123456789"
LEARNS = "normalize: zscore, "


@pytest.mark.parametrize(
    ("more", "settings", "options", "problem"),
    [
        (LEARNS, {}, {}, "each learn by themselves"),
        ("", {}, {"state": "state.json"}, "a file with what is learned"),
        ("", {"groups_per_step": 4}, {}, "steps that are counted"),
        ("", {"cohort_size": 4}, {}, "by their prompt"),
        ("", {}, {"autoscaling": Autoscaling(least=1, most=2)}, "come and go"),
    ],
)
def test_what_would_tear_groups_apart_is_refused(tmp_path, more, settings, options, problem) -> None:
    """Several replicas that gather groups, before Ray is started."""
    (tmp_path / "rewards.py").write_text("def length(completions):\n    return [float(len(t)) for t in completions]\n")
    config = tmp_path / "rewards.yaml"
    config.write_text(f"rewards: {{length: {{{more}use: 'rewards.py:length'}}}}\n")
    scaling = {"autoscaling": Autoscaling(least=2, most=2), **options}
    with pytest.raises(ConfigError, match=problem):
        deploy(config, ServeSettings(cohort=True, **settings), **scaling)


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"
)  # Ray's own
def test_the_members_of_a_group_meet_on_one_of_several_replicas(cluster, tmp_path) -> None:
    """Each request names its group as its session, so that twenty groups over two replicas are all whole."""
    (tmp_path / "rewards.py").write_text("def length(completions):\n    return [float(len(t)) for t in completions]\n")
    config = tmp_path / "rewards.yaml"
    config.write_text("rewards: {length: {use: 'rewards.py:length', normalize: group_zscore}}\n")
    settings = ServeSettings(cohort=True, cohort_deadline=20.0)
    scaling = Autoscaling(least=2, most=2, cores=0.5)
    found: list[str] = []
    deploy(config, settings, autoscaling=scaling, port=0, started=found.append, address="auto")
    try:
        hosted = Host(found[0], "a test", grouped=True)

        async def ask() -> list[Any]:
            samples = [Sample("?", "x" * n, group=f"g{group}", group_size=4) for n in range(4) for group in range(20)]
            return await asyncio.gather(*map(hosted.ascore_one, samples))

        scored = asyncio.run(ask())
    finally:
        from ray import serve

        serve.shutdown()
    assert [one.gathered for one in scored] == [4] * 80
    assert [scored[20 * n].total for n in range(4)] == pytest.approx([-1.342, -0.447, 0.447, 1.342], abs=1e-3)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_server_on_ray_answers_until_it_is_told_to_end(composition: Path, tmp_path: Path) -> None:
    """Over TLS: the composer's numbers, the key and the limits of ``rlaif serve``; SIGTERM ends it and its Ray."""
    context = make_certificate(composition.parent)
    program = "from rlaif_sdk.cli import main; main()"
    arguments = ["serve", "--config", composition.name, "--engine", "ray", "--port", "0", "--api-key-env", "REWARD_KEY"]
    limits = ["--max-rows", "2", "--max-replicas", "1", "--replica-cores", "0.5"]
    tls = ["--ssl-certfile", "cert.pem", "--ssl-keyfile", "key.pem"]
    log = tmp_path / "log"
    with log.open("w") as opened:
        process = subprocess.Popen(
            [sys.executable, "-c", program, *arguments, *limits, *tls],
            cwd=composition.parent,
            env={**os.environ, "REWARD_KEY": KEY, "PYTHONUNBUFFERED": "1"},
            stdout=opened,
            stderr=opened,
        )

    def address() -> re.Match[str] | None:
        assert process.poll() is None, log.read_text()
        return re.search(r"running on (https://127.0.0.1:\d+)", log.read_text())

    try:
        until(address, 300)
        found = address()
        assert found
        with httpx.Client(base_url=found[1], verify=context, trust_env=False, timeout=30) as client:
            row = {"prompt": "p", "completion": "four"}
            assert client.post("/v1/score", json={"rows": [row]}).status_code == 401
            client.headers["authorization"] = f"Bearer {KEY}"
            answer = client.post("/v1/score", json={"rows": [row, {**row, "completion": "a 3"}]}).json()["rows"]
            assert [one["total"] for one in answer] == pytest.approx([0.04 + 0.25, 0.03 * 1.5])  # one abstains
            assert client.post("/v1/score", json={"rows": [row] * 3}).status_code == 413
            assert client.post("/v1/score", json={"rows": [{"completion": 1}]}).status_code == 422
            assert "rlaif_rows_total" in client.get("/metrics").text
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, log.read_text()
        _, alive = psutil.wait_procs(children, timeout=30)
        assert not alive
    finally:
        for child in psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []:
            child.kill()
        process.kill()
        process.wait()
    assert KEY not in log.read_text()
