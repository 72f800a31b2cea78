"""Runs a row's asserts in a sandbox of their own; the function that they call runs in another one."""

from __future__ import annotations

import builtins
import random

from rlaif_execution.inside import program, wire
from rlaif_execution.inside.asserts import TALLY, AssertRewriter, BrokenAssert, Stop, Tally
from rlaif_execution.inside.channel import Channel

TYPE_CHECKING = False  # as a type checker knows it; importing typing costs a sandbox a tenth of its start
if TYPE_CHECKING:
    from typing import Any


class _CannotAsk(BaseException):
    """The tests call the function with something that is no plain data."""


class _Candidate:
    """Stands for the tested function: asks for each call outside, where another sandbox answers."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self.calls = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        try:
            call = {"args": wire.encode(list(args)), "kwargs": {key: wire.encode(v) for key, v in kwargs.items()}}
        except wire.WireError as error:
            raise _CannotAsk(str(error)) from None
        self._channel.send({"call": call})
        answer = self._channel.receive()
        if "error" in answer:
            raise _raised(**answer["error"])
        try:
            return wire.decode(answer["value"], wire.RETURNED)
        except (wire.WireError, RecursionError) as error:
            raise RuntimeError(str(error)) from None


def _raised(type: str, message: str) -> Exception:  # noqa: A002 - as `wire.describe` names it
    kind = getattr(builtins, type, None)
    silent = StopIteration, StopAsyncIteration  # these end whatever runs through an iterator, and no assert notices
    if isinstance(kind, builtins.type) and issubclass(kind, Exception) and not issubclass(kind, silent):
        try:
            return kind(message)
        except TypeError:  # some take more than a message
            pass
    return RuntimeError(f"{type}: {message}")


def main(channel: Channel) -> None:
    """Run one row's tests and send what they found."""
    request = channel.receive()
    channel.move_away()
    random.seed(0)
    candidate = _Candidate(channel)
    asserts = AssertRewriter()
    tally = Tally(asserts, lambda: candidate.calls, stop_at_first=request["stop_at_first"])
    ended: BaseException | None = None
    broken: BaseException | None = None
    try:
        _examine(request, tally, asserts, candidate)
    except Stop:
        pass
    except BrokenAssert as error:
        broken = error.__cause__
    except BaseException as error:  # noqa: BLE001 - whatever the tests raise is data
        if candidate.calls and not isinstance(error, _CannotAsk) and not asserts.undefined(error):
            ended = error
        else:
            broken = error
    found = tally.as_dict(went_on=ended is None)
    problems = {"ended": ended, "broken": broken}
    channel.send(found | {name: wire.describe(error) if error else None for name, error in problems.items()})


def _examine(request: dict[str, Any], tally: Tally, asserts: AssertRewriter, candidate: _Candidate) -> None:
    name = request["name"]
    namespace: dict[str, Any] = {"__name__": "tests"}
    _, runs = program.beginning(request["prompt"], name)
    exec(compile(runs, "<prompt>", "exec", dont_inherit=True), namespace)  # noqa: S102 - this is the sandbox
    namespace |= {name: candidate, "candidate": candidate, TALLY: tally}
    tests = asserts.count_in(request["tests"], namespace)
    exec(compile(tests, "<tests>", "exec", dont_inherit=True), namespace)  # noqa: S102 - as above
    if callable(check := namespace.get("check")):
        check(candidate)
