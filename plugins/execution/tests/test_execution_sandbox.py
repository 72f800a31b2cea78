"""What a program in the sandbox can do to the machine and to its judge: nothing. Every attack here is real.

Each program reports what it managed to do; what is expected of it is nothing.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rlaif_execution import landlock, policy, rlaif_rewards, trial
from rlaif_execution.policy import Policy
from rlaif_sdk import Composer, ConfigError, RewardBatch

SPEC = next(iter(rlaif_rewards()))
TRY = """
def done(*acts):
    found = []
    for number, act in enumerate(acts):
        try:
            act()
        except ConnectionRefusedError:
            found.append(number)
        except (OSError, ValueError) as error:
            pass
        else:
            found.append(number)
    return found
"""


def confined() -> set[int]:
    """Processes of the sandbox that this process, or init in its place, is the parent of."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line, status = (folder / "cmdline").read_bytes(), (folder / "stat").read_text()
        except OSError:
            continue
        parent = int(status.rpartition(")")[2].split()[1])
        zombie = status.rpartition(")")[2].split()[0] == "Z"
        if parent == os.getpid() and (zombie or b"rlaif_execution/inside" in line):
            found.add(int(folder.name))
        if parent == 1 and b"rlaif_execution/inside" in line:
            found.add(int(folder.name))
    return found


@pytest.fixture(autouse=True)
def nothing_is_left(containers: Callable[..., list[str]]) -> Iterator[None]:
    """Whatever a program does, no process or container of its remains when its row is judged."""
    before = confined()
    yield
    assert confined() <= before
    assert not containers()


def denied(score: Any, code: str, *args: Any, but: tuple[int, ...] = ()) -> None:
    found = score(TRY + code, [{"args": list(args), "expected": but}])
    assert found.value == 1.0, found.reason


def lowest(score: Any, code: str, kind: str, tests: Any = None, **params: Any) -> Any:
    """The lowest score, and the reason kept."""
    found = score(code, tests or [{"expected": None}], **{"test_seconds": 3, "row_seconds": 10, **params})
    assert found.value == 0.0
    assert found.details["first_failure"]["kind"] == kind, found.reason
    return found


def test_a_fork_bomb_forks_nothing(score: Any) -> None:
    """fork, vfork, clone and posix_spawn are refused, 400 times over."""
    denied(
        score,
        """
import ctypes, os, subprocess, sys
libc = ctypes.CDLL(None)
def f():
    def raw(*call):
        if libc.syscall(*call) == -1:
            raise OSError
    clone3 = (ctypes.c_uint64 * 11)()
    clone3[4] = 17
    acts = [os.fork, lambda: subprocess.run([sys.executable, "-c", ""]), lambda: raw(58), lambda: raw(56, 17, 0, 0, 0, 0),
            lambda: raw(435, ctypes.byref(clone3), 88), lambda: os.posix_spawn(sys.executable, ["python"], {})]
    return done(*acts * 67)
""",
    )


def test_threads_are_capped(score: Any, sandbox: str) -> None:
    """A bomb of threads is ended, or gets no more where the container has a limit, and a few threads work."""
    bomb = "import threading, time\nthreading.stack_size(32768)\ndef f():\n while True:\n  threading.Thread(target=time.sleep, args=(60,)).start()"
    lowest(score, bomb, "error" if sandbox == "podman" else "threads", test_seconds=30, row_seconds=30)
    few = "from concurrent.futures import ThreadPoolExecutor\ndef f(): return list(ThreadPoolExecutor(4).map(abs, [-1, 2]))"
    assert score(few, [{"expected": [1, 2]}]).value == 1.0


def test_a_daemon_that_ignores_signals_is_ended(score: Any) -> None:
    """SIGTERM is not asked for, and a session of one's own does not help."""
    code = """
import os, signal, time
def f():
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM):
        signal.signal(number, signal.SIG_IGN)
    for act in (os.setsid, os.fork, lambda: os.setpgid(0, 0)):
        try:
            act()
        except OSError:
            pass
    os.close(1)
    while True:
        time.sleep(1)
"""
    lowest(score, code, "time")
    lowest(score, "import os, signal\ndef f(): os.kill(os.getpid(), signal.SIGSTOP)", "time")
    lowest(score, "import os\nos.close(1)\nos.close(2)\nwhile True: pass", "time", [{"stdin": "", "stdout": ""}])


@pytest.mark.parametrize(
    ("code", "tests"),
    [
        ("import os, time\nos.close(1)\ntime.sleep(60)", [{"stdin": "", "stdout": ""}]),
        (
            "import os, time\ndef f():\n    os.closerange(3, 64)\n    time.sleep(60)\n    os._exit(0)",
            [{"expected": None}],
        ),
    ],
    ids=["program", "function"],
)
def test_a_program_that_closes_its_output_and_stays_has_its_time_and_no_more(
    score: Any, code: str, tests: list[Any]
) -> None:
    """It leaves standard error open and ends by itself with code 0 later: nobody waits for that."""
    since = time.monotonic()
    lowest(score, code, "time", tests, test_seconds=1, row_seconds=1)
    assert time.monotonic() - since < 50


def test_a_program_that_closes_its_output_is_still_held_to_its_limits(score: Any, sandbox: str) -> None:
    """Of threads, and of what it writes to standard error; the one who asked may still stop waiting."""
    nothing = [{"stdin": "", "stdout": ""}]
    bomb = "import os, threading, time\nthreading.stack_size(32768)\nos.close(1)\nfor _ in range(40): threading.Thread(target=time.sleep, args=(60,)).start()"
    if sandbox != "podman":  # there its container counts them
        lowest(score, bomb, "threads", nothing, test_seconds=30, row_seconds=30)
    flood = "import os, sys\nos.close(1)\nwhile True: sys.stderr.write('x' * 65536)"
    lowest(score, flood, "output", nothing, test_seconds=30, row_seconds=30)
    assert score("import os\nos.close(1)", nothing).value == 1.0


def test_nobody_waits_for_a_program_that_closed_its_output(sandbox: str) -> None:
    """When the call is cancelled, its thread comes back, and the reward can be closed."""

    async def cancelled(reward: Any, batch: RewardBatch) -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reward.score(batch), timeout=2)

    reward = SPEC.build({"code": "whole", "test_seconds": 300, "row_seconds": 300})
    reward.setup()
    batch = RewardBatch(
        [""],
        ["import os, time\nos.close(1)\ntime.sleep(1e9)"],
        columns={"tests": [[{"stdin": "", "stdout": ""}]]},
    )
    since = time.monotonic()
    asyncio.run(cancelled(reward, batch))
    reward.close()
    assert time.monotonic() - since < 150


def test_processor_time_is_capped_and_told_as_time(score: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the kernel, whoever else is still there to do so; a program that ignores the signal is killed."""
    command = Policy.command
    monkeypatch.setattr(Policy, "command", lambda self, part, **limits: [*command(self, part, **limits)[:-1], "1"])
    found = lowest(score, "def f():\n    while True: pass", "time", test_seconds=60, row_seconds=60)
    assert "processor time" in found.reason
    deaf = "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\ndef f():\n    while True: pass"
    lowest(score, deaf, "memory", test_seconds=60, row_seconds=60)


def test_an_endless_loop_ends_with_its_time_limit_and_the_row_with_its(score: Any) -> None:
    """The cases that are not reached fail too."""
    cases = [{"args": [n], "expected": n} for n in range(100)]
    found = score("def f(n):\n    while n: pass\n    return n", cases, test_seconds=1, row_seconds=2)
    assert (found.details["passed"], found.details["failed"]) == (1, 99)
    assert found.details["first_failure"]["kind"] == "time"
    asserts = "def check(candidate):\n    for n in range(100): assert candidate(n) == n"
    assert score("def f(n):\n    while n: pass\n    return n", asserts, test_seconds=1, row_seconds=2).value == 0.0


def test_the_network_is_out_of_reach(score: Any) -> None:
    """TCP, UDP, raw and netlink sockets, binding, and names: all refused, a server of this machine included."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        denied(
            score,
            """
from socket import *
def f(port):
    return done(
        lambda: socket().connect(("127.0.0.1", port)),
        lambda: socket(AF_INET6).connect(("::1", port)),
        lambda: socket(AF_INET, SOCK_DGRAM).sendto(b"x", ("127.0.0.1", port)),
        lambda: socket(AF_INET, SOCK_RAW, 1),
        lambda: socket(AF_NETLINK, SOCK_RAW, 0).bind((0, 0)),
        lambda: socket(AF_PACKET, SOCK_RAW),
        lambda: socket(AF_VSOCK, SOCK_STREAM),
        lambda: socket(AF_ALG, SOCK_SEQPACKET),
        lambda: socket().bind(("127.0.0.1", 0)),
        lambda: getaddrinfo("localhost.example", port),
    )
""",
            server.getsockname()[1],
        )


def test_sockets_of_this_machine_are_out_of_reach(score: Any, tmp_path: Path) -> None:
    """Abstract ones have no file, and named ones have one that is not writable."""
    with (
        socket.socket(socket.AF_UNIX) as abstract,
        socket.socket(socket.AF_UNIX) as named,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams,
    ):
        datagrams.bind("\0rlaif-execution-test-datagrams")
        abstract.bind("\0rlaif-execution-test")
        named.bind(str(tmp_path / "socket"))
        for server in (abstract, named):
            server.listen()
        denied(
            score,
            """
from socket import *
def f(path):
    return done(
        lambda: socket(AF_UNIX).connect("\\0rlaif-execution-test"),
        lambda: socket(AF_UNIX).connect(path),
        lambda: socket(AF_UNIX, SOCK_DGRAM).connect("\\0rlaif-execution-test-datagrams"),
        lambda: socket(AF_UNIX, SOCK_DGRAM).sendto(b"x", "\\0rlaif-execution-test-datagrams"),
    )
""",
            str(tmp_path / "socket"),
        )


def test_the_environment_of_the_parent_is_out_of_reach(
    score: Any, sandbox: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither inherited nor readable from /proc; a container has one of its own, and what a program has there is clean."""
    monkeypatch.setenv("RLAIF_TEST_SECRET", "secret")
    found = score(
        "import os\ndef f(): return sorted(os.environ)", [{"expected": ["LC_CTYPE", "PYTHONHASHSEED", "PYTHONUTF8"]}]
    )
    assert found.value == 1.0, found.reason
    code = """
import os
def f(parent):
    return done(*(lambda path=path: open(path, "rb").read() for path in (
        f"/proc/{parent}/environ", f"/proc/{parent}/cmdline", f"/proc/{parent}/maps", "/proc/self/environ", "/proc/1/environ",
    )), lambda: os.listdir("/proc"))
"""
    denied(score, code, os.getpid(), but=(3, 5) if sandbox == "podman" else ())
    if sandbox == "podman":
        own = "def f(): return sorted(entry.partition('=')[0] for entry in open('/proc/self/environ').read().split(chr(0)) if entry)"
        assert score(own, [{"expected": ["PATH", "PYTHONHASHSEED", "PYTHONUTF8"]}]).value == 1.0


def test_files_of_the_machine_can_neither_be_read_nor_changed(score: Any, sandbox: str, tmp_path: Path) -> None:
    """Not their content, mode, owner, times, attributes or names; not even by root, or their owner.

    bubblewrap and containers have a root of their own, which is no list of the machine's.
    """
    secret = tmp_path / "secret"
    secret.write_text("secret")
    before = secret.stat()
    denied(
        score,
        """
import os, shutil
def root():
    if "tmp" not in os.listdir("/"):
        raise OSError
def users():
    with open("/etc/passwd") as file:
        if len(list(file)) < 3:  # a container engine writes one of its own, with the user that it runs
            raise OSError
def f(path, folder):
    return done(
        lambda: open(path), users, lambda: open("/etc/shadow"), root,
        lambda: os.listdir(folder), lambda: os.listdir(os.path.expanduser("~")), lambda: open(path, "w"),
        lambda: os.chmod(path, 0o777), lambda: os.chown(path, 0, 0), lambda: os.utime(path, (0, 0)),
        lambda: os.setxattr(path, "user.a", b"b"), lambda: os.unlink(path), lambda: os.rename(path, path + "2"),
        lambda: os.link(path, path + "2"), lambda: os.symlink(path, path + "2"), lambda: os.truncate(path, 0),
        lambda: os.mkdir(folder + "/d"), lambda: os.mkfifo(folder + "/p"), lambda: shutil.rmtree(folder),
        lambda: open("/tmp/x", "w"), lambda: open("/dev/shm/x", "w"), lambda: open("/var/tmp/x", "w"),
        lambda: os.open("/dev/mem", 0), lambda: os.open("/dev/vda", 0), lambda: os.open("/dev/tty", 2),
    )
""",
        str(secret),
        str(tmp_path),
        but=(3,) if sandbox == "podman" else (),
    )
    after = secret.stat()
    assert secret.read_text() == "secret"
    assert (before.st_mode, before.st_uid, before.st_mtime, before.st_ctime) == (
        after.st_mode, after.st_uid, after.st_mtime, after.st_ctime,
    )  # fmt: skip


def test_root_is_nobody_special_in_the_sandbox(score: Any) -> None:
    """No capability, no other process, no limit taken back, no namespace, no filter lifted."""
    denied(
        score,
        """
import ctypes, os, resource, signal, sys, time
libc = ctypes.CDLL(None, use_errno=True)
def f(parent):
    def raw(*call):
        if libc.syscall(*call) == -1:
            raise OSError(ctypes.get_errno(), "")
    def more(which):
        return lambda: resource.setrlimit(which, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    buffer = ctypes.create_string_buffer(64)
    vector = (ctypes.c_uint64 * 2)(ctypes.addressof(buffer), 64)
    return done(
        lambda: os.kill(parent, 0), lambda: os.execv(sys.executable, ['python', '-c', '']),
        lambda: os.chroot("/"), lambda: time.clock_settime(time.CLOCK_REALTIME, 0), lambda: os.setuid(12345),
        lambda: raw(101, 16, parent, 0, 0), lambda: raw(310, parent, vector, 1, vector, 1, 0), lambda: raw(272, 0x10000000),
        lambda: raw(165, b"none", b"/tmp", b"tmpfs", 0, 0), lambda: raw(157, 1, 0, 0, 0, 0), lambda: raw(170, b"a", 1),
        lambda: raw(169, 0xFEE1DEAD, 672274793, 0, 0), lambda: raw(425, 1, buffer), lambda: raw(321, 0, buffer, 64),
        more(resource.RLIMIT_AS), more(resource.RLIMIT_CPU), more(resource.RLIMIT_FSIZE), more(resource.RLIMIT_CORE),
    )
""",
        os.getpid(),
    )


@pytest.mark.parametrize(
    "act",
    [
        "open('/tmp/big', 'wb')",
        "open('big', 'wb')",
        "os.fdopen(os.memfd_create('big'), 'wb')",
        "tempfile.TemporaryFile()",
        "open('/dev/shm/big', 'wb')",
    ],
)
def test_a_file_of_500_megabytes_is_not_written(score: Any, act: str) -> None:
    """No file is, on a disk or in memory; the error is kept."""
    code = f"import os, tempfile\ndef f():\n    with {act} as file:\n        for _ in range(500): file.write(bytes(1 << 20))"
    found = lowest(score, code, "error", test_seconds=30, row_seconds=30)
    assert found.details["first_failure"]["error"] in {"PermissionError", "FileNotFoundError", "OSError"}


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_endless_output_is_capped(score: Any, stream: str) -> None:
    """Of a program; what a function prints goes nowhere."""
    code = f"import sys\nwhile True: sys.{stream}.write('x' * 65536)"
    found = lowest(score, code, "output", [{"stdin": "", "stdout": "x"}], test_seconds=60, row_seconds=60)
    assert "1 MiB" in found.reason
    assert score("def f():\n    print('x' * 5_000_000)\n    return 1", [{"expected": 1}]).value == 1.0


def test_a_returned_value_is_capped(score: Any) -> None:
    """By the same limit; a value that nests without end is none."""
    lowest(score, "def f(): return 'x' * 5_000_000", "output")
    assert "nested" in lowest(score, "x = []\nx.append(x)\ndef f(): return x", "error").reason


@pytest.mark.parametrize(
    "act",
    ["bytearray(1 << 30)", "[bytearray(1 << 20) for _ in range(1000)]", "'x' * (1 << 30)", "mmap.mmap(-1, 1 << 30)"],
)
def test_a_memory_bomb_is_capped(score: Any, sandbox: str, act: str) -> None:
    """The program is ended before the machine runs out, and what it may use it can use; but for Landlock's it goes on."""
    kind, said = ("memory", "128 MiB") if sandbox == "landlock" else ("error", "emory")
    found = lowest(score, f"import mmap\ndef f(): {act}", kind, memory_mb=128, test_seconds=60, row_seconds=60)
    assert said in found.reason
    assert score("def f(): return len(bytearray(64 << 20))", [{"expected": 64 << 20}], memory_mb=128).value == 1.0


def test_what_the_kernel_holds_for_a_program_is_capped(score: Any) -> None:
    """Of sockets it keeps what was sent and not yet read, which counts for no limit of memory; so they are few."""
    code = """
import socket
def f():
    pairs = []
    try:
        while len(pairs) < 2000:
            pairs.append(socket.socketpair())
            pairs[-1][0].setblocking(False)
            pairs[-1][0].send(bytes(100_000))
    except OSError:
        return len(pairs) < 32
"""
    found = score(code, [{"expected": True}], test_seconds=30, row_seconds=30)
    assert found.value == 1.0, found.reason


def test_a_crash_of_the_interpreter_is_a_reason(score: Any) -> None:
    """A segmentation fault ends the program alone, and so does a forbidden system call."""
    lowest(score, "import ctypes\ndef f(): ctypes.string_at(0)", "crash", test_seconds=30, row_seconds=30)


def test_values_that_take_their_judge_long_are_refused(score: Any) -> None:
    """Whole numbers chosen to share a hash make a set of them slow to build; deep lists overflow the stack."""
    colliding = "class Forged({0}):\n  {1} = lambda self: iter({2})\ndef f(): return Forged()"
    numbers = "[n * (2**61 - 1) for n in range(20000)]"
    pairs = "[(n * (2**61 - 1), 1) for n in range(20000)]"
    for code in (colliding.format("set", "__iter__", numbers), colliding.format("dict", "items", pairs)):
        found = lowest(score, code, "protocol", output_mb=16, test_seconds=60, row_seconds=60)
        assert "share their hashes" in found.reason
    forged = """
import os, struct
def f():
    for descriptor in range(3, 64):
        try:
            os.write(descriptor, MESSAGE)
        except OSError:
            pass
"""
    deep = "struct.pack('>I', 10010) + b'[' * 5005 + b']' * 5005"
    lowest(score, forged.replace("MESSAGE", deep), "protocol")
    lowest(score, forged.replace("MESSAGE", "struct.pack('>I', 2**31)"), "output", test_seconds=60, row_seconds=60)


def test_a_sandbox_ends_with_the_process_that_judges(
    sandbox: str, in_sandbox: str, containers: Callable[..., list[str]]
) -> None:
    """SIGKILL gives no chance to tidy up, and none is needed."""
    script = f"""
import asyncio, sys
{in_sandbox}
from rlaif_execution import rlaif_rewards
from rlaif_sdk import RewardBatch
reward = rlaif_rewards()[0].build(dict(code="whole", test_seconds=100, row_seconds=100))
reward.setup()
print("ready", flush=True)
tests = dict(tests=[[dict(stdin="", stdout="")]] * 2)
asyncio.run(reward.score(RewardBatch(["", ""], ["while True: pass", "import time\\nwhile True: time.sleep(1)"], columns=tests)))
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as judge:
        assert judge.stdout is not None
        judge.stdout.readline()
        children = f"/proc/{judge.pid}/task"
        seen: set[int] = set()
        deadline = time.monotonic() + 60
        while len(seen) < 2 and time.monotonic() < deadline:
            for task in Path(children).iterdir():
                seen |= set(map(int, (task / "children").read_text().split()))
            time.sleep(0.05)
        while sandbox == "podman" and len(containers("running")) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        judge.send_signal(signal.SIGKILL)
    assert len(seen) >= 2
    deadline = time.monotonic() + 60
    while (any(_runs(pid) for pid in seen) or containers()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in seen if _runs(pid)]
    assert not containers()


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_batch_that_nobody_waits_for_ends(sandbox: str) -> None:
    """A composer's time limit cancels the call, and its programs are ended with it."""
    config: dict[str, Any] = {
        "rewards": {
            "execution": {
                "params": {"code": "whole", "test_seconds": 200, "row_seconds": 200},
                "timeout": 5,
                "on_failure": {"policy": "abstain", "fail_fast": False},
            }
        }
    }
    since = time.monotonic()
    with Composer.from_config(config) as composer:
        tests = {"tests": [[{"stdin": "", "stdout": ""}]] * 4}
        composition = composer.compose(RewardBatch([""] * 4, ["while True: pass"] * 4, columns=tests))
    assert all(total != total for total in composition.totals)
    assert time.monotonic() - since < 150


@pytest.mark.parametrize("found", [-1, 0, 5])
def test_a_kernel_without_landlock_is_refused(monkeypatch: pytest.MonkeyPatch, found: int) -> None:
    """With what lacks and what to do; nothing runs unconfined."""
    sandlock = pytest.importorskip("sandlock")
    monkeypatch.setattr(sandlock, "landlock_abi_version", lambda: found)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match=r"cannot be confined here.*Linux 6\.12"):
        SPEC.build({}).setup()
    with Composer.from_config({"rewards": {"execution": {"on_failure": "abstain"}}}) as composer:
        tests = {"tests": [[{"stdin": "", "stdout": ""}]]}
        with pytest.raises(ConfigError, match="cannot be confined here"):
            composer.compose(RewardBatch([""], ["```python\n```"], columns=tests))


def test_a_missing_sandbox_package_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error carries the pip command."""
    monkeypatch.setitem(sys.modules, "sandlock", None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match="pip install"):
        SPEC.build({}).setup()


@pytest.mark.parametrize("error", ["OSError", "RuntimeError"])
def test_a_sandbox_package_that_does_not_load_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: str
) -> None:
    """As where its library is built for another system."""
    (tmp_path / "sandlock.py").write_text(f"raise {error}('wrong library')", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "sandlock", raising=False)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match="cannot be imported: wrong library"):
        SPEC.build({}).setup()


@pytest.mark.parametrize(
    ("weakened", "could"),
    [
        ({"clean_env": False}, "read the environment"),
        ({"fs_readable": ["/"]}, "read a file of its user"),
        ({"fs_writable": ["/"]}, "write a file"),
    ],
)
def test_a_sandbox_with_a_hole_is_refused(
    sandbox: str, monkeypatch: pytest.MonkeyPatch, weakened: dict[str, Any], could: str
) -> None:
    """The sandbox is tried before the first row, and what a program could do is named."""
    if sandbox != "landlock":
        pytest.skip("it is weakened by sandlock's options")
    whole = landlock.sandbox

    def holed(of: Policy) -> Any:
        made = whole(of)
        for name, value in weakened.items():
            setattr(made, name, value)
        return made

    monkeypatch.setattr(landlock, "sandbox", holed)
    with pytest.raises(ConfigError, match=could):
        SPEC.build({}).setup()


def test_the_sandbox_is_tried_under_limits_of_its_own(score: Any) -> None:
    """Small limits of a reward are no fault of the machine: its rows say what they lack."""
    found = score("def f(): return 1", [{"expected": 1}], output_mb=0.00001)
    assert found.value is None
    assert "wrote more than" in found.error


def test_a_trial_that_fails_says_why(sandbox: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the program's own error."""
    monkeypatch.setattr(trial, "_TRIES", "def tries(*_): raise ValueError('odd')")
    with pytest.raises(ConfigError, match=r"the trial of the sandbox failed: .*ValueError.*odd"):
        SPEC.build({}).setup()


def test_a_reward_that_was_set_up_before_a_fork_scores_in_the_child(in_sandbox: str) -> None:
    """Whose parent's threads are not there, and whose locks nobody opens."""
    script = f"""
import asyncio, os, signal, threading
{in_sandbox}
from rlaif_execution import confinement, rlaif_rewards
from rlaif_sdk import RewardBatch
reward = rlaif_rewards()[0].build(dict(code="whole"))
batch = RewardBatch([""], ["print(1)"], columns=dict(tests=[[dict(stdin="", stdout="1")]]))
assert asyncio.run(reward.score(batch))[0].value == 1.0
with confinement._STARTING:
    child = os.fork()
if child == 0:
    signal.alarm(60)
    value = asyncio.run(reward.score(batch))[0].value
    reward.close()
    os._exit(value != 1.0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert asyncio.run(reward.score(batch))[0].value == 1.0
reward.close()
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=150, check=False)
    assert ended.returncode == 0, ended.stderr


def test_a_sandbox_that_does_not_start_is_tried_again_and_then_leaves_the_row_unscored(
    sandbox: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says nothing of the answer."""
    command = Policy.command
    failing = 1

    def fails(self: Policy, part: str, **limits: int) -> list[str]:
        nonlocal failing
        failing -= 1
        whole = command(self, part, **limits)
        return [*whole[:-5], "raise SystemExit(3)"] if failing >= 0 else whole

    reward = SPEC.build({"code": "whole"})
    reward.setup()
    monkeypatch.setattr(Policy, "command", fails)
    columns = {"tests": [[{"expected": 1}]], "entry_point": ["f"]}
    batch = RewardBatch([""], ["def f(): return 1"], columns=columns)
    assert asyncio.run(reward.score(batch))[0].value == 1.0
    failing = 2
    (found,) = asyncio.run(reward.score(batch))
    reward.close()
    assert found.value is None
    assert "the sandbox did not start: it ended with exit code 3" in str(found.error)


def test_a_sandbox_that_cannot_say_how_its_program_ended_leaves_the_row_unscored(
    sandbox: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says nothing of the answer."""
    from sandlock import Result
    from sandlock.sandbox import Process

    if sandbox != "landlock":
        pytest.skip("it is sandlock that cannot say")
    wait = Process.wait

    def fails(self: Any, timeout: float | None = None) -> Any:
        wait(self, timeout)
        return Result(success=False, exit_code=-1, error="the wait failed")

    reward = SPEC.build({"code": "whole"})
    reward.setup()
    monkeypatch.setattr(Process, "wait", fails)
    (found,) = asyncio.run(
        reward.score(RewardBatch([""], ["print(1)"], columns={"tests": [[{"stdin": "", "stdout": "1"}]]}))
    )
    reward.close()
    assert found.value is None
    assert "the wait failed" in str(found.error)


_REACH = """
import ctypes, fcntl, os, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
def f(pid, folder, path):
    def raw(*call):
        if libc.syscall(*call) == -1:
            raise OSError(ctypes.get_errno(), "")
    buffer, limits = ctypes.create_string_buffer(4096), (ctypes.c_uint64 * 2)(0, 0)
    where = os.path.dirname(os.__file__) + "/os.py"
    def watch():
        fd = libc.syscall(294, 0)
        if fd < 0 or libc.inotify_add_watch(fd, folder.encode(), 0xFFF) < 0:
            raise OSError
    def lock(kind):
        with open(where) as file:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
    def lease():
        with open(where) as file:
            fcntl.fcntl(file, 1024, 0)
    def record_lock():
        with open(where) as file:
            fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    def notices():
        fd = os.open(os.path.dirname(where), os.O_RDONLY)
        fcntl.fcntl(fd, 1026, 2)
    def inode_flags():
        with open(where) as file:
            fcntl.ioctl(file, 0x80086601, bytes(8))
    def own_signals():
        a, b = socket.socketpair()
        fcntl.fcntl(a, fcntl.F_SETOWN, pid)
    def datagram():
        a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        a.sendto(b"out", path)
    def connected():
        a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        a.connect(path)
        a.send(b"out")
    def abstract():
        a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        a.bind(chr(0) + "rlaif-execution-reach")
    return done(
        lambda: raw(302, pid, 7, 0, limits), lambda: raw(302, pid, 7, limits, 0),
        watch, lambda: raw(300, 0x200, 0), lambda: lock(fcntl.LOCK_EX), lambda: lock(fcntl.LOCK_SH),
        lease, record_lock, notices, inode_flags, own_signals, datagram, connected, abstract,
        lambda: os.kill(pid, 0), lambda: raw(234, pid, pid, 0), lambda: raw(200, pid, 0), lambda: raw(434, pid, 0),
        lambda: raw(129, pid, 0, buffer), lambda: raw(203, pid, 128, buffer), lambda: raw(204, pid, 128, buffer),
        lambda: raw(141, 0, pid, 19), lambda: raw(140, 0, pid), lambda: raw(251, 1, pid, 3 << 13), lambda: raw(252, 1, pid),
        lambda: raw(142, pid, buffer), lambda: raw(145, pid), lambda: raw(314, pid, buffer, 0),
        lambda: raw(121, pid), lambda: raw(124, pid), lambda: raw(109, pid, 0), lambda: raw(312, pid, pid, 0, 0, 0),
        lambda: raw(256, pid, 64, buffer, buffer), lambda: raw(279, pid, 0, 0, 0, 0, 0), lambda: raw(440, pid, buffer, 0, 0, 0),
        lambda: raw(274, pid, buffer, buffer), lambda: raw(16, 0, 0x5412, b"x"),
        lambda: raw(298, buffer, 0, -1, -1, 0), lambda: raw(250, 0, -3, 0), lambda: raw(248, b"user", b"a", b"b", 1, -3),
        lambda: raw(323, 1), lambda: raw(29, 0, 4096, 0o1600), lambda: raw(64, 0, 1, 0o1600), lambda: raw(68, 0, 0o1600),
        lambda: raw(240, b"rlaif-reach", 0o102, 0o600, 0), lambda: raw(191, path.encode(), b"user.a", buffer, 64),
        lambda: raw(137, path.encode(), buffer), lambda: raw(303, -100, path.encode(), buffer, buffer, 0),
    )
"""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers of the calls are this machine's")
def test_no_system_call_reaches_a_process_or_a_file_outside(score: Any, tmp_path: Path) -> None:
    """Neither limits, priorities, locks, watches, flags, queues nor sockets of anything but the program itself."""
    with (
        subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE) as other,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams,
    ):
        path = str(tmp_path / "socket")
        datagrams.bind(path)
        datagrams.setblocking(False)
        try:
            denied(score, _REACH, other.pid, str(tmp_path), path)
            with pytest.raises(BlockingIOError):
                datagrams.recv(16)
        finally:
            assert other.stdin is not None
            other.stdin.close()
            other.wait(10)


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="other machines have one entry")
@pytest.mark.parametrize("entry", ["libc.syscall(0x40000000 | 39)", "call()"], ids=["x32", "i386"])
def test_the_other_entries_of_the_kernel_are_closed(score: Any, entry: str) -> None:
    """A program that asks for its own process id (by number 20, of i386) through one of them is ended."""
    code = f"""
import ctypes, mmap
libc = ctypes.CDLL(None)
page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
page.write(bytes.fromhex("b814000000cd80c3"))
call = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
def f(): {entry}
"""
    lowest(score, code, "syscall")


def test_the_memory_of_other_processes_cannot_be_reached(score: Any) -> None:
    """Where a container shows the process that watches over the program, that one is out of reach by any of its files."""
    denied(
        score,
        """
import os
def each(name, flags):
    opened = 0
    for number in os.listdir("/proc"):
        if number.isdecimal() and int(number) != os.getpid():
            try:
                os.open(f"/proc/{number}/{name}", flags)
                opened += 1
            except OSError:
                pass
    if not opened:
        raise OSError
def f():
    return done(*(lambda name=name, flags=flags: each(name, flags) for name, flags in (
        ("mem", os.O_RDWR), ("mem", os.O_RDONLY), ("environ", os.O_RDONLY), ("maps", os.O_RDONLY),
        ("fd/0", os.O_RDONLY), ("fd/1", os.O_WRONLY), ("root/usr/lib", os.O_RDONLY),
    )))
""",
    )


def test_installed_packages_cannot_be_read(score: Any) -> None:
    """Python's own modules can, and what somebody installed beside them cannot, by any spelling of its path."""
    packages = Path(sysconfig.get_path("stdlib")).resolve() / "site-packages"
    inside = sorted(path for path in packages.rglob("*") if path.is_file())
    if not inside:
        pytest.skip("this interpreter has no packages of its own")
    denied(
        score,
        """
import os
def listed(place):
    if not os.listdir(place):  # bubblewrap has an empty folder there
        raise OSError
def f(folder, path):
    name = os.path.basename(folder)
    def through_a_folder():
        fd = os.open(os.path.dirname(folder), os.O_RDONLY)
        return listed(os.open(name, os.O_RDONLY, dir_fd=fd))
    def from_within():
        os.chdir(os.path.dirname(folder))
        return listed(name)
    return done(
        lambda: listed(folder), lambda: open(path), through_a_folder, from_within,
        lambda: open(folder + "/../" + name + path[len(folder):]), lambda: listed("/" + folder),
    )
""",
        str(packages),
        str(inside[0]),
    )


def test_what_python_needs_works_in_the_sandbox(score: Any) -> None:
    """The calls on the list are enough for threads, event loops, timers, limits, pipes and a look at the clock."""
    code = """
import asyncio, decimal, fcntl, os, random, resource, select, signal, socket, subprocess, sys, tempfile, threading, time
from concurrent.futures import ThreadPoolExecutor
async def later(n):
    await asyncio.sleep(0.001)
    return await asyncio.to_thread(abs, -n)
def f():
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.001)
    time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGALRM)
    signal.raise_signal(signal.SIGALRM)
    a, b = socket.socketpair()
    a.sendall(b"x")
    r, w = os.pipe()
    os.set_blocking(r, False)
    os.isatty(0), os.cpu_count(), os.getcwd(), os.urandom(4), os.times(), os.uname(), random.SystemRandom().random()
    resource.getrlimit(resource.RLIMIT_NOFILE), resource.getrusage(resource.RUSAGE_SELF), len(os.sched_getaffinity(0))
    with open(os.__file__) as file:
        file.readline()
    async def main():
        return await asyncio.gather(*map(later, range(3)))
    return [asyncio.run(main()), list(ThreadPoolExecutor(2).map(abs, [-1])), b.recv(1) == b"x", select.select([r], [], [], 0)[0]]
"""
    found = score(code, [{"expected": [[0, 1, 2], [1], True, []]}])
    assert found.value == 1.0, found.reason


def test_a_sandbox_without_its_filter_of_calls_is_refused(
    sandbox: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What would then reach other processes is named."""
    inside = tmp_path / "inside"
    shutil.copytree(policy._INSIDE, inside)
    locks = inside / "locks.py"
    locks.write_text(locks.read_text().replace("    refuse_other_calls()\n", ""))
    monkeypatch.setattr(policy, "_INSIDE", inside)
    monkeypatch.setattr(trial, "_POLICY", dataclasses.replace(trial._POLICY))
    reached = {
        "landlock": r"change a file of its user, .*reach the limits of another process",
        "bubblewrap": r"start a process, reach the network, .*lock a file",
        "podman": r"start a process, .*lock a file",
    }
    with pytest.raises(ConfigError, match=reached[sandbox]):
        SPEC.build({}).setup()
