"""What `backend: auto` takes, and how it is remembered; the engines here are classifiers with a fault each."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlaif_sdk import ConfigError, OnnxScorer, load_classifier
from rlaif_sdk.models import tuning
from rlaif_sdk.models.manifest import read_manifest
from rlaif_sdk.models.tuning import EXACT, Choice, best_budget, cache_choice, cached_choice, choose

Exported = Callable[..., Path]


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder for each test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def engine(folder: Path, *, delay: float = 0.0, wrong: bool = False) -> Callable[[], Any]:
    """Opens the exported model, made slower or made to rank at random."""

    def open_it() -> Any:
        classifier: Any = load_classifier(folder)
        forward = classifier.forward

        def faulty(tokens: Any) -> np.ndarray:
            time.sleep(delay)
            logits_NL = forward(tokens)
            return np.sin(1e4 * logits_NL) if wrong else logits_NL

        classifier.forward = faulty
        return classifier

    return open_it


def test_the_fastest_that_agrees_is_taken(exported: Exported) -> None:
    """A slower engine is passed over, a faster one that ranks otherwise too, and one that cannot be opened."""
    folder = exported("distilbert")

    def broken() -> Any:
        raise ConfigError("cannot be opened")

    found = {
        "quick/wrong": engine(folder, wrong=True),
        "broken": broken,
        EXACT: engine(folder, delay=0.004),
        "quick/right": engine(folder),
    }
    choice = choose(found, read_manifest(folder), min_agreement=0.99)
    assert choice.engine == "quick/right"
    assert choice.seconds.keys() == {EXACT, "quick/right"}
    assert choice.agreement["quick/wrong"] < 0.9
    assert choice.agreement["quick/right"] > 0.999


def test_a_single_engine_that_cannot_be_opened_says_why() -> None:
    """There is nothing to fall back to."""

    def broken() -> Any:
        raise ConfigError("cannot be opened")

    with pytest.raises(ConfigError, match="cannot be opened"):
        choose({EXACT: broken}, None, min_agreement=0.99)  # type: ignore[arg-type]


def test_the_budget_with_the_least_time_is_taken(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    """The usual one stays unless another is clearly faster."""
    classifier: Any = load_classifier(exported("distilbert"))
    seconds = {1024: 1.0, 512: 0.97, 2048: 0.6, 256: 0.59}
    monkeypatch.setattr(tuning, "_seconds", lambda classifier, probes, budget: seconds[budget])
    assert best_budget(classifier, 64) == (2048, 0.6)


def test_a_choice_is_measured_once(exported: Exported, empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second scorer of the same export on the same machine measures nothing."""
    with OnnxScorer(exported("distilbert")) as first:
        budget = first.classifier.tokens_per_batch
    assert len(list((empty_cache / "rlaif-sdk" / "tuning").iterdir())) == 1
    monkeypatch.setattr("rlaif_sdk.models.scorer.choose", lambda *args, **options: pytest.fail("measured again"))
    with OnnxScorer(exported("distilbert")) as second:
        assert second.classifier.tokens_per_batch == budget


def test_a_stated_budget_needs_no_measurement(exported: Exported, empty_cache: Path) -> None:
    """Nothing is measured and nothing is written."""
    with OnnxScorer(exported("distilbert"), tokens_per_batch=77) as scorer:
        assert scorer.classifier.tokens_per_batch == 77
    assert not empty_cache.exists()


@pytest.mark.parametrize(
    "content", ["", "{}", '{"engine": "gone", "tokens_per_batch": 5, "seconds": {}, "agreement": {}}']
)
def test_what_was_remembered_and_cannot_be_used_is_measured_again(exported: Exported, content: str) -> None:
    """A cut-off file, another layout, an engine that is gone."""
    manifest, found = read_manifest(exported("distilbert")), {EXACT: engine(exported("distilbert"))}
    cache_choice(manifest, found, None, Choice(EXACT, 64, {EXACT: 0.1}, {}), min_agreement=0.99)
    assert cached_choice(manifest, found, None, min_agreement=0.99) == Choice(EXACT, 64, {EXACT: 0.1}, {})
    tuning._file(manifest, found, None, 0.99).write_text(content)
    assert cached_choice(manifest, found, None, min_agreement=0.99) is None


def test_what_was_taken_at_a_lower_floor_is_not_taken_at_a_higher_one(exported: Exported) -> None:
    """The floor is asked of a remembered choice too; a single engine is asked none, so its budget is kept whatever it is."""
    folder = exported("distilbert")
    manifest = read_manifest(folder)
    several = {EXACT: engine(folder), "quick/rough": engine(folder)}
    rough = Choice("quick/rough", 64, {"quick/rough": 0.1}, {"quick/rough": 0.91})
    cache_choice(manifest, several, None, rough, min_agreement=0.9)
    assert cached_choice(manifest, several, None, min_agreement=0.9) == rough
    assert cached_choice(manifest, several, None, min_agreement=0.99) is None
    alone = {EXACT: engine(folder)}
    cache_choice(manifest, alone, None, Choice(EXACT, 64), min_agreement=0.9)
    assert cached_choice(manifest, alone, None, min_agreement=0.99) == Choice(EXACT, 64)


def test_what_was_measured_for_other_weights_is_not_taken(exported: Exported) -> None:
    """Weights that stand in a file of their own, as bfloat16's do, count as the graph does."""
    folder = exported("bert", "fp16", "bf16")
    manifest, found = read_manifest(folder), {"onnx/bf16": engine(folder)}
    cache_choice(manifest, found, None, Choice("onnx/bf16", 64), min_agreement=0.9)
    (weights,) = [name for name in manifest.files if name.startswith("model.bf16") and not name.endswith(".onnx")]
    tuned_again = manifest.model_copy(update={"files": {**manifest.files, weights: "0" * 64}})
    assert cached_choice(tuned_again, found, None, min_agreement=0.9) is None
    assert cached_choice(manifest, found, None, min_agreement=0.9) == Choice("onnx/bf16", 64)


def test_a_cache_that_cannot_be_written_is_no_failure(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scoring works, it only measures each time."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with OnnxScorer(exported("distilbert")) as scorer:
        assert scorer.score(["a"]).shape == (1,)


def test_auto_measures_every_variant_and_pytorch_in_bfloat16(exported: Exported) -> None:
    """Whatever is taken gives the model's ranking, and the same engine the next time."""
    folder = exported("distilbert", "int8", "fp16")
    with OnnxScorer(folder, backend="auto", min_agreement=0.9) as scorer:
        taken = scorer.engine
        assert taken in {"onnx/int8", "onnx/fp16", "transformers/bfloat16", "openvino/f32", "openvino/bf16"}
        scores_N = scorer.score(["bad", "a cat", "good and kind"])
    with OnnxScorer(folder, variant="fp16") as half:
        np.testing.assert_allclose(scores_N, half.score(["bad", "a cat", "good and kind"]), atol=0.4)
    with OnnxScorer(folder, backend="auto", min_agreement=0.9) as again:
        assert again.engine == taken


def test_pytorch_is_left_out_when_its_folder_has_changed(exported: Exported, tmp_path: Path) -> None:
    """An export that was moved away from its model, or whose model was trained on, runs by its own graphs."""
    import shutil

    from rlaif_sdk.models.scoring_config import LoadOptions
    from rlaif_sdk.models.tuning import engines

    folder = exported("distilbert")
    options = LoadOptions("cpu", None, None, 64, "right")
    assert "transformers/bfloat16" in engines(folder, read_manifest(folder), options)
    moved = Path(shutil.copytree(folder, tmp_path / "deep" / "below" / "export"))
    assert "transformers/bfloat16" not in engines(moved, read_manifest(moved), options)


@pytest.mark.slow
def test_openvino_scores_as_onnxruntime_does(exported: Exported) -> None:
    """The same graph, where OpenVINO is installed: ``nox -s slow``."""
    pytest.importorskip("openvino", reason="nox -s slow installs it")
    from rlaif_sdk.models.scoring_config import LoadOptions
    from rlaif_sdk.models.tuning import engines

    folder = exported("llama")
    found = engines(folder, read_manifest(folder), LoadOptions("cpu", None, None, 64, "left"))
    texts = ["a cat", "bad", "good answer"]
    np.testing.assert_allclose(found["openvino/f32"]().logits(texts), found[EXACT]().logits(texts), atol=1e-4)
