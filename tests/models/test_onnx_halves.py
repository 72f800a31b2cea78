"""Half precision and bfloat16: what their graphs hold, and what stands for a GPU where there is none."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from rlaif_sdk import ConfigError, OnnxScorer, export_classifier, load_classifier
from rlaif_sdk.models import export as export_module
from rlaif_sdk.models.external_data import external_data_files
from rlaif_sdk.models.manifest import read_manifest
from rlaif_sdk.models.onnx_providers import cuda_device_count, offers_cuda
from rlaif_sdk.models.scoring_config import LoadOptions
from rlaif_sdk.models.tuning import engines
from rlaif_sdk.models.widening import widen
from tests.models.tiny_classifiers import marked

Exported = Callable[..., Path]
TEXTS = ["a", "good answer, kind and short", "bad!", "the cat sat on the mat; 42.", "longer " * 9, "who is it?"]
FAMILIES = marked("bert", "llama")
ON_CUDA = frozenset(
    (
        *(
            "Add",
            "Attention",
            "Cast",
            "Concat",
            "Div",
            "Expand",
            "Gather",
            "GatherElements",
            "GatherND",
            "Gelu",
            "Gemm",
        ),
        *("LayerNormalization", "MatMul", "Mul", "Neg", "Pow", "RMSNormalization", "Relu", "Reshape", "Sigmoid"),
        *("Slice", "Softmax", "Split", "Squeeze", "Tanh", "Tile", "Transpose", "Unsqueeze", "Where"),
    )
)
"""Operators of opset 23 with a float16 and a bfloat16 kernel in onnxruntime-gpu 1.31.1's CUDA provider.

From the kernels that it registers (``onnxruntime.capi._pybind_state.get_all_opkernel_def()`` with the provider loaded),
which is what onnxruntime's docs/OperatorKernels.md is made of. All of these take one floating type at a time; a
normalisation of bfloat16 with a float32 scale, for instance, has no kernel.
"""
HALVES = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
FLOATS = {TensorProto.FLOAT, TensorProto.DOUBLE, *HALVES.values()}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("variant", HALVES)
def test_a_gpu_has_a_kernel_for_all_that_is_computed_in_half(family: str, variant: str, exported: Exported) -> None:
    """Every operator on half numbers is one that the CUDA provider has for them, and none mixes two floating types."""
    file = exported(family, "fp16", "bf16") / f"model.{variant}.onnx"
    graph = onnx.shape_inference.infer_shapes(onnx.load(file)).graph
    kinds = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.input, *graph.output)}
    kinds |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    halves = 0
    for node in graph.node:
        floats = {kinds[name] for name in (*node.input, *node.output) if name} & FLOATS
        if HALVES[variant] in floats:
            halves += 1
            assert node.op_type in ON_CUDA, node
            assert len(floats) == 1 or node.op_type == "Cast", node
        assert node.op_type not in ("ArgMax", "ReduceMax"), "of integers they run on the CPU, or need cuDNN"
    assert halves > 20


@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_is_compared_and_scores_without_a_gpu(
    family: str, exported: Exported, model_folder: Callable[[str], Path]
) -> None:
    """Its scores are bfloat16 numbers, and as far from the model's as PyTorch's in bfloat16 are."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = exported(family, "fp16", "bf16")
    tokenizer = AutoTokenizer.from_pretrained(model_folder(family))
    model = AutoModelForSequenceClassification.from_pretrained(model_folder(family)).eval()
    tokens = [tokenizer(text, return_tensors="pt", truncation=True) for text in TEXTS]
    with torch.inference_mode():
        exact_N = np.array([model(**one).logits.item() for one in tokens])
        model.bfloat16()
        torchs_N = np.array([model(**one).logits.item() for one in tokens])
    with OnnxScorer(folder, variant="bf16", device="cpu", tokens_per_batch=64) as scorer:
        scores_N = scorer.score(TEXTS)
    variant = read_manifest(folder).variants["bf16"]
    assert variant.cpu_file == "model.bf16.cpu.onnx"
    assert cuda_device_count() or variant.compared_on == "CPUExecutionProvider"
    assert variant.parity.spearman >= 0.99
    np.testing.assert_array_equal(scores_N, torch.tensor(scores_N).bfloat16().float())
    theirs, ours = (float(np.sqrt(np.mean((found_N - exact_N) ** 2))) for found_N in (torchs_N, scores_N))
    assert 0.2 * theirs < ours < 3 * theirs


def test_the_weights_of_bfloat16_are_kept_once(exported: Exported) -> None:
    """The graph for GPUs and the one for CPUs read the same file, and every one of them has a digest."""
    folder = exported("bert", "fp16", "bf16")
    files = {"model.bf16.onnx", "model.bf16.cpu.onnx", "model.bf16.onnx.data"}
    assert {file.name for file in folder.glob("model.bf16*")} == files
    assert files <= read_manifest(folder).files.keys()
    for graph in ("model.bf16.onnx", "model.bf16.cpu.onnx"):
        assert external_data_files(folder / graph) == [folder / "model.bf16.onnx.data"]
        weights = sum(tensor.nbytes for tensor in _weights(folder / graph))
        assert (folder / "model.bf16.onnx.data").stat().st_size == pytest.approx(
            weights, rel=0.05
        )  # but for small ones


def _weights(file: Path) -> list[np.ndarray]:
    tensors = onnx.load(file).graph.initializer
    return [numpy_helper.to_array(tensor) for tensor in tensors if tensor.data_type == TensorProto.BFLOAT16]


def test_a_graph_for_cpus_without_a_digest_is_refused(exported: Exported, tmp_path: Path) -> None:
    """A manifest cannot smuggle one in."""
    folder = Path(shutil.copytree(exported("bert", "fp16", "bf16"), tmp_path / "export"))
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["files"]["model.bf16.cpu.onnx"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ConfigError, match=r"lists no digest of model\.bf16\.cpu\.onnx"):
        load_classifier(folder)


@pytest.mark.skipif(cuda_device_count() > 0, reason="there is a CUDA device")
def test_a_driver_without_cuda_leaves_the_cpu(
    exported: Exported, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where onnxruntime cannot use the GPU after all, the graph for CPUs runs and says so; a GPU asked for is refused."""
    folder = exported("bert", "fp16", "bf16")
    expected = OnnxScorer(folder, variant="bf16", device="cpu", tokens_per_batch=64).score(TEXTS)
    monkeypatch.setattr("rlaif_sdk.models.onnx_providers.cuda_device_count", lambda: 1)
    with caplog.at_level(logging.INFO, logger="rlaif_sdk"):
        scorer = OnnxScorer(folder, variant="bf16", tokens_per_batch=64)
    np.testing.assert_array_equal(scorer.score(TEXTS), expected)
    assert "model.bf16.cpu.onnx runs on CPUExecutionProvider, computed in float32 and rounded" in caplog.text
    if offers_cuda():
        assert "model.bf16.onnx does not run on the CUDA device: " in caplog.text
    with pytest.raises(ConfigError, match="needs onnxruntime-gpu, an NVIDIA driver"):
        OnnxScorer(folder, variant="bf16", device="cuda", tokens_per_batch=64)


@pytest.mark.usefixtures("traced_before")
@pytest.mark.parametrize(
    ("variant", "offered", "devices"),
    [("fp32", True, ["cpu"]), ("fp16", True, ["cpu", "cuda"]), ("fp16", False, ["cpu"])],
    ids=["exact", "half", "half-without-provider"],
)
def test_halves_are_compared_on_a_gpu_too(
    variant: str,
    offered: bool,
    devices: list[str],
    tmp_path: Path,
    model_folder: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a CUDA device at hand they have to pass on it and on the CPU, if onnxruntime was built for it."""
    opened: list[str] = []
    open_classifier = export_module.open_classifier

    def watched(file: Path, *, device: str, **options: Any) -> Any:
        opened.append(device)
        return open_classifier(file, device=device, **options)

    monkeypatch.setattr(export_module, "open_classifier", watched)
    monkeypatch.setattr(export_module, "cuda_device_count", lambda: 1)
    monkeypatch.setattr(export_module, "offers_cuda", lambda: offered)
    export_classifier(model_folder("distilbert"), tmp_path / "out", variants=[variant])
    assert opened == devices


@pytest.mark.skipif(cuda_device_count() > 0, reason="there is a CUDA device")
@pytest.mark.usefixtures("traced_before")
@pytest.mark.parametrize(
    ("offered", "reason"), [(True, "the device 'cuda' cannot be used"), (False, "is built for the CPU alone")]
)
def test_a_comparison_that_a_gpu_is_spared_is_told(
    offered: bool, reason: str, tmp_path: Path, model_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The CPU is not measured a second time in the device's name; one line says why, and the figures say where."""
    lines: list[str] = []
    monkeypatch.setattr(export_module, "cuda_device_count", lambda: 1)
    monkeypatch.setattr(export_module, "offers_cuda", lambda: offered)
    folder = tmp_path / "out"
    manifest = export_classifier(model_folder("distilbert"), folder, variants=["fp16"], report=lines.append)
    (told,) = [line for line in lines if "CUDA" in line]
    assert told.startswith("fp16 is not compared on the CUDA device: ")
    assert reason in told
    assert len([line for line in lines if line.startswith("fp16 on CPUExecutionProvider: ")]) == 1
    assert manifest.variants["fp16"].compared_on == "CPUExecutionProvider"


@pytest.mark.slow
def test_auto_does_not_measure_what_a_cpu_only_imitates(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bfloat16 by float32 and rounding cannot win on a CPU; on a GPU it is measured."""
    folder = exported("bert", "fp16", "bf16")
    options = LoadOptions(None, None, None, 64, "right")
    monkeypatch.setattr("rlaif_sdk.models.tuning.cuda_device_count", lambda: 0)
    assert "onnx/bf16" not in engines(folder, read_manifest(folder), options)
    monkeypatch.setattr("rlaif_sdk.models.tuning.cuda_device_count", lambda: 1)
    monkeypatch.setattr("rlaif_sdk.models.tuning.offers_cuda", lambda: False)
    assert "onnx/bf16" not in engines(folder, read_manifest(folder), options), "onnxruntime will run on the CPU"
    monkeypatch.setattr("rlaif_sdk.models.tuning.offers_cuda", lambda: True)
    assert {"onnx/fp16", "onnx/bf16"} <= engines(folder, read_manifest(folder), options).keys()


def test_openvino_runs_bfloat16_where_there_is_no_float32(exported: Exported) -> None:
    """The graph for GPUs, where OpenVINO is installed."""
    pytest.importorskip("openvino")
    folder = exported("bert", "fp16", "bf16")
    found = engines(folder, read_manifest(folder), LoadOptions("cpu", None, None, 64, "right"))
    with OnnxScorer(folder, variant="bf16", device="cpu", tokens_per_batch=64) as scorer:
        np.testing.assert_allclose(found["openvino/bf16"]().logits(TEXTS), scorer.logits(TEXTS), atol=0.1)
    assert "openvino/f32" not in found


def small_graph(folder: Path) -> tuple[Path, np.ndarray, np.ndarray, np.ndarray]:
    """``cast(table[input_ids] @ weights + bias)`` in bfloat16, and the three constants in float32."""
    draw = np.random.default_rng(5)
    constants = {"table": (9, 64), "weights": (64, 5), "bias": (5,)}
    rounded = {name: round_to_bfloat16(draw.normal(size=shape).astype(np.float32)) for name, shape in constants.items()}
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["x"]),
        helper.make_node("MatMul", ["x", "weights"], ["p"]),
        helper.make_node("Add", ["p", "bias"], ["y"]),
        helper.make_node("Cast", ["y"], ["logits"], to=TensorProto.FLOAT),
    ]
    tensors = [
        helper.make_tensor(name, TensorProto.BFLOAT16, value.shape, value.ravel()) for name, value in rounded.items()
    ]
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["n"])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 5])
    graph = helper.make_graph(nodes, "test", [ids], [logits], tensors)
    file = folder / "small.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10), file)
    return file, rounded["table"], rounded["weights"], rounded["bias"]


def round_to_bfloat16(values: np.ndarray) -> np.ndarray:
    """To the nearest number with eight bits of mantissa, ties to even, by the bits of float32."""
    bits = values.astype(np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)


def test_widening_rounds_after_every_operation(tmp_path: Path) -> None:
    """A product and a sum are rounded each, as a slow reference rounds them, and nothing is optimised away."""
    file, table, weights, bias = small_graph(tmp_path)
    with pytest.raises(Exception, match="NOT_IMPLEMENTED"):
        onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    widen(file, tmp_path / "wide.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "wide.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"input_ids": np.arange(9)})
    product = round_to_bfloat16((table.astype(np.float64) @ weights).astype(np.float32))
    np.testing.assert_array_equal(found, round_to_bfloat16(product + bias))
    assert np.abs(found - round_to_bfloat16(table @ weights + bias)).max() > 0


def test_a_graph_with_branches_is_refused(tmp_path: Path) -> None:
    """What is in a branch would stay bfloat16, so the variant is refused by name."""
    file, *_ = small_graph(tmp_path)
    model = onnx.load(file)
    branch = helper.make_graph([helper.make_node("Identity", ["y"], ["z"])], "branch", [], [])
    model.graph.node.append(helper.make_node("If", ["input_ids"], ["never"], then_branch=branch, else_branch=branch))
    onnx.save(model, file)
    with pytest.raises(ConfigError, match=r"graph has a If.*leave out the variant bf16"):
        widen(file, tmp_path / "wide.onnx")
