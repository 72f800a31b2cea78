"""What an export promises: the model's own scores for every architecture, or nothing."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlaif_sdk import ConfigError, OnnxScorer, export_classifier, load_classifier
from rlaif_sdk.models import parity as parity_module
from rlaif_sdk.models import quantize as quantize_module
from rlaif_sdk.models.manifest import read_manifest
from rlaif_sdk.models.parity import ParityError, ProbeInput, padded_probes
from tests.models.tiny_classifiers import DECODERS, build, marked

TEXTS = ["a", "good answer, kind and short", "bad!", "", "the cat sat on the mat; 42.", "bad!", "longer " * 30]
ARCHITECTURES = marked("bert", "distilbert", "llama")
Exported = Callable[..., Path]
ModelFolder = Callable[[str], Path]


def reference_scores(
    folder: Path, texts: list[str], pairs: list[str] | None = None, *, side: str = "right"
) -> np.ndarray:
    """What transformers computes for each text on its own, without padding."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, truncation_side=side)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    rows = []
    with torch.inference_mode():
        for row, text in enumerate(texts):
            inputs = tokenizer(text, pairs[row] if pairs else None, return_tensors="pt", truncation=True)
            rows.append(model(**inputs).logits[0].numpy())
    return np.stack(rows)


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_an_export_scores_as_the_model_does(family: str, exported: Exported, model_folder: ModelFolder) -> None:
    """In one ragged batch, over-long texts cut, every score is the model's own of the text alone."""
    decoder = family in DECODERS
    texts = [text for text in TEXTS if text] if decoder else TEXTS
    with OnnxScorer(exported(family)) as scorer:
        scores_N = scorer.score(texts)
        assert scorer.truncated == 1
    expected_NL = reference_scores(model_folder(family), texts, side="left" if decoder else "right")
    np.testing.assert_allclose(scores_N, expected_NL[:, 0], atol=2e-5)
    assert scores_N.std() > 0.05


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_decoder_is_read_at_its_last_real_token_whatever_the_padding(family: str, exported: Exported) -> None:
    """The same rows padded on the left, on the right and not at all get the same logits."""
    classifier = load_classifier(exported(family))
    probes = [ProbeInput("random", ids, [0] * len(ids), 0) for ids in ([5, 6, 7, 8, 9], [10], [11, 12, 13])]
    alone = [classifier.forward(padded_probes([probe], pad_id=0)) for probe in probes]  # type: ignore[attr-defined]
    for side in ("left", "right"):
        together = classifier.forward(padded_probes(probes, side=side, spare=4, pad_id=0))  # type: ignore[attr-defined]
        np.testing.assert_allclose(together, np.concatenate(alone), atol=1e-5)


def test_pairs_keep_their_segments(exported: Exported, model_folder: ModelFolder) -> None:
    """A cross-encoder reads a question and an answer as its tokenizer encodes pairs."""
    first, second = ["what is it", "who"], ["a cat", "nobody, really"]
    with OnnxScorer(exported("bert")) as scorer:
        scores_N = scorer.score(list(zip(first, second, strict=True)))
    expected_NL = reference_scores(model_folder("bert"), first, second)
    np.testing.assert_allclose(scores_N, expected_NL[:, 0], atol=2e-5)


def test_several_labels_keep_their_names_and_order(two_labels: Path) -> None:
    """Each has its column of logits."""
    manifest = read_manifest(two_labels)
    assert manifest.labels == ("bad", "good")
    expected_NL = reference_scores(two_labels / manifest.source, ["a cat", "b"])
    with OnnxScorer(two_labels) as scorer:
        np.testing.assert_allclose(scorer.score(["a cat", "b"]), expected_NL, atol=2e-5)


@pytest.mark.slow
def test_int8_keeps_the_ranking_and_fp16_nearly_the_scores(exported: Exported, model_folder: ModelFolder) -> None:
    """Every variant of one folder is there, checked, and can be chosen; the first is the default."""
    folder = exported("distilbert", "int8", "fp16")
    expected_N = reference_scores(model_folder("distilbert"), TEXTS)[:, 0]
    manifest = read_manifest(folder)
    assert list(manifest.variants) == ["int8", "fp16"]
    assert manifest.variants["int8"].parity.spearman >= 0.98
    with OnnxScorer(folder) as small, OnnxScorer(folder, variant="fp16") as half:
        assert (small.engine, half.engine) == ("onnx/int8", "onnx/fp16")
        np.testing.assert_allclose(half.score(TEXTS), expected_N, atol=0.02)
        np.testing.assert_allclose(small.score(TEXTS), expected_N, atol=0.4)
        assert not np.allclose(small.score(TEXTS), expected_N, atol=1e-4)
    np.testing.assert_array_equal(load_classifier(folder).logits(["a"]), load_classifier(folder).logits(["a"]))
    with pytest.raises(ConfigError, match="no variant 'fp32'"):
        OnnxScorer(folder, variant="fp32")


def test_the_manifest_says_what_was_exported(exported: Exported, model_folder: ModelFolder) -> None:
    """Source, revision, limits, template, figures and digests are all in one file that people can read."""
    folder = exported("llama")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (folder / manifest["source"]).resolve() == model_folder("llama")
    assert manifest["revision"].startswith("sha256:")
    assert manifest["architecture"] == "LlamaForSequenceClassification"
    assert (manifest["max_length"], manifest["truncation_side"]) == (64, "left")
    assert "<|turn|>" in manifest["chat_template"]
    assert manifest["variants"]["fp32"]["opset"] >= 18
    assert manifest["variants"]["fp32"]["parity"]["max_difference"] < 1e-4
    assert manifest["files"].keys() == {file.name for file in folder.iterdir()} - {"manifest.json"}


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # peft asks transformers for it
def test_an_adapter_is_merged_first(tmp_path: Path, model_folder: ModelFolder) -> None:
    """A LoRA adapter's folder is exported as the adapted model, head included."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    base = model_folder("llama")
    model = AutoModelForSequenceClassification.from_pretrained(base)
    adapted = get_peft_model(model, LoraConfig(task_type="SEQ_CLS", r=4, target_modules=["q_proj", "v_proj"]))
    torch.manual_seed(1)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name or "modules_to_save" in name:
                weight.normal_(0, 0.3)
    adapted.save_pretrained(tmp_path / "adapter")
    export_classifier(tmp_path / "adapter", tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(base)
    with torch.inference_mode():
        expected = adapted.eval()(**tokenizer("a good answer", return_tensors="pt")).logits.item()
    with OnnxScorer(tmp_path / "out") as scorer:
        (score,) = scorer.score(["a good answer"])
    assert score == pytest.approx(expected, abs=2e-5)
    assert abs(score - reference_scores(base, ["a good answer"]).item()) > 0.01


@pytest.mark.usefixtures("traced_before")
def test_a_run_folder_stands_for_the_model_in_it(tmp_path: Path, model_folder: ModelFolder) -> None:
    """The output folder of ``rlaif train`` can be named as it is, and so can an empty folder to write into."""
    (tmp_path / "out").mkdir()
    shutil.copytree(model_folder("distilbert"), tmp_path / "run" / "model")
    manifest = export_classifier(tmp_path / "run", tmp_path / "out")
    assert manifest.source == "../run/model"


@pytest.mark.usefixtures("traced_before")
def test_an_export_that_scores_otherwise_is_refused_with_its_figures(tmp_path: Path) -> None:
    """The gate compares with the model itself, here one of other weights than the graph; what fails leaves no file."""
    source = build(tmp_path / "model", "distilbert", initializer_range=0.301)
    with pytest.raises(ParityError, match=r"fp32 export differs .* greatest difference .* rank agreement") as caught:
        export_classifier(source, tmp_path / "out")
    assert caught.value.metrics is not None
    assert caught.value.metrics.max_difference > 0.001
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.usefixtures("traced_before")
def test_a_coarse_quantisation_is_refused(
    tmp_path: Path, model_folder: ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight bits that were really two change the ranking, and the gate sees it."""

    def of_two_bits(weights_KN: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.sign(weights_KN).astype(np.int8), np.full(weights_KN.shape[1], 0.3, dtype=np.float32)

    monkeypatch.setattr(quantize_module, "quantized_columns", of_two_bits)
    with pytest.raises(ParityError, match="int8 export differs"):
        export_classifier(model_folder("distilbert"), tmp_path / "out", variants=["int8"])


@pytest.mark.usefixtures("traced_before")
def test_a_users_floor_and_texts_decide(tmp_path: Path, model_folder: ModelFolder) -> None:
    """A higher floor than the variant's own is held to, on the user's texts."""
    with pytest.raises(ParityError, match=r"rank agreement of 1 \("):
        export_classifier(
            model_folder("distilbert"),
            tmp_path / "out",
            variants=["int8"],
            texts=[f"text number {index} is about {index * 7 % 50} cats" for index in range(80)],
            min_agreement=1.0,
        )


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"variants": ["fp64"]}, "fp64"),
        ({"variants": []}, "none"),
        ({"variants": ["fp32", "fp32"]}, "twice"),
        ({"max_length": 65}, "max_length is 65 where the model takes 1 to 64 tokens"),
        ({"max_length": 0}, "max_length is 0"),
    ],
)
def test_settings_that_cannot_be_met_are_refused(
    tmp_path: Path, model_folder: ModelFolder, options: dict[str, Any], problem: str
) -> None:
    """Each refusal names the value, and nothing is left."""
    with pytest.raises(ConfigError, match=problem):
        export_classifier(model_folder("distilbert"), tmp_path / "out", **options)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path, model_folder: ModelFolder) -> None:
    """An export never writes over what is there."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="exists already"):
        export_classifier(model_folder("distilbert"), tmp_path / "out")
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["notes.txt"]


def test_what_is_no_classifier_is_refused(tmp_path: Path) -> None:
    """A folder that is not there, and an encoder-decoder: each is named."""
    from transformers import T5Config, T5ForSequenceClassification

    from tests.models.tiny_classifiers import write_tokenizer

    with pytest.raises(ConfigError, match="does not exist"):
        export_classifier(tmp_path / "nothing", tmp_path / "out")
    config = T5Config(vocab_size=60, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, decoder_start_token_id=0)
    T5ForSequenceClassification(config).save_pretrained(tmp_path / "t5")
    write_tokenizer(tmp_path / "t5", of_decoder=False)
    with pytest.raises(ConfigError, match="encoder-decoder"):
        export_classifier(tmp_path / "t5", tmp_path / "out")


def test_what_the_exporter_cannot_follow_is_refused_with_the_operation(
    tmp_path: Path, model_folder: ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The innermost cause stands in the refusal, not the step of the exporter that it stopped at."""
    import torch

    def fails(*args: object, **options: object) -> None:
        try:
            raise ValueError("No ONNX function found for grouped_mm\nand so on")
        except ValueError as cause:
            raise torch.onnx.OnnxExporterError("Failed to convert. This is step 3/3") from cause

    monkeypatch.setattr(torch.onnx, "export", fails)
    with pytest.raises(
        ConfigError, match=r"DistilBert\w+ cannot be exported: No ONNX function found for grouped_mm \("
    ):
        export_classifier(model_folder("distilbert"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_missing_library_is_named_with_its_extra(
    tmp_path: Path, model_folder: ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without onnxscript the message carries the pip command, before anything is loaded."""
    import importlib.util

    from rlaif_sdk import MissingExtraError

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else find(name))
    with pytest.raises(MissingExtraError, match=r"onnxscript is not installed.*rlaif-sdk\[export\]"):
        export_classifier(model_folder("distilbert"), tmp_path / "out")


@pytest.mark.parametrize("last", [pytest.param("manifest.json", marks=pytest.mark.slow), "config.json"])
def test_a_kill_leaves_no_folder_that_loads(
    tmp_path: Path, model_folder: ModelFolder, exported: Exported, last: str
) -> None:
    """Killed with every graph written and checked, one file before the end, there is nothing to load anywhere."""
    script = f"""
        import os, shutil, signal
        from rlaif_sdk.models import export, tracing
        tracing.trace = lambda network, file, **options: shutil.copy({str(exported("distilbert") / "model.onnx")!r}, file)
        write = export.write_text
        def killed(file, text):
            if file.name == {last!r}:
                os.kill(os.getpid(), signal.SIGKILL)
            write(file, text)
        export.write_text = killed
        export.export_classifier({str(model_folder("distilbert"))!r}, {str(tmp_path / "out")!r})
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, check=False)
    assert done.returncode == -9
    assert not (tmp_path / "out").exists()
    (left,) = tmp_path.iterdir()
    assert (left / "model.onnx").is_file()
    for load in (load_classifier, OnnxScorer):
        with pytest.raises(ConfigError):
            load(left)
    write = f"from rlaif_sdk.io.files import write_text; write_text({str(tmp_path / 'next.txt')!r}, '')"
    subprocess.run([sys.executable, "-c", write], check=True)
    assert [path.name for path in tmp_path.iterdir()] == ["next.txt"], "the next start clears it away"


def test_measuring_sees_every_padding(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph that is right on its own rows and wrong on padded ones is found out."""
    classifier = load_classifier(exported("bert"))
    forward = classifier.forward  # type: ignore[attr-defined]

    def leaks_padding(tokens: Any) -> np.ndarray:
        logits = forward(tokens)
        return logits + 0.1 * (tokens.attention_mask == 0).sum(axis=1, keepdims=True)

    monkeypatch.setattr(classifier, "forward", leaks_padding)
    probes = [ProbeInput("random", [4 + row] * (row + 1), [0] * (row + 1), 9) for row in range(6)]
    honest = np.concatenate([forward(padded_probes([probe], pad_id=0)) for probe in probes])
    figures = parity_module.measure(classifier, honest.astype(np.float64), probes, pads_left=False)  # type: ignore[arg-type]
    assert figures.max_difference >= 0.3


def test_a_model_that_is_never_padded_is_measured_as_it_is_scored(
    exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What padding would change costs it nothing; a graph that is wrong on batches of one length is found out."""
    classifier: Any = load_classifier(exported("bert"))
    forward = classifier.forward
    probes = [ProbeInput("random", [4 + row] * (row + 1), [0] * (row + 1), 9) for row in range(6)]
    honest = np.concatenate([forward(padded_probes([probe], pad_id=0)) for probe in probes]).astype(np.float64)
    classifier.reading = replace(classifier.reading, unpadded=True)
    for leak, greatest in (
        (lambda tokens: (tokens.attention_mask == 0).sum(axis=1, keepdims=True), 0.0),
        (lambda tokens: np.arange(len(tokens.input_ids))[:, None], 0.1),
    ):
        monkeypatch.setattr(classifier, "forward", lambda tokens, leak=leak: forward(tokens) + 0.1 * leak(tokens))
        figures = parity_module.measure(classifier, honest, probes, pads_left=False)
        assert figures.max_difference == pytest.approx(greatest, abs=1e-4)


def test_rounding_makes_no_order_among_ties(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that PyTorch ties and an export tells apart by a millionth are no disagreement; a real swap is one."""
    classifier: Any = load_classifier(exported("bert"))
    probes = [ProbeInput("random", [5] * (row + 1), [0] * (row + 1), 0) for row in range(4)]
    tied_RL = np.array([[0.0], [0.0], [1.0], [2.0]])
    for noise, agreement in ((1e-6, 1.0), (3.0, -1.0)):
        rows = iter([*(tied_RL[:, 0] - noise * np.arange(4))] * 9)
        found = lambda tokens, rows=rows: np.array([[next(rows)] for _ in tokens.input_ids])  # noqa: E731
        monkeypatch.setattr(classifier, "forward", found)
        figures = parity_module.measure(classifier, tied_RL, probes, pads_left=False)
        assert figures.spearman == pytest.approx(agreement, abs=0.06)


@pytest.mark.slow
@pytest.mark.parametrize("pad_id", [None, 3])
def test_a_decoder_without_a_padding_token_of_its_own_is_read_as_pytorch_reads_it(
    tmp_path: Path, pad_id: int | None
) -> None:
    """With no padding token the last token counts; with the end token as padding the last one that is not it."""
    import torch
    from transformers import AutoModelForSequenceClassification

    source = build(tmp_path / "model", "llama", pad_token_id=pad_id)
    export_classifier(source, tmp_path / "out")
    classifier: Any = load_classifier(tmp_path / "out")
    model = AutoModelForSequenceClassification.from_pretrained(source).eval()
    for ids in ([5, 6, 7], [5, 6, 7, 3], [8]):
        probes = [ProbeInput("random", ids, [0] * len(ids), 9), ProbeInput("random", [9] * 6, [0] * 6, 9)]
        with torch.inference_mode():
            expected = model(input_ids=torch.tensor([ids])).logits.item()
        for side in ("left", "right"):
            found = classifier.forward(padded_probes(probes, side=side, spare=0, pad_id=classifier.encoder.pad_id))
            assert found[0, 0] == pytest.approx(expected, abs=2e-5)
