"""A composed reward in NeMo RL: an environment.

Where NeMo RL's environments are made::

    import ray
    from nemo_rl.environments.interfaces import EnvironmentInterface, EnvironmentReturn
    from rlaif_sdk.integrations.nemo_rl import environment

    Composed = ray.remote(environment("rewards.yaml", EnvironmentInterface, EnvironmentReturn))
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rlaif_sdk.integrations.host import Rewards, host
from rlaif_sdk.integrations.samples import Sample, Scored, answer_of, prompt_of

_OF_A_MESSAGE = ("role", "content", "reasoning_content", "tool_calls", "tool_call_id", "name")


def environment(
    rewards: Rewards,
    interface: type,
    result: Callable[..., Any],
    *,
    state: str | None = None,
    unscored: float | None = None,
    components: bool = False,
) -> type:
    """A class of environments that end after one turn, with the total as its reward.

    A message log's last message is the completion, those before it are the prompt; the columns are the keys of its
    ``metadata``. Metrics are each reward's mean, under ``rlaif/NAME``, over the rows that have one.

    Args:
        rewards: A config or a composer; see `rlaif_sdk.integrations.Host`.
        interface: ``EnvironmentInterface``.
        result: ``EnvironmentReturn``.
        state: A file with what the composer learned elsewhere.
        unscored: What NeMo RL gets for an unscored completion. None, the default, raises: it has no word for that.
        components: Hand over the parts of the total, as ``reward/NAME``, which NeMo RL sums and its GDPO compares each by
            itself. ``unscored`` is then a part too.

    Raises:
        ConfigError: The composition's numbers would depend on how NeMo RL cuts its calls.
    """
    hosted = host(rewards, "NeMo RL's environment", state=state)

    class ComposedEnvironment(interface):  # type: ignore[misc]  # the class is given
        def __init__(self, cfg: Any = None) -> None:
            self.cfg = cfg

        def step(self, message_log_batch: Sequence[Any], metadata: Sequence[Mapping[str, Any] | None]) -> Any:
            import torch

            rows = len(message_log_batch)
            scored = hosted.score(
                [sample_of(log, known) for log, known in zip(message_log_batch, metadata, strict=True)]
            )
            totals = torch.tensor([one.number(unscored) for one in scored], dtype=torch.float32)
            return result(
                observations=[{"role": "environment", "content": ""} for _ in range(rows)],
                metadata=[
                    {**(known or {}), "rlaif": one.known_scores()} for known, one in zip(metadata, scored, strict=True)
                ],
                next_stop_strings=[None] * rows,
                rewards=_parts(scored, unscored) if components and scored else totals,
                terminateds=torch.ones(rows, dtype=torch.bool),
                answers=[None] * rows,
            )

        def global_post_process_and_metrics(self, batch: Any) -> tuple[Any, dict[str, float]]:
            # NeMo RL keeps what a step says of a row only while that row goes on.
            return batch, _means(
                [known["rlaif"] for known in batch.get("extra_env_info", []) if known and "rlaif" in known]
            )

    return ComposedEnvironment


def _parts(scored: Sequence[Scored], unscored: float | None) -> dict[str, Any]:
    """The (B,) parts of the totals by name."""
    import torch

    rows = [one.parts() for one in scored]
    if unscored is not None:
        rows = [
            {**parts, "unscored": 0.0 if one.total is not None else unscored}
            for parts, one in zip(rows, scored, strict=True)
        ]
    names = {name: None for parts in rows for name in parts}
    return {
        f"reward/{name}": torch.tensor([parts.get(name, 0.0) for parts in rows], dtype=torch.float32) for name in names
    }


def sample_of(message_log: Sequence[Mapping[str, Any]], metadata: Mapping[str, Any] | None) -> Sample:
    """The sample in a log of messages, which hold token ids beside their role and content."""
    messages = [
        {name: message[name] for name in _OF_A_MESSAGE if message.get(name) is not None} for message in message_log
    ]
    columns = {name: value for name, value in (metadata or {}).items() if name != "rlaif"}
    return Sample(prompt_of(messages[:-1]), answer_of(messages[-1:]), columns)


def _means(measured: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each score over the rows that have it."""
    present: dict[str, list[float]] = {}
    for row in measured:
        for name, value in row.items():
            present.setdefault(f"rlaif/{name}", []).append(value)
    return {name: sum(values) / len(values) for name, values in present.items()}
