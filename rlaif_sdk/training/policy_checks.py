"""Whether a policy can be trained as it is asked to: something in it trains, its tokens are its own, its prompts fit.

Of a run this is looked at before anything loads, see `rlaif_sdk.training.preflight`, and at the trainer's door again, which
a script enters without a run.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from rlaif_sdk.conversations.templates import chat_ids
from rlaif_sdk.exceptions import ConfigError, DataError, TrainingError
from rlaif_sdk.models.scoring_config import Side, longest_input

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_OVERHEAD = 1024
"""So many tokens a chat template surely adds less than; shorter prompts than what is left need not be encoded."""


def check_trainable(model: Any) -> None:
    """Whether anything in a policy would change.

    Args:
        model: The policy as the trainer has it, a new adapter put on.

    Raises:
        TrainingError: No weight takes a gradient.
    """
    if not any(weight.requires_grad for weight in model.parameters()):
        raise TrainingError(
            "no weight of the policy is trainable, so that training would change nothing",
            hint="load its adapter with PeftModel.from_pretrained(..., is_trainable=True), or give a peft_config for a new "
            "one; after merge_and_unload() or requires_grad_(False): model.requires_grad_(True)",
        )


def check_special_tokens(tokenizer: Any, vocabulary: int) -> None:
    """Whether the tokens that pad and end a text are the policy's.

    Args:
        tokenizer: The policy's tokenizer.
        vocabulary: How many tokens the policy's embedding has rows for.

    Raises:
        ConfigError: One is outside of the vocabulary.
    """
    for name in ("pad_token", "eos_token"):
        number = getattr(tokenizer, f"{name}_id")
        if number is not None and not 0 <= number < vocabulary:
            raise ConfigError(
                f"the tokenizer's {name} {getattr(tokenizer, name)!r} is token {number}, and the model knows 0 to "
                f"{vocabulary - 1}",
                hint=f"set tokenizer.{name} to a token of the model, or model.resize_token_embeddings(len(tokenizer))",
            )


def check_rollout(settings: Any, prompts: int) -> None:
    """Whether there are prompts for one rollout: an incomplete one is left out, and training would make no step.

    Args:
        settings: The trainer's settings; without a ``generation_batch_size`` there are no rollouts.
        prompts: How many there are to train on.

    Raises:
        ConfigError: There are fewer.
    """
    completions = getattr(settings, "generation_batch_size", None)
    if completions and (wanted := completions // settings.num_generations) > prompts:
        raise ConfigError(
            f"there are {prompts} prompts to train on, and a rollout takes {wanted}: no step would be made",
            hint="give more, or lower steps_per_generation or per_device_train_batch_size",
        )


def longest_text(config: Any, side: Side = "decoder") -> int | None:
    """How many tokens a language model takes, by its config; None where nothing bounds them.

    Args:
        config: In transformers' form.
        side: Which side of an encoder-decoder is meant.
    """
    config = config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config
    return longest_input(config.to_dict(), side=side)


def prompt_room(config: Any, new_tokens: int) -> int | None:
    """How many tokens a prompt may have beside a completion of ``new_tokens``; None where nothing bounds it.

    Raises:
        ConfigError: The completion alone is longer than what the policy takes.
    """
    encodes = bool(getattr(config, "is_encoder_decoder", False))
    whole = longest_text(config)
    if whole is not None and new_tokens >= whole:
        raise ConfigError(
            f"max_completion_length is {new_tokens}, and the model takes {whole} tokens in all",
            key="max_completion_length",
            hint=f"lower it below {whole}",
        )
    if encodes:
        return longest_text(config, "encoder")
    return None if whole is None else whole - new_tokens


def check_prompts_fit(
    prompts: Iterable[Any],
    tokenizer: PreTrainedTokenizerBase,
    config: Any,
    *,
    new_tokens: int,
    place: str,
    template_arguments: Mapping[str, Any] | None = None,
) -> None:
    """Whether the policy has positions for every prompt and its completion.

    Args:
        prompts: Text or messages.
        tokenizer: The policy's tokenizer.
        config: The policy's config, in transformers' form.
        new_tokens: The most tokens of a completion.
        place: Where the prompts come from, for errors.
        template_arguments: Arguments of the chat template.

    Raises:
        DataError: A prompt is too long; the message has its row, and says how many others are.
        ConfigError: The completion alone is too long.
    """
    room = prompt_room(config, new_tokens)
    if room is None:
        return
    too_long = [
        (row, length)
        for row, prompt in enumerate(prompts, start=1)
        if not surely_shorter(prompt, room)
        and (length := len(prompt_ids(prompt, tokenizer, template_arguments or {}))) > room
    ]
    if too_long:
        row, length = too_long[0]
        more = f"; {len(too_long)} prompts are too long" if len(too_long) > 1 else ""
        raise DataError(
            f"the prompt has {length} tokens, and the policy takes {room} beside a completion of {new_tokens}{more}",
            file=place,
            row=row,
            hint="shorten the prompts or leave them out, or lower max_completion_length",
        )


def surely_shorter(prompt: Any, room: int) -> bool:
    """Whether text or messages cannot have more tokens than there is room for: a token is at least a byte of them."""
    text = prompt if isinstance(prompt, str) else json.dumps(prompt, ensure_ascii=False, default=str)
    return len(text.encode(errors="replace")) + (8 if isinstance(prompt, str) else _OVERHEAD) <= room


def prompt_ids(prompt: Any, tokenizer: PreTrainedTokenizerBase, template_arguments: Mapping[str, Any]) -> list[int]:
    """As TRL's trainers encode a prompt: text with the tokenizer's own special tokens, messages by the template."""
    if isinstance(prompt, str):
        return list(tokenizer(prompt)["input_ids"])
    return chat_ids(prompt, tokenizer, add_generation_prompt=True, **template_arguments)
