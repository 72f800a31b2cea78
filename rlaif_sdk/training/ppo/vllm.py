"""Generation by vLLM, as TRL runs it: which policies it takes, what they are drawn from, and where they end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers import AutoConfig
from trl.generation import vllm_generation

from rlaif_sdk.exceptions import MissingExtraError, TrainingError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rlaif_sdk.training.ppo.config import PPOConfig

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


def sampling_by_vllm(args: PPOConfig) -> dict[str, Any]:
    """The settings that TRL gives to vLLM, in which the model's own generation config has no part."""
    own = {name: getattr(args, name) for name in ("top_p", "top_k", "min_p", "repetition_penalty")}
    return {**own, "structured_outputs": args.vllm_structured_outputs_regex}
