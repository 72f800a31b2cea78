"""The card beside a trained model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("huggingface_hub")

from huggingface_hub import ModelCard

from rlaif_sdk.training.methods import load_run
from rlaif_sdk.training.model_card import write_model_card

COMPOSITION = {
    "rewards": {
        "toxicity": {"weight": 2},
        "brief": {"use": "conciseness", "weight": {"schedule": "linear", "from": 0, "to": 1, "end": 9}},
    }
}
CAUSAL = {"architectures": ["Qwen3ForCausalLM"]}


def card(folder: Path, method: str, config: dict[str, Any], model: dict[str, Any] = CAUSAL) -> ModelCard:
    (folder / "config.json").write_text(json.dumps(model))
    (folder / "run.yaml").write_text(yaml.safe_dump({**config, "output": "polite"}, sort_keys=False))
    write_model_card(load_run(method, folder / "run.yaml"), folder, steps=38)
    return ModelCard.load(folder / "README.md")


def test_the_hub_reads_what_the_model_was_made_from(tmp_path: Path) -> None:
    """Base model, data sets, library and task; the rewards and their weights are told to people."""
    config = {
        "model": {"name": "Qwen/Qwen3-0.6B", "revision": "main"},
        "data": {"train": "trl-lib/tldr", "held_out": "trl-lib/tldr"},
        "composition": COMPOSITION,
    }
    found = card(tmp_path, "grpo", config)
    assert found.data.to_dict() == {
        "base_model": "Qwen/Qwen3-0.6B",
        "datasets": ["trl-lib/tldr"],
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["rlaif-sdk", "grpo"],
    }
    assert found.text.splitlines()[1] == "# polite"
    for line in (
        "| base model | Qwen/Qwen3-0.6B, main |",
        "| optimiser steps | 38 |",
        "| rewards | toxicity (2), brief (scheduled) |",
    ):
        assert line in found.text


def test_names_of_this_machine_are_no_metadata(tmp_path: Path) -> None:
    """A folder is no model of the hub, and a file no data set; nobody else has the path."""
    (tmp_path / "start").mkdir()
    (tmp_path / "parts").mkdir()
    config = {"model": {"name": str(tmp_path / "start")}, "data": {"train": "parts", "held_out": "pairs.jsonl"}}
    found = card(tmp_path, "reward_model", config, {"architectures": ["LlamaForSequenceClassification"]})
    assert found.data.to_dict() == {
        "library_name": "transformers",
        "pipeline_tag": "text-classification",
        "tags": ["rlaif-sdk", "reward_model"],
    }
    assert "| base model | start |" in found.text
    assert str(tmp_path) not in found.content


@pytest.mark.parametrize("tags", [["rlaif-sdk", "sft"], ["somebody's"]])
def test_a_model_trained_here_passes_its_base_on(tmp_path: Path, tags: list[str]) -> None:
    """Tuned by SFT and then by DPO, it is still of the model on the hub; of other cards nobody knows what they mean."""
    (tmp_path / "sft").mkdir()
    (tmp_path / "sft" / "README.md").write_text(
        f"---\nbase_model: Qwen/Qwen3-0.6B\ntags: {json.dumps(tags)}\n---\n# sft\n"
    )
    found = card(tmp_path, "dpo", {"model": {"name": "sft"}, "data": {"train": "pairs.jsonl"}})
    assert found.data.base_model == ("Qwen/Qwen3-0.6B" if "rlaif-sdk" in tags else None)
