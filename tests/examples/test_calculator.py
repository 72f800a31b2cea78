"""The example in ``examples/calculator``: a small model learns to call a tool."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("trl")
pytest.importorskip("rlaif_verifiable")

from rlaif_sdk.training.methods import load_run, train

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
EXAMPLE = Path(__file__).parents[2] / "examples" / "calculator"


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The example's model and tables."""
    monkeypatch.syspath_prepend(str(EXAMPLE))
    monkeypatch.delitem(sys.modules, "make_model", raising=False)
    from make_model import make

    make(tmp_path)
    return tmp_path


def trained(method: str, file: str, made: Path, model: str, *overrides: str):
    """What comes of a run of the example, on what was made."""
    places = [f"model.name={made / model}", f"output={made / method}", f"{method}.use_cpu=true"]
    tables = {"sft": ["data.train=demonstrations"], "grpo": ["data.train=sums", "data.held_out=held-out"]}[method]
    places += [f"{place.partition('=')[0]}={made / place.partition('=')[2]}.jsonl" for place in tables]
    return train(method, load_run(method, EXAMPLE / file, overrides=[*places, *overrides]))


def test_the_example_runs(made: Path) -> None:
    """Both of its phases, cut short."""
    for table in ("demonstrations", "sums"):
        file = made / f"{table}.jsonl"
        file.write_text("".join(file.read_text().splitlines(keepends=True)[:128]))
    trained("sft", "warm_up.yaml", made, "start", "sft.max_steps=2", "data.held_out_rows=8")
    short = ("grpo.max_steps=1", "data.held_out_rows=8", "grpo.per_device_train_batch_size=16")
    result = trained("grpo", "run.yaml", made, "sft/model", *short)
    assert len(result.after.answers.completions) == 8
    assert "tools/call_frequency" in result.history[0]


@pytest.mark.slow
def test_a_small_model_learns_to_call_the_calculator(made: Path, record_property) -> None:
    """From one call in five to most of the time, and from few right answers to most, with a reward for being right alone."""
    trained("sft", "warm_up.yaml", made, "start")
    result = trained("grpo", "run.yaml", made, "sft/model")
    calls = [entry["tools/call_frequency"] for entry in result.history]
    before, after = (scored.rewards()["exact_match"].mean() for scored in (result.before, result.after))
    record_property("right", (before, after))
    assert calls[0] < 0.35
    assert sum(calls[-5:]) / 5 > 0.8
    assert after > before + 0.4
