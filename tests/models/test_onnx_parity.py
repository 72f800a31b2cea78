"""The arithmetic of parity and of eight-bit rows, beside slow references."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import TensorProto, helper, numpy_helper

from rlaif_sdk import ConfigError
from rlaif_sdk.models.encoding import TokenArrays
from rlaif_sdk.models.manifest import ParityMetrics
from rlaif_sdk.models.parity import (
    TOLERANCES,
    ParityError,
    ProbeInput,
    check,
    correlation,
    flipped_share,
    padded_probes,
    reference_logits,
)
from rlaif_sdk.models.quantize import quantize, quantized_columns, smoothing_factors

VALUES = st.lists(st.integers(-5, 5).map(float), min_size=2, max_size=12)


@given(st.data())
def test_flips_are_counted_over_every_pair_with_an_order(data: st.DataObject) -> None:
    """A tie that should be an order is a flip; a tie in the reference is no pair."""
    expected = data.draw(VALUES)
    found = data.draw(st.lists(st.integers(-5, 5).map(float), min_size=len(expected), max_size=len(expected)))
    pairs = [(i, j) for i, j in combinations(range(len(expected)), 2) if expected[i] != expected[j]]
    flips = sum(np.sign(expected[i] - expected[j]) != np.sign(found[i] - found[j]) for i, j in pairs)
    share = flipped_share(np.array(expected), np.array(found))
    assert share == pytest.approx(flips / len(pairs) if pairs else 0.0)


def test_correlation_of_constants() -> None:
    """Equal constants agree; one constant beside a varying column has no correlation."""
    constant, varying = np.ones(4), np.arange(4.0)
    assert correlation(constant, constant) == 1.0
    assert np.isnan(correlation(constant, varying))
    assert correlation(varying, -2 * varying) == pytest.approx(-1)


def figures(**changes: float) -> ParityMetrics:
    """What a perfect export measures, but for the changes."""
    perfect = {"rows": 9, "max_difference": 0.0, "spread": 1.0, "pearson": 1.0, "spearman": 1.0, "flipped": 0.0}
    return ParityMetrics(**{**perfect, **changes})


@pytest.mark.parametrize("variant", TOLERANCES)
def test_each_variant_is_held_to_its_own_tolerance(variant: str) -> None:
    """A difference or a disagreement of ranks beyond it fails, NaN as well; within it nothing is said."""
    allowed = TOLERANCES[variant]
    check(figures(max_difference=allowed.difference * 0.99, spearman=allowed.spearman), variant)
    check(figures(max_difference=allowed.difference * 1.99, spread=2.0), variant)
    for beyond in (
        {"max_difference": allowed.difference * 1.01},
        {"max_difference": float("nan")},
        {"spearman": allowed.spearman - 0.001},
        {"spearman": float("nan")},
    ):
        with pytest.raises(ParityError, match=f"the {variant} export differs"):
            check(figures(**beyond), variant)


def test_the_users_floor_replaces_the_variants() -> None:
    """It can be higher, and lower."""
    with pytest.raises(ParityError, match=r"rank agreement of 0\.9999"):
        check(figures(spearman=0.9998), "int8", min_agreement=0.9999)
    check(figures(spearman=0.5), "int8", min_agreement=0.5)


@pytest.mark.parametrize("error", [RuntimeError, IndexError, ValueError])
def test_a_model_that_cannot_score_a_row_itself_is_refused(error: type[Exception]) -> None:
    """Funnel's own forward fails on one token: the refusal has the model, the length and the cause."""
    pytest.importorskip("torch")

    def network(**inputs: object) -> None:
        raise error("index 4 is out of bounds")

    with pytest.raises(ConfigError, match=r"function itself cannot score an input of 1 tokens: index 4"):
        reference_logits(network, [ProbeInput("random", [5], [0], 3)], takes_token_types=True)  # type: ignore[arg-type]


def test_rows_are_padded_on_the_named_side() -> None:
    """Ids, types and mask move together; spare columns are left out where a row has no room for them."""
    probes = [ProbeInput("text", [5, 6, 7], [0, 1, 1], 4), ProbeInput("text", [8], [1], 6)]
    left = padded_probes(probes, side="left", spare=2, pad_id=9)
    assert left.input_ids.tolist() == [[9, 9, 5, 6, 7], [9, 9, 9, 9, 8]]
    assert left.token_type_ids.tolist() == [[0, 0, 0, 1, 1], [0, 0, 0, 0, 1]]
    assert left.attention_mask.tolist() == [[0, 0, 1, 1, 1], [0, 0, 0, 0, 1]]
    assert padded_probes(probes, side="right", spare=5, pad_id=9).input_ids.tolist() == [[5, 6, 7], [8, 9, 9]]


@given(hnp.arrays(np.float32, (5, 3), elements=st.floats(-50, 50, width=32)))
def test_a_quantised_weight_is_within_half_a_step_of_its_column(weights_KN: np.ndarray) -> None:
    """Each column has its own step, a 127th of its greatest magnitude."""
    columns_KN, scales_N = quantized_columns(weights_KN)
    assert columns_KN.dtype == np.int8
    assert (np.abs(columns_KN * scales_N - weights_KN) <= 0.501 * scales_N).all()


def test_smoothing_evens_out_a_channel_and_leaves_empty_ones() -> None:
    """Activations and weights of a channel meet halfway; where one is nothing, nothing is divided."""
    peaks_K, weight_peaks_K = np.float32([100, 1, 0, 4]), np.float32([1, 1, 3, 0])
    factors_K = smoothing_factors(peaks_K, weight_peaks_K)
    np.testing.assert_allclose(factors_K, [10, 1, 1, 1])
    np.testing.assert_allclose((peaks_K / factors_K)[0], (weight_peaks_K * factors_K)[0])


@pytest.mark.parametrize("kind", ["MatMul", "Gemm"])
def test_an_outlier_token_costs_its_neighbours_nothing(tmp_path: Path, kind: str) -> None:
    """With a scale a row, tokens beside one that is a thousand times larger stay within a tenth; one scale for all would leave them nothing."""
    draw = np.random.default_rng(3)
    table_VK = draw.normal(size=(8, 64)).astype(np.float32)
    table_VK[7] *= 1000
    weights_KN, bias_N = draw.normal(size=(64, 32)).astype(np.float32), np.ones(32, dtype=np.float32)
    constants = [
        numpy_helper.from_array(value, name) for name, value in {"t": table_VK, "w": weights_KN, "b": bias_N}.items()
    ]
    product = [helper.make_node("MatMul", ["x", "w"], ["p"]), helper.make_node("Add", ["p", "b"], ["logits"])]
    ids: list[str | int] = ["n", "t"]
    if kind == "Gemm":
        transposed = numpy_helper.from_array(np.ascontiguousarray(weights_KN.T), "w")
        constants[1], ids = transposed, ["n"]
        product = [helper.make_node("Gemm", ["x", "w", "b"], ["logits"], transB=1)]
    graph = helper.make_graph(
        [helper.make_node("Gather", ["t", "input_ids"], ["x"]), *product],
        "test",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ids)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)],
        constants,
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10), tmp_path / "exact.onnx"
    )
    tokens = np.arange(8, dtype=np.int64) if kind == "Gemm" else np.arange(8, dtype=np.int64)[None]
    calibration = [TokenArrays(tokens, tokens, tokens)]
    assert quantize(tmp_path / "exact.onnx", tmp_path / "int8.onnx", calibration=calibration) == 1
    session = onnxruntime.InferenceSession(tmp_path / "int8.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"input_ids": tokens})
    expected = table_VK @ weights_KN + bias_N
    errors_V = np.abs(found.reshape(8, 32) - expected).max(axis=1) / np.abs(expected).max(axis=1)
    assert errors_V.max() < 0.1
    assert errors_V.max() > 1e-5
    assert {path.name for path in tmp_path.iterdir()} == {"exact.onnx", "int8.onnx"}
