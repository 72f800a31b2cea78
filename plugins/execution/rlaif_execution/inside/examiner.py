"""Runs a row's asserts in a sandbox of their own; the function that they call runs in another one."""

from __future__ import annotations

import ast
import builtins
import random

from rlaif_execution.inside import program, wire
from rlaif_execution.inside.channel import Channel

TYPE_CHECKING = False  # as a type checker knows it; importing typing costs a sandbox a tenth of its start
if TYPE_CHECKING:
    from typing import Any

_TALLY = "__tally__"
_QUOTED = 200


class _Stop(BaseException):
    """The first test that fails is enough."""


class _CannotAsk(BaseException):
    """The tests call the function with something that is no plain data."""


class _Tally:
    """What the asserts found."""

    def __init__(self, *, stop_at_first: bool) -> None:
        self.passed = self.failed = 0
        self.first: dict[str, Any] | None = None
        self._stop_at_first = stop_at_first

    def record(self, outcome: Any, shown: str, error: BaseException | None = None) -> None:
        """Count one assert."""
        if outcome:
            self.passed += 1
            return
        self.failed += 1
        if self.first is None:
            self.first = {"test": shown, "error": wire.describe(error) if error is not None else None}
        if self._stop_at_first:
            raise _Stop

    def as_dict(self) -> dict[str, Any]:
        return {"passed": self.passed, "failed": self.failed, "first": self.first}


class _Counting(ast.NodeTransformer):
    """Turns each assert into one that is counted and lets the rest go on; one of a constant asks nothing and stays."""

    def visit_Assert(self, node: ast.Assert) -> ast.stmt:
        if isinstance(node.test, ast.Constant):
            return node
        shown = ast.unparse(node.test)[:_QUOTED]
        counted: Any = ast.parse(
            f"try: {_TALLY}.record(None, {shown!r})\n"
            f"except Exception as __error__: {_TALLY}.record(False, {shown!r}, __error__)"
        ).body[0]
        counted.body[0].value.args[0] = node.test
        result: ast.stmt = counted
        return result


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
            return wire.decode(answer["value"])
        except (wire.WireError, RecursionError) as error:
            raise RuntimeError(str(error)) from None


def _raised(type: str, message: str) -> Exception:  # noqa: A002 - as `wire.describe` names it
    kind = getattr(builtins, type, None)
    if isinstance(kind, builtins.type) and issubclass(kind, Exception):
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
    tally = _Tally(stop_at_first=request["stop_at_first"])
    candidate = _Candidate(channel)
    ended: BaseException | None = None
    try:
        _examine(request, tally, candidate)
    except _Stop:
        pass
    except BaseException as error:  # noqa: BLE001 - whatever the tests raise is data
        ended = error
    asked = candidate.calls and not isinstance(ended, _CannotAsk)
    problem = wire.describe(ended) if ended is not None else None
    channel.send({"done": tally.as_dict(), "ended": problem if asked else None, "broken": None if asked else problem})


def _examine(request: dict[str, Any], tally: _Tally, candidate: _Candidate) -> None:
    name = request["name"]
    namespace: dict[str, Any] = {"__name__": "tests"}
    _, runs = program.beginning(request["prompt"], name)
    exec(compile(runs, "<prompt>", "exec", dont_inherit=True), namespace)  # noqa: S102 - this is the sandbox
    namespace |= {name: candidate, "candidate": candidate, _TALLY: tally}
    tests = _Counting().visit(ast.parse(request["tests"]))
    exec(compile(tests, "<tests>", "exec", dont_inherit=True), namespace)  # noqa: S102 - as above
    if callable(check := namespace.get("check")):
        check(candidate)
