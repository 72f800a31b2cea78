"""What a program in the sandbox may do and take, and whether this machine can hold it to that."""

from __future__ import annotations

import math
import os
import sys
import sysconfig
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from rlaif_sdk import ConfigError

if TYPE_CHECKING:
    from sandlock import Sandbox

_INSIDE = Path(__file__).parent / "inside"
_BOOT = """
import sys, types
for name, path in (("rlaif_execution", []), ("rlaif_execution.inside", [sys.argv[1]])):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = path
from rlaif_execution.inside.start import main
main(*sys.argv[2:])
"""
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
    """

    test_seconds: float
    row_seconds: float
    memory: int
    output: int

    @cached_property
    def _python(self) -> str:
        return os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)

    @cached_property
    def _readable(self) -> list[str]:
        base = Path(sys.base_prefix) / sys.platlibdir
        places = {self._python, sysconfig.get_path("stdlib"), str(base), str(_INSIDE), *_LIBRARIES}
        places |= {os.path.realpath(place) for place in places}
        return sorted(place for place in places if Path(place).exists())

    @cached_property
    def _unreadable(self) -> list[str]:
        """Packages that somebody installed among the libraries of Python and of the system."""
        places = {Path(sysconfig.get_path("stdlib"), "site-packages")}
        places |= {place.with_name("dist-packages") for place in places} | {Path("/usr/lib/python3/dist-packages")}
        return sorted({os.path.realpath(place) for place in places if place.exists()})

    def command(self, part: str) -> list[str]:
        """The command line that runs a part of `rlaif_execution.inside`: ``solution`` or ``examiner``."""
        cpu_seconds = math.ceil(self.row_seconds) + 5
        limits = [str(2 * self.memory), str(cpu_seconds)]
        return [self._python, "-P", "-s", "-S", "-B", "-c", _BOOT, str(_INSIDE), part, *limits]

    def sandbox(self) -> Sandbox:
        """One sandbox: reads Python and its libraries, writes nothing, has no network, and is one process."""
        from sandlock import Sandbox

        return Sandbox(
            fs_readable=self._readable,
            fs_denied=self._unreadable,
            fs_writable=["/dev/null"],
            clean_env=True,
            env={"PYTHONHASHSEED": "0", "PYTHONUTF8": "1"},
            cwd="/",
            max_memory=self.memory,
            max_processes=1,
            max_open_files=64,
        )


def check_kernel() -> None:
    """Refuse a machine that cannot confine programs.

    Raises:
        ConfigError: sandlock is not installed, or the kernel is too old or has no Landlock.
    """
    if sys.platform != "linux":
        raise ConfigError(f"untrusted code cannot be confined on {sys.platform}", hint=f"run it on Linux: {NEEDS}")
    try:
        from sandlock import landlock_abi_version, min_landlock_abi
    except (ImportError, OSError, RuntimeError) as error:  # its library does not load
        raise ConfigError(
            f"untrusted code cannot be confined here: sandlock cannot be imported: {error}",
            hint='pip install "sandlock>=0.9,<0.10"',
        ) from error
    found, needed = landlock_abi_version(), min_landlock_abi()
    if found < needed:
        has = f"Landlock {found}" if found > 0 else "no Landlock"
        raise ConfigError(
            f"untrusted code cannot be confined here: this kernel has {has}, and the sandbox needs {needed}",
            hint=f"run the reward on another machine; {NEEDS}",
        )
