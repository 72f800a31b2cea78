"""A server that gathers groups: what it answers, what it learns and keeps, and what it makes of bad input."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from rlaif_sdk import Composer, RewardBatch
from rlaif_sdk.exceptions import ConfigError, StateError
from rlaif_sdk.integrations import Host, Sample, Scored, load_state
from rlaif_sdk.serving import ServeSettings, create_app
from rlaif_sdk.serving import state as kept
from rlaif_sdk.types import Progress
from tests.serving.loopback import Loopback, serving, until

SHORT = 0.1


def length(completions):
    return [float(len(text)) for text in completions]


def first(completions):
    return [float(ord(text[0])) for text in completions]


def config_with(**settings: Any) -> dict[str, Any]:
    return {"rewards": {"length": {"use": f"{__name__}:length", **settings}}}


COMPARED = config_with(normalize="group_zscore")
LEARNED = config_with(normalize="zscore")


def row(text: str, **more: Any) -> dict[str, Any]:
    return {"prompt": "?", "completion": text, **more}


def all_at_once(server: Loopback, bodies: Sequence[Any], *, path: str = "/v1/score") -> list[httpx.Response]:
    """The answers to requests that are under way together, as a trainer's are."""

    async def ask() -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=len(bodies))
        async with httpx.AsyncClient(base_url=server.url, timeout=20, trust_env=False, limits=limits) as client:
            return await asyncio.gather(*(client.post(path, json=body) for body in bodies))

    return asyncio.run(ask())


def answers(responses: Sequence[httpx.Response]) -> list[dict[str, Any]]:
    return [response.raise_for_status().json()["rows"][0] for response in responses]


def test_members_that_come_one_by_one_are_scored_as_the_composer_scores_their_groups():
    """Twenty groups, their members in random order: each row's total is that of the whole group in-process."""
    groups = {f"q{number}": [f"{'x' * (3 * member + number % 5)}" for member in range(4)] for number in range(20)}
    asked = [
        {"rows": [{"prompt": name, "completion": text, "group": name, "group_size": 4, "member": member}]}
        for name, texts in groups.items()
        for member, text in enumerate(texts)
    ]
    random.Random(1).shuffle(asked)
    with Composer.from_config(COMPARED) as composer, serving(COMPARED, cohort=True) as server:
        said = answers(all_at_once(server, asked))
        assert server.metric('rlaif_groups_total{outcome="whole"}') == 20
        for body, answer in zip(asked, said, strict=True):
            (member,) = body["rows"]
            batch = RewardBatch(["p"] * 4, groups[member["group"]], group=["g"] * 4, training=False)
            assert answer["total"] == composer.compose(batch).totals[member["member"]]
            assert answer["gathered"] == 4


@pytest.mark.parametrize(
    ("path", "body", "read"),
    [
        ("/v1/score", lambda text: {"rows": [row(text)]}, lambda said: said["rows"][0]["total"]),
        ("/get_reward", lambda text: {"query": [f"?{text}"], "prompts": ["?"]}, lambda said: said["rewards"][0]),
        (
            "/compute_score",
            lambda text: {"data_source": "d", "solution_str": text, "extra_info": {"prompt": "?"}},
            lambda said: said["score"],
        ),
        ("/remote_rm", lambda text: {"prompt": "?", "response": text}, lambda said: said),
    ],
)
def test_requests_without_a_group_are_gathered_by_their_prompt(path, body, read):
    """Protocols that have no word for a group get its comparison, once the server knows how many there are."""
    with serving(COMPARED, cohort=True, cohort_size=2) as server:
        said = all_at_once(server, [body(text) for text in ("a", "abc")], path=path)
    assert [read(one.raise_for_status().json()) for one in said] == pytest.approx([-1.0, 1.0], abs=1e-3)


def test_a_group_that_stays_short_and_a_member_that_is_late_are_told_so():
    """The numbers are those of who came; the late one is unscored, with the reason."""
    with serving(COMPARED, cohort=True, cohort_deadline=SHORT) as server:
        asked = [{"rows": [row(text, group="g", group_size=3, member=text)]} for text in ("a", "abc", "late")]
        early = answers(all_at_once(server, asked[:2]))
        (late,) = answers([server.post("/v1/score", asked[2])])
        assert server.metric('rlaif_groups_total{outcome="short"}') == 1
        assert server.metric('rlaif_groups_total{outcome="late"}') == 1
    assert [one["gathered"] for one in early] == [2, 2]
    assert [one["total"] for one in early] == pytest.approx([-1.0, 1.0], abs=1e-3)
    assert (late["total"], late["status"], late["gathered"]) == (None, "failed", 0)
    assert "too late" in late["reason"]


def test_a_request_that_is_sent_again_gets_the_same_answer():
    """Its group is scored once, whether or not the first request's client is still there."""
    asked = [{"rows": [row(text, group="g", group_size=2, member=text)]} for text in ("a", "abc")]
    with serving(COMPARED, cohort=True) as server:
        with server.connect() as left:
            body = json.dumps(asked[0]).encode()
            head = (
                f"POST /v1/score HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
            )
            left.sendall(f"{head}\r\n\r\n".encode() + body)
            until(lambda: server.waiting == 1)
        until(lambda: server.waiting == 0)
        said = answers(all_at_once(server, [asked[0], asked[1], asked[0]]))
        again = answers([server.post("/v1/score", asked[1])])
        assert server.metric('rlaif_groups_total{outcome="whole"}') == 1
    assert said[0] == said[2]
    assert again == [said[1]]


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        (
            [row("a", group="g", group_size=2, member=0), row("b", group="g", group_size=2, member=0)],
            "another completion",
        ),
        ([row("a", group="g", group_size=2), {**row("b", group="g", group_size=2), "prompt": "!"}], "another prompt"),
        ([row("a", group="g", group_size=2), row("b", group="g", group_size=3)], "2 members, not 3"),
        ([row("a", group="g", group_size=0)], "greater than or equal to 1"),
        ([row("a", group_size=2)], "a group_size without a group"),
    ],
)
def test_what_cannot_be_a_group_is_refused(rows, problem):
    """With 422 and the reason, and the server scores on."""
    with serving(COMPARED, cohort=True) as server:
        refused = server.post("/v1/score", {"rows": rows})
        assert refused.status_code == 422
        assert problem in refused.text
        assert server.post("/v1/score", {"rows": [row("a", group=1)]}).status_code == 200


def test_a_server_that_gathers_nothing_says_so():
    """A row that waits for others would wait for ever, or be compared with nobody."""
    with serving(COMPARED) as server:
        refused = server.post("/v1/score", {"rows": [row("a", group="g", group_size=2)]})
    assert refused.status_code == 422
    assert "start it with --cohort" in refused.text


def test_a_group_that_teaches_nothing_is_told_and_counted():
    """A flag a row, of the total and of each reward, and counters by name; rows without a group have none."""
    groups = {"flat": ["abc", "xyz"], "steep": ["a", "abc"]}
    config = {"rewards": {name: {"use": f"{__name__}:{name}"} for name in ("length", "first")}}
    asked = [
        {"detail": True, "rows": [row(text, group=name, group_size=2)]}
        for name, texts in groups.items()
        for text in texts
    ]
    with serving(config, cohort=True) as server:
        said = answers(all_at_once(server, asked))
        assert [one["no_variance"] for one in said] == [False, False, False, False]
        assert [one["rewards"]["length"]["no_variance"] for one in said] == [True, True, False, False]
        assert [one["rewards"]["first"]["no_variance"] for one in said] == [False, False, True, True]
        assert server.metric('rlaif_groups_without_variance_total{of="length"}') == 1
        assert server.metric('rlaif_groups_without_variance_total{of="total"}') == 0
        assert "no_variance" not in answers([server.post("/v1/score", {"rows": [row("a")]})])[0]
        hosted = Host(server.url, "a test", grouped=True)

        async def ask() -> list[Scored]:
            samples = [Sample("?", text, group="again", group_size=2) for text in groups["flat"]]
            return await asyncio.gather(*map(hosted.ascore_one, samples))

        assert [(one.no_variance(), one.no_variance("length")) for one in asyncio.run(ask())] == [(False, True)] * 2


def test_statistics_are_learned_in_one_place_and_evaluation_teaches_nothing():
    """A running z-score on the server is the one of a composer that saw the same groups in the same order."""
    groups = [["a", "abc"], ["abcde", "ab"], ["a" * 9, "b"]]
    with Composer.from_config(LEARNED) as composer, serving(LEARNED, cohort=True) as server:
        for number, texts in enumerate(groups):
            asked = [
                {"rows": [row(text, group=number, group_size=2, member=place)]} for place, text in enumerate(texts)
            ]
            evaluated = [{"training": False, "rows": [row("x" * 50)]}]
            for body in evaluated * 2:
                server.post("/v1/score", body).raise_for_status()
            said = answers(all_at_once(server, asked))
            expected = composer.compose(RewardBatch(["?"] * 2, texts, group=[number] * 2)).to_list()
            assert [one["total"] for one in said] == expected
        assert server.app.state.service.learned()["groups_scored"] == 3


def test_the_reward_remote_teaches_a_server_in_training_and_tells_the_step():
    """A trainer that hands over whole groups, as TRL does, learns at the server through its composition."""
    batch = RewardBatch(["?"] * 2, ["a", "abc"], group=[0, 0], progress=Progress(step=3, total=9))
    weight = {"schedule": "step", "from": 1.0, "points": [[3, 2.0]]}
    with serving(config_with(normalize="zscore", weight=weight), cohort=True) as server:
        with Composer.from_config({"rewards": {"remote": {"params": {"url": server.url}}}}) as composer:
            composer.compose(replace(batch, training=False))
            assert server.app.state.service.learned()["groups_scored"] == 0
            totals = composer.compose(batch).to_list()
        assert server.app.state.service.learned()["groups_scored"] == 1
    assert totals == pytest.approx([-2.0, 2.0], abs=1e-3)


@pytest.mark.parametrize("told", [True, False])
def test_schedules_follow_the_step_that_is_told_or_counted(told):
    """By the request's own word, or after so many groups each."""
    config = config_with(weight={"schedule": "linear", "from": 0, "to": 1, "end": 4})
    config["rewards"]["rest"] = {"use": f"{__name__}:length", "weight": 0.0}
    config["rewards"]["base"] = {"use": f"{__name__}:length", "weight": 1.0}
    settings = {} if told else {"groups_per_step": 2}
    with serving(config, cohort=True, **settings) as server:
        said = []
        for number in range(6):
            body = {
                "rows": [row("abc", group=number, group_size=1)],
                "detail": True,
                **({"step": number // 2} if told else {}),
            }
            said.append(answers([server.post("/v1/score", body)])[0]["rewards"]["length"]["weighted"])
    assert said == pytest.approx([0.0, 0.0, 0.75, 0.75, 1.5, 1.5])


def test_groups_that_are_scored_again_count_once():
    """A reward fails on a batch of three groups as a whole, each is scored by itself then, and four were scored in all."""
    gate = threading.Event()

    def picky(completions):
        if completions == ["first"]:
            gate.wait(10)
        if "bad" in completions and len(completions) > 1:
            raise ValueError("not this")
        return [1.0] * len(completions)

    with Composer({"picky": picky}) as composer, serving(composer, cohort=True, in_flight=1) as server:
        with ThreadPoolExecutor(4) as pool:
            asked = [pool.submit(server.score, "first")]
            until(lambda: server.waiting == 1)
            grouped = [{"rows": [row(text, group=text, group_size=1)]} for text in ("good", "bad", "fine")]
            asked += [pool.submit(server.post, "/v1/score", body) for body in grouped]
            until(lambda: server.waiting == 4)
            gate.set()
            assert [one["total"] for one in answers([each.result() for each in asked])] == [1.0] * 4
        assert server.metric("rlaif_batch_rows_count") == 1 + 1 + 3
        assert server.metric('rlaif_reward_failures_total{reward="picky"}') == 0
        assert server.app.state.service.learned()["groups_scored"] == 4


def test_a_group_meets_whatever_the_clocks_say(monkeypatch):
    """Callers' clocks are hours apart and the server's jumps: only its own monotonic clock ends a group, at the deadline."""
    jumps = itertools.cycle([0.0, 4e9, 1.7e9])
    monkeypatch.setattr(time, "time", lambda: next(jumps))
    clocks = ["Thu, 01 Jan 1970 00:00:00 GMT", "Fri, 31 Dec 2100 23:59:59 GMT"]

    def ask(text: str, clock: str) -> httpx.Response:
        body = {"rows": [row(text, group="g", group_size=2, member=text)]}
        return server.post("/v1/score", body, headers={"date": clock})

    with serving(COMPARED, cohort=True, cohort_deadline=5.0) as server, ThreadPoolExecutor(2) as pool:
        whole = answers([*pool.map(ask, ("a", "abc"), clocks)])
    assert [(one["total"] > 0, one["gathered"]) for one in whole] == [(False, 2), (True, 2)]
    with serving(COMPARED, cohort=True, cohort_deadline=SHORT) as server:
        since = time.monotonic()
        (short,) = answers([ask("a", clocks[1])])
        (late,) = answers([ask("abc", clocks[0])])
    assert (short["gathered"], late["gathered"]) == (1, 0)
    assert time.monotonic() - since >= SHORT


def test_a_schedule_without_a_step_is_refused():
    """Nobody tells how far training is: the request is, and not the server's start."""
    config = config_with(weight={"schedule": "linear", "from": 1, "to": 2, "end": 4})
    with serving(config, cohort=True) as server:
        refused = server.post("/v1/score", {"rows": [row("abc")]})
    assert refused.status_code == 422
    assert "--groups-per-step" in refused.text


def test_what_is_learned_survives_a_restart(tmp_path):
    """It is written at the end, into a folder that is made, and taken up again; a host reads the file too."""
    file = tmp_path / "learned" / "state.json"
    batches = [["a", "abc", "abcdefgh"], ["a" * 20, "b" * 30]]
    with Composer.from_config(LEARNED) as composer:  # what a server that never ended would say
        for texts in batches:
            expected = composer.compose(RewardBatch(["?"] * len(texts), texts)).to_list()
            with TestClient(create_app(LEARNED, ServeSettings(cohort=True), state=file)) as client:
                said = client.post("/v1/score", json={"rows": [row(text) for text in texts]}).json()["rows"]
            assert [one["total"] for one in said] == expected
        evaluated = composer.compose(RewardBatch(["?"], ["abcd"], training=False)).to_list()
    assert json.loads(file.read_text())["groups_scored"] == 5
    assert [one.total for one in Host(LEARNED, "a test", state=file).score([Sample("?", "abcd")])] == evaluated


def test_a_killed_server_has_lost_what_it_learned_since_it_last_looked(tmp_path, monkeypatch):
    """The file is written while the server runs, and is whole."""
    monkeypatch.setattr(kept, "SAVE_EVERY", 0.02)
    file = tmp_path / "state.json"
    app = create_app(LEARNED, ServeSettings(cohort=True), state=file)
    with TestClient(app) as client:
        client.post("/v1/score", json={"rows": [row("abc"), row("a")]}).raise_for_status()
        until(lambda: file.exists() and json.loads(file.read_text())["groups_scored"] == 2)


def test_what_is_learned_while_the_file_is_written_is_in_it_at_the_end(tmp_path, monkeypatch):
    """The last save waits for one that is under way, which would else overwrite it with less."""
    monkeypatch.setattr(kept, "SAVE_EVERY", 0.01)
    file, begun, goes_on = tmp_path / "state.json", threading.Event(), threading.Event()
    known = [0]

    def learned() -> dict[str, Any]:
        state = {"groups_scored": known[0]}
        if not begun.is_set():
            begun.set()
            goes_on.wait(10)
        return state

    async def run() -> None:
        async with kept.kept_in(file, learned):
            await asyncio.to_thread(begun.wait)
            known[0] = 1
            asyncio.get_running_loop().call_later(0.1, goes_on.set)

    asyncio.run(run())
    assert json.loads(file.read_text()) == {"groups_scored": 1}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[]", "holds no state"),
        ('{"groups_scored": "x"}', "'x' groups"),
        ("[" * 100_000, "is no JSON: maximum recursion"),
        ("", "is no JSON"),
    ],
    ids=["list", "groups", "deep", "empty"],
)
def test_a_file_that_is_no_state_is_refused(tmp_path, text, problem):
    """Before the server starts, and it is left as it is."""
    file = tmp_path / "state.json"
    file.write_text(text)
    with pytest.raises(StateError, match=problem):
        create_app(LEARNED, ServeSettings(cohort=True), state=file)
    assert file.read_text() == text


@pytest.mark.parametrize(
    ("place", "problem"), [("/dev/zero", "a device"), ("/", "a folder"), ("loop", "cannot be read")]
)
def test_a_state_that_is_no_file_is_refused_at_once(tmp_path, place, problem):
    """It would be read without end."""
    (tmp_path / "loop").symlink_to(place)
    with pytest.raises(StateError, match=problem):
        load_state(tmp_path / "loop")


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"cohort_size": 4}, "only with cohort"),
        ({"groups_per_step": 4}, "only with cohort"),
        ({"cohort_deadline": 5.0}, "only with cohort"),
        ({"cohort": True, "cohort_size": 0}, "at least 1"),
        ({"cohort": True, "cohort_deadline": float("inf")}, "not infinite"),
    ],
)
def test_settings_of_groups_that_make_no_sense_are_refused(settings, problem):
    """At the start, by name."""
    with pytest.raises(ConfigError, match=problem):
        ServeSettings(**settings)
