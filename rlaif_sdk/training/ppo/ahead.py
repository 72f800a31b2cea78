"""Completions that a vLLM server draws for the next rollout while this one is scored and learnt from.

They are of a policy that is one rollout older than the one that learns from them, which the weights of
`rlaif_sdk.training.ppo.losses.importance_weights` correct.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any


class DrawnAhead:
    """Lets a server draw in a thread of its own, between two syncs of its weights.

    Args:
        engine: TRL's `VLLMGeneration`, whose ``generate`` gives what was drawn ahead where there is something, and whose
            ``sync_weights`` waits until nothing is being drawn.
        training: Whether completions are asked for to be trained on; those for an evaluation are never drawn ahead.
    """

    def __init__(self, engine: Any, training: Callable[[], bool]) -> None:
        self._generate, self._sync = engine.generate, engine.sync_weights
        self._training = training
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rollout")
        self._prompts: Any = None
        self._drawing: Future[Any] | None = None
        engine.generate, engine.sync_weights = self._take, self._sync_between

    def begin(self, prompts: list[list[int]], generations: int) -> None:
        """Draw completions of these prompts' token ids, which are asked for next, by the weights that the server has."""
        self._prompts = prompts
        self._drawing = self._thread.submit(self._generate, prompts=prompts, images=None, num_generations=generations)

    def _take(self, prompts: list[list[int]], **settings: Any) -> Any:
        self._wait()
        if self._drawing is None or not self._training() or prompts != self._prompts:
            return self._generate(prompts=prompts, **settings)
        drawn, self._drawing = self._drawing, None
        return drawn.result()

    def _sync_between(self) -> None:
        self._wait()
        self._sync()

    def _wait(self) -> None:
        if self._drawing is not None:
            wait([self._drawing])


class BatchesAhead:
    """The micro-batches of an epoch, of which one can be seen before it comes."""

    def __init__(self) -> None:
        self._batches: Iterator[Any] = iter(())
        self._seen: deque[Any] = deque()

    def of(self, batches: Iterator[Any]) -> Iterator[Any]:
        """The same micro-batches, from the next one on; those of another epoch if it is another iterator."""
        if batches is not self._batches:
            self._batches, self._seen = batches, deque()
        return self

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return self._seen.popleft() if self._seen else next(self._batches)

    def peek(self, ahead: int) -> Any:
        """The micro-batch that comes after so many others; None where the epoch has ended by then."""
        while len(self._seen) <= ahead:
            try:
                self._seen.append(next(self._batches))
            except StopIteration:
                return None
        return self._seen[ahead]
