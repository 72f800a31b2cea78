"""What passes between a process and its workers: JSON in frames of a stated length, checked on arrival.

No pickle: a worker runs code that may be broken or worse, and what it sends can only ever become plain data.
"""

from __future__ import annotations

import json
import math
import socket
import struct
import traceback
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlaif_sdk import exceptions
from rlaif_sdk.conversations import image_address
from rlaif_sdk.exceptions import BatchError, RewardOutputError, RlaifError, exception_text
from rlaif_sdk.rewards import ScoreLike
from rlaif_sdk.scoring.checks import plain_credit
from rlaif_sdk.scoring.results import RemoteError
from rlaif_sdk.statistics.arrays import encode_groups
from rlaif_sdk.types import Credit, Progress, RewardBatch, Score, SubScore

MAX_REPLY = 64 * 2**20
"""Bytes that a worker may answer with."""
MAX_TRACEBACK = 20_000
_HEADER = struct.Struct(">QQ")
_PIECE = 2**20


@dataclass(frozen=True, slots=True)
class Frame:
    """A message.

    Attributes:
        number: Of the request; its answer has the same.
        message: JSON.
    """

    number: int
    message: bytes


class Channel:
    """A connection that carries frames, watched for the end of the other side.

    Args:
        connection: A stream socket; with a timeout, ``ended`` is asked whenever it passes.
        ended: Whether the other side can send no more. (Its own children may hold its end of the connection open.)
    """

    def __init__(self, connection: socket.socket, ended: Callable[[], bool] = lambda: False) -> None:
        self._connection = connection
        self._ended = ended

    def send(self, frame: Frame) -> bool:
        """Send one frame; False if the other side is gone."""
        left = memoryview(_HEADER.pack(frame.number, len(frame.message)) + frame.message)
        while left:
            try:
                left = left[self._connection.send(left[:_PIECE]) :]
            except TimeoutError:
                if self._ended():
                    return False
            except OSError:
                return False
        return True

    def receive(self, limit: int | None = None) -> Frame | None:
        """Receive one frame; None if the other side is gone.

        Raises:
            RewardOutputError: The frame is longer than ``limit``.
        """
        header = self._read(_HEADER.size)
        if header is None:
            return None
        number, size = _HEADER.unpack(header)
        if limit is not None and size > limit:
            raise RewardOutputError(f"its worker process answered with {size} bytes; at most {limit} are read")
        message = self._read(size)
        return None if message is None else Frame(number, message)

    def _read(self, size: int) -> bytes | None:
        parts = bytearray()
        while len(parts) < size:
            try:
                piece = self._connection.recv(min(size - len(parts), _PIECE))
            except TimeoutError:
                if self._ended():
                    return None
                continue
            except OSError:
                return None
            if not piece:
                return None
            parts += piece
        return bytes(parts)


def encode_batch(batch: RewardBatch, required: Collection[str], reward: str) -> bytes:
    """A batch as JSON.

    Columns that JSON cannot hold are left out with a warning, unless the reward requires them. Group labels become
    integers: only which are equal is kept.

    Raises:
        BatchError: JSON cannot hold something that the reward needs.
    """
    columns = dict(batch.columns)
    try:
        return _batch_json(batch, columns)
    except (TypeError, ValueError):
        for name in list(columns):
            if not _fits_json(columns[name]):
                if name in required:
                    raise BatchError(
                        f"the column {name!r} holds what JSON cannot, and reward {reward!r} runs in a process",
                        hint="use isolation: none, or a column of text, numbers and lists",
                    ) from None
                del columns[name]
                warnings.warn(f"reward {reward!r} does not see the column {name!r}: JSON cannot hold it", stacklevel=2)
    try:
        return _batch_json(batch, columns)
    except (TypeError, ValueError) as error:
        raise BatchError(f"JSON cannot hold this batch, and reward {reward!r} runs in a process: {error}") from error


def _fits_json(values: Any) -> bool:
    try:
        json.dumps(_sequence(values), default=json_plain)
    except (TypeError, ValueError):
        return False
    return True


def _batch_json(batch: RewardBatch, columns: Mapping[str, Sequence[Any]]) -> bytes:
    group = encode_groups(batch.group)
    message = {
        "prompts": _sequence(batch.prompts),
        "completions": _sequence(batch.completions),
        "completion_ids": None if batch.completion_ids is None else _sequence(batch.completion_ids),
        "turn_spans": None if batch.turn_spans is None else _sequence(batch.turn_spans),
        "columns": {name: _sequence(values) for name, values in columns.items()},
        "group": None if group is None else group.tolist(),
        "progress": [batch.progress.step, batch.progress.total],
        "training": batch.training,
    }
    return json.dumps({"score": message}, default=json_plain).encode()


def _sequence(values: Any) -> Any:
    return values if isinstance(values, (list, tuple)) else list(values)


def json_plain(value: Any) -> Any:
    """What JSON cannot hold, as what it can: arrays and tensors, and their scalars, and Pillow's images.

    Raises:
        TypeError: It is something else.
        ConversationError: It is an image that cannot be sent.
    """
    if hasattr(value, "tolist"):
        return value.tolist()
    if hasattr(value, "save"):
        return image_address(value)
    raise TypeError(f"JSON cannot hold a {type(value).__name__}")


def decode_batch(message: Mapping[str, Any]) -> RewardBatch:
    """The batch of a message of `encode_batch`."""
    step, total = message["progress"]
    return RewardBatch(**{**message, "progress": Progress(step, total)})


def encode_scores(entries: Sequence[ScoreLike]) -> bytes:
    """Plain entries of `rlaif_sdk.scoring.checks.plain_scores` as JSON."""
    scores = [_score_message(entry) if isinstance(entry, Score) else _as_float(entry) for entry in entries]
    return json.dumps({"scores": scores}).encode()


def _as_float(value: float | None) -> float | None:
    """A number as a float, since JSON takes no integer of more than 4,300 digits."""
    try:
        return None if value is None else float(value)
    except OverflowError:
        return math.inf


def _score_message(score: Score) -> dict[str, Any]:
    return {
        "value": _as_float(score.value),
        "reason": score.reason,
        "details": dict(score.details),
        "credit": None if score.credit is None else score.credit.record(),
        "error": score.error,
        "subscores": {name: part.record() for name, part in score.subscores.items()},
    }


def encode_error(error: BaseException) -> bytes:
    """What a reward raised, as JSON."""
    state = {name: value for name, value in vars(error).items() if isinstance(value, (str, int, float, type(None)))}
    message = {
        "kinds": [kind.__name__ for kind in type(error).__mro__],
        "message": error.message if isinstance(error, RlaifError) else exception_text(error),
        "state": state if isinstance(error, RlaifError) else {},
        "traceback": "".join(traceback.format_exception(error))[-MAX_TRACEBACK:],
    }
    return json.dumps({"error": message}).encode()


def decode_reply(reply: bytes) -> list[ScoreLike]:
    """The scores of a worker's reply.

    Raises:
        RewardOutputError: The reply is not what a worker sends.
        RlaifError: The reward raised it.
        RemoteError: The reward raised something else.
    """
    try:
        message = json.loads(reply)
        if "error" in message:
            error = _error(**message["error"])
        else:
            return [_entry(entry) for entry in message["scores"]]
    except (ValueError, KeyError, TypeError, RecursionError) as cause:
        raise RewardOutputError(
            f"its worker process sent what is no answer: {type(cause).__name__}: {cause}"
        ) from cause
    raise error


def _entry(entry: Any) -> ScoreLike:
    if not isinstance(entry, dict):
        return _number(entry)
    texts = (entry["reason"], entry["error"])
    if not all(text is None or isinstance(text, str) for text in texts) or not isinstance(entry["details"], dict):
        raise TypeError("a score's fields have the wrong types")
    credit, problem = (None, None) if entry["credit"] is None else plain_credit(Credit.of_record(entry["credit"]))
    if problem:
        raise TypeError(problem)
    subscores = {name: SubScore.of_record(part) for name, part in entry["subscores"].items()}
    return Score(_number(entry["value"]), entry["reason"], entry["details"], credit, entry["error"], subscores)


def _number(value: Any) -> float | None:
    if value is None or (isinstance(value, (int, float)) and not isinstance(value, bool)):
        return value
    raise TypeError(f"{type(value).__name__} where a number is wanted")


def _error(kinds: Sequence[str], message: str, state: Mapping[str, Any], traceback: str) -> Exception:
    known = getattr(exceptions, kinds[0], None)
    error: Exception
    if isinstance(known, type) and issubclass(known, RlaifError):
        fields = {"message": message, "hint": None, "reward": None, **state}
        error = exceptions._rebuild(known, (message,), fields)  # noqa: SLF001 - as after pickling
    else:
        error = RemoteError(f"raised {message}", kinds=kinds)
    error.add_note(f"in the worker process:\n{traceback}")
    return error
