"""Samples of several batches at one step: none replaces another, in the loggers that keep one thing a name and step."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("trl")

from transformers import TrainerState
from transformers.integrations.integration_utils import ClearMLCallback, MLflowCallback, SwanLabCallback

from rlaif_sdk.training.ppo.samples import LoggedSamples


def send_two_batches(kind: type) -> None:
    """Two batches of evaluation at step 7, to a logger whose run has begun."""
    begun = type("Begun", (kind,), {"__init__": lambda _: None, "__del__": lambda _: None})()
    logged = LoggedSamples(SimpleNamespace(callbacks=[begun]))  # type: ignore[arg-type]
    for completion in ("first", "second"):
        sample: Any = {"prompt": "p", "completion": completion, "rewards": {"x": {"raw": 1.0}}, "total": 1.0}
        logged.on_samples(None, TrainerState(global_step=7), None, split="eval", samples=[sample])


def test_mlflow_has_a_file_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second artifact of the same name would replace the first."""
    files: dict[str, str] = {}
    library = SimpleNamespace(active_run=object, log_text=lambda text, file: files.update({file: text}))
    monkeypatch.setitem(sys.modules, "mlflow", library)
    send_two_batches(MLflowCallback)
    assert list(files) == ["samples/eval/step-00000007.md", "samples/eval/step-00000007-2.md"]
    assert "first" in files["samples/eval/step-00000007.md"]


def test_swanlab_has_a_name_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """It keeps one value a name and step."""
    texts: dict[tuple[str, int], str] = {}
    library = SimpleNamespace(
        get_run=object,
        Text=str,
        log=lambda values, step: texts.update({(name, step): text for name, text in values.items()}),
    )
    monkeypatch.setitem(sys.modules, "swanlab", library)
    send_two_batches(SwanLabCallback)
    assert list(texts) == [("samples/eval", 7), ("samples/eval-2", 7)]
    assert "first" in texts["samples/eval", 7]


def test_clearml_has_a_series_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """It keeps one file a title, series and iteration."""
    files: dict[tuple[str, str, int], str] = {}

    def report_media(title: str, series: str, *, iteration: int, stream: Any, file_extension: str) -> None:
        assert file_extension == ".md"
        files[title, series, iteration] = stream.read()

    task = SimpleNamespace(get_logger=lambda: SimpleNamespace(report_media=report_media))
    monkeypatch.setitem(sys.modules, "clearml", SimpleNamespace(Task=SimpleNamespace(current_task=lambda: task)))
    send_two_batches(ClearMLCallback)
    assert list(files) == [("samples", "eval", 7), ("samples", "eval-2", 7)]
    assert "first" in files["samples", "eval", 7]
