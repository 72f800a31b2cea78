"""Rewards in worker processes: ended for real, and nothing left behind."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from rlaif_sdk import BatchError, Composer, ConfigError, Credit, RewardBatch
from rlaif_sdk.composer import Component
from rlaif_sdk.config import ExecutionConfig
from rlaif_sdk.exceptions import JudgeAuthError
from rlaif_sdk.scoring import Recipe, wire

REWARDS = """
    import os, re, signal, subprocess, sys, time
    from pathlib import Path
    from rlaif_sdk import Reward, Score
    from rlaif_sdk.exceptions import JudgeAuthError, JudgeConnectionError

    def note(pid):
        with open(Path(__file__).with_name("pids"), "a") as pids:
            pids.write(f"{pid}\\n")

    def misbehave(prompts, completions):
        note(os.getpid())
        match completions[0]:
            case "hang":
                time.sleep(600)
            case "hold the GIL":
                re.match("(a+)+$", "a" * 40 + "b")
            case "child":
                note(subprocess.Popen(["sleep", "600"]).pid)
                time.sleep(600)
            case "daemon":
                command = ["sh", "-c", "setsid sleep 600 > /dev/null 2>&1 & echo $!"]
                note(int(subprocess.run(command, capture_output=True, text=True).stdout))
                time.sleep(600)
            case "ignore signals":
                for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                    signal.signal(number, signal.SIG_IGN)
                time.sleep(600)
            case "segfault":
                import ctypes
                ctypes.string_at(0)
            case "exit":
                os._exit(3)
            case "sys.exit":
                sys.exit(4)
            case "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            case "close":
                os.closerange(3, 100)
                time.sleep(600)
            case "raise":
                raise ZeroDivisionError("in my code")
            case "auth":
                raise JudgeAuthError("the key is refused", hint="set another")
            case "connection":
                raise JudgeConnectionError("no answer")
            case "print":
                print("to standard output")
            case "huge":
                return [Score(1.0, reason="x" * (2 * 2**20))]
            case "short":
                return []
            case "object":
                return [object()]
            case "nan":
                return [float("nan")]
            case "rich":
                return [Score(0.5, "why \\ud800", {"n": [1, 2]}, Score.of_tokens([0.25, 0.25]).credit), None, Score.failed("no verdict"), 2]
        return [float(len(completion)) for completion in completions]

    async def patient(prompts, completions, *, bonus: float = 0.0):
        return [float(len(completion)) + bonus for completion in completions]

    def whole(prompts, completions, completion_ids, answer, **columns):
        return [Score(0.0, details={"ids": ids, "answer": one, "columns": sorted(columns)})
                for ids, one in zip(completion_ids, answer)]

    class Loaded(Reward):
        def setup(self):
            time.sleep(0.7)
            self.pid = os.getpid()

        def score(self, batch):
            if batch.completions[0] == "die":
                os._exit(1)
            return [float(self.pid == os.getpid())] * len(batch)

        def close(self):
            Path(__file__).with_name("closed").write_text("yes")
"""


def rows(*completions: str) -> RewardBatch:
    return RewardBatch(["p"] * len(completions), list(completions))


def gone(pid: int, seconds: float = 5.0) -> bool:
    """Whether a process ends within some seconds; a zombie has ended."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False


@pytest.fixture
def folder(write: Callable[[str, str], Path]) -> Path:
    return write("rewards.py", REWARDS).parent


@pytest.fixture
def pids(folder: Path) -> Callable[[], list[int]]:
    return lambda: [int(line) for line in (folder / "pids").read_text().split()]


@pytest.fixture
def compose(folder: Path) -> Iterator[Callable[..., Composer]]:
    """A function that makes a composer with one reward of the file, isolated."""
    made = []

    def make(name: str = "misbehave", timeout: float = 20.0, **more: object) -> Composer:
        reward = {"use": f"{folder}/rewards.py:{name}", "timeout": timeout, "execution": {"isolation": "process"}}
        reward["on_failure"] = {"policy": "abstain", "fail_fast": False}
        made.append(Composer.from_config({"rewards": {"mine": reward | more}}))
        return made[-1]

    yield make
    for composer in made:
        composer.close()


@pytest.mark.parametrize("how", ["hang", "hold the GIL", "ignore signals"])
def test_a_reward_that_hangs_costs_its_limit_and_the_next_call_works(compose, pids, how: str) -> None:
    """Its process is killed, whatever it does: even code that never gives up the interpreter lock."""
    with compose(timeout=0.5) as composer:
        composer.compose(rows("warm"))
        began = time.monotonic()
        column = composer.compose(rows(how)).rewards["mine"]
        assert time.monotonic() - began < 0.5 + 1.0
        assert "scoring took longer than its limit of 0.5 s" in column.failures[0]
        assert gone(pids()[-1])
        assert composer.compose(rows("four")).totals.tolist() == [4.0]


@pytest.mark.parametrize("how", ["child", "daemon"])
def test_what_a_hung_reward_started_is_ended_with_it(compose, pids, how: str) -> None:
    """Its children die too, also a daemon: one in a session of its own whose parent has ended."""
    with compose(timeout=1.5) as composer:
        composer.compose(rows(how))
        worker, child = pids()
        assert gone(worker)
        assert gone(child)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("segfault", "its worker process was ended by SIGSEGV"),
        ("exit", "its worker process ended by itself with exit status 3"),
        ("killed", "its worker process was ended by SIGKILL: the system may be out of memory"),
        ("close", "its worker process closed its connection, and was ended"),
    ],
)
def test_a_crash_is_a_named_failure_and_the_next_call_works(compose, how: str, message: str) -> None:
    """The process of the caller lives on, and another worker takes the next batch."""
    with compose() as composer:
        assert message in composer.compose(rows(how)).rewards["mine"].failures[0]
        assert composer.compose(rows("four")).totals.tolist() == [4.0]


def test_an_error_is_named_and_the_worker_lives_on(compose, pids) -> None:
    """Whatever the reward raises or returns, it is said as it would be in this process."""
    expected = {
        "sys.exit": "raised SystemExit: 4",
        "raise": "raised ZeroDivisionError: in my code",
        "short": "returned 0 scores for 1 rows",
        "object": "returned object where a number, a Score or None is wanted",
        "nan": "returned nan",
        "connection": "no answer",
    }
    with compose() as composer:
        for how, message in expected.items():
            assert message in composer.compose(rows(how)).rewards["mine"].failures[0]
        assert composer.compose(rows("four")).totals.tolist() == [4.0]
    assert len(set(pids())) == 1


def test_an_error_that_ends_the_run_keeps_its_type(compose) -> None:
    """A refused key in a worker stops the run as it would in this process."""
    with compose() as composer, pytest.raises(JudgeAuthError, match=r"the key is refused \(set another\)") as caught:
        composer.compose(rows("auth"))
    assert "in misbehave" in "".join(caught.value.__notes__)


def test_scores_come_back_as_they_were_given(compose) -> None:
    """Reasons, details, credit, abstentions and failures of rows cross the boundary."""
    with compose() as composer:
        column = composer.compose(rows("rich", "b", "c", "d")).rewards["mine"]
    score = column.score(0)
    assert (score.value, score.reason, score.details, score.credit) == (
        0.5,
        "why \ud800",
        {"n": [1, 2]},
        Credit([0.25, 0.25]),
    )
    assert [column.status(row) for row in range(4)] == ["scored", "abstained", "failed", "scored"]
    assert column.failures == {2: "no verdict"}


def test_a_batch_arrives_whole(compose) -> None:
    """Columns and token ids are seen in the worker; a column that JSON cannot hold is left out with a warning."""
    batch = RewardBatch(
        ["p"], ["c"], [[1, 2]], {"answer": ["a\ud800"], "image": [object()], "more": [{"a": 1}]}, group=[("g", 1)]
    )
    with compose("whole") as composer, pytest.warns(UserWarning, match="does not see the column 'image'"):
        details = composer.compose(batch).rewards["mine"].score(0).details
    assert details == {"ids": [1, 2], "answer": "a\ud800", "columns": ["more"]}


def test_a_required_column_that_json_cannot_hold_is_refused(compose) -> None:
    """It is an error in the set-up, not a failed reward."""
    batch = RewardBatch(["p"], ["c"], [[1]], {"answer": [object()]})
    with compose("whole") as composer, pytest.raises(BatchError, match="the column 'answer' holds what JSON cannot"):
        composer.compose(batch)


def test_an_answer_that_is_too_long_is_refused(compose, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a worker sends is not read beyond a limit."""
    monkeypatch.setattr(wire, "MAX_REPLY", 2**20)
    with compose() as composer:
        assert "at most 1048576 are read" in composer.compose(rows("huge")).rewards["mine"].failures[0]
        assert composer.compose(rows("four")).totals.tolist() == [4.0]


@pytest.mark.parametrize(
    "reply",
    [b"", b"null", b"[]", b"{", b'{"scores": 3}', b'{"scores": [true]}', b'{"scores": [{"value": 1}]}', b'{"error": {}}',
     b'{"scores": [{"value": "1", "reason": null, "details": {}, "credit": null, "error": null}]}',
     b'{"scores": [{"value": 1, "reason": 2, "details": {}, "credit": null, "error": null}]}', b"[" * 100_000,
     b'{"scores": [{"value": 1, "reason": null, "details": {}, "credit": {"spans": [{"start": "a"}]}, "error": null}]}',
     b'{"scores": [{"value": 1, "reason": null, "details": {}, "credit": {"view": "all"}, "error": null}]}'],
)  # fmt: skip
def test_a_reply_that_is_no_answer_is_a_failure(reply: bytes) -> None:
    """Nothing that a worker sends becomes anything but a score or a named error."""
    with pytest.raises(wire.RewardOutputError, match="sent what is no answer"):
        wire.decode_reply(reply)


def test_an_async_reward_and_its_parameters_work_in_a_process(compose) -> None:
    """The worker makes the reward from its reference and parameters, and awaits what it returns."""
    with compose("patient", params={"bonus": 0.5}) as composer:
        assert composer.compose(rows("four")).totals.tolist() == [4.5]


def test_setup_has_its_own_limit_and_runs_again_after_a_crash(compose, folder: Path) -> None:
    """Loading takes longer than one call may; a new worker loads anew; closing closes the reward."""
    with compose("Loaded", timeout=0.5, setup_timeout=20.0) as composer:
        assert composer.compose(rows("a")).totals.tolist() == [1.0]
        assert composer.compose(rows("die")).rewards["mine"].failures
        assert composer.compose(rows("a")).totals.tolist() == [1.0]
    assert (folder / "closed").exists()
    with compose("Loaded", setup_timeout=0.1) as composer:
        assert "setup took longer than its limit of 0.1 s" in composer.compose(rows("a")).rewards["mine"].failures[0]


def test_several_workers_score_chunks_at_once(compose, pids) -> None:
    """With a concurrency of two there are two processes, and one that dies takes only its chunk along."""
    execution = {"isolation": "process", "chunk": 1, "concurrency": 2}
    with compose(execution=execution) as composer:
        column = composer.compose(rows("a", "exit", "ccc", "dddd")).rewards["mine"]
        assert [column.status(row) for row in range(4)] == ["scored", "failed", "scored", "scored"]
        assert len(set(pids())) >= 2


def test_what_a_reward_prints_does_not_reach_standard_output(compose, capfd: pytest.CaptureFixture[str]) -> None:
    """The output of a command that scores stays clean."""
    with compose() as composer:
        composer.compose(rows("print"))
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "to standard output" in captured.err


def test_closing_ends_the_worker_and_so_does_an_exception(compose, pids) -> None:
    """Leaving the with statement either way leaves no process."""

    def fail() -> None:
        with compose() as composer:
            composer.compose(rows("a"))
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert gone(pids()[0], 0.1)


def test_a_forgotten_composer_ends_its_worker(folder: Path, pids) -> None:
    """A composer that is garbage, which it is when the task that finished its last batch has let go of it, takes its
    processes with it."""
    composer = Composer.from_config(
        {"rewards": {"mine": {"use": f"{folder}/rewards.py:misbehave", "execution": {"isolation": "process"}}}}
    )
    composer.compose(rows("a"))
    del composer
    worker = pids()[0]
    assert any(gc.collect() >= 0 and gone(worker, 0.5) for _ in range(20))


def test_a_process_without_a_recipe_is_refused() -> None:
    """A live object cannot be sent to another process: the component must say how to make it."""
    component = Component(lambda prompts, completions: [0.0], execution=ExecutionConfig(isolation="process"))
    with pytest.raises(ConfigError, match=r"rewards\.mine\.execution\.isolation.*how to make the reward"):
        Composer({"mine": component})


def test_a_component_made_in_python_runs_in_a_process_by_its_recipe(folder: Path) -> None:
    """The recipe names what a config would."""
    recipe = Recipe("rewards.py:patient", {"bonus": 1.0}, folder=str(folder))
    component = Component(
        lambda prompts, completions: [0.0], execution=ExecutionConfig(isolation="process"), recipe=recipe
    )
    with Composer({"mine": component}) as composer:
        assert composer.compose(rows("four")).totals.tolist() == [5.0]


SCRIPT = """
    import sys, os, signal, threading, time
    from rlaif_sdk import Composer, RewardBatch

    reward = {"use": sys.argv[1] + "/rewards.py:misbehave", "timeout": None, "execution": {"isolation": "process"}}
    composer = Composer.from_config({"rewards": {"mine": reward}})
    if sys.argv[3] == "idle":
        composer.compose(RewardBatch(["p"], ["a"]))
    else:
        composer.submit(RewardBatch(["p"], [sys.argv[3]]))
        while not os.path.exists(sys.argv[1] + "/pids") or len(open(sys.argv[1] + "/pids").read().split()) < int(sys.argv[4]):
            time.sleep(0.02)
    if sys.argv[2] == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if sys.argv[2] == "fork":
        child = os.fork()
        if child == 0:
            time.sleep(600)
        open(sys.argv[1] + "/forked", "w").write(str(child))
        os.kill(os.getpid(), signal.SIGKILL)
    if sys.argv[2] == "raise":
        raise KeyError
"""


@pytest.mark.parametrize(
    ("end", "what"),
    [
        ("exit", "idle"),
        ("raise", "hang"),
        ("kill", "idle"),
        ("kill", "hold the GIL"),
        ("kill", "child"),
        ("fork", "child"),
    ],
)
def test_no_worker_outlives_its_parent(write, folder: Path, pids, end: str, what: str) -> None:
    """Whether the parent exits, raises or is killed with SIGKILL, also while a fork of it lives on."""
    script = write("parent.py", SCRIPT)
    expected = 2 if what == "child" else 1
    done = subprocess.run(
        [sys.executable, script, folder, end, what, str(expected)],
        timeout=30, check=False, stderr=subprocess.DEVNULL, env=os.environ | {"PYTHONWARNINGS": "ignore"},
    )  # fmt: skip
    try:
        assert done.returncode == {"exit": 0, "raise": 1, "kill": -9, "fork": -9}[end]
        assert all(gone(pid) for pid in pids())
    finally:
        if (folder / "forked").exists():
            os.kill(int((folder / "forked").read_text()), signal.SIGKILL)
        for pid in pids():
            if psutil.pid_exists(pid):
                os.kill(pid, signal.SIGKILL)


def test_a_fork_leaves_the_workers_of_its_parent_alone(write, folder: Path) -> None:
    """A forked child that ends in the ordinary way does not end a worker that is not its own."""
    script = write(
        "forks.py",
        textwrap.dedent("""
            import os, sys
            from rlaif_sdk import Composer, RewardBatch
            reward = {"use": sys.argv[1] + "/rewards.py:misbehave", "execution": {"isolation": "process"}}
            composer = Composer.from_config({"rewards": {"mine": reward}})
            composer.compose(RewardBatch(["p"], ["a"]))
            if os.fork() == 0:
                assert composer.compose(RewardBatch(["p"], ["four"])).totals.tolist() == [4.0]
                sys.exit(0)
            assert os.wait()[1] == 0
            assert composer.compose(RewardBatch(["p"], ["a"])).totals.tolist() == [1.0]
            assert len(set(open(sys.argv[1] + "/pids").read().split())) == 2
        """),
    )
    subprocess.run(
        [sys.executable, script, folder], timeout=30, check=True, env=os.environ | {"PYTHONWARNINGS": "ignore"}
    )
