"""From pairs to a trained reward model: the labels of a job are a training set as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl")

from rlaif_sdk.judges import PairwiseLabeler
from rlaif_sdk.preferences import run_labeling
from rlaif_sdk.testing import ScriptedJudge
from rlaif_sdk.training.methods import train
from tests.training.conftest import build_llama, build_tokenizer


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning")  # transformers, by TRL
@pytest.mark.parametrize("kind", ["reward_model", "dpo"])
def test_a_labelling_jobs_output_trains_without_a_change(tmp_path: Path, write_pairs: Any, kind: Any) -> None:
    """`rlaif label`, then `rlaif train reward-model` or `rlaif train dpo` on the file that it wrote."""
    labeler = PairwiseLabeler(ScriptedJudge(lambda text: {"1": 0.6, "2": 0.3}))
    job = {"pairs": {"file": str(write_pairs(24, note={"by": "a"}))}, "judge": {"model": "double"}}
    labels = run_labeling({**job, "output": str(tmp_path / "labels")}, labeler=labeler).labels
    build_llama().save_pretrained(tmp_path / "start")
    build_tokenizer().save_pretrained(tmp_path / "start")
    settings = {"max_steps": 1, "per_device_train_batch_size": 4, "use_cpu": True}
    run = {
        "model": {"name": str(tmp_path / "start")},
        "data": {"train": str(labels), "held_out_rows": 8},
        kind: settings,
        "output": str(tmp_path / "run"),
    }
    result = train(kind, run)
    assert result.steps == 1
    assert (result.model_folder / "config.json").exists()
