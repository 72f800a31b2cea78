"""``rlaif label --engine ray``: a labelling job whose judge answers from several processes or machines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rlaif_sdk.exceptions import JudgeError
from rlaif_sdk.judges.backends import GeneratedText, JudgeBackend, LabelLogprobs, RowError
from rlaif_sdk.judges.loading import load_backend
from rlaif_sdk.preferences.label_job import LabelJob, LabelResult, load_label_job, run_labeling
from rlaif_sdk.scale.cluster import Workers, connected, import_ray, typed
from rlaif_sdk.types import Conversation

_MOST_RESTARTS = 3
"""So often a worker that dies is replaced, and a call of it made again."""
_PAIRS_READ, _PAIRS_WRITTEN = 64, 8


def label_with_actors(
    source: str | Path | Mapping[str, Any] | LabelJob,
    *,
    workers: Workers | None = None,
    output: Path | None = None,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> LabelResult:
    """`rlaif_sdk.preferences.run_labeling` with the judge in Ray's actors, each of which loads it once.

    Prompts are made, and labels kept in the job's journal, in this process; so the folder is the one that a job on one
    machine leaves, and a job that was begun with one engine can be resumed with the other. Limits of a server, such as
    ``concurrency`` and ``requests_per_minute``, hold for each actor.

    Args:
        source: See `rlaif_sdk.preferences.run_labeling`.
        workers: The processes that the judge is in.
        output: Where the labels go; see there.
        progress: Called with the pairs labelled so far and all pairs.

    Raises:
        MissingExtraError: Ray is not installed.
        JudgeError: Workers die again and again, or what `run_labeling` says.
        ConfigError: See there, as for DataError.
    """
    import_ray()
    job = source if isinstance(source, LabelJob) else load_label_job(source)
    labeler = job.labeler()
    concurrency: int | None = getattr(labeler.backend, "concurrency", None)
    asked = workers or Workers()
    with connected(asked) as actors:
        pool = ActorBackend(labeler.backend, job, actors=actors, gpus=asked.gpus, calls=concurrency or 1)
        labeler.backend = pool
        local = _PAIRS_WRITTEN if labeler.writes else _PAIRS_READ
        calls = {
            "calls_at_once": job.config.calls_at_once or actors * (concurrency or 1),
            "rows_per_call": job.config.rows_per_call or (1 if concurrency else local),
        }
        spread = replace(job, config=job.config.model_copy(update=calls))
        try:
            return run_labeling(spread, labeler=labeler, output=output, progress=progress)
        finally:
            pool.close()


class ActorBackend:
    """A judge's backend in several actors: each call goes to the one with the fewest calls under way.

    Args:
        local: The same backend in this process, which stays unloaded and tells its identity.
        job: The job whose ``judge`` each actor loads.
        actors: How many there are.
        gpus: The share of a GPU that each has.
        calls: Calls that each takes at once.
    """

    def __init__(self, local: JudgeBackend, job: LabelJob, *, actors: int, gpus: float, calls: int) -> None:
        import ray

        made: Any = ray.remote(_JudgeActor).options(
            num_cpus=0 if gpus else 1,
            num_gpus=gpus,
            max_concurrency=calls,
            max_restarts=_MOST_RESTARTS,
            max_task_retries=_MOST_RESTARTS,
        )
        judge = job.config.judge
        self._local = local
        self._actors = [made.remote(judge.backend, judge.options()) for _ in range(actors)]
        self._under_way = [0] * actors

    @property
    def identity(self) -> str:
        return self._local.identity

    def setup(self) -> None:
        """Nothing: an actor loads the model at its first call."""

    async def label_logprobs(
        self, requests: Sequence[Conversation], labels: Sequence[str]
    ) -> Sequence[LabelLogprobs | RowError]:
        found: Sequence[LabelLogprobs | RowError] = await self._asked("label_logprobs", list(requests), list(labels))
        return found

    async def generate(
        self, requests: Sequence[Conversation], *, max_new_tokens: int, temperature: float = 0.0
    ) -> Sequence[GeneratedText | RowError]:
        found: Sequence[GeneratedText | RowError] = await self._asked(
            "generate", list(requests), max_new_tokens=max_new_tokens, temperature=temperature
        )
        return found

    async def _asked(self, method: str, *arguments: Any, **named: Any) -> Any:
        from ray.exceptions import RayActorError, RayError

        place = min(range(len(self._actors)), key=self._under_way.__getitem__)
        self._under_way[place] += 1
        try:
            return await asyncio.wrap_future(getattr(self._actors[place], method).remote(*arguments, **named).future())
        except RayError as error:
            known = typed(error)
            if known is error and isinstance(error, RayActorError):
                raise JudgeError(
                    f"a worker of the judge died more than {_MOST_RESTARTS} times",
                    hint="what was labelled is kept: mend the cause and start the job again",
                ) from error
            raise known from error
        finally:
            self._under_way[place] -= 1

    def close(self) -> None:
        """End the actors."""
        import ray

        for actor in self._actors:
            ray.kill(actor)
        self._actors = []


class _JudgeActor:
    """A judge's backend in a process of Ray's."""

    def __init__(self, backend: str | None, options: Mapping[str, Any]) -> None:
        self._backend = load_backend(backend, options)

    async def label_logprobs(
        self, requests: Sequence[Conversation], labels: Sequence[str]
    ) -> Sequence[LabelLogprobs | RowError]:
        return await self._backend.label_logprobs(requests, labels)

    async def generate(
        self, requests: Sequence[Conversation], *, max_new_tokens: int, temperature: float
    ) -> Sequence[GeneratedText | RowError]:
        return await self._backend.generate(requests, max_new_tokens=max_new_tokens, temperature=temperature)
