"""The model of a run: loaded, whole or quantised, with its tokenizer and adapter, checked, and saved.

Whether a policy can be trained as it is asked to (something in it trains, its tokens are its own, its prompts fit) is
looked at before anything loads, see `rlaif_sdk.training.preflight`, and at the trainer's door again, which a script enters
without a run.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from rlaif_sdk.conversations.templates import chat_ids
from rlaif_sdk.exceptions import ConfigError, DataError, MissingExtraError, TrainingError
from rlaif_sdk.io.devices import computes_in_bfloat16, own_device
from rlaif_sdk.models.scoring_config import Side, longest_input
from rlaif_sdk.training.config import Run
from rlaif_sdk.training.ranks import first_process

if TYPE_CHECKING:
    from transformers import BitsAndBytesConfig, PreTrainedModel, PreTrainedTokenizerBase


def load_policy(run: Run, *, encoder_decoder: bool = False) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model to train and its tokenizer.

    Args:
        run: The run's config.
        encoder_decoder: Whether the method trains encoder-decoder models too.

    Raises:
        ConfigError: There is no such model, it cannot be read, or it is of a kind that the method does not train.
        MissingExtraError: It is to be quantised, and the extra ``quantization`` is not installed.
    """
    from transformers import AutoConfig, AutoTokenizer

    settings = run.config.model
    dtype = "float32" if settings.dtype == "auto" and settings.lora is None else settings.dtype
    try:
        seq2seq = is_encoder_decoder(AutoConfig.from_pretrained(run.model_name, revision=settings.revision))
        model = _load(run, dtype, seq2seq=seq2seq) if encoder_decoder or not seq2seq else None
        tokenizer = AutoTokenizer.from_pretrained(run.model_name, revision=settings.revision)
    except (OSError, ValueError) as error:
        raise run.document.error(f"cannot be loaded: {error}", ("model", "name")) from error
    if model is None:
        raise run.document.error(
            "it has an encoder and a decoder, which only PPO trains here", ("model", "name"), "rlaif train ppo"
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model, tokenizer


def is_encoder_decoder(model_or_config: Any) -> bool:
    """Whether it has an encoder for the prompt and a decoder for the completion."""
    config = getattr(model_or_config, "config", model_or_config)
    return bool(getattr(config, "is_encoder_decoder", False))


def adapter(run: Run, task: str = "CAUSAL_LM") -> Any:
    """The config of the run's adapter for a task of PEFT's, or None."""
    lora = run.config.model.lora
    if lora is None:
        return None
    from peft import LoraConfig, TaskType

    return LoraConfig(
        task_type=TaskType[task],
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
    )


def feed_head_contiguously(model: PreTrainedModel) -> None:
    """Let the output head read the last positions of its states from memory of their own.

    transformers cuts them out of the states of the whole prompt, row by row. PyTorch multiplies such a cut by a weight
    without gradient, as under an adapter, once a row, and on a CPU in bfloat16 it copies the weight for each: gigabytes.
    """
    head: Any = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    if head is not None:
        head.register_forward_pre_hook(_contiguous)


def _contiguous(_: Any, states: tuple[Any, ...]) -> tuple[Any, ...]:
    return (states[0].contiguous(), *states[1:])


def save_policy(run: Run, trainer: Any, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Save the policy, an adapter merged into its model; a critic stays out.

    All processes of a run call this, and the first writes. The adapter of a quantised model, or of one in parts, is merged
    into the model's own weights, which are loaded for it; of another model it is merged where it is, and the trainer is
    then of no more use.
    """
    from rlaif_sdk.training.ppo.critic import without_critic
    from rlaif_sdk.training.ppo.shards import whole_weights

    policy = trainer.accelerator.unwrap_model(trainer.model)
    weights = whole_weights(trainer)
    if hasattr(policy, "merge_and_unload"):
        if run.config.model.quantization is None and weights is None:
            with without_critic(policy.get_base_model()):  # which may share weights that this changes
                trainer.model = policy = policy.merge_and_unload()
        elif first_process():
            policy, weights = _onto_whole_weights(run, policy, weights), None
    if first_process():
        policy.save_pretrained(folder, **({} if weights is None else {"state_dict": weights}))
        tokenizer.save_pretrained(folder)


def _onto_whole_weights(run: Run, policy: Any, weights: Mapping[str, Any] | None) -> Any:
    """The model of a run as its files have it, with the adapter of a policy merged into it."""
    from peft import PeftModel

    with TemporaryDirectory() as folder:
        policy.save_pretrained(folder, selected_adapters=["default"], state_dict=weights)
        whole = _load(run, run.config.model.dtype, seq2seq=is_encoder_decoder(policy), quantised=False)
        merged: Any = PeftModel.from_pretrained(whole, folder)
        return merged.merge_and_unload()


def _load(run: Run, dtype: str, *, seq2seq: bool, quantised: bool = True) -> PreTrainedModel:
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    settings = run.config.model
    options: dict[str, Any] = {**settings.loading, "dtype": dtype}
    if settings.quantization and quantised:
        options |= {"quantization_config": quantization(settings.quantization), "device_map": _this_device()}
    kind = AutoModelForSeq2SeqLM if seq2seq else AutoModelForCausalLM
    model: PreTrainedModel = kind.from_pretrained(run.model_name, **options)
    module: Any
    for module in model.modules():
        # With this set, the first pass in evaluation mode on a CPU packs the weights into a layout without gradients.
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    feed_head_contiguously(model)
    return model


def quantization(bits: str) -> BitsAndBytesConfig:
    """How bitsandbytes holds the weights: in ``4bit`` (NF4, its constants quantised too) or in ``8bit``.

    Raises:
        MissingExtraError: bitsandbytes is not installed.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        raise MissingExtraError("bitsandbytes", extra="quantization")
    import torch
    from transformers import BitsAndBytesConfig

    if bits == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)  # type: ignore[no-untyped-call]
    compute = torch.bfloat16 if computes_in_bfloat16() else torch.float32
    return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
    )


def _this_device() -> dict[str, Any]:
    """Each process holds the whole model: quantised weights cannot be moved once they are loaded."""
    return {"": own_device()}


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
        counted = "is 1 prompt" if prompts == 1 else f"are {prompts} prompts"
        raise ConfigError(
            f"there {counted} to train on, and a rollout takes {wanted}: no step would be made",
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
        ConfigError: Already the completion is longer than what the policy takes.
    """
    encodes = is_encoder_decoder(config)
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
        ConfigError: Already the completion is too long.
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
