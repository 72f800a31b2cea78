"""What TRL passes to a reward function, and the batch that it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

from rlaif_sdk.conversations import USER, read
from rlaif_sdk.exceptions import ConversationError, TrainingError
from rlaif_sdk.integrations.trl_checks import generations
from rlaif_sdk.types import Progress, RewardBatch, TextOrConversation


@dataclass(frozen=True, slots=True)
class Call:
    """What TRL passes to a reward function, B rows."""

    prompts: Sequence[TextOrConversation]
    completions: Sequence[TextOrConversation]
    completion_ids: Sequence[Sequence[int]] | None
    columns: Mapping[str, Sequence[Any]]
    state: Any
    log_extra: Callable[[str, list[Any]], None] | None
    log_metric: Callable[[str, float], None] | None

    def trainer(self) -> Any:
        """The trainer that calls, which is the owner of ``log_metric``; None for a call by hand.

        TRL passes a reward everything but whether this is training; the trainer knows.

        Raises:
            TrainingError: The owner is no trainer.
        """
        if self.log_metric is None:
            return None
        trainer = getattr(self.log_metric, "__self__", None)
        if not hasattr(trainer, "num_generations"):
            raise TrainingError(
                "'log_metric' is no method of a trainer, so nothing tells training from evaluation",
                hint="train with GRPOTrainer, RLOOTrainer or OnlineDPOTrainer of TRL 1.16",
            )
        return trainer

    def batch(self, trainer: Any) -> RewardBatch:
        """The batch to compose. A prompt's generations follow each other; by hand, equal prompts do."""
        rows = len(self.completions)
        if trainer is None:
            group: list[int] | None = _runs(self.prompts)
            progress, training = Progress(), False
        else:
            training = trainer.model.training
            size = generations(rows, trainer, training=training)
            group = [row // size for row in range(rows)] if size > 1 else None
            progress = Progress(self.state.global_step, self.state.max_steps or None)
        return RewardBatch(
            prompts=self.prompts,
            completions=self.completions,
            completion_ids=self.completion_ids,
            columns=self.columns,
            group=group,
            progress=progress,
            training=training,
        )


def _runs(prompts: Sequence[TextOrConversation]) -> list[int]:
    """Labels from 0; neighbours that are equal share one."""
    asked = [prompt if isinstance(prompt, str) else _turns(prompt) for prompt in prompts]
    return list(accumulate((one != other for one, other in pairwise(asked)), initial=0))[: len(prompts)]


def _turns(prompt: Any) -> Any:
    """The turns of a prompt, by which arrays and null fields compare as what they say; one without any as it is shown."""
    try:
        return read(prompt, role=USER)
    except ConversationError:
        return repr(prompt)
