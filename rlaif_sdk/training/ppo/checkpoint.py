"""What a checkpoint of PPO holds beside the policy: the critic's weights, and JSON state.

The policy's own files are what ``save_pretrained`` writes, so that it loads with plain ``from_pretrained``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from rlaif_sdk.exceptions import StateError
from rlaif_sdk.io.digests import bytes_digest
from rlaif_sdk.io.files import write_text
from rlaif_sdk.training.ppo.critic import trained_weights
from rlaif_sdk.training.ppo.shards import in_parts

if TYPE_CHECKING:
    from rlaif_sdk.training.ppo.critic import Critic
    from rlaif_sdk.training.ppo.kl import KLController
    from rlaif_sdk.training.ppo.scoring import ScoreNormalizer

STATE_FILE = "ppo_state.json"
_FORMAT = 3
_SAMPLED = 64
"""Numbers of each tensor that its fingerprint is made of."""


def fingerprint(weights: Iterable[tuple[str, Tensor]]) -> str:
    """What tells one model from another: names, shapes, and some numbers of each tensor, spread over it.

    A model that was trained for a step differs in nearly all of its numbers.

    Args:
        weights: The tensors by name.
    """
    content = bytearray()
    for name, weight in weights:
        flat = weight.detach().flatten()
        sampled = min(_SAMPLED, flat.numel())
        places = torch.arange(sampled, device=flat.device) * (flat.numel() - 1) // max(sampled - 1, 1)
        numbers = flat[places].float().cpu().numpy().tobytes()
        content += f"{name} {tuple(weight.shape)} ".encode() + numbers
    return f"sha256:{bytes_digest(bytes(content))[:16]}"


def critic_file(critic: Critic) -> str:
    """``value_head.safetensors`` or ``critic.safetensors``."""
    return f"{critic.NAME}.safetensors"


def critic_weights(critic: Critic, state_dict: Mapping[str, Tensor] | None = None) -> dict[str, Tensor] | None:
    """The critic's weights that train, each tied one once; None where no process has them whole.

    Args:
        critic: The critic.
        state_dict: The whole policy's weights, gathered from the processes that each hold a part. None where each process
            holds them all; empty where they are not gathered.
    """
    own = trained_weights(critic)
    if state_dict is None:
        return {name: parameter.detach().cpu() for name, parameter in own.items()}
    if not state_dict:
        return None
    prefix = f"{critic.NAME}."
    gathered = {key.partition(prefix)[2]: tensor for key, tensor in state_dict.items() if prefix in key}
    return {name: gathered[name].cpu() for name in own}


@dataclass(frozen=True, slots=True)
class CheckpointState:
    """What is saved and restored.

    Attributes:
        critic: The critic.
        kl_controller: What a nat costs.
        score_normalizer: The scale of the scores.
        composer: What scores; its state is saved where it has a ``state_dict``.
        reference: The `fingerprint` of the model that the divergence is measured from; None without one.
    """

    critic: Critic
    kl_controller: KLController
    score_normalizer: ScoreNormalizer
    composer: Any
    reference: str | None

    def save(self, folder: Path, critic: Mapping[str, Tensor] | None) -> None:
        """Write into a folder that exists; ``critic`` is what `critic_weights` gives.

        Raises:
            StateError: The composer's state is no JSON value.
        """
        if critic is not None:
            save_file(dict(critic), folder / critic_file(self.critic))
        state = {
            "format": _FORMAT,
            "reference": self.reference,
            "kl_controller": self.kl_controller.state_dict(),
            "score_normalizer": self.score_normalizer.state_dict(),
            "composer": self.composer.state_dict() if hasattr(self.composer, "state_dict") else None,
        }
        try:
            text = json.dumps(state, indent=1)
        except TypeError as error:
            raise StateError(
                f"the composer's state is no JSON value: {error}",
                hint="state_dict() returns dicts, lists, numbers, strings",
            ) from error
        write_text(folder / STATE_FILE, text)

    def load(self, folder: Path, *, weights: bool = True) -> None:
        """Restore what `save` wrote.

        Args:
            folder: The checkpoint.
            weights: Whether to load the critic's, which DeepSpeed restores by itself.

        Raises:
            StateError: A file is missing or unreadable, does not fit, or the reference is another model.
        """
        file = folder / critic_file(self.critic)
        try:
            critic = load_file(file) if weights else None
            state = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise StateError(
                f"{error.filename or file} is missing", hint="resume from a checkpoint of PPOTrainer"
            ) from error
        except (ValueError, SafetensorError) as error:
            raise StateError(f"{folder} cannot be read: {error}", hint="resume from an earlier checkpoint") from error
        if state.get("format") != _FORMAT:
            raise StateError(
                f"{folder / STATE_FILE} has format {state.get('format')!r} where {_FORMAT} is known",
                hint="resume with the version of rlaif-sdk that saved it",
            )
        if None not in {self.reference, state["reference"]} and self.reference != state["reference"]:
            raise StateError(
                f"the training that {folder} is of began with another model, from which its divergence is measured: "
                f"{state['reference']}, not {self.reference}",
                hint="resume with the model that it began with; to begin with this one, start a new run",
            )
        try:
            if critic is not None:
                _load_parameters(self.critic, critic)
        except RuntimeError as error:
            raise StateError(f"{file} does not fit the model: {error}") from error
        self.kl_controller.load_state_dict(state["kl_controller"])
        self.score_normalizer.load_state_dict(state["score_normalizer"])
        if state["composer"] is not None and hasattr(self.composer, "load_state_dict"):
            self.composer.load_state_dict(state["composer"])


def _load_parameters(critic: Critic, weights: Mapping[str, Tensor]) -> None:
    """Tied parameters stand in the file once, as `torch.nn.Module.named_parameters` names them."""
    expected = set(trained_weights(critic))
    if odd := sorted(expected ^ set(weights)):
        raise RuntimeError(f"{odd[0]} is {'missing' if odd[0] in expected else 'unknown'}")
    critic.load_state_dict(in_parts(weights, critic), strict=False)
