"""A program that tries what the sandbox must deny, before any other runs in it."""

from __future__ import annotations

import os
import secrets
import socket
import tempfile
import threading
from dataclasses import replace
from pathlib import Path

from rlaif_execution.confinement import Confined
from rlaif_execution.endings import Ended, SandboxFailedError
from rlaif_execution.inside import wire
from rlaif_execution.policy import NEEDS, Policy
from rlaif_sdk import ConfigError

_SECONDS = 10.0
_POLICY = Policy(test_seconds=_SECONDS, row_seconds=3 * _SECONDS, memory=512 << 20, output=1 << 20)
_MOST_THREADS = 128
_FOR_A_COMMAND = (
    "'sandbox_command' must start a container with python3 (3.11 or later) and env; without network, folders of "
    f"this machine and files that can be written; and with fewer than {_MOST_THREADS} processes"
)
_TRIES = """
import ctypes, fcntl, os, resource, socket, threading

def tries(path, name, parent, most_threads):
    libc = ctypes.CDLL(None, use_errno=True)
    def library(function, *args):
        if function(*args) == -1:
            raise OSError(ctypes.get_errno(), "")
    def lock():
        with open(os.__file__) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    def inode_flags():
        with open(os.__file__) as file:
            fcntl.ioctl(file, 0x80086601, bytes(8))
    def datagram():
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        one.sendto(b"", chr(0) + name)
    def connect():
        socket.socket(socket.AF_UNIX).connect(chr(0) + name)
    def internet():
        socket.socket().connect(("127.0.0.1", 9))
    def fork():
        if os.fork() == 0:
            os._exit(0)
    def environment():
        assert os.environ.keys() - {"PYTHONHASHSEED", "PYTHONUTF8", "LC_CTYPE"}
    def write():
        for place in (path + "x", "x", "/tmp/x", "/var/tmp/x", "/dev/shm/x"):
            try:
                open(place, "w").close()
            except OSError:
                continue
            return
        raise OSError
    def memory():
        for number in os.listdir("/proc"):
            if number.isdecimal() and int(number) != os.getpid():
                try:
                    open(f"/proc/{number}/mem", "r+b").close()
                except OSError:
                    continue
                return
        raise OSError
    def processes():
        if sum(map(str.isdecimal, os.listdir("/proc"))) <= 3:  # of a container: its first, our watcher, and this one
            raise OSError
    def threads():
        ends = threading.Event()
        threading.stack_size(32768)
        try:
            for _ in range(most_threads):
                threading.Thread(target=ends.wait).start()
        except RuntimeError as error:
            raise OSError from error
        finally:
            ends.set()
    tries = {
        "read a file of its user": lambda: open(path).close(),
        "change a file of its user": lambda: os.chmod(path, 0o777),
        "write a file": write,
        "start a process": fork,
        "reach the network": internet,
        "reach an abstract socket": connect,
        "read the environment": environment,
        "reach the limits of another process": lambda: resource.prlimit(parent, resource.RLIMIT_CORE),
        "signal another process": lambda: os.kill(parent, 0),
        "open another process": lambda: os.pidfd_open(parent),
        "see the processors of another process": lambda: os.sched_getaffinity(parent),
        "see the priority of another process": lambda: os.getpriority(os.PRIO_PROCESS, parent),
        "see the session of another process": lambda: os.getsid(parent),
        "trace another process": lambda: library(libc.ptrace, 16, parent, 0, 0),
        "reach the memory of another process": memory,
        "see the processes of this machine": processes,
        "lock a file": lock,
        "reach the flags of a file": inode_flags,
        "watch files": lambda: library(libc.inotify_init1, 0),
        "be told of access to files": lambda: library(libc.fanotify_init, 0x200, 0),
        "make a queue of messages": lambda: library(libc.msgget, 0, 0o1600),
        "make shared memory": lambda: library(libc.shmget, 0, 4096, 0o1600),
        "send to a socket of another process": datagram,
    }
    if most_threads:
        tries[f"have {most_threads} threads"] = threads
    done = []
    for what, act in tries.items():
        try:
            act()
        except ConnectionRefusedError:
            done.append(what)
        except (OSError, AssertionError):
            continue
        else:
            done.append(what)
    return done
"""


def check_sandbox(command: tuple[str, ...] = ()) -> None:
    """Start a sandbox with a program that tries to get out, under limits that leave it room to.

    Args:
        command: What makes the sandbox, if not this machine.

    Raises:
        ConfigError: The sandbox does not start, or lets something through.
    """
    name = f"rlaif-execution-{secrets.token_hex(16)}"
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"\0{name}")
        listening.listen()
        path = Path(folder, "secret")
        path.write_text("secret", encoding="utf-8")
        got_out = _attempt(str(path), name, command)
    if got_out:
        hint = "run the reward on another machine, or report it with the versions of the kernel, of sandlock and of bubblewrap"
        raise ConfigError(
            f"untrusted code cannot be confined here: in the sandbox, a program could {', '.join(got_out)}",
            hint=_FOR_A_COMMAND if command else hint,
        )


def _attempt(path: str, name: str, command: tuple[str, ...]) -> list[str]:
    policy = replace(_POLICY, sandbox_command=command)
    arguments = [path, name, os.getpid(), _MOST_THREADS if command else 0]  # elsewhere they are counted from outside
    try:
        with Confined(policy, "solution", threading.Event()) as solution:
            solution.exchange({"prompt": "", "blocks": [_TRIES], "name": "tries"}, _SECONDS)
            answer = solution.exchange({"args": arguments, "kwargs": {}}, _SECONDS)
            if "value" not in answer:
                raise SandboxFailedError(f"the trial of the sandbox failed: {answer.get('error')}")
            done: list[str] = wire.decode(answer["value"])
            return done
    except (SandboxFailedError, Ended, OSError, wire.WireError) as error:
        hint = f"{NEEDS}, and a container must allow Landlock and seccomp, or namespaces of users"
        raise ConfigError(
            f"untrusted code cannot be confined here: {error}", hint=_FOR_A_COMMAND if command else hint
        ) from error
