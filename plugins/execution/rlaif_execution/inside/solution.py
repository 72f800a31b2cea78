"""Runs the code of an answer inside the sandbox: as a function that is called, or as a program that reads and writes."""

from __future__ import annotations

import sys
import types

from rlaif_execution.inside import program, wire
from rlaif_execution.inside.channel import Channel

TYPE_CHECKING = False  # as a type checker knows it; importing typing costs a sandbox a tenth of its start
if TYPE_CHECKING:
    from typing import Any


def main(channel: Channel) -> None:
    """Serve the one who started this sandbox until it closes the channel, or be the program."""
    request = channel.receive()
    if "program" in request:
        _run(request["program"])
    else:
        channel.move_away()
        _serve(channel, request)


def _module(name: str, source: str) -> dict[str, Any]:
    if "random" in source:  # the same code gets the same score again
        import random

        random.seed(0)
    module = types.ModuleType(name)
    sys.modules[name] = module
    sys.argv = ["answer.py"]
    return module.__dict__


def _run(blocks: list[str]) -> None:
    parts = program.assembled(blocks, "")
    program.run(parts, _module("__main__", "".join(parts)))


def _serve(channel: Channel, request: dict[str, Any]) -> None:
    try:
        function = program.load(**request, namespace=_module("answer", "".join(request["blocks"])))
    except BaseException as error:  # noqa: BLE001 - whatever an answer raises is data
        channel.send({"error": wire.describe(error)})
        return
    channel.send({"loaded": True})
    while True:
        call = channel.receive()
        channel.send(_call(function, call))


def _call(function: Any, call: dict[str, Any]) -> dict[str, Any]:
    try:
        arguments = wire.decode(call["args"])
        keywords = {name: wire.decode(value) for name, value in call["kwargs"].items()}
        return {"value": wire.encode(function(*arguments, **keywords), wire.RETURNED)}
    except BaseException as error:  # noqa: BLE001 - as above
        return {"error": wire.describe(error)}
