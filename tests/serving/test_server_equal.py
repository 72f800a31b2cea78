"""The server's answers are the composer's own, on every route, and through the reward ``remote``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from rlaif_sdk import Composer, RewardBatch
from tests.integrations.cases import CASES, Case, Row, build_composer, by_composer, present
from tests.serving.loopback import Loopback, serving


def by_own_route(server: Loopback, cases: Sequence[Case]) -> list[Row]:
    rows = [{"prompt": case.prompt, "completion": case.completion, "columns": {"label": case.label}} for case in cases]
    said = server.post("/v1/score", {"rows": rows, "detail": True}).raise_for_status().json()["rows"]
    return [(row["total"], {name: part["raw"] for name, part in row["rewards"].items()}) for row in said]


def by_messages(server: Loopback, cases: Sequence[Case]) -> list[Row]:
    rows = [
        {
            "prompt": [{"role": "user", "content": case.prompt}],
            "completion": case.completion,
            "columns": {"label": case.label},
        }
        for case in cases
    ]
    said = server.post("/v1/score", {"rows": rows}).raise_for_status().json()["rows"]
    return [(row["total"], {}) for row in said]


def by_openrlhf(server: Loopback, cases: Sequence[Case]) -> list[Row]:
    body = {
        "query": [f"{case.prompt}{case.completion}<|im_end|>" for case in cases],
        "prompts": [case.prompt for case in cases],
        "labels": [case.label for case in cases],
    }
    said = server.post("/get_reward", body).raise_for_status().json()
    assert said["scores"] == said["rewards"]
    return [
        (total, present({name: values[row] for name, values in said["extra_logs"].items()}))
        for row, total in enumerate(said["rewards"])
    ]


def _verl(case: Case) -> dict[str, Any]:
    extra = {"prompt": case.prompt, "label": case.label}
    return {
        "data_source": "suite",
        "solution_str": case.completion,
        "ground_truth": case.label,
        "extra_info": extra,
    }


def by_verl(server: Loopback, cases: Sequence[Case]) -> list[Row]:
    said = [server.post("/compute_score", _verl(case)).raise_for_status().json() for case in cases]
    return [(row.pop("score"), row) for row in said]


def by_verl_list(server: Loopback, cases: Sequence[Case]) -> list[Row]:
    said = server.post("/compute_score", [_verl(case) for case in cases]).raise_for_status().json()
    return [(row.pop("score"), row) for row in said]


def by_slime(server: Loopback, cases: Sequence[Case]) -> list[Row]:
    def ask(case: Case) -> float | None:
        body = {"prompt": case.prompt, "response": case.completion, "label": case.label}
        return server.post("/remote_rm", body).raise_for_status().json()

    with ThreadPoolExecutor(4) as pool:
        return [(total, {}) for total in pool.map(ask, cases)]


ROUTES: dict[str, Callable[[Loopback, Sequence[Case]], list[Row]]] = {
    "own": by_own_route,
    "messages": by_messages,
    "openrlhf": by_openrlhf,
    "verl": by_verl,
    "verl, a list": by_verl_list,
    "slime": by_slime,
}


@pytest.fixture(scope="module")
def server():
    with build_composer() as composer, serving(composer) as running:
        yield running


@pytest.mark.parametrize("route", ROUTES)
def test_a_route_gives_the_composers_numbers(server, route):
    """Totals and each reward's own score are the same to the bit, and an unscored row is null, never 0."""
    for (total, rewards), (true_total, true_rewards) in zip(
        ROUTES[route](server, CASES), by_composer(CASES), strict=True
    ):
        assert total == true_total
        assert rewards.keys() <= {*true_rewards, "unscored", "reason"}
        assert {name: rewards[name] for name in true_rewards if name in rewards} == {
            name: true for name, true in true_rewards.items() if name in rewards
        }


def test_an_unscored_row_says_why(server):
    """Each route has a place for the reason."""
    (case,) = (case for case in CASES if case.completion == "abstain fail")
    body = {"prompt": case.prompt, "response": case.completion, "label": case.label}
    slime = server.post("/remote_rm", body)
    assert slime.json() is None
    assert slime.headers["x-unscored-reason"] == "brevity: asked to fail"
    own = server.post("/v1/score", {"rows": [{"completion": case.completion, "columns": {"label": "x"}}]}).json()
    assert own["rows"] == [{"total": None, "status": "failed", "reason": "brevity: asked to fail"}]
    assert server.post("/compute_score", _verl(case)).json()["reason"] == "brevity: asked to fail"


def test_a_stated_number_stands_in_for_trainers_that_need_one():
    """With ``unscored`` the other stacks' routes write it, and the server's own still says null."""
    composer = Composer({"none": lambda completions: [None] * len(completions)})
    verl = {"data_source": "d", "solution_str": "s", "extra_info": {"prompt": "p"}}
    with composer, serving(composer, unscored=-5.0) as server:
        assert server.post("/remote_rm", {"prompt": "p", "response": "r"}).json() == -5.0
        assert server.post("/get_reward", {"query": ["pr"], "prompts": ["p"]}).json()["rewards"] == [-5.0]
        assert server.post("/compute_score", verl).json()["score"] == -5.0
        (row,) = server.score("r").json()["rows"]
    assert row == {"total": None, "status": "abstained", "reason": "every reward abstained"}


@pytest.mark.parametrize("reward", [{"use": ":length", "normalize": "group_zscore"}, {"use": ":share_of_the_longest"}])
def test_completions_are_compared_within_their_group_and_request_alone(reward: dict[str, Any]):
    """Labels of groups hold within a request: the same label in two requests at once is two groups."""
    config = {"rewards": {"length": {**reward, "use": f"tests/serving/lengths.py{reward['use']}"}}}

    def rows(*lengths: int) -> dict[str, Any]:
        return {"rows": [{"completion": "x" * length, "group": "same"} for length in lengths]}

    with serving(config) as server, ThreadPoolExecutor(8) as pool:
        bodies = [rows(1, 2, 3), rows(10, 20, 30), rows(5, 5, 50)] * 8
        answers = list(pool.map(lambda body: server.post("/v1/score", body).raise_for_status().json(), bodies))
        refused = server.score("no group")
    for body, answer in zip(bodies, answers, strict=True):
        batch = RewardBatch(
            prompts=[""] * 3,
            completions=[row["completion"] for row in body["rows"]],
            group=["same"] * 3,
            training=False,
        )
        with Composer.from_config(config) as composer:
            assert [row["total"] for row in answer["rows"]] == composer.compose(batch).to_list()
    assert refused.status_code == 422
    assert "'group'" in refused.text
