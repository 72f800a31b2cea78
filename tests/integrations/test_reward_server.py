"""Adapters that score with a reward server: the numbers are the composer's, and groups meet there."""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import uvicorn

from rlaif_sdk.exceptions import ConfigError, RewardError
from rlaif_sdk.integrations import Host, RewardServer, Sample, Scored, verl
from rlaif_sdk.integrations.openrlhf import reward_function
from rlaif_sdk.io import http
from rlaif_sdk.serving import ServeSettings, create_app
from rlaif_sdk.types import Progress
from tests.integrations.adapters import ADAPTERS, GROUPED
from tests.integrations.cases import (
    CASES,
    GROUPS,
    build_composer,
    build_group_composer,
    by_composer,
    by_composer_in_groups,
)
from tests.integrations.test_adapters_equal import assert_equal
from tests.serving.loopback import serving, until

BY_A_HOST = sorted(name for name in ADAPTERS if not name.startswith("trl") and name != "verl, a manager")
"""verl's manager has the server gather whole groups, which the suite's samples, one of each prompt, are not."""
COMPARED = {"rewards": {"length": {"use": f"{__name__}:length", "normalize": "group_zscore"}}}
PLAIN = {"rewards": {"length": {"use": f"{__name__}:length"}}}


def some(completions):
    return [None if text == "?" else float(len(text)) for text in completions]


def length(completions):
    return [float(len(text)) for text in completions]


@pytest.fixture(autouse=True)
def _no_backoff(monkeypatch):
    monkeypatch.setattr(http, "_BACKOFF", {"wait_initial": 0.05, "wait_max": 0.05, "wait_jitter": 0.0})


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with build_composer() as composer, serving(composer) as server:
        yield server.url


def of(text: str, **fields: Any) -> Sample:
    return Sample("?", text, **fields)


@pytest.mark.parametrize("adapter", BY_A_HOST)
def test_an_adapter_gives_the_composers_numbers_through_a_server(address, adapter):
    """Every stack's adapter takes an address where it takes a config: totals, scores and gaps are the same."""
    assert_equal(adapter, ADAPTERS[adapter](address, CASES), by_composer(CASES))


@pytest.mark.parametrize("adapter", sorted(name for name in GROUPED if name != "trl"))
def test_a_stack_that_tells_groups_has_them_compared_on_a_server(adapter):
    """Whole in a request or gathered there one by one: the numbers are the composer's, unscored members too."""
    with build_group_composer() as composer, serving(composer, cohort=True, cohort_deadline=10.0) as server:
        assert_equal(adapter, GROUPED[adapter](server.url, GROUPS), by_composer_in_groups(GROUPS))


def test_members_that_are_asked_for_in_two_processes_are_compared(monkeypatch):
    """Each process has half of a group; the server puts them together. Two loops stand for the processes."""
    texts = ["a", "abc", "abcde", "abcdefg"]

    async def ask(hosted: Host, part: list[str]) -> list[float | None]:
        asked = [hosted.ascore_one(of(text, group="g", group_size=4)) for text in part]
        return [one.total for one in await asyncio.gather(*asked)]

    with serving(COMPARED, cohort=True) as server:
        hosts = [pickle.loads(pickle.dumps(Host(server.url, "a test", grouped=True))) for _ in range(2)]

        async def both() -> list[list[float | None]]:
            return await asyncio.gather(ask(hosts[0], texts[::2]), ask(hosts[1], texts[1::2]))

        halves = asyncio.run(both())
        assert server.metric('rlaif_groups_total{outcome="whole"}') == 1
    found = [halves[place % 2][place // 2] for place in range(4)]
    assert found == pytest.approx([-1.342, -0.447, 0.447, 1.342], abs=1e-3)


def test_whole_groups_stay_whole_and_apart_in_one_call():
    """Labels hold among the samples of a call, whatever they are; no size is needed where all are there."""
    samples = [of(text, group=group) for group, text in ((("x", 1), "a"), (None, "zz"), (("x", 1), "abc"))]
    with serving(COMPARED, cohort=True) as server:
        hosted = Host(server.url, "a test", grouped=True)
        two = hosted.score(samples[::2])
        assert [one.total for one in two] == pytest.approx([-1.0, 1.0], abs=1e-3)
        assert [one.total for one in hosted.score(samples[::2])] == [one.total for one in two]


def test_an_unscored_member_gets_the_mean_of_its_whole_group():
    """The server has seen all of it, though each process asks for a part."""
    with serving({"rewards": {"some": {"use": f"{__name__}:some"}}}, cohort=True) as server:
        hosted = Host(server.url, "a test", grouped=True)

        async def ask() -> list[Scored]:
            samples = [of(text, group="g", group_size=3) for text in ("a", "abc", "?")]
            return await asyncio.gather(*map(hosted.ascore_one, samples))

        *_, unscored = asyncio.run(ask())
    assert unscored.total is None
    assert (unscored.number_in_group(), unscored.group_mean("some")) == (2.0, 2.0)


def test_a_late_member_is_unscored_in_the_adapter_too():
    """It is told by `gathered`, and by the reason."""
    with serving(COMPARED, cohort=True, cohort_deadline=0.1) as server:
        hosted = Host(server.url, "a test", grouped=True)
        (early,) = hosted.score([of("a", group="g", group_size=2)])
        (late,) = hosted.score([of("abc", group="g", group_size=2)])
    assert (early.gathered, late.gathered) == (1, 0)
    assert late.total is None
    assert "too late" in late.reason


def test_the_step_and_what_is_not_for_training_are_told():
    """A schedule follows the step of the call; an evaluation teaches nothing."""
    weight = {"schedule": "linear", "from": 0, "to": 1, "end": 4}
    config = {"rewards": {"length": {"use": f"{__name__}:length", "weight": weight}}}
    with serving(config, cohort=True) as server:
        evaluating = Host(RewardServer(server.url, training=False), "a test", stepped=True)
        assert evaluating.score([of("abc")], progress=Progress(4))[0].composition.rewards["length"].weighted == [3.0]
        assert server.app.state.service.learned()["groups_scored"] == 0
        Host(server.url, "a test", stepped=True).score([of("abc")], progress=Progress(1))
        assert server.app.state.service.learned()["groups_scored"] == 1


def test_columns_may_be_arrays_and_nothing_that_json_has_no_word_for():
    """verl's rows hold NumPy's; an object is named."""
    with serving(PLAIN) as server:
        hosted = Host(server.url, "a test")
        assert hosted.score([of("abc", columns={"x": np.arange(2), "y": np.float32(1)})])[0].total == 3.0
        with pytest.raises(RewardError, match="cannot be sent as JSON: JSON cannot hold a object"):
            hosted.score([of("abc", columns={"x": object()})])


def test_openrlhfs_function_takes_an_address(address):
    """It reads more of a composition than the others do."""
    torch = pytest.importorskip("torch")
    said = reward_function(address)(["Say nothing.ok"], ["Say nothing."], ["nothing"])
    assert said["rewards"].shape == torch.Size([1])
    names = {"mentions", "brevity", "calm"}
    assert said["extra_logs"].keys() == {*names, *(f"{name}/missing" for name in names), "unscored"}


def test_a_composer_is_not_looked_for_where_a_server_has_it(address):
    """Nor a state: both are the server's."""
    with pytest.raises(ConfigError, match="the composition is at RewardServer"):
        Host(address, "a test").composer  # noqa: B018
    with pytest.raises(ConfigError, match="keeps what it learns"):
        Host(address, "a test", state="state.json")


@pytest.mark.parametrize("address", ["localhost:8000", "10.0.0.7:80", "scoring.example.org:8000/rewards", "[::1]:8000"])
def test_an_address_without_its_scheme_is_no_config_file(address):
    """It was looked for as a file; the error names the scheme, for verl's settings too."""
    with pytest.raises(ConfigError, match="looks like an address without its scheme") as raised:
        Host(address, "a test")
    assert raised.value.hint is not None
    assert f"http://{address}" in raised.value.hint
    with pytest.raises(ConfigError, match="without its scheme"):
        verl._with_router(address, None)


def test_a_file_that_is_called_like_an_address_is_read(tmp_path, monkeypatch):
    """A file that is there is meant."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a:1").write_text(json.dumps(PLAIN))
    assert Host("a:1", "a test").score([of("abc")])[0].total == 3.0


def test_a_wrong_key_ends_the_run(monkeypatch):
    """Trying again would not help."""
    monkeypatch.setenv("REWARD_KEY", "wrong")
    with serving(PLAIN, api_key="right") as server, pytest.raises(ConfigError, match="HTTP 401"):
        Host(RewardServer(server.url, api_key_env="REWARD_KEY"), "a test").score([of("a")])


def test_a_server_that_never_answers_is_an_error_and_one_that_goes_away_unscores():
    """Nobody trains on a server that was never there; an outage later is a failure of its samples, with the reason."""
    with serving(PLAIN) as server:
        hosted = Host(RewardServer(server.url, attempts=2), "a test")
        assert hosted.score([of("abc")])[0].total == 3.0
    (gone,) = hosted.score([of("abc")])
    assert gone.total is None
    assert gone.scores().keys() == {"length", "unscored"}
    assert "no usable answer" in gone.reason
    with pytest.raises(RewardError, match="no usable answer"):
        Host(RewardServer(server.url, attempts=2), "a test").score([of("abc")])


@contextmanager
def listening(port: int) -> Iterator[Any]:
    """A server on a port that is left without a word to its clients."""
    app = create_app(COMPARED, ServeSettings(cohort=True))
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="critical"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until(lambda: server.started)
    try:
        yield app.state.service
    finally:
        server.force_exit = server.should_exit = True
        for connection in list(server.server_state.connections):
            connection.loop.call_soon_threadsafe(connection.transport.abort)
        thread.join(10)


def test_a_restart_in_the_middle_of_a_group_costs_nothing_but_time():
    """Members that were gathered are sent again to the new server, by their names: the group is whole, once."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    hosted = Host(RewardServer(f"http://127.0.0.1:{port}", attempts=100), "a test", grouped=True)

    async def ask() -> list[float | None]:
        with listening(port) as first:
            early = [asyncio.create_task(hosted.ascore_one(of("x" * n, group="g", group_size=3))) for n in (1, 3)]
            await asyncio.to_thread(until, lambda: first.queue.rows == 2)
        with listening(port):
            late = asyncio.create_task(hosted.ascore_one(of("xx", group="g", group_size=3)))
            return [(one.total, one.gathered) for one in await asyncio.gather(*early, late)]

    totals, gathered = zip(*asyncio.run(ask()), strict=True)
    assert gathered == (3, 3, 3)
    assert totals == pytest.approx([-1.225, 1.225, 0.0], abs=1e-3)


def test_members_of_a_forked_process_have_names_of_its_own() -> None:
    """A server would take them for its parent's, asked for again."""
    server = RewardServer("http://127.0.0.1:1")
    told, tells = os.pipe()
    if (child := os.fork()) == 0:
        os.write(tells, str(server._named(of("a")).member).encode())
        os._exit(0)
    os.waitpid(child, 0)
    named = os.read(told, 200).decode()
    assert named
    assert named != server._named(of("a")).member
