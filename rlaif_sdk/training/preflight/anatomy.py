"""The sizes of a model that its config gives, from an empty model on torch's ``meta`` device: no weight is allocated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from rlaif_sdk.exceptions import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

Task = Literal["CAUSAL_LM", "SEQ_2_SEQ_LM", "SEQ_CLS"]


@dataclass(frozen=True, slots=True)
class Anatomy:
    """How big a transformer is. Counts of numbers, not of bytes.

    Attributes:
        parameters: Of the whole model, shared ones counted once, an adapter included.
        trainable: Those that training changes.
        layers: Blocks, of encoder and decoder together.
        hidden: Width of the residual stream.
        intermediate: Width inside a feed-forward block.
        keys: Width of the keys of a layer, all heads together; the values are as wide.
        vocabulary: Rows of the embedding.
        adapter_inputs: Widths of what the layers with an adapter read, added up over the model.
    """

    parameters: int
    trainable: int
    layers: int
    hidden: int
    intermediate: int
    keys: int
    vocabulary: int
    adapter_inputs: int = 0


def read_config(name: str, revision: str | None) -> PreTrainedConfig:
    """The config of a model, in transformers' form; of a model on the hub, this one file is downloaded.

    Raises:
        ConfigError: There is none, or it is of an unknown kind.
    """
    from transformers import AutoConfig

    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(name, revision=revision)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"its config cannot be read: {error}") from error
    return config


def dissect(config: PreTrainedConfig, task: Task, adapter: Any = None) -> Anatomy:
    """The anatomy of a model.

    Args:
        config: The model's config.
        task: What kind of head it has, as PEFT names it.
        adapter: A `peft.LoraConfig`, or None to train every weight.

    Raises:
        ConfigError: transformers has no such model with such a head; or the adapter does not fit it.
    """
    import torch
    import transformers

    head = {
        "CAUSAL_LM": transformers.AutoModelForCausalLM,
        "SEQ_2_SEQ_LM": transformers.AutoModelForSeq2SeqLM,
        "SEQ_CLS": transformers.AutoModelForSequenceClassification,
    }[task]
    try:
        with torch.device("meta"):
            model: Any = head.from_config(config)  # type: ignore[no-untyped-call]
    except ValueError as error:
        raise ConfigError(f"is no model for this kind of training: {error}") from error
    inputs = 0
    if adapter is not None:
        from peft import get_peft_model
        from peft.tuners.lora import LoraLayer

        try:
            model = get_peft_model(model, adapter, low_cpu_mem_usage=True)
        except ValueError as error:
            raise ConfigError(f"the adapter does not fit: {error}", key="model.lora.target_modules") from error
        inputs = sum(layer.in_features or 0 for layer in model.modules() if isinstance(layer, LoraLayer))
    text: Any = config.get_text_config()
    hidden = int(text.hidden_size)
    heads = int(text.num_attention_heads)
    keys = (getattr(text, "num_key_value_heads", None) or heads) * (getattr(text, "head_dim", None) or hidden // heads)
    inner = getattr(text, "intermediate_size", None) or getattr(text, "d_ff", None) or getattr(text, "n_inner", None)
    return Anatomy(
        parameters=sum(weight.numel() for weight in model.parameters()),
        trainable=sum(weight.numel() for weight in model.parameters() if weight.requires_grad),
        layers=int(text.num_hidden_layers) + int(getattr(text, "num_decoder_layers", None) or 0),
        hidden=hidden,
        intermediate=int(inner or 4 * hidden),
        keys=int(keys),
        vocabulary=int(text.vocab_size),
        adapter_inputs=inputs,
    )
