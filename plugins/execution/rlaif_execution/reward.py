"""The reward ``execution``."""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

from rlaif_execution.cases import Asserts, FunctionCase, Row, TestsError, count_cases, read_tests
from rlaif_execution.endings import SandboxFailedError
from rlaif_execution.inside.program import code_blocks, code_span
from rlaif_execution.judging import BrokenTestsError, Judge
from rlaif_execution.params import ExecutionParams
from rlaif_execution.policy import Policy, find_sandbox
from rlaif_execution.trial import check_sandbox
from rlaif_execution.verdict import Failure, Verdict
from rlaif_sdk import Credit, CreditSpan, Reward, RewardBatch, Score, processor_count


class ExecutionReward(Reward):
    """The share of a row's tests that the Python code in its answer passes, or whether it passes all.

    The code runs in a sandbox that only inputs enter. What the function returns, or the program writes, comes back as
    data and is compared outside. The score's credit is on the code. A row without tests abstains, and so does one where the policy called a tool and said
    nothing; tests that cannot be run, and a sandbox that fails,
    leave their row unscored.
    """

    name = "execution"
    version = "3"
    range = (0.0, 1.0)
    ends = ("tests fail", "tests pass")

    def __init__(self, params: ExecutionParams) -> None:
        self.params = params
        self.columns = (params.column,)
        named = () if params.entry_point is not None else (params.entry_point_column,)
        self.inputs = (params.column, *named)
        self._policy = Policy(
            test_seconds=params.test_seconds,
            row_seconds=params.row_seconds,
            memory=params.memory_mb << 20,
            output=int(params.output_mb * 2**20),
            sandbox_command=tuple(params.sandbox_command or ()),
        )
        self._pool: ThreadPoolExecutor | None = None
        self._pool_of = os.getpid()

    def setup(self) -> None:
        """Try the sandbox, and refuse to run without a whole one.

        Raises:
            ConfigError: This machine cannot confine programs; the message says what lacks.
        """
        find_sandbox(self._policy)
        check_sandbox(self._policy.sandbox_command)
        at_once = self.params.concurrency or processor_count()
        self._pool_of = os.getpid()
        self._pool = ThreadPoolExecutor(at_once, thread_name_prefix="rlaif-execution")

    async def score(self, batch: RewardBatch) -> list[Score]:
        """Score a batch of B rows, ``concurrency`` of them at once."""
        if self._pool is None or self._pool_of != os.getpid():  # a fork has no threads of its parent
            self.setup()
        names = batch.columns.get(self.params.entry_point_column, [None] * len(batch))
        stop = threading.Event()
        loop = asyncio.get_running_loop()
        rows = zip(batch.prompt_texts, self.params.texts(batch), batch.column(self.params.column), names, strict=True)
        answers = {
            number: loop.run_in_executor(self._pool, partial(self._score_row, prompt, completion, tests, name, stop))
            for number, (prompt, completion, tests, name) in enumerate(rows)
            if completion is not None
        }
        try:
            scores = dict(zip(answers, await asyncio.gather(*answers.values()), strict=True))
            return [scores.get(number, Score.no_words()) for number in range(len(batch))]
        finally:
            stop.set()

    def close(self) -> None:
        """End the threads; no sandbox outlives the call that started it."""
        if self._pool is not None and self._pool_of == os.getpid():
            self._pool.shutdown(cancel_futures=True)
        self._pool = None

    def _score_row(self, prompt: str, completion: str, tests: Any, name: Any, stop: threading.Event) -> Score:
        params = self.params
        try:
            found = read_tests(tests)
        except TestsError as error:
            return Score.failed(f"the column {params.column!r} has {error}")
        if found is None:
            return Score(None, reason=f"the column {params.column!r} is empty, so there is nothing to test")
        name = params.entry_point or name
        if not isinstance(name, str) or not name.isidentifier():
            if isinstance(found, Asserts) or any(isinstance(case, FunctionCase) for case in found):
                return Score.failed(
                    f"no function is named to be tested; give 'entry_point', or a column {params.entry_point_column!r}"
                )
            name = ""
        found_blocks = code_blocks(completion) if params.code == "block" else [completion]
        blocks = [block for block in found_blocks if block.strip()]
        if not blocks:
            verdict = Verdict(void=True)
            what = "fenced Python block" if params.code == "block" else "code"
            verdict.fail(Failure("load", f"the answer has no {what}"), count=count_cases(found))
            return verdict.score(params.scoring)
        judge = Judge(
            Row(prompt=prompt, blocks=blocks, tests=found, name=name),
            self._policy,
            tolerance=params.tolerance,
            all_or_nothing=params.scoring == "all",
            stop=stop,
        )
        try:
            return self._credited(judge.judge().score(params.scoring), completion)
        except (BrokenTestsError, SandboxFailedError, OSError) as error:  # an OSError where descriptors run out
            return Score.failed(str(error))

    def _credited(self, score: Score, completion: str) -> Score:
        """The score with its credit on the code: what stands after it earned nothing."""
        if not score.value or self.params.code != "block":
            return score
        spans = (CreditSpan(*code_span(completion), score.value),)
        return replace(score, credit=Credit(spans=spans, view=self.params.view, thinking=self.params.thinking))
