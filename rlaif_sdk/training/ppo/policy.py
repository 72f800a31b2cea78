"""What PPO adds to a language model: one forward pass that scores given completions.

It lives inside the model's own ``forward``, so that whatever wraps the model (PEFT, autocast, data parallelism) sees
one call. B rows, P prompt tokens, T completion tokens, V vocabulary.
"""

from __future__ import annotations

import copy
import functools
import warnings
from collections.abc import Sequence
from types import MethodType
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from rlaif_sdk.training.ppo.critic import SeparateCritic, ValueHead
from rlaif_sdk.training.ppo.inputs import completion_inputs
from rlaif_sdk.training.ppo.logprobs import head_logprobs, token_logprobs
from rlaif_sdk.training.ppo.rollout import Tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class CompletionScores(NamedTuple):
    """What the model says of the tokens of given completions.

    Attributes:
        logprobs_BT: Log-probability of each token at the sampling temperature, in nats.
        entropies_BT: Entropy of the distribution that each token was drawn from, in nats.
        values_BT: Expected return before each token; 0 of a model without a critic.
    """

    logprobs_BT: Tensor
    entropies_BT: Tensor
    values_BT: Tensor


def base_model(model: Any) -> PreTrainedModel:
    """The transformers model, out of its PEFT wrapper if it has one."""
    unwrapped: PreTrainedModel = model.get_base_model() if hasattr(model, "get_base_model") else model
    return unwrapped


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


def score_in_forward(model: PreTrainedModel, *, temperature: float, sharded: bool = False) -> None:
    """Let ``model(input_ids=..., attention_mask=..., completion_length=T)`` return `CompletionScores`.

    Called without ``completion_length`` the model does what its class does; a forward method that was put on this
    one object before is dropped. The method is bound to the object, so a deep copy of the model scores with its own
    parameters.

    Args:
        model: Is changed; its weights stay what they are.
        temperature: The sampling temperature.
        sharded: The weights will be whole only while the module that owns them runs, as under FSDP and DeepSpeed, so
            the logits are made by the head as a whole.
    """
    class_forward = type(model).forward
    in_chunks = not sharded and _ends_in_a_linear_head(model)

    @functools.wraps(class_forward)
    def forward(self: PreTrainedModel, *args: Any, completion_length: int | None = None, **inputs: Any) -> Any:
        if completion_length is None:
            return class_forward(self, *args, **inputs)
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        return _score(self, ids, mask, completion_length, temperature, in_chunks=in_chunks)

    model.forward = MethodType(forward, model)


def _ends_in_a_linear_head(model: PreTrainedModel) -> bool:
    """Whether the logits are the states that the head reads times its weight, and nothing is done to them after.

    Some models cap, scale or shift what their head says. So the head is made to say numbers of every size, and the
    logits must be those. A hook on what it says would not be noticed so, and is one of these things; hooks on what it
    reads run in any case.
    """
    head: Any = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    if type(head) is not nn.Linear or head.bias is not None or "forward" in vars(head):
        return False
    if head._forward_hooks:  # noqa: SLF001 - no public way to ask
        return False
    said_V = torch.linspace(-100, 100, head.out_features).to(head.weight)
    ids_11 = torch.zeros(1, 1, dtype=torch.long, device=head.weight.device)
    inputs, _ = completion_inputs(model, ids_11.expand(1, 2), torch.ones_like(ids_11).expand(1, 2), 1)
    was_training = model.training
    reads = head.register_forward_pre_hook(lambda _, args: args[0].to(head.weight))  # autocast would see to that
    says = head.register_forward_hook(lambda _, __, logits: said_V.expand_as(logits))
    try:
        with torch.no_grad():
            logits_1TV: Tensor = type(model).forward(model.eval(), **inputs).logits
    finally:
        reads.remove()
        says.remove()
        model.train(was_training)
    return torch.equal(logits_1TV, said_V.to(logits_1TV).expand_as(logits_1TV))


def _score(
    model: PreTrainedModel,
    input_ids: Tensor,
    attention_mask: Tensor,
    completion_length: int,
    temperature: float,
    *,
    in_chunks: bool,
) -> CompletionScores:
    """Score the last T of the P + T tokens; logits of prompt positions are never computed if the model allows it."""
    inputs, kept = completion_inputs(model, input_ids, attention_mask, completion_length)
    states: list[Tensor] = []

    def watch(_: nn.Module, args: tuple[Tensor, ...]) -> Tensor | None:
        states.append(args[0])
        return args[0][:, :0] if in_chunks else None

    head: Any = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    watching = head.register_forward_pre_hook(watch)
    try:
        logits_BTV = type(model).forward(model, **inputs).logits
    finally:
        watching.remove()
    ids_BT, states_BTH = input_ids[:, -completion_length:], states[0][:, kept]
    if in_chunks:
        logprobs_BT, entropies_BT = head_logprobs(states_BTH, head.weight, ids_BT, temperature=temperature)
    else:
        logprobs_BT, entropies_BT = token_logprobs(logits_BTV[:, kept], ids_BT, temperature=temperature, overwrite=True)
    if (critic := getattr(model, SeparateCritic.NAME, None)) is not None:
        values_BT = critic(input_ids, attention_mask, completion_length)
    elif (value_head := getattr(model, ValueHead.NAME, None)) is not None:
        values_BT = value_head(states_BTH)
    else:
        values_BT = torch.zeros_like(logprobs_BT)
    return CompletionScores(logprobs_BT, entropies_BT, values_BT)


def score_in_batches(model: Any, tokens: Tokens, batches: Sequence[Tensor]) -> CompletionScores:
    """The scores of B completions, computed without gradients, a batch at a time.

    Args:
        model: A model prepared with `score_in_forward`, or what wraps one.
        tokens: Prompts and completions.
        batches: The numbers of the rows in each forward pass, every row in one; see `Tokens.batches`.
    """
    parts: list[CompletionScores] = []
    with torch.no_grad():
        for rows in batches:
            part = tokens.rows(rows)
            length = part.completion_length
            scores = model(input_ids=part.input_ids, attention_mask=part.attention_mask, completion_length=length)
            missing = tokens.completion_length - length
            parts.append(CompletionScores(*(nn.functional.pad(score, (0, missing)) for score in scores)))
    places_B = torch.cat([*batches]).argsort().to(tokens.completion_ids_BT.device, non_blocking=True)
    return CompletionScores(*(torch.cat(column)[places_B] for column in zip(*parts, strict=True)))
