"""What PPO adds to a causal language model: a value head, and one forward pass that scores given completions.

Both live inside the model's own ``forward``, so that whatever wraps the model (PEFT, autocast, data parallelism) sees
one call. B rows, P prompt tokens, T completion tokens, H hidden size, V vocabulary.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
import warnings
from collections.abc import Iterator
from types import MethodType
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from rlaif_sdk.training.ppo.logprobs import token_logprobs
from rlaif_sdk.training.ppo.rollout import Tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel

VALUE_HEAD = "value_head"
"""The attribute of the model that holds its `ValueHead`, and so the prefix of its parameters' names."""


class CompletionScores(NamedTuple):
    """What the model says of the tokens of given completions.

    Attributes:
        logprobs_BT: Log-probability of each token at the sampling temperature, in nats.
        entropies_BT: Entropy of the distribution that each token was drawn from, in nats.
        values_BT: Expected return before each token; 0 of a model without a value head.
    """

    logprobs_BT: Tensor
    entropies_BT: Tensor
    values_BT: Tensor


class ValueHead(nn.Module):
    """A linear map from the states that the language-model head reads to one value each.

    It starts at zero, so that the first advantages are the plain returns. States are scaled to unit root mean square
    first: one learning rate then suits models whose hidden states differ in size. It computes in its own float32
    parameters, also under autocast.
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(hidden_size, 1, dtype=torch.float32)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, states_BTH: Tensor) -> Tensor:
        """values_BT of states_BTH."""
        with torch.autocast(states_BTH.device.type, enabled=False):
            states_BTH = states_BTH.to(self.linear.weight.dtype)
            values_BT1: Tensor = self.linear(nn.functional.rms_norm(states_BTH, states_BTH.shape[-1:]))
            return values_BT1.squeeze(-1)


def base_model(model: Any) -> PreTrainedModel:
    """The transformers model, out of its PEFT wrapper if it has one."""
    unwrapped: PreTrainedModel = model.get_base_model() if hasattr(model, "get_base_model") else model
    return unwrapped


def add_value_head(model: PreTrainedModel) -> ValueHead:
    """Give the model a `ValueHead` that trains, and that ``save_pretrained`` leaves out."""
    output_weight = _output_embeddings(model).weight
    head = ValueHead(output_weight.shape[1]).to(output_weight.device)
    model.add_module(VALUE_HEAD, head)
    ignored = {f"{VALUE_HEAD}.{name}" for name, _ in head.named_parameters()}
    kept_out = model._keys_to_ignore_on_save or ()  # noqa: SLF001 - transformers has no public name for it
    model._keys_to_ignore_on_save = {*kept_out, *ignored}  # noqa: SLF001
    return head


@contextlib.contextmanager
def without_value_head(model: PreTrainedModel) -> Iterator[None]:
    """Take the value head off for a while, for code that walks over the model's parameters by name."""
    head: ValueHead = getattr(model, VALUE_HEAD)
    delattr(model, VALUE_HEAD)
    try:
        yield
    finally:
        model.add_module(VALUE_HEAD, head)


_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


def disable_dropout(model: nn.Module) -> None:
    """Set every dropout probability to 0, that of functional dropout too.

    Models that call dropout as a function keep its probability as a float attribute of a module, ``dropout`` or
    ``attention_dropout`` and the like. With dropout on, the policy would not agree with itself: its probability
    ratio would not start at 1.
    """
    for module in model.modules():
        if isinstance(module, _DROPOUTS):
            module.p = 0.0
        for name, value in vars(module).items():
            if isinstance(value, float) and ("dropout" in name or name in {"layerdrop", "drop_path"}):
                setattr(module, name, 0.0)


def warn_of_coarse_weights(model: nn.Module, learning_rate: float) -> None:
    """Warn where weights are trained in less than float32: most of them would stay what they are, without a word."""
    trained = {parameter.dtype for parameter in model.parameters() if parameter.requires_grad}
    if coarse := sorted(str(dtype).removeprefix("torch.") for dtype in trained if dtype.itemsize < 4):
        warnings.warn(
            f"weights are trained in {', '.join(coarse)}, in which steps of {learning_rate:g} mostly round to nothing; "
            "load the model in float32 (bf16=True still computes in bfloat16), or train an adapter",
            UserWarning,
            stacklevel=4,
        )


def frozen_copy(model: PreTrainedModel) -> PreTrainedModel:
    """A copy of the model as it is in memory, in evaluation mode, that takes no gradient."""
    copied = copy.deepcopy(model)
    copied.train(mode=False)
    copied.requires_grad_(requires_grad=False)
    return copied


def score_in_forward(model: PreTrainedModel, *, temperature: float) -> None:
    """Let ``model(input_ids=..., attention_mask=..., completion_length=T)`` return `CompletionScores`.

    Called without ``completion_length`` the model does what its class does; a forward method that was put on this
    one object before is dropped. The method is bound to the object, so a deep copy of the model scores with its own
    parameters.
    """
    class_forward = type(model).forward

    @functools.wraps(class_forward)
    def forward(self: PreTrainedModel, *args: Any, completion_length: int | None = None, **inputs: Any) -> Any:
        if completion_length is None:
            return class_forward(self, *args, **inputs)
        return _score(self, inputs["input_ids"], inputs["attention_mask"], completion_length, temperature)

    model.forward = MethodType(forward, model)


def _score(
    model: PreTrainedModel, input_ids: Tensor, attention_mask: Tensor, completion_length: int, temperature: float
) -> CompletionScores:
    """Score the last T of the P + T tokens; logits of prompt positions are never computed.

    Positions are counted over real tokens, so that padding shifts nothing (GPT-2 counts padding by itself).
    """
    length = input_ids.shape[1]
    before_T = torch.arange(length - completion_length - 1, length - 1, device=input_ids.device)
    accepted = inspect.signature(type(model).forward).parameters
    inputs: dict[str, Any] = {"input_ids": input_ids, "attention_mask": attention_mask, "use_cache": False}
    if "position_ids" in accepted:
        inputs["position_ids"] = (attention_mask.cumsum(dim=1) - 1).clamp(min=0)
    if "logits_to_keep" in accepted:
        inputs["logits_to_keep"] = before_T
    states: list[Tensor] = []
    watch = _output_embeddings(model).register_forward_pre_hook(lambda _, args: states.append(args[0]))
    try:
        logits_BTV = type(model).forward(model, **inputs).logits
    finally:
        watch.remove()
    (states_BTH,) = states
    if "logits_to_keep" not in accepted:
        logits_BTV, states_BTH = logits_BTV[:, before_T], states_BTH[:, before_T]
    ids_BT = input_ids[:, -completion_length:]
    logprobs_BT, entropies_BT = token_logprobs(logits_BTV, ids_BT, temperature=temperature)
    head = getattr(model, VALUE_HEAD, None)
    values_BT = torch.zeros_like(logprobs_BT) if head is None else head(states_BTH)
    return CompletionScores(logprobs_BT, entropies_BT, values_BT)


def _output_embeddings(model: PreTrainedModel) -> nn.Linear:
    head: nn.Linear = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    return head


def score_in_batches(model: Any, tokens: Tokens, *, batch_size: int) -> CompletionScores:
    """The scores of B completions, computed without gradients and ``batch_size`` at a time.

    Args:
        model: A model prepared with `score_in_forward`, or what wraps one.
        tokens: Prompts and completions.
        batch_size: Rows in one forward pass.
    """
    parts: list[CompletionScores] = []
    with torch.no_grad():
        for start in range(0, len(tokens), batch_size):
            part = tokens.rows(slice(start, start + batch_size))
            length = part.completion_length
            scores = model(input_ids=part.input_ids, attention_mask=part.attention_mask, completion_length=length)
            missing = tokens.completion_length - length
            parts.append(CompletionScores(*(nn.functional.pad(score, (0, missing)) for score in scores)))
    return CompletionScores(*(torch.cat(column) for column in zip(*parts, strict=True)))
