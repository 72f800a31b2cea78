"""Weights that FSDP or DeepSpeed keeps in parts, one in each process, and gathers while a module runs."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from accelerate import Accelerator


def return_float32(accelerator: Accelerator) -> None:
    """Let what FSDP prepares from here on return float32.

    It casts what a module returns to the type that it computes in: log-probabilities, values, and all that is made of
    them would be rounded to 8 bits. FSDP1, which casts nothing that is returned, is left as it is.
    """
    plugin: Any = getattr(accelerator.state, "fsdp_plugin", None)
    policy: Any = getattr(plugin, "mixed_precision_policy", None)
    if hasattr(policy, "output_dtype"):
        plugin.mixed_precision_policy = dataclasses.replace(policy, output_dtype=torch.float32)


@contextlib.contextmanager
def gathered_once(model: nn.Module) -> Iterator[None]:
    """Within, FSDP2 keeps the weights that it has gathered; ``generate`` runs the model once for each token."""
    units = [unit for unit in _units(model) if _parts_after_forward(unit)]
    for unit in units:
        unit.set_reshard_after_forward(reshard_after_forward=False, recurse=False)
        unit.unshard()  # now, since a process that has nothing to say makes no pass
    try:
        yield
    finally:
        for unit in units:
            unit.set_reshard_after_forward(reshard_after_forward=True, recurse=False)
            unit.reshard()


@contextlib.contextmanager
def ready_to_answer(trainer: Any) -> Iterator[Any]:
    """The policy of a trainer of transformers' kind, whole and on its device, for as long as it answers.

    Before training nothing is in parts yet, and what will be waits on the CPU.
    """
    accelerator = trainer.accelerator
    policy = accelerator.unwrap_model(trainer.model)
    before = next(policy.parameters()).device
    with contextlib.ExitStack() as opened:
        if _units(policy):
            opened.enter_context(gathered_once(policy))
        elif (trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled) and before != accelerator.device:
            policy.to(accelerator.device)
            opened.callback(policy.to, before)
        yield policy


def whole_weights(trainer: Any) -> dict[str, Tensor] | None:
    """All weights, gathered in the first process, of which all processes ask; None where each has them whole.

    Args:
        trainer: Of transformers' kind.
    """
    if not (trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled):
        return None
    weights: dict[str, Tensor] = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    return weights


def in_parts(weights: Mapping[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """Whole weights as the module holds its own: this process's part where FSDP2 has them in parts."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    def part(weight: Tensor, parameter: nn.Parameter) -> Tensor:
        if not isinstance(parameter, DTensor) or weight.shape != parameter.shape:
            return weight
        where = parameter.device_mesh, parameter.placements
        return distribute_tensor(weight.to(parameter.device), *where, src_data_rank=None)

    return {name: part(weights[name], parameter) for name, parameter in module.named_parameters() if name in weights}


def _units(model: nn.Module) -> list[Any]:
    if not torch.distributed.is_available():
        return []
    from torch.distributed.fsdp import FSDPModule

    return [module for module in model.modules() if isinstance(module, FSDPModule)]


def _parts_after_forward(unit: Any) -> bool:
    group = unit._get_fsdp_state()._fsdp_param_group  # noqa: SLF001 - it can be set in public, and not asked
    return group is not None and group.post_forward_mesh_info is not None
