"""A reward reaches nothing beyond its own score: neither the caller's rows, nor others', nor the runner."""

from __future__ import annotations

import sys
import threading
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import numpy as np
import pytest

from rlaif_sdk import Composer, Credit, Reward, RewardBatch, Score
from rlaif_sdk.composer import Component, FailurePolicy
from rlaif_sdk.exceptions import RewardError

NEVER = 60.0
"""Seconds that no call may take here."""


def batch() -> RewardBatch:
    return RewardBatch(
        prompts=[[{"role": "user", "content": f"question {row}"}] for row in range(3)],
        completions=[[{"role": "assistant", "content": [{"type": "text", "text": text}]}] for text in "cab"],
        completion_ids=[[3, 1, 2], [5], [4, 4]],
        columns={
            "label": [3, 1, 2],
            "tests": [{"cases": [[1, 2], [3]]}, {"cases": []}, {}],
            "odd": [{1, 2}, (1, [2]), None],
        },
        group=["x", "x", "y"],
    )


def sorts(batch: RewardBatch) -> None:
    for values in (batch.columns["label"], batch.completion_ids[0], batch.group):
        values.sort(reverse=True)
    batch.completions.sort(key=str)


def pops(batch: RewardBatch) -> None:
    batch.columns.pop("label")
    batch.prompts.pop()
    batch.completion_ids.clear()
    batch.columns["tests"][0]["cases"].pop()


def rewrites(batch: RewardBatch) -> None:
    batch.completions[0][0]["content"][0]["text"] = "mine"
    batch.prompts[1].append({"role": "user", "content": "and this"})
    batch.columns["odd"][0].add(7)
    batch.columns["odd"][1][1].append(8)


def adds(batch: RewardBatch) -> None:
    batch.columns["more"] = [1, 2, 3]
    batch.columns["label"][0] = 99


@pytest.mark.parametrize("change", [sorts, pops, rewrites, adds])
@pytest.mark.parametrize("form", ["short", "thread", "async"])
def test_what_a_reward_does_to_its_rows_changes_nothing_for_others_or_the_caller(form, change) -> None:
    """Whether it is called in the caller's thread, in one of its own, or awaited."""

    class Changing(Reward):
        def score(self, batch: RewardBatch) -> Any:
            change(batch)
            return [0.0] * 3

    class ChangingAsync(Reward):
        async def score(self, batch: RewardBatch) -> Any:
            change(batch)
            return [0.0] * 3

    class Watching(Reward):
        def score(self, batch: RewardBatch) -> Sequence[float]:
            seen.append((batch.prompts, batch.completions, batch.completion_ids, batch.columns, batch.group))
            return [0.0] * 3

    seen: list[Any] = []
    given = batch()
    as_it_was = deepcopy(given)
    changing = ChangingAsync() if form == "async" else Changing()
    timeout = "auto" if form == "short" else 30.0
    with Composer({"a": Component(changing, timeout=timeout), "b": Watching()}) as composer:
        for _ in range(2):
            composer.compose(given)
    assert given == as_it_was
    fields = (as_it_was.prompts, as_it_was.completions, as_it_was.completion_ids, as_it_was.columns, as_it_was.group)
    assert seen == [fields, fields]


def test_an_array_is_seen_and_not_changed() -> None:
    """It is a read-only view: what writes into it is a failure of that reward."""

    def writes(completions, table, **_):
        table[0, 0] = 1.0
        return [0.0] * len(completions)

    table = np.zeros((2, 5))
    given = RewardBatch(["p"] * 2, ["a", "b"], columns={"table": table})
    with (
        Composer({"writes": writes, "reads": lambda completions, table, **_: table[:, 0].tolist()}) as composer,
        pytest.raises(RewardError, match="read-only"),
    ):
        composer.compose(given)
    assert not table.any()
    assert table.flags.writeable


class Pair(NamedTuple):
    names: list[str]
    lock: Any


class Names(list[Any]):
    """A list of a class of its own."""


@pytest.mark.parametrize(
    "contain",
    [
        Pair,
        lambda names, lock: (names, (lock,)),
        lambda names, lock: OrderedDict(names=names, lock=lock),
        lambda names, lock: defaultdict(list, names=names, lock=lock),
        lambda names, lock: Names([names, lock]),
        lambda names, lock: {"array": np.array([names, lock, None], dtype=object)},
        lambda names, lock: (np.array([[{"names": names}], [lock]], dtype=object),),
    ],
    ids=["named tuple", "tuple", "ordered dict", "dict with a default", "list", "array", "array of two dimensions"],
)
def test_objects_that_cannot_be_copied_stay_the_same_in_containers_of_its_own(contain: Callable[..., Any]) -> None:
    """Whatever class of container holds them, which stays that class."""

    def changes(completions, held, **_):
        found.append(held[0])
        return [0.0] * len(completions)

    found: list[Any] = []
    names, lock = ["a"], threading.Lock()
    held = contain(names, lock)
    with Composer({"changes": changes}) as composer:
        composer.compose(RewardBatch(["p"], ["a"], columns={"held": [held]}))
    assert type(found[0]) is type(held)
    assert sum(inner is lock for inner in flat(found[0])) == 1
    (own,) = [inner for inner in flat(found[0]) if type(inner) is list and inner == ["a"]]
    own.append("b")
    assert names == ["a"]


def flat(value: Any) -> Iterator[Any]:
    """What a value holds at any depth, and the value."""
    yield value
    if isinstance(value, (list, tuple, dict, np.ndarray)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from flat(item)


@pytest.mark.parametrize("where", ["column", "other column", "prompt", "completion"])
def test_a_value_that_nests_without_end_costs_no_row_its_score(where: str) -> None:
    """It is shared and not copied; the other rows are their own as ever."""
    deep: Any = []
    for _ in range(50_000):
        deep = [deep]
    said = [{"role": "assistant", "content": "b", "meta": deep}]
    rows = {"column": [[1], deep, [3]], "other": ["x", deep if where == "other column" else "y", "z"]}
    if where != "column":
        rows["column"][1] = [2]
    batch = RewardBatch(
        prompts=["p", said if where == "prompt" else "p", "p"],
        completions=["a", said if where == "completion" else "b", "c"],
        columns=rows,
    )

    def appends(completion_texts: list[str], column: list[list[int]]) -> list[float]:
        column[0].append(len(column[1]))
        return [float(len(text)) for text in completion_texts]

    assert Composer({"a": appends}).compose(batch).to_list() == [1.0, 1.0, 1.0]
    assert rows["column"][0] == [1]


def test_a_list_that_a_reward_keeps_and_changes_is_no_longer_the_answer() -> None:
    """What a composition holds stays as it was given, also within details and credit."""

    class Reusing(Reward):
        def __init__(self) -> None:
            self.kept: Any = [0.0, Score(0.5, "half", {"parts": [1]}, Credit([0.25, 0.25]))]

        def score(self, batch: RewardBatch) -> Any:
            return self.kept

    reward = Reusing()
    given = RewardBatch(["p"] * 2, ["a", "b"], completion_ids=[[1], [1, 2]])
    with Composer({"reusing": reward}) as composer:
        composition = composer.compose(given)
    reward.kept[1].details["parts"].append(2)
    reward.kept[1].credit.tokens[0] = 9.0
    reward.kept.clear()
    score = composition.rewards["reusing"].score(1)
    assert score is not None
    assert (score.details, score.credit) == ({"parts": [1]}, Credit([0.25, 0.25]))
    assert composition.rewards["reusing"].raw.tolist() == [0.0, 0.5]
    reward.kept.extend([0.25, 0.75])
    with Composer({"reusing": reward}) as composer:
        composition = composer.compose(given)
    reward.kept.clear()
    assert list(composition.rewards["reusing"].entries) == [0.25, 0.75]


class Sleeps(float):
    def __float__(self) -> float:
        time.sleep(NEVER)
        return 0.0

    def __abs__(self) -> float:
        time.sleep(NEVER)
        return 0.0


class NeverEnds(list[float]):
    def __len__(self) -> int:
        time.sleep(NEVER)
        return 1

    def __iter__(self) -> Iterator[float]:
        while True:
            yield 0.0


class NoSequence(Sequence[float]):
    def __len__(self) -> int:
        time.sleep(NEVER)
        return 1

    def __getitem__(self, _: Any) -> Any:
        time.sleep(NEVER)


class SpeechlessError(Exception):
    def __str__(self) -> str:
        raise KeyboardInterrupt

    __repr__ = __str__


class SlowWordsError(Exception):
    def __str__(self) -> str:
        time.sleep(NEVER)
        return ""


def raises(error: BaseException) -> Any:
    raise error


ODD_ANSWERS: dict[str, tuple[Callable[[], Any], str]] = {
    "sleeping number": (lambda: [Sleeps(1.0)], "limit of 0.4 s"),
    "sleeping token value": (lambda: [Score(1.0, credit=Credit([Sleeps(1.0)]))], "limit of 0.4 s"),
    "list without end": (lambda: NeverEnds([1.0, 2.0]), "returned 2 scores for 1 rows"),
    "sequence of its own": (NoSequence, "returned NoSequence where a list of 1 scores is wanted"),
    "time": (lambda: [np.timedelta64(1, "s")], "returned timedelta64 where a number"),
    "array of times": (lambda: np.array([1], dtype="timedelta64[s]"), "returned ndarray"),
    "error without words": (lambda: raises(SpeechlessError()), "SpeechlessError, whose text cannot be read"),
    "error with slow words": (lambda: raises(SlowWordsError()), "limit of 0.4 s"),
}


@pytest.mark.parametrize("form", ["thread", "async"])
@pytest.mark.parametrize("what", ODD_ANSWERS)
def test_reading_an_answer_is_within_the_rewards_limit_and_blame(form: str, what: str) -> None:
    """Numbers, sequences and errors of the reward's own making; the other reward's scores are there."""
    make, problem = ODD_ANSWERS[what]

    def odd(completions, **_):
        return make()

    async def odd_async(completions, **_):
        return make()

    policy = FailurePolicy("abstain", fail_fast=False)
    part = Component(odd_async if form == "async" else odd, timeout=0.4, failure=policy)
    since = time.monotonic()
    with Composer({"odd": part, "good": lambda completions, **_: [1.0]}) as composer:
        composition = composer.compose(RewardBatch(["p"], ["a"]))
        assert problem in composition.rewards["odd"].failures[0]
        assert composition.totals.tolist() == [2.0]  # the weights of those that answered
    assert time.monotonic() - since < NEVER / 2


@pytest.mark.parametrize(
    "answer",
    [np.array([1, 2], dtype=np.int8), np.array([1.0, 2.0], dtype=np.float16), (1, 2), [np.float32(1), np.int64(2)]],
    ids=["integers", "floats", "tuple", "scalars"],
)
def test_numbers_of_numpy_and_tuples_are_answers(answer: Any) -> None:
    """An array with one number a row, or its scalars in a list."""
    with Composer({"mine": lambda completions, **_: answer}) as composer:
        assert composer.compose(RewardBatch(["p"] * 2, ["a", "b"])).totals.tolist() == [1.0, 2.0]


FORKS = """
    import os, subprocess, sys, time
    from pathlib import Path
    from rlaif_sdk import Reward

    def note(pid):
        with open(Path(__file__).with_name("pids"), "a") as pids:
            pids.write(f"{pid}\\n")

    def forks(prompts, completions):
        if os.fork() == 0:
            if completions[0] == "late":
                time.sleep(0.3)
            return [-1.0] * len(completions)
        if completions[0] == "early":
            time.sleep(0.3)
        return [float(len(text)) for text in completions]

    def pool(prompts, completions):
        import multiprocessing
        with multiprocessing.get_context("fork").Pool(2) as workers:
            return workers.map(float, [len(text) for text in completions])

    def sockets(_):
        held = [number for number in os.listdir("/proc/self/fd") if int(number) > 2]
        return float(sum("socket:" in os.path.realpath("/proc/self/fd/" + number) for number in held))

    def sockets_of_its_pool(prompts, completions):
        import multiprocessing
        with multiprocessing.get_context("fork").Pool(2) as workers:
            return [sockets(None) - held for held in workers.map(sockets, completions)]

    POOL = []

    def outlived_by_its_pool(prompts, completions):
        import multiprocessing
        if not POOL:
            POOL.append(multiprocessing.get_context("fork").Pool(2))
            lengths = POOL[0].map(float, [len(text) for text in completions])
            for child in POOL[0]._pool:
                note(child.pid)
            return lengths
        os._exit(3)

    def leaves(prompts, completions):
        note(subprocess.Popen(["sleep", "600"]).pid)
        note(subprocess.Popen(["sleep", "600"], start_new_session=True).pid)
        command = ["sh", "-c", "setsid sleep 600 > /dev/null 2>&1 & echo $!"]
        note(int(subprocess.run(command, capture_output=True, text=True).stdout))
        if (child := os.fork()) == 0:
            time.sleep(600)
        note(child)
        return [0.0] * len(completions)

    class Closes(Reward):
        def score(self, batch):
            if (child := os.fork()) > 0:
                os.waitpid(child, 0)
            return [float(child > 0)] * len(batch)

        def close(self):
            note(os.getpid())
"""


def isolated(write: Any, name: str) -> Composer:
    folder = write("forking.py", FORKS).parent
    reward = {"use": f"{folder}/forking.py:{name}", "execution": {"isolation": "process"}, "timeout": 60.0}
    return Composer.from_config({"rewards": {"mine": reward}})


@pytest.mark.parametrize("which", ["early", "late", "plain"])
def test_only_the_worker_answers_when_its_reward_forks(write, which: str) -> None:
    """Neither the child that comes first nor the one that comes after the next batch was asked for."""
    with isolated(write, "forks") as composer:
        for more in range(4):
            texts = [which] + ["x" * (row + more) for row in range(2)]
            totals = composer.compose(RewardBatch(["p"] * 3, texts)).totals.tolist()
            assert totals == [len(text) for text in texts]


def test_only_the_worker_closes_its_reward(write, tmp_path: Path) -> None:
    """The child that a reward forks ends as the call does there."""
    with isolated(write, "Closes") as composer:
        assert composer.compose(RewardBatch(["p"], ["a"])).totals.tolist() == [1.0]
    assert len((tmp_path / "pids").read_text().split()) == 1


def test_a_pool_of_processes_works_within_a_worker(write) -> None:
    """For one batch after another."""
    with isolated(write, "pool") as composer:
        for _ in range(2):
            assert composer.compose(RewardBatch(["p"] * 2, ["a", "bc"])).totals.tolist() == [1.0, 2.0]


def test_the_processes_of_a_pool_hold_no_connection_to_the_caller(write) -> None:
    """They have one socket less than the worker."""
    with isolated(write, "sockets_of_its_pool") as composer:
        assert composer.compose(RewardBatch(["p"] * 2, ["a", "b"])).totals.tolist() == [1.0, 1.0]


def test_a_pool_that_outlives_its_worker_keeps_nobody_waiting(write, tmp_path: Path) -> None:
    """That the worker is gone is told at once, though they are still there."""
    two = RewardBatch(["p"] * 2, ["a", "bc"])
    with isolated(write, "outlived_by_its_pool") as composer:
        assert composer.compose(two).totals.tolist() == [1.0, 2.0]
        began = time.monotonic()
        assert "exit status 3" in composer.compose(two).rewards["mine"].failures[0]
        assert time.monotonic() - began < 30
        pids = [int(line) for line in (tmp_path / "pids").read_text().split()]
    assert end_soon(pids)


def test_closing_ends_all_that_a_worker_has_started(write, tmp_path: Path) -> None:
    """Children, a session of its own, a daemon, a fork."""
    with isolated(write, "leaves") as composer:
        composer.compose(RewardBatch(["p"], ["a"]))
        pids = [int(line) for line in (tmp_path / "pids").read_text().split()]
        assert len(pids) == 4
        assert all(is_running(pid) for pid in pids)
    assert end_soon(pids)


def end_soon(pids: Sequence[int]) -> bool:
    until = time.monotonic() + 5
    while any(map(is_running, pids)) and time.monotonic() < until:
        time.sleep(0.02)
    return not any(map(is_running, pids))


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_an_answer_with_another_number_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is one that comes late taken for the next batch's."""
    from rlaif_sdk.scoring import processes, wire

    worker = processes.Worker()
    try:
        frames = iter([wire.Frame(7, b'{"scores": [7]}'), wire.Frame(1, b'{"scores": [1]}')])
        monkeypatch.setattr(worker._channel, "receive", lambda _: next(frames))
        assert worker.ask(b"{}") == [1]
    finally:
        worker.end()


def test_the_short_way_is_short() -> None:
    """A row of text and one plain function: at most 110 Python calls a composition, whatever the machine does."""
    given = RewardBatch(["p"], ["text"], columns={"label": ["x"]})
    called: list[str] = []

    def count(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            called.append(frame.f_code.co_qualname)

    with Composer({"length": lambda completions, **_: [float(len(text)) for text in completions]}) as composer:
        composer.compose(given)
        sys.setprofile(count)
        try:
            composer.compose(given)
        finally:
            sys.setprofile(None)
    assert "Composer.compose" in called
    assert len(called) <= 110
