"""What a checkpoint of PPO holds beside the policy: the value head's weights, and JSON state.

The policy's own files are what ``save_pretrained`` writes, so that it loads with plain ``from_pretrained``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from rlaif_sdk.exceptions import StateError

if TYPE_CHECKING:
    from rlaif_sdk.training.ppo.kl import KLController
    from rlaif_sdk.training.ppo.policy import ValueHead

VALUE_HEAD_FILE = "value_head.safetensors"
STATE_FILE = "ppo_state.json"
_FORMAT = 1


def save(folder: Path, *, value_head: ValueHead, kl_controller: KLController, composer: Any) -> None:
    """Write the value head and the state of controller and composer into a folder that exists.

    Raises:
        StateError: The composer's state is no JSON value.
    """
    save_file(
        {name: tensor.detach().cpu() for name, tensor in value_head.state_dict().items()}, folder / VALUE_HEAD_FILE
    )
    state = {
        "format": _FORMAT,
        "kl_controller": kl_controller.state_dict(),
        "composer": composer.state_dict() if hasattr(composer, "state_dict") else None,
    }
    try:
        text = json.dumps(state, indent=1)
    except TypeError as error:
        raise StateError(
            f"the composer's state is no JSON value: {error}",
            hint="state_dict() returns dicts, lists, numbers, strings",
        ) from error
    (folder / STATE_FILE).write_text(text, encoding="utf-8")


def load(folder: Path, *, value_head: ValueHead, kl_controller: KLController, composer: Any) -> None:
    """Restore what `save` wrote.

    Raises:
        StateError: A file is missing or unreadable, or does not fit.
    """
    try:
        weights = load_file(folder / VALUE_HEAD_FILE)
        state = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise StateError(
            f"{error.filename or folder / VALUE_HEAD_FILE} is missing", hint="resume from a checkpoint of PPOTrainer"
        ) from error
    except (ValueError, SafetensorError) as error:
        raise StateError(f"{folder} cannot be read: {error}", hint="resume from an earlier checkpoint") from error
    if state.get("format") != _FORMAT:
        raise StateError(
            f"{folder / STATE_FILE} has format {state.get('format')!r} where {_FORMAT} is known",
            hint="resume with the version of rlaif-sdk that saved it",
        )
    try:
        value_head.load_state_dict(weights)
    except RuntimeError as error:
        raise StateError(f"the value head in {folder} does not fit the model: {error}") from error
    kl_controller.load_state_dict(state["kl_controller"])
    if state["composer"] is not None and hasattr(composer, "load_state_dict"):
        composer.load_state_dict(state["composer"])
