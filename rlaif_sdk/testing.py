"""For plugin authors: the contract that a reward keeps, as a check, and doubles for tests.

from rlaif_sdk.testing import check_reward_contract

def test_brevity_keeps_the_contract():
check_reward_contract(brevity)
"""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from rlaif_sdk.composer.execution import Runner, run_all
from rlaif_sdk.composer.validation import Answer, check_answer
from rlaif_sdk.config import RewardConfig
from rlaif_sdk.conversations import read
from rlaif_sdk.exceptions import JudgeError, RlaifError
from rlaif_sdk.judges.backends import GeneratedText, LabelLogprobs, RowError
from rlaif_sdk.rewards import Reward, RewardSpec, ScoreLike, Scores, as_reward
from rlaif_sdk.types import Conversation, Message, RewardBatch

_TEXTS = (
    ("What is the capital of France?", "The capital of France is Paris."),
    ("Say nothing.", ""),
    ("Wie geht's?", "Sehr gut, danke! \N{SMILING FACE WITH SMILING EYES} Et toi ?"),
    ("Count.", "1 2 3 4 5 6 7 8 9 10 " * 40),
    ("What is the capital of France?", "Lyon {answer} </s> %s \\boxed{1}"),
)


def sample_batch(columns: Sequence[str] = ()) -> RewardBatch:
    """Five rows that rewards meet in practice: an ordinary one, an empty completion, emoji, a long one, odd marks.

    Args:
        columns: Names of columns to add, each with a line of text a row.
    """
    return RewardBatch(
        prompts=[prompt for prompt, _ in _TEXTS],
        completions=[completion for _, completion in _TEXTS],
        columns={name: ["Paris is the capital of France."] * len(_TEXTS) for name in columns},
    )


def check_reward_contract(
    reward: Reward | RewardSpec | Any,
    *,
    params: Mapping[str, Any] | None = None,
    batch: RewardBatch | None = None,
    tolerance: float = 1e-5,
    timeout: float = 300.0,
) -> list[float | None]:
    """Check that a reward keeps the contract of `rlaif_sdk.Reward`.

    It answers every row of a batch with a finite number in its declared range, a Score or None; gives a row the same
    score whatever its neighbours and their order; takes conversations as well as text, and an empty batch; leaves the
    batch as it was; and, for a `RewardSpec`, describes itself.

    Args:
        reward: A reward, its spec, a plain function, or a reward class.
        params: Parameters for a spec.
        batch: Rows to score; `sample_batch` with the reward's columns if None.
        tolerance: Largest difference, relative to the larger of 1 and its magnitude, between scores that should be equal.
        timeout: Seconds that one call may take.

    Returns:
        The scores of the batch, None where the reward abstained.

    Raises:
        AssertionError: A promise is broken; the message says which.
    """
    if isinstance(reward, RewardSpec):
        _check_spec(reward)
        subject = as_reward(reward.build(params))
        name = reward.name
        _check_description(reward, subject)
    else:
        subject = as_reward(reward)
        name = subject.name or type(subject).__name__
    batch = batch or sample_batch(subject.columns)
    assert len(batch) > 1, "the contract needs a batch of at least two rows"
    runner = Runner(name, subject, timeout=timeout, setup_timeout=None)
    try:
        before = copy.deepcopy((batch.prompts, batch.completions, batch.columns))
        whole = _score(runner, batch)
        assert before == (batch.prompts, batch.completions, batch.columns), f"{name} changes the batch that it scores"
        order = list(range(len(batch)))[::-1]
        turned = _score(runner, batch.select(order))[::-1]
        _same(whole, turned, f"{name} scores a row differently when the rows are in another order", tolerance)
        alone = [_score(runner, batch.select([row]))[0] for row in order[::-1]]
        _same(whole, alone, f"{name} scores a row differently when it is alone", tolerance)
        if batch.completion_ids is None:
            _same(
                whole, _score(runner, _as_conversations(batch)), f"{name} scores conversations differently", tolerance
            )
        assert _score(runner, batch.select([])) == [], f"{name} does not return an empty list for an empty batch"
    finally:
        runner.close()
    return whole


def _check_spec(spec: RewardSpec) -> None:
    assert spec.description, f"the spec of {spec.name!r} has no description"
    assert "\n" not in spec.description, f"the description of {spec.name!r} is more than one line"
    for name, info in spec.params.model_fields.items():
        assert info.description, f"the parameter {name!r} of {spec.name!r} has no docstring beneath it"
    if spec.example:
        entry = RewardConfig.model_validate(dict(spec.example))
        spec.params.model_validate(entry.params)


def _check_description(spec: RewardSpec, subject: Reward) -> None:
    """What a spec says of its reward is what the reward says of itself."""
    assert spec.range in {None, subject.range}, f"{spec.name} declares {spec.range}, its reward {subject.range}"
    assert set(spec.columns) <= set(subject.columns), f"{spec.name} lists columns that its reward does not need"
    assert spec.higher_is_better == subject.higher_is_better, f"{spec.name} and its reward differ in higher_is_better"


def _score(runner: Runner, batch: RewardBatch) -> list[float | None]:
    name = runner.name
    outcome = run_all({name: runner}, {name: batch})[name]
    if outcome.error is not None:
        raise AssertionError(str(outcome.error)) from (outcome.error.__cause__ or outcome.error)
    try:
        answer: Answer = check_answer(outcome.answer, len(batch), runner.reward.range)
    except RlaifError as error:
        raise AssertionError(f"{name} {error}") from error
    problems = "; ".join(f"row {row}: {problem}" for row, problem in answer.failures.items())
    assert not problems, f"{name} fails on {problems}"
    return [None if math.isnan(value) else float(value) for value in answer.raw]


def _same(left: Sequence[float | None], right: Sequence[float | None], problem: str, tolerance: float) -> None:
    for row, (a, b) in enumerate(zip(left, right, strict=True)):
        equal = a == b if a is None or b is None else abs(a - b) <= tolerance * max(1.0, abs(a))
        assert equal, f"{problem}: row {row}, {a} against {b}"


def _as_conversations(batch: RewardBatch) -> RewardBatch:
    def turn(role: str, text: str) -> list[Message]:
        return [{"role": role, "content": text}]

    return RewardBatch(
        prompts=[turn("user", text) for text in batch.prompt_texts],
        completions=[turn("assistant", text) for text in batch.completion_texts],
        columns=batch.columns,
        group=batch.group,
    )


class FixedReward(Reward):
    """A double that answers what it is told: one score for all rows, or a list of one score a row."""

    def __init__(self, scores: ScoreLike | Sequence[ScoreLike] = 0.0, *, name: str = "fixed", **declared: Any) -> None:
        self.scores = scores
        self.name = name
        for attribute, value in declared.items():
            setattr(self, attribute, value)

    def score(self, batch: RewardBatch) -> Scores:
        return list(self.scores) if isinstance(self.scores, Sequence) else [self.scores] * len(batch)


class FailingReward(Reward):
    """A double that misbehaves: raises what it is given, or returns or awaits whatever a callable makes of the batch."""

    def __init__(self, behaviour: BaseException | Any, *, name: str = "failing", **declared: Any) -> None:
        self.behaviour = behaviour
        self.name = name
        for attribute, value in declared.items():
            setattr(self, attribute, value)

    def score(self, batch: RewardBatch) -> Scores | Awaitable[Scores]:
        if isinstance(self.behaviour, BaseException):
            raise self.behaviour
        result: Scores | Awaitable[Scores] = (
            self.behaviour(batch)
            if inspect.isfunction(self.behaviour) or inspect.ismethod(self.behaviour)
            else self.behaviour
        )
        return result


class ScriptedJudge:
    """A judge backend that answers what it is told, without a model.

    Args:
        script: Called with the text of each request (its messages, a line apart). It returns a mapping of label to
            probability (labels left out have none) where log-probabilities are asked for, a text or `GeneratedText`
            where an answer is, or an error: a `JudgeError` that concerns one row is returned in its place, and any
            other is raised.

    Attributes:
        requests: The conversations seen.
    """

    def __init__(self, script: Callable[[str], Mapping[str, float] | str | GeneratedText | JudgeError]) -> None:
        self.script = script
        self.requests: list[Conversation] = []

    @property
    def identity(self) -> str:
        return "scripted"

    def setup(self) -> None:
        """Do nothing."""

    async def label_logprobs(
        self, requests: Sequence[Conversation], labels: Sequence[str]
    ) -> list[LabelLogprobs | RowError]:
        return [
            answer
            if isinstance(answer, RowError)
            else LabelLogprobs(tuple(_log(answer.get(label, 0.0)) for label in labels))
            for answer in map(self._answer, requests)
        ]

    async def generate(
        self,
        requests: Sequence[Conversation],
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
    ) -> list[GeneratedText | RowError]:
        return [GeneratedText(answer) if isinstance(answer, str) else answer for answer in map(self._answer, requests)]

    def close(self) -> None:
        """Do nothing."""

    def _answer(self, request: Conversation) -> Any:
        self.requests.append(request)
        answer = self.script("\n".join(turn.content for turn in read(request)))
        if isinstance(answer, JudgeError) and not isinstance(answer, RowError):
            raise answer
        return answer


def _log(probability: float) -> float:
    return math.log(probability) if probability > 0 else -math.inf
