"""``rlaif serve --engine ray`` as a user runs it, with a real Ray Serve on the loopback address."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest

from tests.serving.certificates import make_certificate
from tests.serving.loopback import until

pytest.importorskip("ray")

KEY = "k3y-0123456789"


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
