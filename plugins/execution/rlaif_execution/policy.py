"""What a program in the sandbox may do and take, and which sandbox of this machine can hold it to that."""

from __future__ import annotations

import json
import math
import os
import sys
import sysconfig
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rlaif_execution import bubblewrap
from rlaif_execution.container import ContainerProcess
from rlaif_execution.landlock import LandlockProcess
from rlaif_sdk import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rlaif_execution.endings import Ended

_INSIDE = Path(__file__).parent / "inside"
_BOOT = """
import sys, types
for name, path in (("rlaif_execution", []), ("rlaif_execution.inside", [sys.argv[1]])):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = path
from rlaif_execution.inside.start import main
main(*sys.argv[2:])
"""
_BOOT_SENT = """
import json, sys
from importlib.machinery import ModuleSpec
sources = json.loads(sys.argv[1])
class Sent:
    find_spec = lambda name, *_: ModuleSpec(name, Sent, is_package=not sources[name]) if name in sources else None
    create_module = lambda spec: None
    exec_module = lambda module: exec(compile(sources[module.__name__], module.__name__, "exec"), module.__dict__)
sys.meta_path.insert(0, Sent)
from rlaif_execution.inside.start import main
from rlaif_execution.inside.watcher import leave_to_child
leave_to_child(int(sys.argv[-1]) + 3600)
main(*sys.argv[2:])
"""
"""For a container, which does not have our files; an hour after its row's time it ends though nobody told its engine to."""
_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache")
NEEDS = "it needs Linux 6.12 or later with Landlock among its security modules (see /sys/kernel/security/lsm)"


@dataclass(frozen=True)
class Policy:
    """Limits of the programs of one reward.

    Attributes:
        test_seconds: Time limit of one test.
        row_seconds: Time limit of a row.
        memory: Bytes of address space.
        output: Bytes that a program may write for one test.
        sandbox_command: What confines programs instead of this machine's sandbox, if anything.
    """

    test_seconds: float
    row_seconds: float
    memory: int
    output: int
    sandbox_command: tuple[str, ...] = ()

    @cached_property
    def _python(self) -> str:
        return os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)

    @cached_property
    def readable(self) -> list[str]:
        """What a program may read: Python, its own modules, and the system's libraries."""
        base = Path(sys.base_prefix) / sys.platlibdir
        places = {self._python, sysconfig.get_path("stdlib"), str(base), str(_INSIDE), *_LIBRARIES}
        places |= {os.path.realpath(place) for place in places}
        return sorted(place for place in places if Path(place).exists())

    @cached_property
    def unreadable(self) -> list[str]:
        """Packages that somebody installed among the libraries of Python and of the system."""
        places = {Path(sysconfig.get_path("stdlib"), "site-packages")}
        places |= {place.with_name("dist-packages") for place in places} | {Path("/usr/lib/python3/dist-packages")}
        return sorted({os.path.realpath(place) for place in places if place.exists()})

    def command(self, part: str, *, address_space: int) -> list[str]:
        """The command line that runs a part of `rlaif_execution.inside`: ``solution`` or ``examiner``.

        Args:
            part: Which.
            address_space: The bytes of it that the kernel gives the program.
        """
        cpu_seconds = math.ceil(self.row_seconds) + 5
        limits = [str(address_space), str(cpu_seconds)]
        in_container = "python3", _BOOT_SENT, self._sources
        python, boot, inside = in_container if self.sandbox_command else (self._python, _BOOT, str(_INSIDE))
        return [python, "-P", "-s", "-S", "-B", "-c", boot, inside, part, *limits]

    @cached_property
    def _sources(self) -> str:
        """The modules of `rlaif_execution.inside` by name, as JSON; a package is empty."""
        sources = {f"rlaif_execution.inside.{path.stem}": path.read_text("utf-8") for path in _INSIDE.glob("[a-z]*.py")}
        return json.dumps({"rlaif_execution": "", "rlaif_execution.inside": ""} | sources)

    @property
    def environment(self) -> dict[str, str]:
        """The variables that a program has."""
        return {"PYTHONHASHSEED": "0", "PYTHONUTF8": "1"}


class Process(Protocol):
    """A program in a sandbox."""

    pid: int
    """A process that ends when the program has."""
    stdin: Any
    stdout: Any
    stderr: Any

    def threads(self) -> int:
        """How many threads it has; an OSError where it is no more."""

    def ended(self, seconds: float) -> Ended | None:
        """How it ended within so many seconds: None if by itself with exit code 0."""

    def close(self) -> None:
        """End it, whatever it does, and wait until it is no more."""


def find_sandbox(policy: Policy) -> Callable[[Policy, str], Process]:
    """What starts a part of `rlaif_execution.inside` in a sandbox: the command that is given, else Landlock, else bubblewrap.

    Raises:
        ConfigError: There is neither; it says what lacks of each.
    """
    if sys.platform != "linux":
        raise ConfigError(f"untrusted code cannot be confined on {sys.platform}", hint=f"run it on Linux: {NEEDS}")
    if policy.sandbox_command:
        return ContainerProcess
    lacks, hint = _what_landlock_lacks()
    if not lacks:
        return LandlockProcess
    if bubblewrap.is_installed():
        return bubblewrap.BubblewrapProcess
    raise ConfigError(
        f"untrusted code cannot be confined here: {lacks}, and bubblewrap is not installed",
        hint=f"{hint}, or install bubblewrap (apt-get install bubblewrap)",
    )


def _what_landlock_lacks() -> tuple[str, str]:
    """In words, and what to do; empty where nothing does."""
    try:
        from sandlock import landlock_abi_version, min_landlock_abi
    except (ImportError, OSError, RuntimeError) as error:  # its library does not load
        return f"sandlock cannot be imported: {error}", 'pip install "sandlock>=0.9,<0.10"'
    found, needed = landlock_abi_version(), min_landlock_abi()
    if found >= needed:
        return "", ""
    has = f"Landlock {found}" if found > 0 else "no Landlock"
    return f"this kernel has {has}, and the sandbox needs {needed}", f"run the reward on another machine: {NEEDS}"
