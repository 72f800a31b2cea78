r"""Files that appear whole or not at all, whoever else writes them and whenever the process is killed.

What is written goes into a hidden file beside its place, reaches the disk, and takes the name last. The hidden name is
the writer's own (``.NAME.HOST-PID-RANDOM.partial``), so two writers of one file never mix: the one that ends last
stays. What a killed process left behind is removed by the next one that writes into the folder.

A lone surrogate, which UTF-8 cannot hold, is written as its escape ``\\udXXX`` in JSON, and reads back as it was; in
other text U+FFFD takes its place (`rlaif_sdk.io.text`).
"""

from __future__ import annotations

import difflib
import errno
import json
import math
import os
import platform
import re
import shutil
import stat
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rlaif_sdk.exceptions import ConfigError, DataError
from rlaif_sdk.io.digests import json_digest
from rlaif_sdk.io.text import safe_text


def _host() -> str:
    """Tells where a process id means something: the machine, and within it the container."""
    namespace = Path("/proc/self/ns/pid")
    return json_digest([platform.node(), str(namespace.readlink()) if namespace.is_symlink() else ""])[:6]


_HOST = _host()
_PARTIAL = re.compile(rf"\..*\.{_HOST}-(\d+)-[0-9a-f]{{8}}\.partial", re.DOTALL)
_LONGEST_NAME = 255
"""Bytes in a file's name that every common file system takes."""

_swept: set[str] = set()
"""Folders in which this process has looked for what killed ones left."""


@contextmanager
def atomic_path(path: str | Path, *, kept: str | Path | None = None) -> Iterator[Path]:
    r"""Where to write a file, which takes its place when the block ends well.

    Folders are made, a link stays a link to the file that is replaced, and an older file's permissions are kept. A
    device or a pipe is written directly.

    Args:
        path: The file.
        kept: The name under which what was written stays where the block ends with an error; by default it is removed.

    Yields:
        A path in the same folder, under a name that no other writer has. Where the block leaves no file there,
        nothing is replaced.

    Raises:
        DataError: The path is a folder.
        OSError: The file cannot be written, see `refusal`. The older file is as it was.

    Examples:
        >>> with atomic_path("scores.csv") as unfinished:  # doctest: +SKIP
        ...     unfinished.write_text("prompt,score\\n")
    """
    target = Path(os.path.realpath(path))  # which `Path.resolve` refuses of a link to itself
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        mode = None
    if mode is not None and stat.S_ISDIR(mode):
        raise DataError("is a folder, where a file is to be written", file=str(path), hint="name a file")
    if mode is not None and not stat.S_ISREG(mode):
        yield target
        return
    partial = _begin(target)
    try:
        yield partial
        if partial.exists():
            if mode is not None:
                partial.chmod(stat.S_IMODE(mode))
            _reach_disk(partial)
            partial.replace(target)
            _reach_disk(target.parent)
    except BaseException:
        with suppress(OSError):
            if kept is not None:
                partial.replace(kept)
        partial.unlink(missing_ok=True)
        raise


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """An empty folder to fill, which takes its name when the block ends well; on an error it is removed.

    Args:
        path: The folder; it must not exist, or be empty, when the block ends.

    Raises:
        OSError: It cannot be written, or something else has taken the name (``errno.ENOTEMPTY`` or ``EEXIST``).
    """
    target = Path(path).expanduser().absolute()
    partial = _begin(target)
    partial.mkdir()
    try:
        yield partial
        for file in partial.rglob("*"):
            _reach_disk(file)
        _reach_disk(partial)
        partial.rename(target)
        _reach_disk(target.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def atomic_symlink(path: str | Path, target: str | Path) -> None:
    """Make a symbolic link, or point it elsewhere; whoever follows it meanwhile comes to the old place or the new.

    Raises:
        OSError: It cannot be made.
    """
    link = Path(path).absolute()
    partial = _begin(link)
    try:
        partial.symlink_to(target)
        partial.replace(link)
    finally:
        partial.unlink(missing_ok=True)
    _reach_disk(link.parent)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all; a lone surrogate becomes U+FFFD.

    Raises:
        DataError: The path is a folder.
        OSError: The file cannot be written.
    """
    _write(path, safe_text(text), errors="strict")


def write_json(path: str | Path, value: Any, *, indent: int | None = 2) -> None:
    """Write a JSON file, whole or not at all; a lone surrogate is written as its escape and reads back as it was.

    Args:
        path: The file; its folder is made if it is missing.
        value: A JSON value. NaN and infinity are none, see `without_nan`.
        indent: Spaces a level; None puts all on one line, which is quicker for large values.

    Raises:
        ValueError: A number is NaN or infinite.
        TypeError: Something is no JSON value.
        DataError: The path is a folder.
        OSError: The file cannot be written.
    """
    text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False) + "\n"
    _write(path, text, errors="backslashreplace")  # which is JSON's escape


def read_json(path: str | Path) -> Any:
    """Read a JSON file that the SDK wrote.

    Raises:
        DataError: It is not there or cannot be read, or was changed by something else and is no JSON any more.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", file=str(path)) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"no valid JSON: {error}", file=str(path), hint="delete it, and it is made again") from error


def is_same_path(one: str | Path, other: str | Path) -> bool:
    """Whether two paths lead to one place, by whatever links; a link that leads back to itself leads nowhere."""
    return os.path.realpath(one) == os.path.realpath(other)


def other_kind(mode: int) -> str | None:
    """What a path is that is no file; None of a file.

    Args:
        mode: Of its `os.stat`.
    """
    if stat.S_ISREG(mode):
        return None
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a device")


MAX_CONFIG = 4 * 2**20
"""Bytes that a config has at most."""


def config_text(path: str | Path) -> str:
    """The text of a config file, which a person wrote.

    Raises:
        ConfigError: It is not there, cannot be read, is no file, or is longer than `MAX_CONFIG`; names a file that may
            have been meant.
    """
    file = str(path)
    try:
        status = Path(path).stat()
        kind = other_kind(status.st_mode)
        if kind is not None:
            raise ConfigError(f"is {kind}, where a config is wanted", file=file, hint="name a file")
        if status.st_size > MAX_CONFIG:
            raise ConfigError(f"has {status.st_size} bytes, and a config at most {MAX_CONFIG}", file=file)
        text = Path(path).read_text(encoding="utf-8-sig")
    except ConfigError:
        raise
    except FileNotFoundError:
        hint = nearest_file(Path(path), {".yaml", ".yml", ".json"})
        raise ConfigError("there is no such file", file=file, hint=hint) from None
    except UnicodeDecodeError as error:
        hint = "a config is a YAML or JSON file in UTF-8"
        raise ConfigError(f"is no text: {error}", file=file, hint=hint) from error
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", file=file) from error
    except ValueError as error:  # a path with a zero byte
        raise ConfigError(f"cannot be read: {error}", file=file) from error
    if "\0" in text:
        raise ConfigError("is no text", file=file, hint="a config is a YAML or JSON file in UTF-8")
    return text


def nearest_file(missing: Path, suffixes: Collection[str]) -> str:
    """Where a path that does not exist may have been meant to lead, as the hint of an error.

    Args:
        missing: The path.
        suffixes: Those of the files that may have been meant.
    """
    folder = missing.parent
    if not folder.is_dir():
        return f"there is no folder {folder} either"
    files = sorted(path.name for path in folder.iterdir() if path.suffix in suffixes)
    stems = {Path(name).stem: name for name in files}
    close = difflib.get_close_matches(missing.stem, stems, n=1)
    if close:
        return f"did you mean {stems[close[0]]!r}?"
    shown = ", ".join(files[:5]) + (", ..." if len(files) > 5 else "")
    return f"in {folder.resolve()} there is {shown}" if files else f"in {folder.resolve()} there is none of its kind"


def default_cache_dir() -> Path:
    """Where the SDK keeps what it need not make twice: on Linux ``$XDG_CACHE_HOME/rlaif-sdk``, or ``~/.cache/rlaif-sdk``."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("rlaif-sdk", appauthor=False))


def without_nan(value: Any) -> Any:
    """The value with None for the numbers that JSON does not know, at any depth."""
    if isinstance(value, Mapping):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def refusal(error: Exception, file: str | Path | None = None) -> DataError | None:
    """The error in one line with the next step, where it says that a file system takes no more.

    Libraries that write files themselves (safetensors, tokenizers, PyTorch) raise no `OSError`: theirs have the system's
    number in their text, or only that the file is not as long as it was to be.

    Args:
        error: What was raised on writing.
        file: What was written; by default what the error names.

    Returns:
        None where the error says something else.
    """
    found = _REFUSALS.get(_system_number(error))
    if found is None and _CUT_OFF.search(str(error)):
        found = "a file could not be written to its end", _ROOM
    if found is None:
        return None
    name = file if file is not None else getattr(error, "filename", None)
    message, hint = found
    return DataError(message, file=None if name is None else str(name), hint=hint)


_IN_RUST = re.compile(r"\(os error (\d+)\)")
_CUT_OFF = re.compile(r"inline_container\.cc.*unexpected pos \d+ vs \d+", re.DOTALL)
"""PyTorch's writer of archives."""


def _system_number(error: Exception) -> int:
    """The error's number in `errno`, 0 where it has none."""
    if isinstance(error, OSError):
        return error.errno or 0
    found = _IN_RUST.search(str(error))
    return (
        0 if found is None else OSError(int(found[1]), "", None, int(found[1])).errno or 0
    )  # on Windows it is translated


_ROOM = "make room, or name a folder on another disk"
_ELSEWHERE = "name another path, or change its permissions"
_REFUSALS = {
    errno.ENOSPC: ("cannot be written: the disk is full", _ROOM),
    errno.EDQUOT: ("cannot be written: your quota of the disk is used up", _ROOM),
    errno.EFBIG: (
        "cannot be written: the limit of a file's size is reached",
        "make room: raise the limit, see `ulimit -f`",
    ),
    errno.EROFS: ("cannot be written: the file system is read-only", _ELSEWHERE),
    errno.EACCES: ("permission denied", _ELSEWHERE),
    errno.EPERM: ("is not permitted", _ELSEWHERE),
    errno.EISDIR: ("is a folder, where a file is to be written", "name a file"),
    errno.ENOTDIR: ("a part of the path is a file, not a folder", "name another folder"),
    errno.ELOOP: ("is a link that leads back to itself", "name another path"),
    errno.ENAMETOOLONG: ("the name is too long", "name a shorter one"),
    errno.EMFILE: ("too many files are open", "raise the limit, see `ulimit -n`"),
}


def _write(path: str | Path, text: str, *, errors: str) -> None:
    try:
        with atomic_path(path) as partial:
            partial.write_text(text, encoding="utf-8", errors=errors)
    except OSError as error:
        if error.filename is None:  # a file is named where it cannot be opened, not where it takes no more
            error.filename = str(path)
        raise


def _begin(target: Path) -> Path:
    """The unfinished name of a file or folder; its folder is made, and cleared of what killed processes left."""
    target.parent.mkdir(parents=True, exist_ok=True)
    _sweep(target.parent)
    tail = f".{_HOST}-{os.getpid()}-{os.urandom(4).hex()}.partial"
    name = os.fsencode(target.name)[: _LONGEST_NAME - 1 - len(tail)].decode("utf-8", "ignore")
    return target.parent / f".{name}{tail}"


def _sweep(folder: Path) -> None:
    if str(folder) in _swept:
        return
    _swept.add(str(folder))
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            found = _PARTIAL.fullmatch(entry.name)
            if found is None or _is_alive(int(found[1])):
                continue
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                Path(entry.path).unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    import psutil

    return bool(psutil.pid_exists(process))


def _reach_disk(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk (Windows and some network file systems cannot for a folder)."""
    is_folder = path.is_dir()
    if is_folder and os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if not (is_folder and error.errno in {errno.EINVAL, errno.ENOTSUP}):
            raise
    finally:
        os.close(descriptor)
