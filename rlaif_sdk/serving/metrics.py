"""What a reward server counts, for Prometheus."""

from __future__ import annotations

from concurrent.futures import Future
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

if TYPE_CHECKING:
    from collections.abc import Callable

    from rlaif_sdk.composer import Composition

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Metrics:
    """Counters of one application, in a registry of its own."""

    def __init__(self, waiting: Callable[[], float]) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter("rlaif_requests", "Requests.", ["route", "status"], registry=self.registry)
        self._latency = Histogram(
            "rlaif_request_seconds", "Time of a request.", ["route"], buckets=_SECONDS, registry=self.registry
        )
        self._rows = Counter("rlaif_rows", "Rows that were scored, or not.", ["outcome"], registry=self.registry)
        self._batch = Histogram("rlaif_batch_rows", "Rows of a batch.", buckets=_ROWS, registry=self.registry)
        self._failures = Counter("rlaif_reward_failures", "Rows that failed.", ["reward"], registry=self.registry)
        self._time = Histogram(
            "rlaif_reward_seconds", "Time of a batch.", ["reward"], buckets=_SECONDS, registry=self.registry
        )
        queue = Gauge("rlaif_queue_rows", "Rows that wait or are scored.", registry=self.registry)
        queue.set_function(waiting)

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count a request."""
        self._requests.labels(route, str(status)).inc()
        self._latency.labels(route).observe(seconds)

    def rows(self, scored: int, unscored: int) -> None:
        """Count the rows of a request."""
        self._rows.labels("scored").inc(scored)
        self._rows.labels("unscored").inc(unscored)

    def composed(self, done: Future[Composition]) -> None:
        """Count a batch, as a callback of what composes it."""
        if done.cancelled() or done.exception() is not None:
            return
        composition = done.result()
        self._batch.observe(len(composition))
        for name, column in composition.rewards.items():
            self._failures.labels(name).inc(len(column.failures))
            self._time.labels(name).observe(column.seconds)

    def text(self) -> bytes:
        """All of it, in Prometheus' format."""
        return generate_latest(self.registry)
