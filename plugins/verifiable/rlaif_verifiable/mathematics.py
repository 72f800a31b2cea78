"""The reward ``math``: whether an answer is the right one, as mathematics.

math-verify reads both and compares them; it runs in a process of its own, which is ended where a text takes too long.
"""

from __future__ import annotations

import importlib.util
import json
import os
import selectors
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

import regex
from pydantic import Field

from rlaif_sdk import MissingExtraError, Score
from rlaif_verifiable.checks import AnswerParams, AnswerReward, missed, passed, quoted
from rlaif_verifiable.extraction import extract, last_boxed

MOST_CHARACTERS = 20_000
"""Of a longer text its end is read, where the answer stands."""

_LETTER = regex.compile(r"\\(?:mathrm|mathit|mathbf|operatorname|text)\s*\{\s*([A-Za-z])\s*\}")
_ROOT = regex.compile(r"\\sqrt\s*\(([^()]*)\)")
_DOTS = regex.compile(r"\\[lc]?dots|\.\.\.|…")
_AS_ASCII = {0x2212: "-", 0x3002: ".", **{ord(sign) + 0xFEE0: sign for sign in "0123456789+-=()./%"}}
"""The minus sign, the ideographic full stop, and the wide forms of what numbers are written with."""

_LATEX_COMMAND = regex.compile(r"\\[A-Za-z]+")
_DELIMITER = regex.compile(r"\$|\\boxed|\\\(|\\\[|\\begin")


class MathParams(AnswerParams):
    """Where the answers are, and what may be taken for one."""

    column: str = Field(default="answer", min_length=1)
    """The batch column with a row's right answer: LaTeX, with or without dollar signs, a number or a formula; of a text
    with ``####``, as GSM8K has it, what follows. A list holds several right answers. A row with none abstains."""

    boxed: bool = False
    """Whether an answer counts only in the last ``\\boxed{}``; by default it is the last formula or number."""

    seconds: float = Field(default=5.0, gt=0, le=600)
    """How long reading and comparing one answer may take; one that takes longer is not the right one."""

    precision: int = Field(default=6, ge=1, le=15)
    """Decimal places to which floats are compared."""

    strict: bool = True
    """Whether variables keep their names and sets are no tuples; see math-verify."""


class MathReward(AnswerReward[MathParams]):
    r"""1 where math-verify finds the answer equal to a right one, else 0.

    A right answer that cannot be read fails its row, and so does one with dots (``1, 2, \ldots, n``), of which math-verify
    would compare the rest. An answer that cannot be read, or not in time, gets 0.
    """

    name = "math"
    ends = ("wrong", "right")

    def __init__(self, params: MathParams) -> None:
        super().__init__(params)
        self._worker: Worker | None = None

    def setup(self) -> None:
        """Start the process that verifies.

        Raises:
            MissingExtraError: math-verify is not installed.
        """
        if importlib.util.find_spec("math_verify") is None:
            raise MissingExtraError("math-verify", extra="math", package="rlaif-verifiable")
        self._worker = Worker()

    def close(self) -> None:
        """End the process."""
        if self._worker is not None:
            self._worker.close()
        self._worker = None

    def compare(self, text: str, answers: Sequence[str]) -> Score:
        if self._worker is None:
            self.setup()
        assert self._worker is not None
        text = text[-MOST_CHARACTERS:]
        box = last_boxed(text)
        if box is None and (self.params.boxed or "\\boxed{" in text):
            return missed("the last \\boxed{} does not close" if "\\boxed{" in text else "no \\boxed{} stands there")
        read = as_read(f"$\\boxed{{{box}}}$" if self.params.boxed else text)
        request = {"text": read, "precision": self.params.precision, "strict": self.params.strict}
        unreadable, said = [], None
        for answer in answers:
            reply = self._worker.ask({**request, "right": as_formula(answer)}, self.params.seconds)
            if reply is None:
                return missed(f"not verified within {self.params.seconds:g} s")
            if "error" in reply:
                return Score.failed(f"math-verify failed: {reply['error']}")
            said = reply["said"]
            if reply["right"] is None or has_dots(answer):
                unreadable.append(answer)
            elif reply["equal"]:
                return passed(f"{said} is {quoted(answer)}")
        if len(unreadable) == len(answers):
            return Score.failed(f"the right answer {quoted(answers[0])} in {self.params.column!r} is no mathematics")
        return missed("no formula or number stands there" if said is None else f"{said} is not {quoted(answers[0])}")


def as_formula(answer: str) -> str:
    """A right answer as math-verify reads it: in dollar signs, unless it has some or is a text."""
    answer = as_read(extract(answer, "hashes") or answer)
    return answer if _DELIMITER.search(answer) or _is_prose(answer) else f"${answer}$"


def has_dots(answer: str) -> bool:
    """Whether the formula of a right answer leaves something to the reader; dots of the words around it do not count."""
    formula = last_boxed(answer) or extract(answer, "hashes") or ("" if _is_prose(answer) else answer)
    return bool(_DOTS.search(formula))


def _is_prose(text: str) -> bool:
    return bool(regex.search(r"\p{L}{2}", _LATEX_COMMAND.sub(" ", text)))


def as_read(text: str) -> str:
    r"""A text with what math-verify stumbles over in its usual form: ``\mathrm{e}``, ``\sqrt(2)``, the signs of other scripts."""
    return _ROOT.sub(r"\\sqrt{\1}", _LETTER.sub(r" \1", text.translate(_AS_ASCII)))


class Worker:
    """`rlaif_verifiable.verifier` as a process, started when it is first asked and again after it was ended."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._turn = threading.Lock()

    def ask(self, request: dict[str, Any], seconds: float) -> dict[str, Any] | None:
        """What the process answers, or None where it takes longer.

        Starting it is not part of the time.
        """
        with self._turn:
            process = self._process or self._start()
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                process.stdin.write(json.dumps(request).encode() + b"\n")
                process.stdin.flush()
                line = _line(process.stdout.fileno(), seconds)
            except OSError as error:
                self._end()
                return {"error": f"its process ended ({error})"}
            if line is None:
                self._end()
                return None
            if not line:
                code = process.poll()
                self._end()
                return {"error": f"its process ended, code {code}"}
            reply: dict[str, Any] = json.loads(line)
            return reply

    def close(self) -> None:
        """End the process."""
        with self._turn:
            self._end()

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "rlaif_verifiable.verifier"]
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert self._process.stdout is not None
        if not _line(self._process.stdout.fileno(), 120.0):
            self._end()
            raise RuntimeError("the process that verifies mathematics does not start")
        return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()


def _line(file: int, seconds: float) -> bytes | None:
    """A line from a pipe, empty at its end; None where none comes in time."""
    until = time.monotonic() + seconds
    parts = b""
    with selectors.DefaultSelector() as selector:
        selector.register(file, selectors.EVENT_READ)
        while not parts.endswith(b"\n"):
            if not selector.select(max(0.0, until - time.monotonic())):
                return None
            piece = os.read(file, 65536)
            if not piece:
                return b""
            parts += piece
    return parts
