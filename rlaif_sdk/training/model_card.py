"""The card beside a trained model: what it was made from, in the README.md that the hub reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rlaif_sdk.io.files import write_text
from rlaif_sdk.io.tables import is_table_file
from rlaif_sdk.training.config import ComposedRun, Run

CARD_FILE = "README.md"
_TAG = "rlaif-sdk"


def write_model_card(run: Run, folder: Path, *, steps: int) -> None:
    """Write the card into the folder of a trained model.

    Its metadata are those of the hub: ``library_name``, ``base_model`` and ``datasets``, of which names of local folders and
    files are none, ``pipeline_tag`` and ``tags``.

    Args:
        run: What trained it.
        folder: Where it was saved.
        steps: Optimiser steps.
    """
    from huggingface_hub import ModelCardData

    model = run.config.model
    base = _base_model(run)
    metadata = ModelCardData(
        library_name="transformers",
        base_model=base,
        datasets=_hub_datasets(run) or None,
        pipeline_tag=_task(folder),
        tags=[_TAG, run.method],
    )
    facts = {
        "base model": (base or Path(model.name).name) + (f", {model.revision}" if model.revision else ""),
        "method": run.method,
        "optimiser steps": steps,
        "seed": run.config.seed,
        **({"rewards": _rewards(run)} if isinstance(run, ComposedRun) else {}),
    }
    rows = "\n".join(f"| {name} | {value} |" for name, value in facts.items())
    text = f"---\n{metadata.to_yaml()}\n---\n\n# {run.output.name}\n\nTrained with rlaif-sdk.\n\n| | |\n|---|---|\n{rows}\n"
    write_text(folder / CARD_FILE, text)


def _base_model(run: Run) -> str | None:
    """The name on the hub of the model that a run begins with: its own, or that in the card of one trained here."""
    from huggingface_hub import ModelCard

    card = Path(run.model_name) / CARD_FILE
    if not card.parent.is_dir():
        return run.model_name
    data = ModelCard.load(card).data if card.is_file() else None
    return str(data.base_model) if data and data.base_model and _TAG in (data.tags or ()) else None


def _hub_datasets(run: Run) -> list[str]:
    data = run.config.data
    named = [name for name in (data.train, data.held_out) if isinstance(name, str)]
    return [*dict.fromkeys(name for name in named if not is_table_file(name) and not (run.folder / name).exists())]


def _task(folder: Path) -> str | None:
    """What the hub calls the task of a model; it has no word for an encoder-decoder's."""
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if any("SequenceClassification" in name for name in config.get("architectures") or ()):
        return "text-classification"
    return None if config.get("is_encoder_decoder") else "text-generation"


def _rewards(run: ComposedRun) -> str:
    """The rewards by name, with their weights where these are numbers."""
    parts = run.composition_config().rewards
    weights = {
        name: part.weight if isinstance(part.weight, (int, float)) else "scheduled" for name, part in parts.items()
    }
    return ", ".join(
        f"{name} ({weight if isinstance(weight, str) else f'{weight:g}'})" for name, weight in weights.items()
    )
