"""A composer in TRL's online DPO, which compares the two completions to a prompt and has no word for an unscored one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rlaif_sdk.exceptions import RewardError, TrainingError
from rlaif_sdk.integrations.samples import Scored
from rlaif_sdk.integrations.trl_call import Call
from rlaif_sdk.types import Progress, RewardBatch

if TYPE_CHECKING:
    from rlaif_sdk.composer.composition import Composition


def is_online_dpo(call: Call) -> bool:
    """Whether `trl.experimental.online_dpo.OnlineDPOTrainer` calls: it passes its state, and nothing to log with."""
    return call.state is not None and call.log_metric is None


def generates_pairs(trainer: Any) -> bool:
    """Whether a trainer generates both completions to a prompt at once, as online DPO does."""
    return not hasattr(trainer.args, "steps_per_generation")


def pairs(call: Call) -> RewardBatch:
    """The batch to compose: P prompts' first completions, then their second ones, a group for each prompt.

    It is a training batch: online DPO scores nothing else.

    Raises:
        TrainingError: The second half of the prompts is not the first half again.
    """
    count = len(call.completions) // 2
    if 2 * count != len(call.prompts) or list(call.prompts[:count]) != list(call.prompts[count:]):
        raise TrainingError(
            "'trainer_state' came without 'log_metric', and the prompts are not two completions' to each",
            hint="train with GRPOTrainer, RLOOTrainer or OnlineDPOTrainer of TRL 1.16",
        )
    return RewardBatch(
        prompts=call.prompts,
        completions=call.completions,
        completion_ids=call.completion_ids,
        columns=call.columns,
        group=[*range(count), *range(count)],
        progress=Progress(call.state.global_step, call.state.max_steps or None),
        training=True,
    )


def refuse_unscored(composition: Composition) -> None:
    """Stop where a completion is unscored: TRL would count it as 0, and choose or reject it for that.

    Raises:
        RewardError: A row has no total; says why.
    """
    unscored = np.flatnonzero(np.isnan(composition.totals))
    if len(unscored):
        reason = Scored(composition, int(unscored[0])).reason
        raise RewardError(
            f"{len(unscored)} of {len(composition)} completions are unscored, which online DPO would count as 0: {reason}",
            hint="give the reward a default or a fallback under 'on_failure', or train with `rlaif iterate`, "
            "which leaves such pairs out",
        )
