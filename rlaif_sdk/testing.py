"""For plugin authors: the contract that a reward keeps, as a check, and doubles for tests.

from rlaif_sdk.testing import check_reward_contract

def test_brevity_keeps_the_contract():
check_reward_contract(brevity)
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from rlaif_sdk.config import RewardConfig
from rlaif_sdk.conversations import read
from rlaif_sdk.exceptions import JudgeError
from rlaif_sdk.io.run_async import run_async
from rlaif_sdk.judges.backends import GeneratedText, JudgeBackend, LabelLogprobs, RowError
from rlaif_sdk.plugins import AggregatorSpec, JudgeBackendSpec, NormalizerSpec, RewardSpec, Spec
from rlaif_sdk.rewards import Reward, ScoreLike, Scores, as_reward
from rlaif_sdk.scoring import Runner, start, wait
from rlaif_sdk.scoring.checks import CheckedScores, check_entries
from rlaif_sdk.statistics.arrays import json_number
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
    batch as it was; and, for a `RewardSpec`, describes itself. One that scores groups (``scope = "group"``) gives a row the
    same score whatever the order of the rows and whatever other groups there are.

    Args:
        reward: A reward, its spec, a plain function, or a reward class.
        params: Parameters for a spec.
        batch: Rows to score; `sample_batch` with the reward's columns if None, in groups where the reward scores those.
        tolerance: Largest difference, relative to the larger of 1 and its magnitude, between scores that should be equal.
        timeout: Seconds that one call may take.

    Returns:
        The scores of the batch, None where the reward abstained.

    Raises:
        AssertionError: A promise is broken; the message says which.
    """
    if isinstance(reward, RewardSpec):
        _check_spec(reward)
        if reward.example:
            entry = RewardConfig.model_validate(dict(reward.example))
            reward.params.model_validate(entry.params)
        subject = as_reward(reward.build(params))
        name = reward.name
        _check_description(reward, subject)
    else:
        subject = as_reward(reward)
        name = subject.name or type(subject).__name__
    grouped = subject.scope == "group"
    batch = batch or (_in_groups if grouped else lambda rows: rows)(sample_batch(subject.columns))
    assert len(batch) > 1, "the contract needs a batch of at least two rows"
    runner = Runner(name, subject, timeout=timeout, setup_timeout=None)
    try:
        whole = _score(runner, batch)
        order = list(range(len(batch)))[::-1]
        restored = _score(runner, batch.select(order))[::-1]
        _same(whole, restored, f"{name} scores a row differently when the rows are in another order", tolerance)
        parts = batch.groups() if grouped else [[row] for row in range(len(batch))]
        alone: list[float | None] = [None] * len(batch)
        for rows in parts:
            for row, score in zip(rows, _score(runner, batch.select(rows)), strict=True):
                alone[row] = score
        part = "group" if grouped else "row"
        _same(whole, alone, f"{name} scores a {part} differently when it is alone", tolerance)
        if batch.completion_ids is None:
            _same(
                whole, _score(runner, _as_conversations(batch)), f"{name} scores conversations differently", tolerance
            )
        assert _score(runner, batch.select([])) == [], f"{name} does not return an empty list for an empty batch"
    finally:
        runner.close()
    return whole


def _check_spec(spec: Spec) -> None:
    assert spec.description, f"the spec of {spec.name!r} has no description"
    assert "\n" not in spec.description, f"the description of {spec.name!r} is more than one line"
    for name, info in spec.params.model_fields.items():
        assert info.description, f"the parameter {name!r} of {spec.name!r} has no docstring beneath it"


def _check_description(spec: RewardSpec, subject: Reward) -> None:
    """What a spec says of its reward is what the reward says of itself."""
    assert spec.range in {None, subject.range}, f"{spec.name} declares {spec.range}, its reward {subject.range}"
    assert set(spec.columns) <= set(subject.columns), f"{spec.name} lists columns that its reward does not need"
    assert spec.ends in {None, subject.ends}, f"{spec.name} says the ends {spec.ends}, its reward {subject.ends}"
    assert spec.scope == subject.scope, f"{spec.name} declares the scope {spec.scope}, its reward {subject.scope}"
    assert spec.higher_is_better == subject.higher_is_better, f"{spec.name} and its reward differ in higher_is_better"


def _score(runner: Runner, batch: RewardBatch) -> list[float | None]:
    name = runner.name
    outcome = wait(start(runner.score(batch)))
    if outcome.error is not None:
        raise AssertionError(str(outcome.error)) from (outcome.error.__cause__ or outcome.error)
    assert outcome.answer is not None
    answer: CheckedScores = check_entries(outcome.answer, runner.reward.range, batch)
    problems = "; ".join(f"row {row + 1}: {problem}" for row, problem in answer.failures.items())
    assert not problems, f"{name} fails on {problems}"
    return [*map(json_number, answer.raw)]


def _same(left: Sequence[float | None], right: Sequence[float | None], problem: str, tolerance: float) -> None:
    for row, (a, b) in enumerate(zip(left, right, strict=True), 1):
        equal = a == b if a is None or b is None else abs(a - b) <= tolerance * max(1.0, abs(a))
        assert equal, f"{problem}: row {row}, {a} against {b}"


def _in_groups(batch: RewardBatch) -> RewardBatch:
    """The rows as answers to two prompts."""
    group = [0 if row < 2 else 1 for row in range(len(batch))]
    return replace(batch, prompts=[batch.prompts[2 * label] for label in group], group=group)


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


def check_normalizer_contract(spec: NormalizerSpec, *, params: Mapping[str, Any] | None = None) -> None:
    """Check that a normalizer keeps the contract of `rlaif_sdk.Normalizer`, on four batches of scores in three groups.

    It gives (B,) finite numbers, NaN exactly where a score is missing; leaves its input as it is; gives a row the same
    value whatever the order of the rows; and gives the same after its state went through JSON into a new one.

    Args:
        spec: What offers it.
        params: Its parameters; the defaults if None.

    Raises:
        AssertionError: A promise is broken; the message says which.
    """
    _check_spec(spec)
    rng = np.random.default_rng(0)
    normalizer, other = spec.build(params), spec.build(params)
    for each in (normalizer, other):
        each.bind((0.0, 1.0))
    group_B = np.repeat(np.arange(3), 4)
    order = rng.permutation(len(group_B))
    for batch in range(4):
        values_B = rng.random(len(group_B))
        values_B[batch] = np.nan
        given_B = values_B.copy()
        normalizer.update(values_B, group_B)
        normal_B = normalizer.normalize(values_B, group_B)
        assert np.array_equal(values_B, given_B, equal_nan=True), f"{spec.name} changes the scores that it is given"
        assert np.shape(normal_B) == values_B.shape, (
            f"{spec.name} gives {np.shape(normal_B)} for {values_B.shape} scores"
        )
        assert np.isnan(normal_B[batch]), f"{spec.name} gives a missing score the value {normal_B[batch]}"
        assert np.isfinite(np.delete(normal_B, batch)).all(), f"{spec.name} loses scores, or makes them infinite"
        moved_B = normalizer.normalize(values_B[order], group_B[order])
        assert np.allclose(moved_B, normal_B[order], equal_nan=True), f"{spec.name} depends on the order of the rows"
        state = json.dumps(normalizer.state_dict(), allow_nan=False)
        other.load_state_dict(json.loads(state))
        kept_B = other.normalize(values_B, group_B)
        assert np.array_equal(kept_B, normal_B, equal_nan=True), f"{spec.name} does not resume from its saved state"


def check_aggregator_contract(spec: AggregatorSpec, *, params: Mapping[str, Any] | None = None) -> None:
    """Check that an aggregator keeps the contract of `rlaif_sdk.Aggregator`, on three rewards of eight rows.

    It gives (B,) totals, NaN exactly where a row has no reward at all, and (R, B) shares that sum to them, NaN exactly
    where a reward is missing; leaves its input as it is; and gives each row the same among others as alone.

    Args:
        spec: What offers it.
        params: Its parameters; the defaults if None.

    Raises:
        AssertionError: A promise is broken; the message says which.
    """
    _check_spec(spec)
    aggregator = spec.build(params)
    weights_R = np.array([0.5, 0.3, 0.2])
    aggregator.bind({name: (weight, weight) for name, weight in zip("abc", weights_R.tolist(), strict=True)})
    normalized_RB = np.random.default_rng(0).random((3, 8))
    normalized_RB[0, 1] = normalized_RB[1:, 2] = normalized_RB[:, 3] = np.nan
    given_RB = normalized_RB.copy()
    totals_B, shares_RB = aggregator.aggregate(normalized_RB, weights_R)
    assert np.array_equal(normalized_RB, given_RB, equal_nan=True), f"{spec.name} changes the values that it is given"
    assert np.shape(totals_B) == (8,), f"{spec.name} gives totals of shape {np.shape(totals_B)} for 8 rows"
    assert np.shape(shares_RB) == (3, 8), f"{spec.name} gives shares of shape {np.shape(shares_RB)} for 3 rewards"
    missing_B = np.isnan(given_RB).all(axis=0)
    assert np.array_equal(np.isnan(totals_B), missing_B), f"{spec.name}: a total is NaN where a row has no reward, only"
    assert np.array_equal(np.isnan(shares_RB), np.isnan(given_RB)), f"{spec.name}: a missing reward has the share NaN"
    sums_B = np.where(missing_B, np.nan, np.nansum(shares_RB, axis=0))
    assert np.allclose(sums_B, totals_B, equal_nan=True), f"{spec.name}: the shares of a row do not sum to its total"
    for row in range(8):
        alone_B, _ = aggregator.aggregate(normalized_RB[:, row : row + 1], weights_R)
        same = np.allclose(alone_B, totals_B[row : row + 1], equal_nan=True)
        assert same, f"{spec.name} gives row {row + 1} another total when it is alone"


def check_judge_backend_contract(spec: JudgeBackendSpec, *, params: Mapping[str, Any] | None = None) -> None:
    """Check that a judge backend keeps the contract of `rlaif_sdk.JudgeBackend`, on three requests.

    It gives one answer a request, in their order, the same alone as among others; log-probabilities of as many labels
    as were asked for, of disjoint events; text for text; nothing for no requests; and an identity that stays.

    Args:
        spec: What offers it.
        params: Its parameters; the defaults if None.

    Raises:
        AssertionError: A promise is broken; the message says which.
    """
    _check_spec(spec)
    backend: JudgeBackend = spec.build(params)
    requests: list[Conversation] = [
        [{"role": "user", "content": f"{question} Answer A or B."}]
        for question in ("Is water wet?", "Is the sun cold?", "Says </s> {answer} anything?")
    ]
    labels = ("A", "B")
    try:
        identity = backend.identity
        backend.setup()
        found = run_async(backend.label_logprobs(requests, labels))
        assert len(found) == len(requests), f"{spec.name} gives {len(found)} answers to {len(requests)} requests"
        for request, answer in zip(requests, found, strict=True):
            assert isinstance(answer, LabelLogprobs), f"{spec.name}: {answer!r}"
            assert len(answer.logprobs) == len(labels), (
                f"{spec.name} gives {len(answer.logprobs)} of {len(labels)} labels"
            )
            total = math.fsum(math.exp(value) for value in answer.logprobs)
            assert total <= 1 + 1e-4, f"{spec.name}: the probabilities of disjoint labels sum to {total:.4f}"
            (alone,) = run_async(backend.label_logprobs([request], labels))
            assert isinstance(alone, LabelLogprobs), f"{spec.name}: {alone!r}"
            same = np.allclose(alone.logprobs, answer.logprobs, atol=1e-3)
            assert same, f"{spec.name} answers a request differently when it is alone"
        texts = run_async(backend.generate(requests, max_new_tokens=8))
        assert all(isinstance(text, GeneratedText) for text in texts), f"{spec.name} generates {texts!r}"
        assert len(texts) == len(requests), f"{spec.name} gives {len(texts)} texts to {len(requests)} requests"
        assert list(run_async(backend.label_logprobs([], labels))) == [], f"{spec.name} answers no request"
        assert backend.identity == identity, f"{spec.name} changes its identity while it is used"
    finally:
        backend.close()
