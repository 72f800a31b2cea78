"""What a forked child is told, before anything else runs there."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable

import pytest

from rlaif_sdk.io.forks import hold_over_forks, leave_to_parent, on_fork

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no forks"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]


def in_child(check: Callable[[], bool]) -> bool:
    """Whether a check holds in a forked child."""
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if check() else 1)
        except BaseException:  # noqa: BLE001 - the child must not return
            os._exit(2)
    return os.waitpid(child, 0)[1] == 0


class Counter:
    """Counts the forks that it lives through."""

    def __init__(self) -> None:
        self.forks = 0
        self.lock = threading.Lock()
        on_fork(self.begin_anew)

    def begin_anew(self) -> None:
        self.forks += 1
        self.lock = threading.Lock()


def test_every_object_begins_anew_in_the_child_and_not_in_the_parent() -> None:
    """Also in a child's child; a lock that a thread of the parent has is free there."""
    counters = [Counter() for _ in range(3)]
    counters[0].lock.acquire()
    assert in_child(lambda: [each.forks for each in counters] == [1, 1, 1] and counters[0].lock.acquire(timeout=1))
    assert in_child(lambda: in_child(lambda: counters[0].forks == 2))
    assert [each.forks for each in counters] == [0, 0, 0]


def test_an_object_is_not_kept_alive_for_it() -> None:
    """A composer that is gone costs a fork nothing."""
    alive: list[int] = []
    counter = Counter()
    counter.begin_anew = lambda: alive.append(1)  # type: ignore[method-assign]
    kept = Counter()
    del counter
    gc.collect()
    assert in_child(lambda: kept.forks == 1 and not alive)


def test_no_thread_is_in_the_middle_of_something_at_a_fork() -> None:
    """The fork waits for it, and parent and child both go on."""

    class Held:
        def __init__(self) -> None:
            self.lock = threading.RLock()
            self.left = False
            self.whole = True
            hold_over_forks(self)

        def leave_to_parent(self) -> None:
            self.lock, self.left = threading.RLock(), True

    held = Held()
    begun, stop = threading.Event(), threading.Event()

    def work() -> None:
        while not stop.is_set():
            with held.lock:
                held.whole = False
                begun.set()
                held.whole = True

    thread = threading.Thread(target=work)
    thread.start()
    begun.wait()
    try:
        for _ in range(5):
            assert in_child(lambda: held.whole and held.left and held.lock.acquire(timeout=1))
            assert not held.left
    finally:
        stop.set()
        thread.join()


def test_what_is_the_parents_is_not_finalized_in_the_child() -> None:
    """Closing a connection or a loop there would disturb the parent."""
    ends: list[int] = []

    class Connection:
        def __del__(self) -> None:
            ends.append(os.getpid())

    class Client:
        def __init__(self) -> None:
            self.connection: Connection | None = Connection()
            on_fork(self.forget)

        def forget(self) -> None:
            leave_to_parent(self.connection)
            self.connection = None

    client = Client()
    assert in_child(lambda: gc.collect() >= 0 and client.connection is None and not ends)
    assert client.connection is not None
