"""What the reward ``execution`` gives for right and wrong code, through the public API."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from pydantic import ValidationError

from rlaif_execution import ExecutionParams, rlaif_rewards
from rlaif_execution.judging import Judge
from rlaif_sdk import BatchError, Composer, RewardBatch

SPEC = next(iter(rlaif_rewards()))
DOUBLE = [{"args": [n], "expected": 2 * n} for n in range(4)]
CHECK = """
def check(candidate):
    assert candidate(1) == 2
    assert candidate(2) == 4, "message"
    for n in range(2):
        assert candidate(n) == 2 * n
    assert True
"""


def test_the_score_is_the_share_of_cases_that_pass_or_whether_all_do(score: Any) -> None:
    """Half right is 0.5, or 0 when all must pass; the first failure is named with what came back."""
    half = "def f(n):\n    return 2 * n if n < 2 else 0"
    found = score(half, DOUBLE)
    assert found.value == 0.5
    assert (found.details["passed"], found.details["failed"]) == (2, 2)
    assert "test 3: returned 0, expected 4" in found.reason
    assert score(half, DOUBLE, scoring="all").value == 0.0
    assert score("def f(n): return n + n", DOUBLE, scoring="all").value == 1.0


def test_an_exception_fails_its_case_alone(score: Any) -> None:
    """Its class and message are kept, and the next call is made."""
    found = score("def f(n):\n    return [0, 2, 4][n]", DOUBLE)
    assert found.value == 0.75
    assert found.details["first_failure"] == {
        "test": "test 4", "kind": "error", "error": "IndexError", "message": "list index out of range",
    }  # fmt: skip


def test_a_crash_fails_its_case_alone(score: Any) -> None:
    """The program is started again for the next case."""
    found = score("import os\ndef f(n):\n    if n == 1: os._exit(0)\n    return 2 * n", DOUBLE)
    assert found.value == 0.75
    assert found.details["first_failure"]["kind"] == "crash"


def test_code_that_loads_once_and_not_again_keeps_what_it_passed(score: Any) -> None:
    """As when the time of its row runs out while it starts anew after a crash."""
    late = time.time() + 10
    code = f"""
import os, time
if time.time() > {late}: raise OSError
def f(n):
    while n and time.time() <= {late}: time.sleep(0.1)
    if n: os._exit(1)
    return n
"""
    found = score(code, [{"args": [n], "expected": n} for n in range(3)], test_seconds=20)
    assert (found.details["passed"], found.details["failed"]) == (1, 2), found.reason
    assert (found.value, found.details["first_failure"]["kind"]) == (pytest.approx(1 / 3), "crash")


@pytest.mark.parametrize(
    ("code", "error"),
    [("def f(:", "SyntaxError"), ("import nothing_of_that_name", "ModuleNotFoundError"), ("g = 1", "NameError")],
)
def test_code_that_does_not_load_passes_nothing(score: Any, code: str, error: str) -> None:
    """The score is the lowest, for cases and asserts, and the reason says why."""
    for tests in (DOUBLE, CHECK):
        found = score(code, tests)
        assert found.value == 0.0
        assert (found.details["first_failure"]["kind"], found.details["first_failure"]["error"]) == ("load", error)


def test_each_assert_is_a_test_and_an_assert_of_a_constant_is_none(score: Any) -> None:
    """A failed assert does not hide the next ones; it is named by its text."""
    assert score("def f(n): return 2 * n", CHECK).details["passed"] == 3
    found = score("def f(n): return 2", CHECK)
    assert found.value == pytest.approx(1 / 3)
    assert "candidate(2) == 4: is false" in found.reason
    assert score("def f(n): return 2", CHECK, scoring="all").value == 0.0
    assert score("def f(n): return n / 0", CHECK).details["first_failure"]["error"] == "ZeroDivisionError"


def test_an_assert_that_runs_often_is_one_test_and_one_that_is_not_reached_fails(score: Any) -> None:
    """The answer, which may decide how often one runs, cannot decide how many tests there are."""
    tests = "def check(candidate):\n    for x in candidate(3): assert x == 1\n    assert candidate(2) == [1, 1]"
    assert score("def f(n): return [1] * n", tests).value == 1.0
    found = score("def f(n): return [1] * 5000", tests)
    assert (found.details["passed"], found.details["failed"]) == (1, 1)
    found = score("def f(n): return [1, 1] if n == 2 else []", tests)
    assert (found.value, found.reason) == (0.5, "1 of 2 tests passed; x == 1: is not reached")
    assert score("def f(n): return [1, 2]", tests.splitlines()[:2]).value == 0.0
    assert score("def f(n): return []", tests.splitlines()[:2]).value == 0.0


@pytest.mark.parametrize("error", ["StopIteration", "StopAsyncIteration"])
def test_an_answer_that_ends_the_iterator_that_calls_it_passes_nothing(score: Any, error: str) -> None:
    """Otherwise nothing would be left that an all() could find wrong."""
    code = f"def f(n): raise {error}"
    found = score(code, "assert all(map(lambda n: candidate(n) == 2 * n, [1, 2, 3]))")
    assert found.value == 0.0
    assert error in found.reason


@pytest.mark.parametrize(
    "tests",
    [
        "assert math.isclose(candidate(2), 4.0)",
        "assert candidate(2) == 4\nassert math.isclose(candidate(2), 4.0)",
        "assert candidate(2) == math.floor(4.5)",
        "assert candidate(2) == 4\nx = math.floor(4.5)",
        "assert [][0] == candidate(2)",
        "try:\n    assert unknown + candidate(2)\nexcept Exception:\n    pass\nassert candidate(2) == 4",
    ],
)
def test_an_assert_that_fails_by_itself_leaves_the_row_unscored(score: Any, tests: str) -> None:
    """A name that nobody defines, and an error before any call, are the tests' own."""
    found = score("def f(n): return 2 * n", tests)
    assert found.value is None
    assert "failed by themselves" in found.error


@pytest.mark.parametrize(
    "tests",
    [
        "r = candidate(3)\nassert r[0] == 1",
        "r = candidate(3)\nfor last in r or []: pass\nassert last == 1",
        "assert eval(str(candidate(3)) + 'nothing') == 1",
    ],
)
def test_an_assert_that_fails_by_what_was_returned_before_fails_the_answer(score: Any, tests: str) -> None:
    """Whatever it raises: the answer cannot leave its row unscored."""
    assert score("def f(n): return None", tests).value == 0.0


def test_a_returned_value_that_nests_deep_can_be_passed_on(score: Any) -> None:
    """Up to 50; one that nests deeper fails its test, and cannot leave its row unscored."""
    code = "def f(n):\n    value = 1\n    for _ in range(n if type(n) is int else 0): value = [value]\n    return value"
    tests = "assert candidate([[[candidate({})]]]) == 1"
    assert score(code, tests.format(50)).value == 1.0
    for depth in (51, 98, 100):
        found = score(code, tests.format(depth))
        assert found.value == 0.0
        assert "nested" in found.reason


def test_code_that_takes_the_time_of_its_row_to_load_leaves_the_tests_theirs(score: Any) -> None:
    """Otherwise they would not come to their first call, and the row would be unscored by the answer's doing."""
    slow = "import time\ntime.sleep(2.5)\ndef f(n): return 2 * n"
    tests = "import time\ntime.sleep(1)\nassert candidate(1) == 2"
    assert score(slow, tests, test_seconds=3, row_seconds=3).value is not None
    assert score("def f(n): return 2 * n", tests, test_seconds=3, row_seconds=3).value == 1.0


@pytest.mark.parametrize(
    "message", ["{}", '{"passed": 9}', '{"passed": "9", "failed": 0, "first": null, "ended": null, "broken": null}']
)
def test_a_text_that_writes_a_false_tally_when_the_tests_evaluate_it_passes_nothing(score: Any, message: str) -> None:
    """It is the answer's doing, and no other row fails with it."""
    body = message.encode()
    lines = f"""
import os, time
for descriptor in range(3, 64):
    try:
        os.write(descriptor, {len(body).to_bytes(4, "big") + body!r})
    except OSError:
        pass
time.sleep(1)
"""
    text = f"exec({lines!r})"
    found = score(f"def f(n): return {text!r}", "assert eval(candidate(1)) == 2")
    assert (found.value, found.details["first_failure"]["kind"]) == (0.0, "protocol")


def test_asserts_may_stand_alone_and_in_a_list_of_lines(score: Any) -> None:
    """Tests that call the function by its name need no check()."""
    tests = ["import math", "assert f(1) == 1", "assert math.isclose(f(2), 2.0)", "assert f(3) == 4"]
    assert score("def f(n): return n", tests).value == pytest.approx(2 / 3)


def test_asserts_that_are_ended_by_an_exception_pass_nothing(score: Any) -> None:
    """What they would still have asked is unknown, and raising must not pay better than a wrong answer."""
    tests = "def check(candidate):\n    assert candidate(1) == 1\n    x = candidate(2)\n    assert x == 2"
    found = score("def f(n): return [0, 1][n]", tests)
    assert found.value == 0.0
    assert "outside an assert: IndexError" in found.reason
    caught = "def check(candidate):\n    try: candidate(2)\n    except IndexError: n = 0\n    assert candidate(n) == 0"
    assert score("def f(n): return [0, 1][n]", caught).value == 1.0


@pytest.mark.parametrize(
    "tests",
    [
        "def check(candidate):\n    assert (",
        "def check(candidate):\n    undefined(candidate)",
        "def check(candidate):\n    assert candidate(lambda: 1) == 1",
        "def check(candidate):\n    pass",
        "import sys; sys.exit(0)",
        [{"args": [1]}],
        [{"args": 1, "expected": 2}],
        [{"stdin": 1, "stdout": "2"}],
        [{"args": [object()], "expected": 2}],
        [3],
        "[{",
        3,
        {"args": [1], "expected": 2},
    ],
)
def test_tests_that_cannot_be_run_leave_the_row_unscored(score: Any, tests: Any) -> None:
    """It is no fault of the answer, so it is an error of the row and no 0."""
    found = score("def f(n): return n", tests)
    assert found.value is None
    assert found.error


@pytest.mark.parametrize("tests", [None, "", "  ", [], np.array([])])
def test_a_row_without_tests_abstains(score: Any, tests: Any) -> None:
    """There is nothing to run, which is no failure."""
    found = score("def f(n): return n", tests)
    assert (found.value, found.error) == (None, None)
    assert "nothing to test" in found.reason


def test_a_program_is_judged_by_what_it_writes(score: Any) -> None:
    """White space at line ends does not count, other differences do; an exception or exit code fails the case."""
    tests = [{"stdin": f"{n}\n1\n", "stdout": f"{n + 1}\n"} for n in range(3)]
    assert score("print(int(input()) + int(input()), ' ')\nprint()", tests, name=None).value == 1.0
    wrong = score("import sys\nprint(sys.stdin.read().count('1'))", tests, name=None)
    assert wrong.value == pytest.approx(2 / 3)
    assert "wrote '1\\n', expected '3\\n'" in wrong.reason
    raising = score("print(1 + int(input()))\nif input(): 1 / 0", tests, name=None)
    assert raising.value == 0.0
    assert raising.details["first_failure"]["error"] == "ZeroDivisionError"
    assert score("print(1 + int(input()))\nraise SystemExit(3)", tests, name=None).value == 0.0
    assert (
        score("import sys\nif __name__ == '__main__':\n    print(1 + int(input()))\n    sys.exit(0)", tests).value == 1
    )


def test_a_program_may_leave_a_long_input_unread_or_read_it_all(score: Any) -> None:
    """Neither blocks."""
    tests = [{"stdin": "x" * 3_000_000, "stdout": "3000000"}]
    assert score("import sys; print(len(sys.stdin.read()))", tests).value == 1.0
    assert score("print(3000000)", tests).value == 1.0


@pytest.mark.parametrize(
    ("completion", "value"),
    [
        ("First\n```python\ndef f(n): return 0\n```\nbetter:\n```python\ndef f(n): return 2 * n\n```\nDone.", 1.0),
        ("```py\ndef f(n): return 2 * n\n```\n```text\nf(1) is 2\n```", 1.0),
        ("```\ndef f(n): return 2 * n\n```", 1.0),
        ("~~~Python\ndef f(n): return 2 * n", 1.0),
        ("````python\ndef f(n):\n    '''\n```\n'''\n    return 2 * n\n````", 1.0),
        ("1. So:\n   ```python\n   def f(n):\n       return 2 * n\n   ```\n2. Done.", 1.0),
        ("1. So:\n\t```python\n\tdef f(n):\n\n\t    return 2 * n\n", 1.0),
        ("  ```python\ndef f(n):\n  return 2 * n\n  ```", 1.0),
        ("def f(n): return 2 * n", 0.0),
        ("```json\n{}\n```", 0.0),
        ("", 0.0),
    ],
)
def test_the_last_fenced_python_block_is_the_code(score: Any, completion: str, value: float) -> None:
    """A block without a language counts where none has one; an answer without a block gets the lowest score."""
    found = score(completion, DOUBLE, code="block")
    assert found.value == value
    assert found.details["passed"] + found.details["failed"] == 4


FUNCTION = "```python\ndef f(n):\n    return 2 * n\n```\n"


@pytest.mark.parametrize(
    "completion",
    [
        FUNCTION + "Use it so:\n```python\nprint(f(2))  # 4\n```",
        FUNCTION + "```python\nfrom solution import f\nassert f(2) == 4\n```",
        FUNCTION + "```python\nimport unittest\nclass TestF(unittest.TestCase):\n    def test(self): f(1)\n```",
        FUNCTION + "```python\n>>> f(2)\n4\n```",
        FUNCTION + "Its head is\n```python\ndef f(n): ...\n```",
        FUNCTION + "Faster:\n```python\nf = lru_cache(f)\n```",
        FUNCTION + "```python\nn = int(input())\nprint(f(n))\n```\n```python\n\n```",
        (
            "```python\nK = 2\nresult = f(3)\ndef g(n): return K * n\n```\n```python\ndef f(n): return g(n)\n```\n"
            "```python\nf(1)\n```"
        ),
        (
            "```python\ndef f(n): return times(n, 2)\n```\nwith\n```python\nfrom operator import mul\n"
            "def times(a, b): return mul(a, b)\nprint(times(1, 2))\n1 / 0\n```"
        ),
        (
            "```python\nfrom math import *\nprint(undefined)\n```\n```python\ndef f(n): return floor(2 * n)\n```\n"
            "```python\nf(3)\n```"
        ),
        (
            "```python\nfrom __future__ import annotations\ndef g(n: Unknown): return 2 * n\n```\n"
            "```python\nfrom __future__ import annotations\ndef f(n: Unknown): return g(n)\n```"
        ),
        (
            "```python\nfrom typing import List\ntry:\n    from math import no_such_name\nexcept ImportError:\n"
            "    no_such_name = 2\n```\n```python\ndef f(n) -> List[int]: return no_such_name * n\n```\n"
            "```python\nf(4)\n```"
        ),
        "```python\nfrom operator import pos as f\nf = lambda n: n + n\n```\n```python\nprint(f(1))\n```",
    ],
)
def test_the_function_is_run_whatever_blocks_show_its_use(score: Any, completion: str) -> None:
    """Usage, tests and demonstrations in other blocks are not run; definitions there that it uses are."""
    found = score(completion, DOUBLE, code="block")
    assert found.value == 1.0, found.reason


@pytest.mark.parametrize(
    ("completion", "error"),
    [
        (FUNCTION + "```python\ndef f(n):\n    return 0\n```", None),
        (FUNCTION + "Better:\n```python\ndef f(n):\n    return (2 *", "SyntaxError"),
        ("```python\nprint(2)\n```\n```python\nf(1)\n```", "NameError"),
        ("```python\ndef f(n): return g(n)\n```\n```python\nh = lambda n: 2 * n\n```", "NameError"),
    ],
)
def test_the_last_definition_of_the_function_is_the_answer(score: Any, completion: str, error: str | None) -> None:
    """An answer that ends in a wrong one, or in one that was cut short, is not saved by an earlier attempt."""
    found = score(completion, DOUBLE, code="block")
    assert found.value < 1.0
    assert found.details["first_failure"]["error"] == error


@pytest.mark.parametrize(
    "completion",
    [
        "```python\nn = int(input())\nprint(2 * n)\n```\nFor example:\n```python\nprint(2 * 3)\n```",
        "```python\ndef double(n): return 2 * n\n```\n```python\nimport sys\nprint(double(int(sys.stdin.read())))\n```",
        "```python\nprint(2 * int(open(0).read()))\n```\n```python\nimport io, sys\nsys.stdin = io.StringIO('3')\n```",
        "```python\nprint(int(input()) * 2)\n```\n```python\nassert 2 * 3 == 6\n```",
    ],
)
def test_a_program_is_the_block_that_reads_its_input(score: Any, completion: str) -> None:
    """With the definitions of other blocks that it uses, and without the examples after it."""
    tests = [{"stdin": f"{n}\n", "stdout": f"{2 * n}\n"} for n in range(3)]
    found = score(completion, tests, name=None, code="block")
    assert found.value == 1.0, found.reason


@pytest.mark.parametrize(
    ("ends", "value"),
    [("exit()", 1.0), ("quit()", 1.0), ("exit(0)", 1.0), ("exit(3)", 0.0), ("quit('sorry')", 0.0)],
)
def test_exit_and_quit_end_a_program(score: Any, ends: str, value: float) -> None:
    """With the code that they are given, as sys.exit does: what follows is not run, and what was written counts."""
    tests = [{"stdin": "3\n", "stdout": "6\n"}]
    found = score(f"print(2 * int(input()))\n{ends}\nprint('more')", tests, name=None)
    assert found.value == value, found.reason
    if not value:
        assert found.details["first_failure"]["kind"] == "crash"


@pytest.mark.parametrize("ends", ["exit()", "quit()", "exit('no')"])
def test_exit_in_a_function_fails_its_test_alone(score: Any, ends: str) -> None:
    """As SystemExit, for cases and for asserts."""
    code = f"def f(n):\n    if n == 2: {ends}\n    return 2 * n"
    found = score(code, DOUBLE)
    assert (found.value, found.details["first_failure"]["error"]) == (0.75, "SystemExit")
    found = score(code, CHECK)
    assert (found.details["passed"], found.details["failed"]) == (2, 1)
    assert "SystemExit" in found.reason


PROMPT = 'import math\n\ndef helper(n):\n    return n\n\ndef f(n):\n    """Double n."""\n'


@pytest.mark.parametrize(
    ("prompt", "completion"),
    [
        (PROMPT, "    return helper(n) * 2\n"),
        (PROMPT, "def f(n):\n    return math.floor(helper(n)) * 2\n"),
        (f"Complete this:\n```python\n{PROMPT}```", "def f(n):\n    return helper(n) * 2\n"),
        (PROMPT, "```python\n    return helper(n) * 2\n```\nSo:\n```python\nprint(f(2))\n```"),
        ("Write f, which doubles n.", "from __future__ import annotations\ndef f(n): return 2 * n"),
        (PROMPT, "from __future__ import annotations\ndef f(n): return 2 * n"),
    ],
)
def test_an_answer_may_go_on_where_the_prompt_stops_or_begin_anew(score: Any, prompt: str, completion: str) -> None:
    """What the prompt defines is there in both cases, for the answer and for the asserts."""
    asserts = "def check(candidate):\n    assert candidate(3) == 6"
    if "helper" in prompt:
        asserts += "\n    assert candidate(2) == helper(4)"
    code = "block" if "```" in completion else "whole"
    assert score(completion, DOUBLE, prompt=prompt, code=code).value == 1.0
    assert score(completion, asserts, prompt=prompt, code=code).value == 1.0


@pytest.mark.parametrize(
    ("returned", "expected", "same"),
    [
        ("(1, 2)", [1, 2], True),
        ("[1, 2]", [1, 2, 3], False),
        ("0.1 + 0.2", 0.3, True),
        ("0.31", 0.3, False),
        ("3", 3.0, True),
        ("10 ** 40", 10**40, True),
        ("10 ** 40 + 1", 10**40, False),
        ("10 ** 5000", 1.5, False),
        ("float('nan')", float("nan"), True),
        ("{1: 'a', 'b': [None]}", {"1": "a", "b": [None]}, True),
        ("{'a': 1}", {"a": 1, "b": 2}, False),
        ("{10 ** 5000: 1}", {"1": 1}, False),
        ("{1, 2}", [1, 2], False),
        ("'1'", 1, False),
        ("None", None, True),
        ("True", True, True),
        ("''", None, False),
        ("__import__('collections').Counter('aab')", {"a": 2, "b": 1}, True),
        ("'\\ud800'", "\ud800", True),
    ],
)
def test_returned_values_are_compared_as_json_can_say_them(
    score: Any, returned: str, expected: Any, same: bool
) -> None:
    """Lists equal tuples, floats may differ by the tolerance, and nothing else is the same that Python tells apart."""
    assert score(f"def f(): return {returned}", [{"expected": expected}]).value == float(same)


def test_the_tolerance_is_a_parameter(score: Any) -> None:
    """It holds for floats of cases."""
    cases = [{"args": [], "expected": 1.0}]
    assert score("def f(): return 1.01", cases).value == 0.0
    assert score("def f(): return 1.01", cases, tolerance=0.1).value == 1.0


def test_cases_may_name_arguments_and_come_as_tables_hold_them(score: Any) -> None:
    """Columns of a table give every case all keys, absent ones as None, and lists as arrays."""
    cases = np.array(
        [
            {"args": np.array([1]), "kwargs": {"m": 2}, "expected": np.array([1, 2]), "stdin": None, "stdout": None},
            {"args": None, "kwargs": None, "expected": None, "stdin": "", "stdout": "5"},
        ],
        dtype=object,
    )
    assert score("def f(n, m): return [n, m]\nprint(5)", cases).value == 1.0


def test_a_container_s_quota_limits_how_many_rows_run_at_once(
    sandbox: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where none are asked for; more would take each other's time."""
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    monkeypatch.setattr("rlaif_sdk.io.processors._CGROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    running, most, lock, judge = 0, 0, threading.Lock(), Judge.judge

    def counted(self: Judge) -> Any:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        try:
            return judge(self)
        finally:
            with lock:
                running -= 1

    monkeypatch.setattr(Judge, "judge", counted)
    reward = SPEC.build({"code": "whole"})
    columns = {"tests": [DOUBLE] * 4, "entry_point": ["f"] * 4}
    scores = asyncio.run(reward.score(RewardBatch([""] * 4, ["def f(n): return 2 * n"] * 4, columns=columns)))
    reward.close()
    assert ([found.value for found in scores], most) == ([1.0] * 4, 1)


class Point(NamedTuple):
    """A case may hold one."""

    x: int
    y: list[int]


def test_cases_may_hold_named_tuples(score: Any) -> None:
    """As arguments and as what is expected; no other row of the batch fails with them."""
    assert score("def f(p): return p", [{"args": [Point(1, [2])], "expected": Point(1, [2])}]).value == 1.0


def test_a_process_without_descriptors_leaves_the_row_unscored(
    score: Any, built: Any, sandbox: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other rows of the batch go on."""
    assert score("def f(n): return 2 * n", DOUBLE).value == 1.0
    (reward,) = (reward for params, reward in built.items() if params == (sandbox,))
    pidfd_open = os.pidfd_open
    failing = threading.Semaphore(1)

    def fails(pid: int) -> int:
        if failing.acquire(blocking=False):
            raise OSError(errno.EMFILE, "Too many open files")
        return pidfd_open(pid)

    monkeypatch.setattr(os, "pidfd_open", fails)
    columns = {"tests": [DOUBLE] * 3, "entry_point": ["f"] * 3}
    scores = asyncio.run(reward.score(RewardBatch([""] * 3, ["def f(n): return 2 * n"] * 3, columns=columns)))
    (found,) = (found for found in scores if found.value is None)
    assert [found.value for found in scores].count(1.0) == 2
    assert "Too many open files" in str(found.error)


def test_the_same_code_gets_the_same_score_again(score: Any) -> None:
    """Hashes, and the random module of code and tests, start from the same state."""
    code = "import random\ndef f(): return [random.random(), hash('a')]"
    returned = score(code, [{"expected": 0}]).reason
    assert score(code, [{"expected": 0}]).reason == returned


def test_a_row_needs_the_name_of_its_function(score: Any) -> None:
    """Without one the row is an error that tells what to give; a parameter gives it for all rows."""
    found = score("def f(n): return 2 * n", DOUBLE, name=None)
    assert found.value is None
    assert "entry_point" in found.error
    assert score("def f(n): return 2 * n", DOUBLE, name=None, entry_point="f").value == 1.0


def test_the_column_of_tests_is_configurable_and_required() -> None:
    """The reward declares what it reads, and a batch without it is refused."""
    reward = SPEC.build({"column": "cases", "entry_point_column": "function"})
    assert (reward.columns, reward.inputs) == (("cases",), ("cases", "function"))
    with Composer({"execution": reward}) as composer, pytest.raises(BatchError, match="cases"):
        composer.compose(RewardBatch([""], [""]))


@pytest.mark.parametrize(
    "params",
    [
        {"scoring": "mean"},
        {"code": "any"},
        {"test_seconds": 0},
        {"memory_mb": 1},
        {"concurrency": 0},
        {"colum": "a"},
        {"sandbox_command": []},
        {"sandbox_command": [""]},
        {"sandbox_command": "podman run"},
    ],
)
def test_parameters_that_make_no_sense_are_refused(params: dict[str, Any]) -> None:
    """Before anything runs."""
    with pytest.raises(ValidationError):
        ExecutionParams.model_validate(params)


def test_as_many_rows_run_at_once_as_asked_and_no_more(sandbox: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """64 rows share four places."""
    running, most, lock, judge = 0, 0, threading.Lock(), Judge.judge
    meeting = threading.Barrier(4)

    def counted(self: Judge) -> Any:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        try:
            meeting.wait(timeout=60)
            return judge(self)
        finally:
            with lock:
                running -= 1

    monkeypatch.setattr(Judge, "judge", counted)
    reward = SPEC.build({"code": "whole", "concurrency": 4})
    reward.setup()
    rows = {"tests": [DOUBLE] * 64, "entry_point": ["f"] * 64}
    scores = asyncio.run(reward.score(RewardBatch([""] * 64, ["def f(n): return 2 * n"] * 64, columns=rows)))
    reward.close()
    assert [found.value for found in scores] == [1.0] * 64
    assert most == 4


def test_the_credit_is_on_the_code(score: Any) -> None:
    """From the first block to the last; nothing that fails has any, nor has an answer that is code as a whole."""
    code = "def f(n):\n    return 2 * n\n"
    answer = f"Like this:\n```python\n{code}```\nUse it:\n\n```text\nf(1)\n```\nI hope that it helps."
    found = score(answer, DOUBLE, code="block")
    (span,) = found.credit.spans
    assert (answer[span.start : span.end], span.value, found.value, found.credit.view) == (code, 1.0, 1.0, "answer")
    assert score("```\ndef f(n): return -1\n```", DOUBLE[1:], code="block").credit is None
    assert score(code, DOUBLE).credit is None
