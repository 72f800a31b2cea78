"""How completions are sampled: in what order prompts are drawn, from what distribution, and what vLLM is told."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import AutoConfig, TrainerCallback, TrainerState
from trl.generation import vllm_generation
from trl.trainer.utils import RepeatSampler

from rlaif_sdk.exceptions import MissingExtraError, TrainingError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rlaif_sdk.training.ppo.config import PPOConfig


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


_OF_LOADING = ("revision", "trust_remote_code", "token", "cache_dir", "subfolder", "local_files_only")
"""The settings of a model's loading that say where its config is read from."""


def check_vllm(model: Any, args: PPOConfig) -> None:
    """Refuse, before vLLM starts, what it could not generate with.

    Args:
        model: What `PPOTrainer` is given: a model, or the name or path of one.
        args: Settings.

    Raises:
        MissingExtraError: vLLM is not installed.
        TrainingError: The model is an encoder-decoder, or was never loaded from anywhere.
    """
    if not vllm_generation.is_vllm_available():  # type: ignore[attr-defined]  # it asks this one itself
        raise MissingExtraError("vLLM", extra="vllm")
    if isinstance(model, str):
        settings: Any = args.model_init_kwargs or {}
        loading = {name: value for name, value in settings.items() if name in _OF_LOADING}
        config = AutoConfig.from_pretrained(model, **loading)
    else:
        config = model.config
        if args.vllm_mode == "colocate" and not model.name_or_path:
            raise TrainingError(
                "vLLM loads the policy by its name or folder, and this one was made in memory",
                hint="save_pretrained it together with its tokenizer, and train what from_pretrained loads",
            )
    if getattr(config, "is_encoder_decoder", False):
        raise TrainingError(
            "use_vllm does not generate with encoder-decoder models", hint="leave use_vllm out of the settings"
        )


def end_completions_at(engine: Any, eos_token_ids: Sequence[int]) -> None:
    """Let vLLM end completions at the trainer's tokens; by itself it knows those of the folder it loaded.

    Args:
        engine: TRL's `VLLMGeneration`.
        eos_token_ids: The tokens; ``stop_token_ids`` among the trainer's ``generation_kwargs`` goes before them.
    """
    engine.generation_kwargs = {"stop_token_ids": list(eos_token_ids), **engine.generation_kwargs}


def keep_base_weights(engine: Any, model: Any) -> None:
    """Put back, after each sync of the weights to vLLM, what an adapter is on.

    TRL merges the adapter for a sync and takes it out again. In weights of less than float32 either rounds: after a
    thousand syncs the model has moved by half of what its adapter changes. A copy is kept in the machine's memory.

    Args:
        engine: TRL's `VLLMGeneration`.
        model: The policy; without an adapter, or with weights of float32 or quantised ones, nothing is done.
    """
    if not hasattr(model, "merge_adapter"):
        return
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [module.get_base_layer() for module in model.modules() if isinstance(module, BaseTunerLayer)]
    weights = [w for layer in layers for w in layer.parameters() if w.is_floating_point() and w.dtype.itemsize < 4]
    kept = [weight.detach().to("cpu", copy=True) for weight in weights]
    sync = engine.sync_weights

    def restored() -> None:
        sync()
        with torch.no_grad():
            for weight, copy in zip(weights, kept, strict=True):
                weight.copy_(copy)

    if weights:
        engine.sync_weights = restored


class DrawnLogprobs:
    """The log-probabilities with which vLLM drew the tokens of its last answer, for which PPO's base class does not ask.

    Args:
        engine: TRL's `VLLMGeneration`, which is asked for them from now on.
    """

    def __init__(self, engine: Any) -> None:
        engine.logprobs = 0  # those of the tokens drawn alone
        generate = engine.generate
        self._rows: Sequence[Sequence[Sequence[float | None]]] | None = None

        def generating(*args: Any, **kwargs: Any) -> Any:
            answer = generate(*args, **kwargs)
            self._rows = answer[2]
            return answer

        engine.generate = generating

    def where_known(self, old_logprobs_BT: Tensor) -> Tensor | None:
        """drawn_logprobs_BT; the policy's own for tokens without one, None if vLLM said nothing.

        Args:
            old_logprobs_BT: The policy's, of the same completions, padded on the right.
        """
        if self._rows is None:
            return None
        drawn_BT = torch.full(old_logprobs_BT.shape, math.nan)
        for row, of_tokens in enumerate(self._rows):
            said = [math.nan if of_token[0] is None else of_token[0] for of_token in of_tokens]
            drawn_BT[row, : len(said)] = torch.tensor(said)
        drawn_BT = drawn_BT.to(old_logprobs_BT, non_blocking=True)
        return torch.where(drawn_BT.isnan(), old_logprobs_BT, drawn_BT)


def sampling_by_vllm(args: PPOConfig) -> dict[str, Any]:
    """The settings that TRL gives to vLLM, in which the model's own generation config has no part."""
    own = {name: getattr(args, name) for name in ("top_p", "top_k", "min_p", "repetition_penalty")}
    return {**own, "structured_outputs": args.vllm_structured_outputs_regex}
