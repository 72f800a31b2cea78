"""Every error that rlaif_sdk raises on purpose.

RlaifError
├── ConfigError (ValueError)              a config file or value is refused; carries file and line
├── DataError (ValueError)                a data file or a row of it is refused; carries file and row
├── ConversationError (ValueError)        a prompt or completion cannot be read; carries row and message
├── BatchError (ValueError)               a RewardBatch is malformed
├── StateError (ValueError)               saved state does not fit what it is loaded into
├── MissingExtraError (ImportError)       an optional dependency is not installed, or cannot be imported
├── PluginError
│   ├── PluginLoadError (ImportError)     a plugin could not be imported or registered
│   ├── PluginConflictError (ValueError)  two plugins offer one name
│   └── UnknownPluginError (LookupError)  nothing of that name is installed
├── RewardError (RuntimeError)            a reward failed; carries its name
│   ├── RewardTimeoutError (TimeoutError) it did not answer within its time limit
│   └── RewardOutputError (ValueError)    it answered with something that is no score
├── JudgeError (RuntimeError)
│   ├── JudgeConnectionError (ConnectionError)  no usable answer after all retries; a later try may work
│   ├── JudgeAuthError (PermissionError)  the server refuses the key: trying again is useless
│   ├── JudgeQuotaError                   the account is exhausted: trying again is useless
│   └── JudgeResponseError (ValueError)   an answer came and cannot be read as a verdict
├── LedgerError (OSError)                 a ledger cannot be read or written
├── TrainingError (RuntimeError)          training cannot continue
│   └── AlarmError                        an alarm about its rewards ended it
└── BudgetExceededError (RuntimeError)    a budget of calls, tokens or money is spent; the run can be resumed

An error states what was wrong, where, and the next step. All of them survive pickling, so they cross
process boundaries whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class RlaifError(Exception):
    """Base of every error raised on purpose by rlaif_sdk.

    Args:
        message: What was wrong, and what was found instead.
        hint: The next step for the user, a sentence without a capital letter or full stop.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        where = self._where()
        text = f"{where}: {self.message}" if where else self.message
        return f"{text} ({self.hint})" if self.hint else text

    def _where(self) -> str:
        return ""

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.args, self.__dict__.copy()))


def _rebuild(cls: type[RlaifError], args: tuple[Any, ...], state: dict[str, Any]) -> RlaifError:
    builtin: type[BaseException] = cls
    while builtin.__module__ != "builtins":  # the class whose memory layout this one has; only its __new__ is allowed
        assert builtin.__base__ is not None
        builtin = builtin.__base__
    error = builtin.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class ConfigError(RlaifError, ValueError):
    """A config file or value is refused.

    Attributes:
        file: The file's path, or None for a config given in Python.
        line: 1-based line in that file, or None.
        key: Dotted path of the offending key, such as ``rewards.toxicity.weight``.
    """

    def __init__(
        self,
        message: str,
        *,
        file: str | None = None,
        line: int | None = None,
        key: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.file = file
        self.line = line
        self.key = key

    def _where(self) -> str:
        place = f"{self.file or 'line'}:{self.line}" if self.line is not None else (self.file or "")
        return ": ".join(part for part in (place, self.key) if part)


class DataError(RlaifError, ValueError):
    """A data file, or one row of it, is refused.

    Attributes:
        file: The file's path, or None.
        row: 1-based row (for JSONL, the line), or None.
    """

    def __init__(
        self, message: str, *, file: str | None = None, row: int | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.file = file
        self.row = row

    def _where(self) -> str:
        if self.row is None:
            return self.file or ""
        return f"{self.file}:{self.row}" if self.file else f"row {self.row}"


class ConversationError(RlaifError, ValueError):
    """A prompt or completion cannot be read as text or messages; its message counts rows and messages from 1.

    Attributes:
        index: 0-based message within the conversation, or None.
        row: 0-based row within the batch, or None.
        part: ``prompt`` or ``completion``, or None.
    """

    row: int | None = None
    part: str | None = None

    def __init__(self, message: str, *, index: int | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.index = index

    def _where(self) -> str:
        row = None if self.row is None else f"row {self.row + 1}"
        index = None if self.index is None else f"message {self.index + 1}"
        return ", ".join(place for place in (row, self.part, index) if place)


class BatchError(RlaifError, ValueError):
    """A RewardBatch is malformed: fields of different lengths, a reserved column name, a wrong type."""


class StateError(RlaifError, ValueError):
    """Saved state does not fit the object that it is loaded into."""


class MissingExtraError(RlaifError, ImportError):
    """An optional dependency is not installed, or cannot be imported; the message carries the pip command.

    Args:
        what: The dependency.
        extra: The extra that has it.
        package: The package of the extra.
        why: Why it cannot be imported, though it is installed.
    """

    def __init__(self, what: str, *, extra: str, package: str = "rlaif-sdk", why: str | None = None) -> None:
        command = f'pip install "{package}[{extra}]"'
        if why is None:
            super().__init__(f"{what} is not installed", hint=command)
        else:
            super().__init__(f"{what} cannot be imported: {why}", hint=f"{command} brings versions that fit")
        self.extra = extra


@contextmanager
def needs_extra(extra: str, what: str | None = None) -> Iterator[None]:
    """Name the extra that has the package which an import inside misses.

    Args:
        extra: The extra.
        what: What the error calls it; by default the module that is missing.

    Raises:
        MissingExtraError: A module is not installed, or is and cannot be imported.
    """
    try:
        yield
    except RlaifError:
        raise
    except ImportError as error:
        why = None if isinstance(error, ModuleNotFoundError) else str(error)
        raise MissingExtraError(what or error.name or "a package", extra=extra, why=why) from error


class PluginError(RlaifError):
    """A plugin cannot be used."""


class PluginLoadError(PluginError, ImportError):
    """A plugin could not be imported, registered, or does not speak this SDK's plugin API version."""


class PluginConflictError(PluginError, ValueError):
    """Two plugins offer one name, so neither is used."""


class UnknownPluginError(PluginError, LookupError):
    """No installed plugin offers that name."""


class RewardError(RlaifError, RuntimeError):
    """A reward failed.

    Attributes:
        reward: The reward's name in the composition, or None when the reward does not know it.
    """

    def __init__(self, message: str, *, reward: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.reward = reward

    def _where(self) -> str:
        return f"reward {self.reward!r}" if self.reward else ""


class RewardTimeoutError(RewardError, TimeoutError):
    """A reward did not answer within its time limit."""


class RewardOutputError(RewardError, ValueError):
    """A reward answered with something that is no score: wrong length, type, range, NaN or infinity."""


class JudgeError(RlaifError, RuntimeError):
    """A judge could not give a verdict.

    Attributes:
        usage: What the failed request took (a `rlaif_sdk.judges.Usage`), or None where it is not known.
    """

    usage: Any = None


class JudgeConnectionError(JudgeError, ConnectionError):
    """No usable answer came from the judge's server after all retries; a later try may work."""


class JudgeAuthError(JudgeError, PermissionError):
    """The judge's server refuses the key; trying again is useless."""


class JudgeQuotaError(JudgeError):
    """The account with the judge's server is exhausted; trying again is useless."""


class JudgeResponseError(JudgeError, ValueError):
    """The judge answered, and the answer cannot be read as a verdict."""


class LedgerError(RlaifError, OSError):
    """A ledger cannot be read or written: the disk is full, the file is no ledger, or another process holds it."""


class BudgetExceededError(RlaifError, RuntimeError):
    """A budget of calls, tokens or money is spent. Nothing is lost: raise it and resume from the last checkpoint."""


class TrainingError(RlaifError, RuntimeError):
    """Training cannot continue."""


class AlarmError(TrainingError):
    """An alarm about the rewards paused or stopped training; the message has the evidence, and the hint how to resume."""


def exception_text(error: BaseException) -> str:
    """The class and message of whatever was raised."""
    name = type(error).__name__
    try:
        return f"{name}: {error}"
    except BaseException as second:  # noqa: BLE001 - of the code that raised the first
        return f"{name}, whose text cannot be read since {type(second).__name__} is raised"
