"""``rlaif serve`` as a user runs it: a process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager

import httpx
import pytest

from rlaif_sdk import Composer, RewardBatch
from rlaif_sdk.cli import app
from rlaif_sdk.exceptions import ConfigError
from tests.serving.certificates import make_certificate
from tests.serving.loopback import until

REWARD = """
import pathlib

class Length:
    def setup(self):
        pass

    def score(self, batch):
        return [float(len(text)) for text in batch.completion_texts]

    def close(self):
        pathlib.Path("closed").write_text("yes")
"""
KEY = "k3y-0123456789"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "lengths.py").write_text(REWARD)
    (tmp_path / "rewards.yaml").write_text('rewards: {length: {use: "lengths.py:Length"}}\n')
    return tmp_path


def run(folder, *arguments, **environment):
    program = "from rlaif_sdk.cli import main; main()"
    command = [sys.executable, "-c", program, "serve", "-c", "rewards.yaml", *arguments]
    with (folder / "log").open("w") as log:
        return subprocess.Popen(command, cwd=folder, env={**os.environ, **environment}, stdout=log, stderr=log)


@contextmanager
def running(folder, *arguments, **environment):
    """The process, and its port, which its log tells."""
    process = run(folder, "--port", "0", *arguments, **environment)

    def port():
        assert process.poll() is None, (folder / "log").read_text()
        return re.search(r"running on https?://127.0.0.1:(\d+)", (folder / "log").read_text())

    try:
        until(port, 30)
        yield process, int(port()[1])
    finally:
        process.kill()
        process.wait()


def test_a_served_config_answers_until_it_is_told_to_end(folder):
    """It asks for the key in the variable, logs no secret, and on SIGTERM closes its rewards."""
    with running(folder, "--api-key-env", "REWARD_KEY", "--access-log", REWARD_KEY=KEY) as (process, port):
        url, body = f"http://127.0.0.1:{port}/v1/score", {"rows": [{"completion": "a secret text"}]}
        assert httpx.post(url, json=body, trust_env=False).status_code == 401
        answer = httpx.post(url, json=body, headers={"authorization": f"Bearer {KEY}"}, trust_env=False)
        assert answer.json()["rows"][0]["total"] == 13.0
        process.send_signal(signal.SIGTERM)
        process.wait(20)
    log = (folder / "log").read_text()
    assert '"POST /v1/score HTTP/1.1" 200' in log
    assert KEY not in log
    assert "secret" not in log
    assert (folder / "closed").read_text() == "yes"


def test_tls_by_flags(folder):
    """With a certificate the server speaks HTTPS."""
    context = make_certificate(folder)
    with running(folder, "--ssl-certfile", "cert.pem", "--ssl-keyfile", "key.pem") as (_, port):
        answer = httpx.get(f"https://127.0.0.1:{port}/health", verify=context, trust_env=False)
    assert answer.json()["rewards"] == ["length"]


def test_the_reward_remote_asks_over_tls(folder, monkeypatch):
    """A certificate that nobody vouches for leaves the row unscored and says so; `SSL_CERT_FILE` vouches for it."""
    make_certificate(folder)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    batch = RewardBatch(["p"], ["three words here"])
    with running(folder, "--ssl-certfile", "cert.pem", "--ssl-keyfile", "key.pem") as (_, port):
        config = {"rewards": {"remote": {"params": {"url": f"https://127.0.0.1:{port}", "attempts": 1}}}}
        with Composer.from_config(config) as composer:
            refused = composer.compose(batch)
        monkeypatch.setenv("SSL_CERT_FILE", str(folder / "cert.pem"))
        with Composer.from_config(config) as composer:
            assert composer.compose(batch).to_list() == [16.0]
    assert refused.to_list() == [None]
    assert "certificate verify failed" in refused.rewards["remote"].reason(0)


def test_a_key_of_another_certificate_is_refused(folder, monkeypatch):
    """Both files are named."""
    other = folder / "other"
    other.mkdir()
    make_certificate(folder)
    make_certificate(other)
    monkeypatch.chdir(folder)
    tls = ["--ssl-certfile", "cert.pem", "--ssl-keyfile", "other/key.pem"]
    with pytest.raises(ConfigError, match=r"'cert\.pem' and 'other/key\.pem' cannot be used for TLS"):
        app(["serve", "-c", "rewards.yaml", *tls], standalone_mode=False)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--host", "0.0.0.0"], "without a key"),
        (["--api-key-env", "NOT_SET_ANYWHERE"], "NOT_SET_ANYWHERE has no key"),
        (["--ssl-certfile", "missing.pem"], "there is no file 'missing.pem'"),
        (["--ssl-keyfile", "rewards.yaml"], "a key without a certificate"),
        (["--ssl-certfile", "rewards.yaml"], "'rewards.yaml' cannot be used for TLS"),
        (["--timeout", "inf"], "not infinite"),
        (["--unscored", "nan"], "JSON has no nan"),
        (["--max-rows", "5000"], "never fit the queue"),
        (["--state", "missing.json"], "missing.json: there is no such file"),
    ],
)
def test_what_cannot_work_is_said_at_the_start(folder, monkeypatch, arguments, problem):
    """Before anything is bound; the program prints it in one line and exits with 2, as for every command."""
    monkeypatch.chdir(folder)
    with pytest.raises(ConfigError, match=problem):
        app(["serve", "-c", "rewards.yaml", *arguments], standalone_mode=False)


def test_a_reward_that_is_not_ready_keeps_the_server_from_starting(folder):
    """A missing model is told at once, by the reward's name, and not to the first trainer that asks."""
    (folder / "lengths.py").write_text(
        REWARD.replace("        pass\n", '        raise OSError("no weights here")\n', 1)
    )
    process = run(folder, "--port", "0")
    assert process.wait(60) == 2
    said = (folder / "log").read_text()
    assert "length" in said
    assert "no weights here" in said
    assert "Traceback" not in said
    assert "running on" not in said


def test_a_file_that_cannot_be_written_keeps_a_server_that_learns_from_starting(folder):
    """What it learned would be lost at its end."""
    process = run(folder, "--port", "0", "--cohort", "--state", "rewards.yaml/learned.json")
    assert process.wait(60) == 2
    said = (folder / "log").read_text()
    assert "a part of the path is a file, not a folder" in said
    assert "Traceback" not in said
    assert "running on" not in said
