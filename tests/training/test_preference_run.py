"""Runs on preference pairs from a config, end to end on tiny real models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

import jsonschema  # noqa: E402
import yaml  # noqa: E402
from rich.console import Console  # noqa: E402
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

from rlaif_sdk import ConfigError, DataError, load_classifier  # noqa: E402
from rlaif_sdk.cli.main import app  # noqa: E402
from rlaif_sdk.reporting.live_view import watch_run  # noqa: E402
from rlaif_sdk.training.methods import (  # noqa: E402
    load_run,
    train,
)
from rlaif_sdk.training.soft_labels import SoftLabelTrainer  # noqa: E402
from tests.training.preference_models import planted_pairs  # noqa: E402

LOADERS = {"reward_model": AutoModelForSequenceClassification, "dpo": AutoModelForCausalLM}


@pytest.fixture(params=["reward_model", "dpo"])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def config(tmp_path: Path, llama: Any, tokenizer: Any, kind: Any) -> Path:
    """A run with an adapter on a tiny Llama and forty pairs, beside the files that it names."""
    llama.save_pretrained(tmp_path / "start")
    tokenizer.save_pretrained(tmp_path / "start")
    write_pairs(tmp_path / "pairs.jsonl", [{**row, "source": "judge"} for row in planted_pairs(40)])
    settings = {"max_steps": 3, "per_device_train_batch_size": 4, "learning_rate": 1e-2, "use_cpu": True}
    run = {
        "model": {"name": "start", "lora": {"r": 2, "alpha": 4}},
        "data": {"train": "pairs.jsonl", "held_out_rows": 10},
        kind: {**settings, "logging_steps": 1},
        "output": "out",
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run))
    return tmp_path / "run.yaml"


def write_pairs(file: Path, rows: list[dict[str, Any]]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_run_leaves_a_plain_model_and_what_was_measured(config: Path, kind: Any) -> None:
    """An adapter is merged, the held-out pairs are judged before and after, and plots and figures stand beside."""
    result = watch_run(load_run(kind, config), Console(quiet=True))
    model, loading = LOADERS[kind].from_pretrained(result.model_folder, output_loading_info=True)
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    start = dict(LOADERS["dpo"].from_pretrained(config.parent / "start").named_parameters())
    trained = [name for name, weight in model.named_parameters() if name in start and not weight.equal(start[name])]
    assert any("q_proj" in name for name in trained)

    metrics = json.loads((result.output / "metrics.json").read_text())
    assert metrics["held_out"]["pairs"] == 10
    assert {"loss", "ece", "agreement", "label_distance"} <= set(metrics["held_out"]["after"])
    assert metrics["held_out"]["after"]["loss"] != metrics["held_out"]["before"]["loss"]
    history = [json.loads(line) for line in (result.output / "history.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in history] == [1, 2, 3]
    left = {file.name for file in result.output.iterdir()}
    assert left == {"__job__", "model", "metrics.json", "history.jsonl", "curves.png", "reliability.png", "run.json"}
    assert "| base model | start |" in (result.model_folder / "README.md").read_text()
    if kind == "reward_model":
        classifier = load_classifier(result.model_folder)
        assert classifier.logits(["w1 w2", "w3"]).shape == (2, 1)
        classifier.close()


def test_a_trained_model_is_saved_though_its_evaluation_fails(
    config: Path, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is lost is the figures, and not the training."""
    evaluate, calls = SoftLabelTrainer.evaluation_loop, iter([None])

    def evaluate_once(trainer: Any, *args: Any, **kwargs: Any) -> Any:
        if next(calls, "over") == "over":
            raise MemoryError("no room for batches")
        return evaluate(trainer, *args, **kwargs)

    monkeypatch.setattr(SoftLabelTrainer, "evaluation_loop", evaluate_once)
    with pytest.raises(MemoryError, match="no room"):
        train(kind, config)
    assert (config.parent / yaml.safe_load(config.read_text())["output"] / "model" / "config.json").is_file()


def test_the_command_line_trains_with_overrides(config: Path, kind: Any) -> None:
    """`rlaif train KIND` prints what was learnt and says how to load the model."""
    arguments = ["train", kind.replace("_", "-"), "--config", str(config), "--set", f"{kind}.max_steps=1"]
    done = CliRunner().invoke(app, [*arguments, "--set", "output=other"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "On 10 held-out pairs" in done.output
    assert LOADERS[kind].__name__ in done.output
    assert len((config.parent / "other" / "history.jsonl").read_text().splitlines()) == 1


def test_the_schema_accepts_the_config(config: Path, kind: Any) -> None:
    """`rlaif schema KIND` describes what a run takes, and refuses a key that it does not."""
    done = CliRunner().invoke(app, ["schema", kind.replace("_", "-")], catch_exceptions=False)
    validator = jsonschema.Draft202012Validator(json.loads(done.output))
    run = yaml.safe_load(config.read_text())
    assert validator.is_valid(run)
    assert not validator.is_valid({**run, "composition": {}})


def test_a_run_does_not_write_over_a_trained_model(config: Path, kind: Any) -> None:
    """The output folder holds one run's results."""
    (config.parent / "out" / "model").mkdir(parents=True)
    with pytest.raises(ConfigError, match="already holds a trained model"):
        train(kind, config)


def test_a_setting_that_does_not_exist_is_refused_by_line(config: Path, kind: Any) -> None:
    """With the nearest name as the next step, before any model loads."""
    config.write_text(config.read_text().replace("learning_rate", "learning_rat"))
    with pytest.raises(ConfigError, match="did you mean 'learning_rate'") as refused:
        train(kind, config)
    assert refused.value.line is not None


@pytest.mark.parametrize("kind", ["dpo"], indirect=True)
def test_settings_of_another_loss_are_refused_before_a_model_loads(config: Path, kind: Any) -> None:
    """With file and key; the trainer itself refuses them too."""
    config.write_text(config.read_text().replace("learning_rate: 0.01", "label_smoothing: 0.1"))
    (config.parent / "start" / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"dpo\.label_smoothing: .* chosen_prob = 1 - label_smoothing") as refused:
        train(kind, config)
    assert refused.value.line is not None


@pytest.mark.parametrize(
    ("change", "message"), [({"chosen_prob": 1.5}, "chosen_prob"), ({"rejected": None}, "rejected")]
)
def test_a_row_of_the_file_that_cannot_be_used_is_refused(
    config: Path, kind: Any, change: dict[str, Any], message: str
) -> None:
    """As by the trainers themselves."""
    rows = [dict(row) for row in planted_pairs(40)]
    rows[4].update(change)
    write_pairs(config.parent / "pairs.jsonl", rows)
    with pytest.raises(DataError, match=f"pairs.jsonl:5: '{message}'"):
        train(kind, config)


def test_pairs_without_an_answer_column_are_refused(config: Path, kind: Any) -> None:
    """The message lists the columns that are there."""
    write_pairs(config.parent / "pairs.jsonl", [{"prompt": "w1 ", "better": "w2"}] * 40)
    with pytest.raises(DataError, match="has no column 'chosen'"):
        train(kind, config)


@pytest.mark.parametrize("kind", ["reward_model"], indirect=True)
def test_a_reward_model_of_quantised_weights_is_refused(config: Path, kind: Any) -> None:
    """Its head would have to train with them; the key is named, and nothing is left behind but the record."""
    run = load_run(kind, config, overrides=["model.quantization=8bit"])
    with pytest.raises(ConfigError, match="quantised weights do not train") as refused:
        train(kind, run)
    assert refused.value.key == "model.quantization"
