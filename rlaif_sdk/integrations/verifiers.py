"""verifiers: a composed reward as its rubric (0.1) or as the reward of a task (0.2 and later), and its functions as rewards.

A rubric::

    import verifiers as vf
    from rlaif_sdk.integrations.verifiers import rubric

    environment = vf.SingleTurnEnv(dataset=dataset, rubric=rubric("rewards.yaml", vf.Rubric))

A task's reward::

    import verifiers.v1 as vf
    from rlaif_sdk.integrations.verifiers import task_reward

    class Answer(vf.Task):
        composed = vf.reward(task_reward("rewards.yaml"))

or, in a file that a run's config names as ``task.rewards.composed.fn``, ``composed = task_reward("rewards.yaml")``.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Awaitable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlaif_sdk.conversations import ASSISTANT, plain_words, read
from rlaif_sdk.exceptions import ConfigError, ConversationError
from rlaif_sdk.integrations.host import Host, Rewards, host
from rlaif_sdk.integrations.reward_params import VerifiersParams
from rlaif_sdk.integrations.samples import Sample, Scored, answer_of, completion_of, prompt_of
from rlaif_sdk.io.digests import code_digest
from rlaif_sdk.plugins.references import load_reference
from rlaif_sdk.rewards import Reward, ScoreLike, Scores
from rlaif_sdk.types import RewardBatch, Score


def rubric(rewards: Rewards, base: type, *, state: str | None = None) -> Any:
    """A rubric whose reward is the total and whose metrics are each reward's own scores and ``unscored``.

    A sample's columns are ``answer``, ``info`` and its keys, and what else the data set's row has. A group is scored as
    one batch. An unscored completion of a group gets the mean of the others, so that its advantage is 0: a rubric of
    functions would score it 0. A composition that compares completions reports ``has_group_rewards``, as verifiers'
    own group rewards do, and scores no rollout by itself.

    Args:
        rewards: A config or a composer; see `rlaif_sdk.integrations.Host`.
        base: ``verifiers.Rubric``.
        state: A file with what the composer learned elsewhere.

    Raises:
        ConfigError: The composition learns while it trains: nothing tells training from evaluation. Or, of a call, it
            compares completions and ``independent_scoring`` gives it one by itself.
    """
    hint = "score whole groups: leave independent_scoring out"
    hosted = host(rewards, "verifiers' rubric", state=state, grouped=True, group_hint=hint)

    class ComposedRubric(base):  # type: ignore[misc]  # the class is given
        @property
        def has_group_rewards(self) -> bool:
            return hosted.compares

        async def score_rollout(self, state: Any) -> None:
            (scored,) = await hosted.ascore([_sample_of_state(state)])
            _keep(state, scored, scored.number())

        async def score_group(self, states: Sequence[Any]) -> None:
            if not states:
                return
            scored = await hosted.ascore_group([_sample_of_state(state) for state in states])
            totals = [one.number_in_group() for one in scored]
            mean = sum(totals) / len(totals)
            for rollout, one, reward in zip(states, scored, totals, strict=True):
                _keep(rollout, one, reward)
                rollout["advantage"] = reward - mean
                for turn in rollout.get("trajectory") or []:
                    turn["advantage"] = reward - mean if turn.get("advantage") is None else turn["advantage"]
                    turn["reward"] = reward if turn.get("reward") is None else turn["reward"]

    return ComposedRubric()


def _keep(state: Any, scored: Scored, reward: float) -> None:
    state["reward"] = reward
    state["metrics"] = scored.known_scores()


def _sample_of_state(state: Mapping[str, Any]) -> Sample:
    row = state.get("input")
    known = dict(row) if isinstance(row, Mapping) else {}
    info = state.get("info") or {}
    columns = {**known, **(info if isinstance(info, Mapping) else {}), "info": info, "answer": state.get("answer", "")}
    for name in ("prompt", "completion", "example_id"):
        columns.pop(name, None)
    return Sample(prompt_of(state["prompt"]), completion_of(state["completion"]), columns)


def task_reward(rewards: Rewards, *, state: str | None = None) -> TaskReward:
    """A reward of verifiers 0.2 and later: of a task's class by ``verifiers.v1.reward``, or plugged in by its config's ``fn``.

    A sample's prompt is what stood in the trace before the policy spoke, its completion all that followed on the last branch,
    calls and tools' results too, and its columns are the task's further fields. Each reward's own score is a metric of the
    trace. An unscored completion raises, which verifiers records as unscored.

    Args:
        rewards: A config or a composer; see `rlaif_sdk.integrations.Host`.
        state: A file with what the composer learned elsewhere.

    Raises:
        ConfigError: The composition's numbers would depend on how verifiers cuts its calls.
    """
    return TaskReward(host(rewards, "verifiers' task", state=state))


class TaskReward:
    """What `task_reward` makes. It is no method: a task that has it and a config that names it call it alike."""

    def __init__(self, hosted: Host) -> None:
        self._host = hosted
        self.__name__ = "composed"

    async def __call__(self, task: Any, trace: Any) -> float:
        """The total of a trace.

        Raises:
            RewardError: It is unscored.
        """
        fields = task.model_dump(mode="json", exclude_none=True)
        asked = [fields.pop(name, None) for name in ("system_prompt", "prompt")]
        branches = trace.branches
        before, after = _told(branches[-1].nodes if branches else [])
        prompt = before or [
            {"role": role, "content": said} for role, said in zip(("system", "user"), asked, strict=True) if said
        ]
        reply = trace.last_reply  # the root agent's, of a harness with agents of its own, which may stand in no branch
        if reply and reply != _last_words(after):
            after.append({"role": "assistant", "content": reply})
        scored = await self._host.ascore_one(Sample(prompt_of(prompt), answer_of(after), fields))
        trace.record_metrics(scored.known_scores())
        return scored.number()


def _told(nodes: Sequence[Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The messages before the policy first spoke, and those from there on.

    An assistant's message that no model call produced is not the policy's, and stands there as its surroundings'.
    """
    messages = [
        {**node.message.model_dump(exclude_none=True), **({"role": "environment"} if _is_staged(node) else {})}
        for node in nodes
    ]
    first = next((place for place, node in enumerate(nodes) if node.sampled), len(nodes))
    return messages[:first], messages[first:]


def _last_words(messages: Sequence[Mapping[str, Any]]) -> str:
    """What the policy's last message says; empty where it says nothing, or cannot be read."""
    if (words := plain_words(list(messages[-1:]))) is not None:
        return words.strip()
    with contextlib.suppress(ConversationError):
        said = [turn.content for turn in read(messages) if turn.role == ASSISTANT]
        return said[-1].strip() if said else ""
    return ""


def _is_staged(node: Any) -> bool:
    return node.message.role == "assistant" and not node.sampled


class VerifiersFunction(Reward):
    """Calls ``f(prompt, completion, answer, state, info, **columns) -> float`` once a row.

    Coroutines of all rows run at the same time. A plain function is called row by row in the reward's own thread, so that
    one that blocks holds up no other reward. A row on which it raises has failed: in a rubric it would be scored 0.
    Functions of a whole group (those that take ``completions``) are refused. One whose code nothing identifies (a partial
    that binds an object, say) has no revision, and a ledger keeps none of its scores.

    Raises:
        ConfigError: There is no such function, or it scores a group.
    """

    name = "verifiers"
    reads_images = True
    ends = ("worse", "better")

    def __init__(self, params: VerifiersParams) -> None:
        function = load_reference(params.function, Path())
        if not callable(function):
            raise ConfigError(f"{params.function!r} is no function", key="params.function")
        parameters = inspect.signature(function).parameters
        plural = {"prompts", "completions", "answers", "states", "tasks", "infos"} & parameters.keys()
        if plural:
            raise ConfigError(
                f"{params.function!r} scores a group: it takes {', '.join(sorted(plural))}",
                key="params.function",
                hint="use a function of one completion",
            )
        self.revision = code_digest(function)  # it is the function's code that scores, and a ledger must know it
        self.cacheable = bool(self.revision)
        self._function = function
        self._arguments = params.arguments
        self._accepts = parameters.keys()
        self._accepts_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())

    def score(self, batch: RewardBatch) -> Scores | Awaitable[Scores]:
        answers = [self._called(self._offered(batch, row)) for row in range(len(batch))]
        return _awaited(answers) if any(map(inspect.isawaitable, answers)) else answers

    def _called(self, offered: Mapping[str, Any]) -> Any:
        """A row's score, or what is to be awaited for it."""
        known = offered if self._accepts_any else {n: value for n, value in offered.items() if n in self._accepts}
        try:
            value = self._function(**known)
            return value if inspect.isawaitable(value) else _score(value)
        except Exception as error:  # noqa: BLE001 - a stranger's function may raise anything
            return _failed(error)

    def _offered(self, batch: RewardBatch, row: int) -> dict[str, Any]:
        columns = {name: values[row] for name, values in batch.columns.items()}
        info = columns.get("info") or {}
        answer = columns.get("answer", "")
        told = {"prompt": batch.prompts[row], "completion": batch.completions[row], "answer": answer, "info": info}
        return {**columns, **told, "state": {**columns, **told}, **self._arguments}


async def _awaited(answers: Sequence[Any]) -> Scores:
    return list(await asyncio.gather(*map(_awaited_score, answers)))


async def _awaited_score(answer: Any) -> ScoreLike:
    if not inspect.isawaitable(answer):
        scored: ScoreLike = answer
        return scored
    try:
        return _score(await answer)
    except Exception as error:  # noqa: BLE001 - as above
        return _failed(error)


def _score(value: Any) -> float | None:
    return None if value is None else float(value)


def _failed(error: Exception) -> Score:
    return Score.failed(f"{type(error).__name__}: {error}")
