"""How a row is judged: its code runs in one sandbox, its asserts in another, and cases are compared outside."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

from rlaif_execution.cases import Asserts, FunctionCase, Row, StreamCase, count_cases
from rlaif_execution.compare import same_output, same_value
from rlaif_execution.confinement import Confined
from rlaif_execution.endings import Ended, SandboxFailedError
from rlaif_execution.inside import wire
from rlaif_execution.policy import Policy
from rlaif_execution.verdict import Failure, Verdict, shown


class BrokenTestsError(Exception):
    """The tests themselves cannot be run, which says nothing of the answer."""


class _UnloadableError(Exception):
    def __init__(self, failure: Failure) -> None:
        super().__init__(str(failure))
        self.failure = failure


class Judge:
    """Judges one row, in the thread that calls it.

    Args:
        row: What to judge.
        policy: Limits.
        tolerance: See `same_value`.
        all_or_nothing: Whether the first failure is enough.
        stop: Set when nobody waits any more.
    """

    def __init__(
        self, row: Row, policy: Policy, *, tolerance: float, all_or_nothing: bool, stop: threading.Event
    ) -> None:
        self._row = row
        self._policy = policy
        self._tolerance = tolerance
        self._all_or_nothing = all_or_nothing
        self._stop = stop
        self._deadline = time.monotonic() + policy.row_seconds
        self._solution: Confined | None = None
        self._loaded = False

    def judge(self) -> Verdict:
        """Run the tests.

        Raises:
            BrokenTestsError: The tests cannot be run.
            SandboxFailedError: A sandbox did not work.
            Cancelled: Nobody waits any more.
        """
        verdict = Verdict()
        tests = self._row.tests
        try:
            if isinstance(tests, Asserts):
                self._load()
                self._run_asserts(tests, verdict)
            else:
                self._run_cases(tests, verdict)
        except _UnloadableError as unloadable:
            verdict.void = True
            left = count_cases(tests) - verdict.passed - verdict.failed
            verdict.fail(unloadable.failure, count=max(left, 0))
        finally:
            self._end_solution()
        return verdict

    def _run_cases(self, cases: Sequence[FunctionCase | StreamCase], verdict: Verdict) -> None:
        for number, case in enumerate(cases, 1):
            found = self._call_case(case) if isinstance(case, FunctionCase) else self._run_stream(case)
            if found is None:
                verdict.passed += 1
                continue
            found.test = f"test {number}"
            verdict.fail(found)
            if self._all_or_nothing or self._left() <= 0:
                verdict.fail(found, count=len(cases) - number)
                return

    def _call_case(self, case: FunctionCase) -> Failure | None:
        answer = self._call({"args": case.args, "kwargs": case.kwargs})
        if isinstance(answer, Failure):
            return answer
        try:
            value = wire.decode(answer, wire.RETURNED)
            if same_value(value, case.expected, self._tolerance):
                return None
            return Failure("wrong", f"returned {shown(value)}, expected {shown(case.expected)}")
        except (ValueError, RecursionError) as error:
            return Failure("protocol", f"returned no plain data: {error}")

    def _run_stream(self, case: StreamCase) -> Failure | None:
        with self._started("solution") as program:
            try:
                seconds = self._seconds()
                output = program.run({"program": self._row.blocks}, case.stdin.encode(errors="replace"), seconds)
            except Ended as ended:
                error, _, message = program.stderr.strip().rpartition("\n")[2].partition(":")
                traced = "  File " in program.stderr  # an exit may have a text of its own
                if ended.kind == "crash" and traced and error.isidentifier():
                    return Failure("error", message.strip()[:500], error=error)
                return Failure(ended.kind, ended.message)
        text = output.decode(errors="replace")
        if same_output(text, case.stdout):
            return None
        return Failure("wrong", f"wrote {shown(text)}, expected {shown(case.stdout)}")

    def _run_asserts(self, tests: Asserts, verdict: Verdict) -> None:
        request = {
            "prompt": self._row.prompt,
            "name": self._row.name,
            "tests": tests.source,
            "stop_at_first": self._all_or_nothing,
        }
        calls = 0
        last: Failure | None = None
        with self._started("examiner") as examiner:
            message: dict[str, Any] = request
            while True:
                try:
                    asked = examiner.exchange(message, self._left()) if calls else self._begin(examiner, request)
                except Ended as ended:
                    if not calls:
                        raise BrokenTestsError(
                            f"the tests ended before they called the function: {ended.message}"
                        ) from None
                    verdict.void = True
                    verdict.fail(last or Failure(ended.kind, f"the tests did not end: {ended.message}"))
                    return
                if "call" not in asked:
                    break
                calls += 1
                answer = self._call(asked["call"])
                last = answer if isinstance(answer, Failure) else None
                message = _as_error(answer) if isinstance(answer, Failure) else {"value": answer}
        _read_tally(asked, verdict)

    def _begin(self, examiner: Confined, request: dict[str, Any]) -> dict[str, Any]:
        """What the tests ask first; until then they have time of their own, however much of the row's the code took."""
        since = time.monotonic()
        try:
            return examiner.exchange(request, self._policy.row_seconds)
        finally:
            self._deadline += time.monotonic() - since

    def _call(self, call: dict[str, Any]) -> Any:
        """The answer of the function as `wire` encodes it, or why there is none."""
        if self._left() <= 0:
            return Failure("time", "the time limit of the row had passed")
        try:
            answer = self._load().exchange(call, self._seconds())
        except _UnloadableError as unloadable:
            if not self._loaded:
                raise
            self._end_solution()
            return unloadable.failure
        except Ended as ended:
            self._end_solution()
            return Failure(ended.kind, ended.message)
        if "value" in answer:
            return answer["value"]
        return _read_error(answer, "error")

    def _load(self) -> Confined:
        if self._solution is None:
            self._solution = self._started("solution")
            request = {"prompt": self._row.prompt, "blocks": self._row.blocks, "name": self._row.name}
            try:
                answer = self._solution.exchange(request, self._seconds())
            except Ended as ended:
                raise _UnloadableError(Failure(ended.kind, f"the code does not load: {ended.message}")) from None
            if "loaded" not in answer:
                raise _UnloadableError(_read_error(answer, "load"))
            self._loaded = True
        return self._solution

    def _started(self, part: str) -> Confined:
        """A sandbox, at the second try if need be; the time that it takes is not the row's."""
        since = time.monotonic()
        try:
            return Confined(self._policy, part, self._stop)
        except SandboxFailedError:
            return Confined(self._policy, part, self._stop)
        finally:
            self._deadline += time.monotonic() - since

    def _end_solution(self) -> None:
        if self._solution is not None:
            self._solution.close()
            self._solution = None

    def _left(self) -> float:
        return self._deadline - time.monotonic()

    def _seconds(self) -> float:
        return min(self._policy.test_seconds, self._left())


def _as_error(failure: Failure) -> dict[str, Any]:
    return {"error": {"type": failure.error or "RuntimeError", "message": failure.message}}


def _read_error(answer: dict[str, Any], kind: str) -> Failure:
    """What a program says of its exception; it may say anything."""
    said = answer.get("error")
    if not isinstance(said, dict):
        return Failure("protocol", "it wrote to the channel of the results")
    return Failure(kind, str(said.get("message"))[:500], error=str(said.get("type"))[:100])


def _read_tally(message: dict[str, Any], verdict: Verdict) -> None:
    """Take over what the examiner counted.

    Raises:
        BrokenTestsError: The tests failed by themselves.
    """
    try:
        if (broken := _read_failure(message["broken"])) is not None:
            raise BrokenTestsError(f"the tests failed by themselves: {broken}")
        counts = message["passed"], message["failed"]
        first, ended = _read_failure(message["first"]), _read_failure(message["ended"])
        if not all(type(count) is int and count >= 0 for count in counts):
            raise ValueError(counts)
    except (LookupError, TypeError, ValueError):  # a text that the tests evaluate may write here
        verdict.void = True
        verdict.fail(Failure("protocol", "something else than the tests wrote to the channel of their results"))
        return
    verdict.passed, verdict.failed = counts
    verdict.first = first
    if ended is not None:
        verdict.void = True
        ended.test = "outside an assert"
        verdict.fail(ended)


def _read_failure(said: Any) -> Failure | None:
    if said is None:
        return None
    error, test = said["type"], said.get("test")
    return Failure(
        "error" if error else "wrong", str(said["message"]), error=error and str(error), test=test and str(test)
    )
