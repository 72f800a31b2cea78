"""A real Ray of two cores: scoring, labelling and serving, with workers that are killed."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from rlaif_sdk import Composer, ConfigError, DataError, RlaifError
from rlaif_sdk.composer.tables import TableLayout, score_records
from rlaif_sdk.io.tables import read_rows, survey
from rlaif_sdk.preferences import load_label_job, run_labeling
from rlaif_sdk.scale import Autoscaling, Workers, deploy, label_with_actors, score_table
from rlaif_sdk.serving import ServeSettings
from tests.serving.certificates import make_certificate

pytest.importorskip("ray")
pytestmark = [
    pytest.mark.slow,
    # Ray Data warns of its own deprecated settings, and Ray leaves sockets to the garbage collector
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.filterwarnings("ignore::FutureWarning:ray"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

REWARDS = '''
import os
import time
from pathlib import Path

from rlaif_sdk import Reward


class Slow(Reward):
    """Tells when it is loaded and by whom each row is scored, and takes its time."""

    def setup(self):
        (Path(__file__).parent / f"loaded-{os.getpid()}-{time.monotonic_ns()}").touch()

    def score(self, batch):
        time.sleep(0.01 * len(batch))
        if any("deadly" in text for text in batch.completions):
            os.kill(os.getpid(), 9)
        return [len(text) / 10 for text in batch.completions]
'''


@pytest.fixture
def slow(write: Any, tmp_path: Path) -> Path:
    """A composition whose worker can be killed in the middle."""
    write("slow.py", REWARDS)
    return write("slow.yaml", 'rewards: {slow: {use: "slow.py:Slow"}}')


def loaded(folder: Path) -> list[int]:
    return [int(file.name.split("-")[1]) for file in sorted(folder.glob("loaded-*"), key=lambda f: f.stat().st_mtime)]


def kill_one(folder: Path, parts: int, killed: list[int]) -> None:
    """Kill the first worker when so many parts are there."""
    while not (len(list(folder.glob("out/part-*"))) >= parts and loaded(folder)):
        time.sleep(0.02)
    killed.append(loaded(folder)[0])
    os.kill(killed[0], signal.SIGKILL)


def test_a_killed_worker_loses_no_row_and_doubles_none(cluster, slow, table, tmp_path):
    """Its shard is done again by a new worker; the rows are those of one machine, and each worker loads once."""
    file = table(600)
    killed: list[int] = []
    killer = threading.Thread(target=kill_one, args=(tmp_path, 2, killed), daemon=True)
    killer.start()
    result = score_table(file, slow, tmp_path / "out", batch_rows=40, chunk=8, workers=Workers(actors=2))
    killer.join(1)
    assert killed
    rows = [row for part in sorted(result.output.glob("part-*.parquet")) for row in read_rows(part)]
    with Composer.from_config(slow) as composer:
        scored = score_records(composer.compose, read_rows(file), TableLayout(), columns=survey(file).columns)
        expected = [total for _, composed in scored for total in composed.to_list()]
    assert [row["reward"]["total"] for row in rows] == expected
    assert [row["completion"] for row in rows] == [row["completion"] for row in read_rows(file)]
    assert result.summary.rows == 600
    assert 2 <= len(set(loaded(tmp_path)) - {os.getpid()}) <= 3
    assert not list(result.output.glob(".part-*")) + list(result.output.glob("__job__/*.attempts"))
    assert json.loads((result.output / "__job__" / "summary.json").read_text())["rows"] == 600


def test_an_error_of_a_worker_arrives_as_it_is_and_the_rest_can_be_resumed(cluster, composition, table, tmp_path):
    """A typed error without Ray's traceback."""
    good = composition.read_text()
    composition.write_text(good.replace("weight: 0.5", "on_failure: raise"))
    with pytest.raises(RlaifError, match="picky") as caught:
        score_table(table(60), composition, tmp_path / "out", batch_rows=5, workers=Workers(actors=1))
    assert "Traceback" not in str(caught.value)
    composition.write_text(good)
    with pytest.raises(ConfigError, match="another config"):
        score_table(table(60), composition, tmp_path / "out", batch_rows=5)
    with table(60).open("a") as file:
        file.write('{"prompt": "alone"}')
    with pytest.raises(DataError, match=r"table.jsonl:61: has no column 'completion'"):
        score_table(tmp_path / "table.jsonl", composition, tmp_path / "other", batch_rows=5)


def test_rows_that_kill_every_worker_end_the_job_and_are_named(cluster, slow, table, tmp_path):
    """After three workers, and not never."""
    file = table(60)
    file.write_text(file.read_text().replace(' 33"', ' deadly"'))
    with pytest.raises(RlaifError, match="rows 31 to 40 ended their worker 3 times"):
        score_table(file, slow, tmp_path / "out", batch_rows=10, workers=Workers(actors=2))


@pytest.fixture
def label_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sixty pairs, a judge behind HTTP that takes 20 ms, and the job's config."""
    import yaml

    from tests.judges.conftest import JudgeServer
    from tests.preferences.conftest import prefers_good

    monkeypatch.setenv("NO_PROXY", "*")
    server = JudgeServer()

    def answer(number: int, sent: Any) -> Any:
        time.sleep(0.02)
        return prefers_good(number, sent)

    server.answer = answer
    pairs = [{"prompt": f"q{row}", "response_1": f"good {row}", "response_2": f"bad {row}"} for row in range(60)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    judge = {"model": "tiny", "base_url": server.url, "concurrency": 2}
    path = tmp_path / "label.yaml"
    path.write_text(yaml.safe_dump({"pairs": {"file": "pairs.jsonl"}, "judge": judge}))
    yield path, server
    server.close()


def test_labels_by_actors_are_those_of_one_process(cluster, label_job):
    """The same rows in the same order, in a folder with which either engine goes on."""
    path, server = label_job
    spread = label_with_actors(load_label_job(path, overrides=["output=ray"]), workers=Workers(actors=2))
    plain = run_labeling(load_label_job(path, overrides=["output=plain"]))
    assert list(read_rows(spread.labels)) == list(read_rows(plain.labels))
    assert spread.summary.record() == plain.summary.record()
    asked = len(server.requests)
    again = run_labeling(load_label_job(path, overrides=["output=ray"]))
    assert again.asked == 0
    assert len(server.requests) == asked


def test_a_killed_judge_loses_no_pair(cluster, label_job):
    """Its calls are made again by the worker that takes its place."""
    path, server = label_job

    def kill() -> None:
        while len(server.requests) < 20:
            time.sleep(0.01)
        processes = psutil.Process().children(recursive=True)
        workers = [process for process in processes if any("_JudgeActor" in part for part in process.cmdline())]
        killed.append(workers[0].pid)
        os.kill(workers[0].pid, signal.SIGKILL)

    killed: list[int] = []
    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    result = label_with_actors(path, workers=Workers(actors=2))
    killer.join(1)
    assert killed
    assert result.summary.labelled == 60
    assert [row["prompt"] for row in read_rows(result.labels)] == [f"q{row}" for row in range(60)]


def test_a_deployment_answers_with_the_composers_numbers_and_wants_its_key(cluster, composition):
    """The routes are those of the reward server; without the key nothing is scored."""
    import httpx
    from ray import serve

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    try:
        deploy(composition, ServeSettings(api_key="secret"), port=port, autoscaling=Autoscaling(most=1, cores=0.5))
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30) as client:
            body = {"rows": [{"prompt": "p", "completion": "four"}]}
            answer = client.post("/v1/score", json=body, headers={"Authorization": "Bearer secret"})
            assert answer.json()["rows"][0]["total"] == pytest.approx(0.04 + 0.25)
            assert client.post("/v1/score", json=body).status_code == 401
    finally:
        serve.shutdown()


def test_a_serve_that_already_runs_is_not_taken_for_what_was_asked(cluster, composition):
    """Its host, port and TLS are in force whatever is asked: another is refused with both; port 0 takes what is there."""
    import httpx
    from ray import serve

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    told = []
    try:
        serve.start(http_options={"host": "0.0.0.0", "port": port})
        with pytest.raises(ConfigError, match=r"host is 0\.0\.0\.0, not 127\.0\.0\.1; port is .*serve shutdown"):
            deploy(composition, port=port + 1, started=told.append)
        certificate = composition.parent / "cert.pem"
        make_certificate(composition.parent)
        options: Any = {"host": "0.0.0.0", "settings": ServeSettings(api_key="secret"), "started": told.append}
        with pytest.raises(ConfigError, match=r"ssl_certfile is unset, not .*cert\.pem"):
            deploy(
                composition,
                port=port,
                ssl_certfile=certificate,
                ssl_keyfile=certificate.with_name("key.pem"),
                **options,
            )
        assert not serve.status().applications
        assert not told
        deploy(composition, port=0, autoscaling=Autoscaling(most=1, cores=0.5), **options)
        assert told == [f"http://0.0.0.0:{port}"]
        assert httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).status_code == 401
    finally:
        serve.shutdown()


def test_an_address_that_cannot_be_bound_is_an_error_of_ours(cluster, composition):
    """A port that is taken and a host that is none end in an error in one line, not in a traceback of Ray's."""
    from ray import serve

    problem = r"^Ray Serve cannot start the server: .+$"
    try:
        with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(RlaifError, match=problem):
            deploy(composition, port=taken.getsockname()[1])
        serve.shutdown()
        with pytest.raises(RlaifError, match=problem):
            deploy(composition, ServeSettings(api_key="secret"), host="no.such.host.invalid", port=0)
    finally:
        serve.shutdown()


def test_an_ipv6_address_is_told_as_clients_take_it(cluster, composition):
    """In brackets: without them the port reads as a part of the address."""
    from ray import serve

    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    told = []
    try:
        deploy(composition, host="::1", port=0, autoscaling=Autoscaling(most=1, cores=0.5), started=told.append)
        assert re.fullmatch(r"http://\[::1\]:\d+", told[0])
    finally:
        serve.shutdown()
