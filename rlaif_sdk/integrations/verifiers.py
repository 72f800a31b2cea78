"""A composed reward in verifiers: a rubric (0.1), or the reward of a task (0.2 and later).

A rubric::

    import verifiers as vf
    from rlaif_sdk.integrations.verifiers import rubric

    environment = vf.SingleTurnEnv(dataset=dataset, rubric=rubric("rewards.yaml", vf.Rubric))

A task's reward::

    import verifiers.v1 as vf
    from rlaif_sdk.integrations.verifiers import task_reward

    class Answer(vf.Task):
        composed = vf.reward(task_reward("rewards.yaml"))
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from rlaif_sdk.exceptions import RewardError
from rlaif_sdk.integrations.host import Rewards, host
from rlaif_sdk.integrations.samples import Sample, Scored, completion_of, prompt_of


def rubric(rewards: Rewards, base: type, *, state: str | None = None) -> Any:
    """A rubric whose reward is the total and whose metrics are each reward's own scores and ``unscored``.

    A sample's columns are ``answer``, ``info`` and its keys, and what else the data set's row has. A group is scored as
    one batch. An unscored completion of a group gets the mean of the others, so that its advantage is 0: a rubric of
    functions would score it 0.

    Args:
        rewards: A config or a composer; see `rlaif_sdk.integrations.Host`.
        base: ``verifiers.Rubric``.
        state: A file with what the composer learned elsewhere.

    Raises:
        ConfigError: The composition learns while it trains: nothing tells training from evaluation.
    """
    hosted = host(rewards, "verifiers' rubric", state=state, grouped=True)

    class ComposedRubric(base):  # type: ignore[misc]  # the class is given
        async def score_rollout(self, state: Any) -> None:
            (scored,) = await hosted.ascore([_sample_of_state(state, group=None)])
            _keep(state, scored, scored.number())

        async def score_group(self, states: Sequence[Any]) -> None:
            scored = await hosted.ascore([_sample_of_state(state, group=0) for state in states])
            totals = [one.total for one in scored if one.total is not None]
            if scored and not totals:
                raise RewardError(f"every completion of the group is unscored: {scored[0].reason}")
            mean = sum(totals) / len(totals)
            for rollout, one in zip(states, scored, strict=True):
                reward = mean if one.total is None else one.total
                _keep(rollout, one, reward)
                rollout["advantage"] = reward - mean
                for turn in rollout.get("trajectory") or []:
                    turn["advantage"] = reward - mean if turn.get("advantage") is None else turn["advantage"]
                    turn["reward"] = reward if turn.get("reward") is None else turn["reward"]

    return ComposedRubric()


def _keep(state: Any, scored: Scored, reward: float) -> None:
    state["reward"] = reward
    state["metrics"] = scored.known_scores()


def _sample_of_state(state: Mapping[str, Any], group: int | None) -> Sample:
    row = state.get("input")
    known = dict(row) if isinstance(row, Mapping) else {}
    info = state.get("info") or {}
    columns = {**known, **(info if isinstance(info, Mapping) else {}), "info": info, "answer": state.get("answer", "")}
    for name in ("prompt", "completion", "example_id"):
        columns.pop(name, None)
    return Sample(prompt_of(state["prompt"]), completion_of(state["completion"]), columns, group)


def task_reward(rewards: Rewards, *, state: str | None = None) -> Callable[[Any, Any, Any], Awaitable[float]]:
    """A method ``composed(self, task, trace)`` for ``verifiers.v1.reward``.

    A sample's prompt is the task's, its completion the trace's last reply, its columns the task's further fields. Each
    reward's own score is a metric of the trace. An unscored completion raises, which verifiers records as unscored.

    Args:
        rewards: A config or a composer; see `rlaif_sdk.integrations.Host`.
        state: A file with what the composer learned elsewhere.

    Raises:
        ConfigError: The composition's numbers would depend on how verifiers cuts its calls.
    """
    hosted = host(rewards, "verifiers' task", state=state)

    async def composed(self: Any, task: Any, trace: Any) -> float:
        del self
        fields = task.model_dump(mode="json", exclude_none=True)
        prompt = prompt_of(fields.pop("prompt", ""))
        scored = await hosted.ascore_one(Sample(prompt, trace.last_reply, fields))
        trace.record_metrics(scored.known_scores())
        return scored.number()

    return composed
