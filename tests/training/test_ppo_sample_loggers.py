"""Samples and figures in the loggers that training reports to: written by the real libraries, without a network."""

from __future__ import annotations

import json
import sqlite3
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from rlaif_sdk.training.ppo import PPOTrainer  # noqa: E402
from rlaif_sdk.training.ppo.samples import Shown, markdown_table  # noqa: E402
from tests.training.ppo_runs import Recorder, by_length  # noqa: E402

Make = Callable[..., PPOTrainer]

pytestmark = pytest.mark.filterwarnings("ignore")  # the loggers' own


def train(make_trainer: Make, llama: Any, logger: str) -> list[dict[str, Any]]:
    """Two rollouts, reported to a logger; returns the samples as the file has them."""
    trainer = make_trainer(
        llama,
        Recorder(by_length, "length"),
        report_to=[logger],
        run_name="tried",
        max_steps=2,
        num_iterations=1,
        steps_per_generation=1,
        log_samples=2,
    )
    trainer.train()
    lines = (Path(trainer.args.output_dir) / "rollouts.jsonl").read_text().splitlines()
    samples = [json.loads(line) for line in lines]
    assert [sample["step"] for sample in samples] == [0, 0, 1, 1]
    return samples


def tables_of(samples: list[dict[str, Any]]) -> list[str]:
    return [markdown_table(samples[:2]), markdown_table(samples[2:])]


def rows_of(samples: list[dict[str, Any]]) -> list[list[Any]]:
    return [[s["step"], s["prompt"], s["completion"], s["rewards"]["length"]["raw"], s["total"]] for s in samples]


def test_tensorboard_has_a_table_a_rollout_and_a_curve_a_reward(make_trainer: Make, llama: Any, tmp_path: Path) -> None:
    """In its event file, as text."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    samples = train(make_trainer, llama, "tensorboard")
    (folder,) = {path.parent for path in tmp_path.rglob("events.out.tfevents*")}
    events = accumulator.EventAccumulator(str(folder)).Reload()
    assert {"train/reward", "train/reward/length/raw_mean", "train/kl"} <= set(events.Tags()["scalars"])
    texts = events.Tensors("samples/train/text_summary")
    assert [text.step for text in texts] == [0, 1]
    assert [text.tensor_proto.string_val[0].decode() for text in texts] == tables_of(samples)


def test_mlflow_has_a_file_a_rollout_and_a_curve_a_reward(
    make_trainer: Make, llama: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Artifacts of the run, named by step."""
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    samples = train(make_trainer, llama, "mlflow")
    (run,) = mlflow.search_runs(output_format="list")
    assert {"reward", "reward/length/raw_mean", "kl"} <= set(run.data.metrics)
    files = [f"{run.info.artifact_uri}/samples/train/step-0000000{step}.md" for step in (0, 1)]
    assert [mlflow.artifacts.load_text(file) for file in files] == tables_of(samples)
    assert mlflow.active_run() is None


def test_wandb_has_a_table_a_rollout_and_a_curve_a_reward(
    make_trainer: Make, llama: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the run that transformers has begun."""
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    samples = train(make_trainer, llama, "wandb")
    figures = dict(wandb.run.summary)
    wandb.finish()
    assert {"train/reward", "train/reward/length/raw_mean", "train/kl"} <= set(figures)
    files = sorted(tmp_path.rglob("media/table/samples/*.table.json"), key=lambda file: int(file.name.split("_")[1]))
    tables = [json.loads(file.read_text()) for file in files]
    assert [table["columns"] for table in tables] == [["step", "prompt", "completion", "length", "total"]] * 2
    assert [row for table in tables for row in table["data"]] == rows_of(samples)


def test_trackio_has_a_table_a_rollout_and_a_curve_a_reward(
    make_trainer: Make, llama: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In its local database."""
    trackio = pytest.importorskip("trackio")
    for module in [sys.modules[name] for name in list(sys.modules) if name.partition(".")[0] == "trackio"]:
        if hasattr(module, "TRACKIO_DIR"):  # read from the environment when trackio was imported
            monkeypatch.setattr(module, "TRACKIO_DIR", tmp_path / "trackio")
    samples = train(make_trainer, llama, "trackio")
    if trackio.context_vars.current_run.get() is not None:
        trackio.finish()
    (file,) = (tmp_path / "trackio").glob("*.db")
    with sqlite3.connect(file) as database:
        logged = [json.loads(row[0]) for row in database.execute("SELECT metrics FROM metrics ORDER BY id")]
    tables = [entry["samples/train"]["_value"] for entry in logged if "samples/train" in entry]
    assert [list(row.values()) for table in tables for row in table] == rows_of(samples)
    assert {"train/reward", "train/reward/length/raw_mean", "train/kl"} <= set().union(*logged)


def test_swanlab_has_a_text_a_rollout(
    make_trainer: Make, llama: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside the figures."""
    swanlab = pytest.importorskip("swanlab")
    monkeypatch.setenv("SWANLAB_MODE", "offline")
    monkeypatch.chdir(tmp_path)
    swanlab.init(mode="offline")  # transformers asks for a run before it begins one, which swanlab 0.10 refuses
    samples = train(make_trainer, llama, "swanlab")
    swanlab.finish()
    texts = [file.read_text() for file in sorted(tmp_path.rglob("media/**/*.txt"))]
    assert texts == tables_of(samples)


def test_comet_has_a_text_a_rollout(
    make_trainer: Make, llama: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the archive that it keeps for a later upload."""
    pytest.importorskip("comet_ml")
    monkeypatch.setenv("COMET_START_ONLINE", "0")
    monkeypatch.setenv("COMET_OFFLINE_DIRECTORY", str(tmp_path / "comet"))
    monkeypatch.chdir(tmp_path)
    samples = train(make_trainer, llama, "comet_ml")
    import comet_ml

    if (experiment := comet_ml.get_running_experiment()) is not None:
        experiment.end()
    (archive,) = (tmp_path / "comet").glob("*.zip")
    with zipfile.ZipFile(archive) as opened:
        contents = [opened.read(name) for name in opened.namelist()]
    for table in tables_of(samples):
        assert any(table.encode() in content for content in contents)


def test_clearml_has_a_file_a_rollout(
    make_trainer: Make, llama: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Among the debug samples of the task."""
    clearml = pytest.importorskip("clearml")
    monkeypatch.setenv("CLEARML_CACHE_DIR", str(tmp_path / "clearml"))
    monkeypatch.chdir(tmp_path)
    clearml.Task.set_offline(offline_mode=True)
    samples = train(make_trainer, llama, "clearml")
    if (task := clearml.Task.current_task()) is not None:
        task.close()
    texts = [file.read_text() for file in sorted((tmp_path / "clearml").rglob("*.md"))]
    assert texts == tables_of(samples)


def test_a_table_of_samples_keeps_its_cells() -> None:
    """Bars and line breaks in a text do not break its row; a missing score is blank; messages are JSON."""
    sample = {"prompt": "a|b", "completion": "c\nd", "rewards": {"x": {"raw": None}}, "total": 0.123456}
    assert markdown_table([sample]).splitlines()[-1] == "| a\\|b | c<br>d |  | 0.1235 |"
    messages = {**sample, "prompt": [{"role": "user", "content": "é"}]}
    shown = Shown("eval", 3, 0, [messages])
    assert shown.rows == [[3, '[{"role": "user", "content": "é"}]', "c\nd", None, 0.123456]]
    assert len(shown.columns) == len(shown.rows[0])
