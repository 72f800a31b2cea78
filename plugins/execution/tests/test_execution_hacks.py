"""Right answers pass, and answers that pretend do not: on the tests of HumanEval, and on tests as data."""

from __future__ import annotations

import asyncio
import gzip
import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import pytest

from rlaif_execution import rlaif_rewards
from rlaif_sdk import RewardBatch, Score

SPEC = next(iter(rlaif_rewards()))
PACKAGE = Path(__file__).parents[1]
_LOADED = importlib.util.spec_from_file_location("hacks", Path(__file__).with_name("hacks.py"))
assert _LOADED is not None
assert _LOADED.loader is not None
_MODULE = importlib.util.module_from_spec(_LOADED)
_LOADED.loader.exec_module(_MODULE)
HACKS: dict[str, str] = _MODULE.HACKS
CASES = [{"args": [n, "x"], "expected": ["x"] * n} for n in (1, 2, 3)]
CHECK = """
def check(candidate):
    assert candidate(1, "x") == ["x"]
    assert candidate(2, "x") == ["x", "x"], "message"
    assert len(candidate(3, "x")) == 3 and candidate(3, "x")[0] == "x"
    assert abs(candidate(0, 2.5) - 2.5) < 1e-6
"""


@pytest.fixture(scope="module")
def problems() -> list[dict[str, str]]:
    """HumanEval's rows."""
    data = Path(os.environ.get("RLAIF_DATA", PACKAGE.parents[2] / "shared" / "data")) / "humaneval"
    if not data.exists():
        pytest.skip("needs humaneval/data_HumanEval.jsonl.gz under RLAIF_DATA")
    with gzip.open(data / "data_HumanEval.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def judged(rows: list[dict[str, str]], answers: list[str], **params: Any) -> list[Score]:
    reward = SPEC.build({"code": "whole", **params})
    reward.setup()
    columns = {"tests": [row["test"] for row in rows], "entry_point": [row["entry_point"] for row in rows]}
    try:
        return asyncio.run(reward.score(RewardBatch([row["prompt"] for row in rows], answers, columns=columns)))
    finally:
        reward.close()


@pytest.mark.parametrize("hack", HACKS)
@pytest.mark.parametrize("tests", [CASES, CHECK], ids=["cases", "asserts"])
def test_an_answer_that_pretends_passes_nothing(score: Any, hack: str, tests: Any) -> None:
    """Only inputs enter its sandbox; what it returns is data when it is compared, and that happens elsewhere."""
    found = score(HACKS[hack], tests, test_seconds=3)
    assert found.value == 0.0, found.reason
    assert found.details["passed"] == 0


@pytest.mark.parametrize("hack", HACKS)
def test_a_program_that_pretends_passes_nothing(score: Any, hack: str) -> None:
    """What it writes is compared with what it should write."""
    assert score(HACKS[hack], [{"stdin": "3\n", "stdout": "6\n"}], name=None, test_seconds=3).value == 0.0


@pytest.mark.parametrize("number", [0, 32, 38, 53, 148, 160])
def test_the_published_solution_passes_every_test_of_its_problem(problems: list[dict[str, str]], number: int) -> None:
    """As the code that goes on from the prompt: helpers of the prompt, random tests and closeness among them."""
    row = problems[number]
    (found,) = judged([row], [row["canonical_solution"]])
    assert found.value == 1.0, found.reason


def test_the_solution_of_another_problem_fails(problems: list[dict[str, str]]) -> None:
    """Under its own name, in a fenced block."""
    rows = problems[:4]
    others = [f"```python\n{row['prompt']}{row['canonical_solution']}```" for row in [*rows[1:], rows[0]]]
    assert [found.value for found in judged(rows, others, code="block")] == [0.0] * 4


@pytest.mark.slow
def test_every_published_solution_of_humaneval_passes(problems: list[dict[str, str]]) -> None:
    """All 164."""
    found = judged(problems, [row["canonical_solution"] for row in problems])
    assert [row["task_id"] for row, score in zip(problems, found, strict=True) if score.value != 1.0] == []
