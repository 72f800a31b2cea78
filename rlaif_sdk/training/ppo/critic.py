"""Who says what a completion is worth: a value head on the policy, or a model of its own with a value head.

Under LoRA that model may be an adapter of its own on the policy's frozen weights. Either is a submodule of the policy and is
evaluated inside its ``forward``, so that whatever wraps the policy (PEFT, autocast, data parallelism) sees one model; neither
is part of what ``save_pretrained`` writes. B rows, P prompt tokens, T completion tokens, H hidden size.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import torch
from torch import Tensor, nn

from rlaif_sdk.exceptions import TrainingError
from rlaif_sdk.training.ppo.inputs import completion_inputs, is_encoder_decoder

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class ValueHead(nn.Module):
    """A linear map from the states that the language-model head reads to one value each.

    It starts at zero, so that the first advantages are the plain returns. States are scaled to unit root mean square
    first: one learning rate then suits models whose hidden states differ in size. It computes in float32, also under
    autocast, and where FSDP or DeepSpeed casts its parameters.
    """

    NAME: ClassVar[str] = "value_head"
    """The attribute of the policy, the prefix of the parameters' names, and the stem of the file in a checkpoint."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.linear = _Float32Linear(hidden_size, 1, dtype=torch.float32)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, states_BTH: Tensor) -> Tensor:
        """values_BT of states_BTH."""
        with torch.autocast(states_BTH.device.type, enabled=False):
            states_BTH = states_BTH.float()
            values_BT1: Tensor = self.linear(nn.functional.rms_norm(states_BTH, states_BTH.shape[-1:]))
            return values_BT1.squeeze(-1)


class _Float32Linear(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight.float(), self.bias.float())


class SeparateCritic(nn.Module):
    """A transformer without a language-model head, and a value head on its last states.

    Args:
        backbone: The transformer, as `transformers.AutoModel` makes it; of the policy's kind and vocabulary.
    """

    NAME: ClassVar[str] = "critic"
    """As `ValueHead.NAME`."""

    def __init__(self, backbone: PreTrainedModel) -> None:
        super().__init__()
        self.backbone = backbone
        embeddings: Any = backbone.get_input_embeddings()
        self.value_head = ValueHead(embeddings.weight.shape[1]).to(embeddings.weight.device)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, completion_length: int) -> Tensor:
        """values_BT of the last T of P + T tokens."""
        inputs, kept = completion_inputs(self.backbone, input_ids, attention_mask, completion_length)
        states_BTH: Tensor = self.backbone(**inputs).last_hidden_state[:, kept]
        values_BT: Tensor = self.value_head(states_BTH)
        return values_BT


Critic: TypeAlias = ValueHead | SeparateCritic


def add_value_head(policy: PreTrainedModel) -> ValueHead:
    """Give the policy a `ValueHead` that trains."""
    output_weight: Tensor = policy.get_output_embeddings().weight  # type: ignore[no-untyped-call]
    head = ValueHead(output_weight.shape[1]).to(output_weight.device)
    _attach(policy, head)
    return head


def add_separate_critic(policy: PreTrainedModel, backbone: PreTrainedModel) -> SeparateCritic:
    """Give the policy a `SeparateCritic` that trains, in float32.

    Raises:
        TrainingError: The backbone is of another kind than the policy, or reads other tokens.
    """
    if is_encoder_decoder(backbone) is not is_encoder_decoder(policy):
        kinds = ["an encoder-decoder model" if is_encoder_decoder(m) else "a decoder" for m in (backbone, policy)]
        raise TrainingError(f"the critic is {kinds[0]} and the policy {kinds[1]}", hint="name a critic of its kind")
    read: Any = backbone.get_input_embeddings()
    read_by_policy: Any = policy.get_input_embeddings()
    sizes = read.weight.shape[0], read_by_policy.weight.shape[0]
    if sizes[0] != sizes[1]:
        raise TrainingError(
            f"the critic has a vocabulary of {sizes[0]} tokens and the policy one of {sizes[1]}",
            hint="name a critic with the policy's tokenizer",
        )
    critic = SeparateCritic(nn.Module.to(backbone, device=read_by_policy.weight.device, dtype=torch.float32))
    critic.requires_grad_(requires_grad=True)
    critic.train(policy.training)
    _attach(policy, critic)
    return critic


def backbone_of(policy: Any) -> PreTrainedModel:
    """A copy of the policy's transformer as it is in memory, an adapter merged, without its language-model head.

    Raises:
        TrainingError: The policy's weights are quantised, which do not train.
    """
    from transformers import AutoModel

    if getattr(policy, "is_quantized", False):
        raise TrainingError("a critic cannot be a copy of a quantised policy", hint="set critic_model")
    model = policy
    if hasattr(policy, "merge_and_unload"):
        model = copy.deepcopy(policy).merge_and_unload()
    transformer: PreTrainedModel = model.base_model
    if transformer is not model:
        return transformer if model is not policy else copy.deepcopy(transformer)
    backbone: PreTrainedModel = AutoModel.from_config(model.config)  # type: ignore[no-untyped-call]
    missing, _ = backbone.load_state_dict(model.state_dict(), strict=False)
    if missing:
        raise TrainingError(
            f"{type(model).__name__} does not hold the weights of a {type(backbone).__name__}", hint="set critic_model"
        )
    return backbone


def adapted_backbone(policy: Any) -> PreTrainedModel:
    """The policy's transformer with an adapter of its own: what the policy does not train is held once, by both.

    The adapter is named ``critic`` and is of the kind of the policy's; it starts anew, at the model without an adapter.

    Raises:
        TrainingError: The policy has no LoRA adapter, or its transformer is no part of it.
    """
    from peft import LoraConfig, PeftModel, get_peft_model

    own = policy.peft_config[policy.active_adapter] if isinstance(policy, PeftModel) else None
    if not isinstance(own, LoraConfig):
        raise TrainingError("a LoRA critic needs a policy with LoRA", hint="set model.lora, or critic: separate")
    frozen: dict[int, Any] = {id(weight): weight for weight in policy.parameters() if not weight.requires_grad}
    model: Any = copy.deepcopy(policy, frozen).unload()
    if model.base_model is model:
        raise TrainingError(
            f"{type(model).__name__} has no transformer to adapt apart from it", hint="critic: separate"
        )
    settings = dataclasses.replace(own, task_type=None, modules_to_save=None, inference_mode=False)
    whole: Any = get_peft_model(model, settings, adapter_name="critic").get_base_model()
    transformer: PreTrainedModel = whole.base_model
    return transformer


def add_lora_critic(policy: PreTrainedModel, backbone: PreTrainedModel) -> SeparateCritic:
    """Give the policy a `SeparateCritic` of which an adapter and the value head train; see `adapted_backbone`."""
    critic = SeparateCritic(backbone)
    critic.train(policy.training)
    _attach(policy, critic)
    return critic


def load_backbone(name: str) -> PreTrainedModel:
    """A transformer without its language-model head, in float32; of a classifier or reward model, too.

    Raises:
        TrainingError: It cannot be loaded.
    """
    from transformers import AutoModel

    try:
        backbone: PreTrainedModel = AutoModel.from_pretrained(name, dtype=torch.float32)
    except (OSError, ValueError) as error:
        raise TrainingError(f"the critic {name!r} cannot be loaded: {error}", hint="see critic_model") from error
    return backbone


@contextlib.contextmanager
def without_critic(policy: PreTrainedModel) -> Iterator[None]:
    """Take the critic off for a while, if there is one, for code that walks over the policy's parameters or adapters."""
    critics = {name: getattr(policy, name) for name in _NAMES if hasattr(policy, name)}
    for name in critics:
        delattr(policy, name)
    try:
        yield
    finally:
        for name, critic in critics.items():
            policy.add_module(name, critic)


def trained_weights(module: nn.Module) -> dict[str, nn.Parameter]:
    """The weights of a critic, or of its backbone, that train."""
    return {name: weight for name, weight in module.named_parameters() if weight.requires_grad}


_NAMES = (ValueHead.NAME, SeparateCritic.NAME)


def _attach(policy: PreTrainedModel, critic: Critic) -> None:
    """Make the critic a part of the policy that ``save_pretrained`` leaves out."""
    policy.add_module(critic.NAME, critic)
    kept_out = policy._keys_to_ignore_on_save or ()  # noqa: SLF001 - transformers has no public name for it
    own = {f"{critic.NAME}.{name}" for name in critic.state_dict()}
    policy._keys_to_ignore_on_save = {*kept_out, *own}  # noqa: SLF001
