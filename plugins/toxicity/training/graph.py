"""Writes the trained numbers as an ONNX graph that `rlaif_toxicity.embedded` runs."""

from __future__ import annotations

import base64

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper


def build_graph(
    *,
    weight_B: NDArray[np.float64],
    idf_B: NDArray[np.float64],
    bias: float,
    lexicon_hashes: NDArray[np.uint64],
    severity: NDArray[np.float64],
) -> bytes:
    """The serialized model.

    For a text with buckets b and words w the toxicity logit is
    ``bias + sum_b weight*idf / sqrt(sum_b idf^2) + max(0, max_w severity)``; the outputs are minus and plus half of
    it, so that their softmax is its sigmoid. Weights are stored as float16, sorted lexicon hashes in the metadata.
    """
    order = np.argsort(lexicon_hashes)
    constants = {
        "weight": (weight_B * idf_B).astype(np.float16),
        "idf_squared": (idf_B**2).astype(np.float16),
        "severity": np.concatenate(([0.0], severity[order])).astype(np.float16),
        "bias": np.array(bias, dtype=np.float32),
        "tiny": np.array(1e-6, dtype=np.float32),
        "halves": np.array([[-0.5, 0.5]], dtype=np.float32),
        "last": np.array([-1], dtype=np.int64),
    }
    zeros = numpy_helper.from_array(np.zeros(1, dtype=np.float32), "zero")
    node = helper.make_node
    nodes = [
        node("ConstantOfShape", ["count"], ["zeros_N"], value=zeros),
        *_gathered("weight", "buckets", "weight_M"),
        *_gathered("idf_squared", "buckets", "squared_M"),
        *_gathered("severity", "words", "severity_W"),
        node("ScatterElements", ["zeros_N", "rows", "weight_M"], ["sum_N"], axis=0, reduction="add"),
        node("ScatterElements", ["zeros_N", "rows", "squared_M"], ["norm2_N"], axis=0, reduction="add"),
        node("ScatterElements", ["zeros_N", "word_rows", "severity_W"], ["worst_N"], axis=0, reduction="max"),
        node("Max", ["norm2_N", "tiny"], ["safe_N"]),
        node("Sqrt", ["safe_N"], ["norm_N"]),
        node("Div", ["sum_N", "norm_N"], ["mean_N"]),
        node("Add", ["mean_N", "bias"], ["linear_N"]),
        node("Add", ["linear_N", "worst_N"], ["logit_N"]),
        node("Unsqueeze", ["logit_N", "last"], ["logit_N1"]),
        node("Mul", ["logit_N1", "halves"], ["logits"]),
    ]
    inputs = [("count", 1), ("buckets", "features"), ("rows", "features"), ("words", "words"), ("word_rows", "words")]
    graph = helper.make_graph(
        nodes,
        "toxicity",
        [helper.make_tensor_value_info(name, TensorProto.INT64, [size]) for name, size in inputs],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["texts", 2])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    sorted_hashes = base64.b64encode(lexicon_hashes[order].astype("<u8").tobytes()).decode()
    helper.set_model_props(model, {"labels": "nontoxic,toxic", "lexicon": sorted_hashes})
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def _gathered(table: str, index: str, name: str) -> list[onnx.NodeProto]:
    half = f"{name}_half"
    return [
        helper.make_node("Gather", [table, index], [half]),
        helper.make_node("Cast", [half], [name], to=TensorProto.FLOAT),
    ]
