"""The graphs of one model: in full precision, in half, in eight bits."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from rlaif_sdk.exceptions import ConfigError
from rlaif_sdk.models import quantize, tracing, widening
from rlaif_sdk.models.parity import padded
from rlaif_sdk.models.probes import ProbeInput

VariantName = Literal["fp32", "fp16", "bf16", "int8"]
VARIANTS: tuple[VariantName, ...] = ("fp32", "fp16", "bf16", "int8")

_CALIBRATION_ROWS = 48


def checked_variants(variants: Sequence[str]) -> list[VariantName]:
    """The variants in the user's order.

    Raises:
        ConfigError: There is none, one is unknown, or one stands twice.
    """
    wanted = [name for name in VARIANTS if name in variants]
    if not variants or len(wanted) != len(variants):
        unknown = ", ".join(name for name in variants if name not in VARIANTS) or "none or one twice"
        raise ConfigError(f"the variants to export are wrong: {unknown}", hint=f"of {', '.join(VARIANTS)}, each once")
    return sorted(wanted, key=list(variants).index)


@dataclass(frozen=True, slots=True)
class GraphFiles:
    """The graph of one variant.

    Attributes:
        file: The graph.
        cpu_file: What a CPU runs in its place, if it cannot run that.
    """

    file: Path
    cpu_file: Path | None = None


@dataclass(frozen=True, slots=True)
class GraphMaker:
    """Makes the graphs of a model in a folder.

    Attributes:
        network: What is traced, in float32.
        folder: Where the graphs go.
        takes_token_types: Whether they take ``token_type_ids``.
        pad_id: Fills up short rows.
        report: Called with a line of text at each stage.
    """

    network: tracing.ScoringNetwork
    folder: Path
    takes_token_types: bool
    pad_id: int
    report: Callable[[str], None]

    def make(self, names: Sequence[VariantName], probes: Sequence[ProbeInput]) -> Mapping[VariantName, GraphFiles]:
        """The graph of each variant.

        Args:
            names: The variants.
            probes: Rows of which the texts calibrate ``int8``.
        """
        files = {name: self.folder / ("model.onnx" if name == "fp32" else f"model.{name}.onnx") for name in names}
        exact = files.get("fp32", self.folder / "exact.onnx")
        if {"fp32", "int8"} & files.keys():
            self.report("tracing the model in fp32")
            self._trace(self.network, exact)
        if "int8" in files:
            self.report("quantising to int8")
            self._quantize(exact, files["int8"], probes)
        if "fp32" not in files:
            for leftover in self.folder.glob("exact.onnx*"):
                leftover.unlink()
        halves: dict[VariantName, torch.dtype] = {"fp16": torch.float16, "bf16": torch.bfloat16}
        graphs = {name: GraphFiles(file) for name, file in files.items()}
        for name in files.keys() & halves.keys():
            self.report(f"tracing the model in {name}")
            widened = self.folder / "model.bf16.cpu.onnx" if name == "bf16" else None
            self._trace(copy.deepcopy(self.network).to(halves[name]), files[name], separate_weights=bool(widened))
            if widened is not None:
                widening.widen(files[name], widened)
            graphs[name] = GraphFiles(files[name], widened)
        return graphs

    def _trace(self, network: tracing.ScoringNetwork, file: Path, *, separate_weights: bool = False) -> None:
        tracing.trace(
            network, file, takes_token_types=self.takes_token_types, separate_weights=separate_weights or None
        )

    def _quantize(self, exact: Path, file: Path, probes: Sequence[ProbeInput]) -> None:
        spoken = [probe for probe in probes if probe.kind == "text"][:_CALIBRATION_ROWS] or probes
        rows = [padded([probe], side="right", spare=0, pad_id=self.pad_id) for probe in spoken]
        quantize.quantize(exact, file, calibration=rows)
