"""What the package ``rlaif-judge`` promises as a plugin."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import entry_points
from typing import Any

import pytest
from pydantic import ValidationError

from rlaif_judge import rlaif_rewards
from rlaif_sdk import Composer, ConfigError, RewardBatch
from rlaif_sdk.testing import check_reward_contract

SPEC = next(spec for spec in rlaif_rewards() if spec.name == "judge")


@pytest.fixture
def server() -> Iterator[str]:
    """The address of a server whose judge likes short prompts."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            length = len(asked["messages"][0]["content"])
            top = [{"token": "A", "logprob": -1.5}, {"token": "J", "logprob": -0.3 - length / 2000}]
            message = {"role": "assistant", "content": f"It has {length} characters.\nRating: 2.00"}
            logprobs = {"content": [{"token": "A", "logprob": -0.5, "top_logprobs": top}]}
            choice = {"index": 0, "finish_reason": "stop", "message": message}
            body = json.dumps({"choices": [choice | ({"logprobs": logprobs} if "logprobs" in asked else {})]}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield f"http://127.0.0.1:{running.server_port}/v1"
    running.shutdown()
    running.server_close()


def test_the_entry_point_leads_to_the_registration_module() -> None:
    """An installed plugin is found by name and states its API version."""
    (entry,) = entry_points(group="rlaif_sdk", name="judge")
    assert entry.load().rlaif_api_version == 1


@pytest.mark.parametrize("mode", ["likelihood", "rating"])
def test_the_reward_keeps_the_contract(server: str, mode: str) -> None:
    """The checks that the SDK ships for plugin authors pass in both modes."""
    check_reward_contract(SPEC, params={"model": "tiny", "base_url": server, "mode": mode})


def test_it_composes_by_name(server: str) -> None:
    """A config that names the reward gets the judge's score with its justification as the reason."""
    params = {"model": "tiny", "base_url": server, "mode": "rating"}
    with Composer.from_config({"rewards": {"judge": {"params": params}}}) as composer:
        composition = composer.compose(RewardBatch(["Why is the sea salt?"], ["Rivers bring it."]))
    assert composition.totals[0] == -0.5
    assert composition.rewards["judge"].reason(0).startswith("It has ")


def test_every_setting_reaches_the_judge(server: str) -> None:
    """Settings that change scores change the version by which caches know the reward."""
    base = {"model": "tiny", "base_url": server, "mode": "rating"}
    changes: list[dict[str, Any]] = [
        {},
        {"model": "other"},
        {"criteria": "harmlessness"},
        {"mode": "likelihood"},
        {"scale": [-5, 5]},
        {"preamble": "Be strict."},
        {"template": "{answer} {verdict}"},
        {"max_chars": 10},
        {"overlong": "keep_start"},
        {"max_new_tokens": 9},
        {"backend_options": {"extra_body": {"seed": 1}}},
    ]
    versions = {SPEC.build({**base, **change}).version for change in changes}
    assert len(versions) == len(changes)
    local = {SPEC.build({"model": "tiny", "labels": labels}).version for labels in ("letters", "numbers")}
    assert len(local) == 2


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"model": "m", "mode": "guess"},
        {"model": "m", "api_key": "sk-1"},
        {"model": "m", "max_chars": 0},
    ],
)
def test_wrong_parameters_are_refused(params: dict[str, Any]) -> None:
    """A missing model, an unknown mode or key (a secret, say) and a limit of nothing do not pass."""
    with pytest.raises(ValidationError):
        SPEC.build(params)


def test_a_list_of_criteria_is_sent_to_the_reward_that_judges_them() -> None:
    """The judge reads one text; verdicts on several criteria are a rubric's."""
    with pytest.raises(ValidationError, match="the reward 'rubric'"):
        SPEC.build({"model": "m", "criteria": [{"name": "cites", "text": "Cites a law."}]})


@pytest.mark.parametrize(
    ("params", "problem"),
    [
        ({"model": "m", "concurrency": 3}, "concurrency"),
        ({"model": "m", "base_url": "http://h/v1", "batch_size": 3}, "batch_size"),
        ({"model": "m", "scale": [1, 99]}, "2 to 26"),
    ],
)
def test_a_setting_of_the_other_backend_is_refused(params: dict[str, Any], problem: str) -> None:
    """A local model has no concurrency and a server no batch size: nothing is silently ignored."""
    with pytest.raises(ConfigError, match=problem):
        SPEC.build(params)


def test_registering_and_building_load_no_model_library() -> None:
    """Listing rewards stays fast."""
    code = (
        "import sys, rlaif_judge; rlaif_judge.rlaif_rewards()[0].build({'model': 'm'}); "
        "sys.exit(bool({'torch', 'transformers', 'aiohttp'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
