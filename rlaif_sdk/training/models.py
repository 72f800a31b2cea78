"""The model of a run: loaded, whole or quantised, with its tokenizer and adapter, and saved."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from rlaif_sdk.exceptions import MissingExtraError
from rlaif_sdk.training.config import Run

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
            "it has an encoder and a decoder, which PPO alone trains", ("model", "name"), "rlaif train ppo"
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


def save_policy(run: Run, trainer: Any, tokenizer: PreTrainedTokenizerBase, folder: Path) -> Any:
    """Save the policy, an adapter merged into its model; a critic stays out.

    The adapter of a quantised model is merged into the model's own weights, which are loaded for it.

    Returns:
        The policy to go on with. The trainer is of no more use where an adapter was merged into its model.
    """
    policy = trainer.accelerator.unwrap_model(trainer.model)
    whole = _onto_whole_weights(run, policy) if run.config.model.quantization else policy
    if hasattr(whole, "merge_and_unload"):
        whole = whole.merge_and_unload()
    whole.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return policy if run.config.model.quantization else whole


def _onto_whole_weights(run: Run, policy: Any) -> Any:
    from peft import PeftModel

    with TemporaryDirectory() as folder:
        policy.save_pretrained(folder, selected_adapters=["default"])
        whole = _load(run, run.config.model.dtype, seq2seq=is_encoder_decoder(policy), quantised=False)
        return PeftModel.from_pretrained(whole, folder)


def _load(run: Run, dtype: str, *, seq2seq: bool, quantised: bool = True) -> PreTrainedModel:
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    settings = run.config.model
    options: dict[str, Any] = {"revision": settings.revision, "dtype": dtype}
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
    compute = torch.bfloat16 if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else torch.float32
    return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
    )


def _this_device() -> dict[str, Any]:
    """Each process holds the whole model: quantised weights cannot be moved once they are loaded."""
    import torch
    from accelerate import PartialState

    return {"": PartialState().local_process_index if torch.cuda.is_available() else "cpu"}
