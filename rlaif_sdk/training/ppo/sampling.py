"""When and in what order prompts are drawn, and whether completions come from the distribution that is scored."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

from transformers import TrainerCallback, TrainerState
from trl.trainer.utils import RepeatSampler


class SamplingMismatchWarning(UserWarning):
    """Completions are sampled from another distribution than the one that the policy loss scores."""


class EpochRepeatSampler(RepeatSampler):
    """TRL's sampler, with an order that depends on the epoch's number alone.

    TRL's own draws each epoch's order from the state that the epoch before left behind, so a run resumed in its
    second epoch sees the first one's order again.
    """

    def set_epoch(self, epoch: int) -> None:
        """Called by the data loader before each epoch."""
        if self.shuffle:
            self.generator.manual_seed((self.seed or 0) + epoch)


class AtTrainBegin(TrainerCallback):
    """Calls a function with the trainer's state whenever training begins, from the start or from a checkpoint."""

    def __init__(self, function: Callable[[TrainerState], None]) -> None:
        self._function = function

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Called by the training loop."""
        del args, control, kwargs
        self._function(state)


_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "do_sample": (True,),
    "num_beams": (None, 1),
    "top_p": (None, 1.0),
    "top_k": (None, 0, -1),
    "min_p": (None, 0.0),
    "top_h": (None,),
    "typical_p": (None, 1.0),
    "epsilon_cutoff": (None, 0.0),
    "eta_cutoff": (None, 0.0),
    "repetition_penalty": (None, 1.0),
    "encoder_repetition_penalty": (None, 1.0),
    "no_repeat_ngram_size": (None, 0),
    "min_length": (None, 0),
    "min_new_tokens": (None, 0),
    "bad_words_ids": (None,),
    "suppress_tokens": (None,),
    "begin_suppress_tokens": (None,),
    "sequence_bias": (None,),
    "forced_bos_token_id": (None,),
    "forced_eos_token_id": (None,),
    "exponential_decay_length_penalty": (None,),
    "guidance_scale": (None, 1.0),
    "presence_penalty": (None, 0.0),
    "frequency_penalty": (None, 0.0),
    "logit_bias": (None,),
    "allowed_token_ids": (None,),
    "bad_words": (None,),
    "min_tokens": (None, 0),
    "structured_outputs": (None,),
}
"""The settings of transformers and vLLM that change the distribution which tokens are drawn from, each with the values
that leave it alone."""


def sampling_mismatches(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings, of those given, that make sampling differ from a plain softmax at the temperature."""
    return {
        name: settings[name] for name, neutral in _NEUTRAL.items() if name in settings and settings[name] not in neutral
    }


def warn_of_mismatches(*settings: Mapping[str, Any]) -> None:
    """Warn of `sampling_mismatches` in the generation settings, of which later ones that are not None win."""
    effective = {name: value for part in settings for name, value in part.items() if value is not None}
    mismatches = sampling_mismatches(effective)
    if mismatches:
        found = ", ".join(f"{name}={value!r}" for name, value in mismatches.items())
        warnings.warn(
            f"completions are sampled with {found} and scored as samples of the plain softmax, so the probability "
            "ratios and the KL divergence are those of another distribution; leave these settings at their defaults",
            SamplingMismatchWarning,
            stacklevel=3,
        )
