"""Which files an ONNX graph reads besides itself.

An ONNX file may keep its tensors in other files and names them by path, so a file from a stranger could name any file
of the machine. The paths are read here straight from the protobuf wire format, before onnxruntime sees the graph.
Field numbers are those of ``onnx.proto`` (ModelProto, GraphProto, NodeProto, AttributeProto, TensorProto).
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

from rlaif_sdk.exceptions import ConfigError
from rlaif_sdk.models.model_folder import check_file

LARGEST_FILE = 1_800_000_000
"""Weights beyond this many bytes are written beside the graph: protobuf ends at 2 GiB."""

_Schema: TypeAlias = "Mapping[int, str]"

_FIELDS: Mapping[str, _Schema] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "external"},
}
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def external_data_files(graph_file: Path) -> list[Path]:
    """The files that hold the graph's external tensors.

    Raises:
        ConfigError: The file is no ONNX model, or names a file outside its own folder, or one that is absent.
    """
    check_file(graph_file)
    try:
        with graph_file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            locations = sorted(set(_external_locations(data, 0, len(data), "model")))
    except (ValueError, IndexError, RecursionError) as error:
        raise ConfigError("is no valid ONNX file", file=str(graph_file)) from error
    # A download cache links each file of a model to a store of blobs: both folders are the model's own.
    homes = {graph_file.parent.resolve(), graph_file.resolve().parent}
    files = []
    for location in locations:
        file = Path(os.path.realpath(graph_file.parent / location))
        if file.parent not in homes and not any(home in file.parents for home in homes):
            raise ConfigError(
                f"names external data outside its folder: {location}",
                file=str(graph_file),
                hint="do not use a model that reads other files of this machine",
            )
        if not file.is_file():
            raise ConfigError(f"its external data {location} is missing", file=str(graph_file))
        files.append(file)
    return files


def _external_locations(data: mmap.mmap, start: int, end: int, message: str) -> Iterator[str]:
    for number, value_start, value_end in _submessages(data, start, end):
        kind = _FIELDS[message].get(number)
        if kind == "external":
            entry = {field: data[a:b] for field, a, b in _submessages(data, value_start, value_end)}
            if entry.get(1) == b"location":
                location = entry.get(2, b"").decode("utf-8")
                if "\0" in location:
                    raise ValueError("no path has a zero byte")
                yield location
        elif kind is not None:
            yield from _external_locations(data, value_start, value_end, kind)


def _submessages(data: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Field number, start and end of every length-delimited field of the message between two offsets."""
    position = start
    while position < end:
        tag, position = _varint(data, position)
        wire_type = tag & 7
        if wire_type == _VARINT:
            _, position = _varint(data, position)
        elif wire_type == _FIXED64:
            position += 8
        elif wire_type == _FIXED32:
            position += 4
        elif wire_type == _BYTES:
            length, position = _varint(data, position)
            if position + length > end:
                raise ValueError("a field runs past the end of its message")
            yield tag >> 3, position, position + length
            position += length
        else:
            raise ValueError(f"unknown wire type {wire_type}")
    if position != end:
        raise ValueError("a field runs past the end of its message")


def _varint(data: mmap.mmap, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError("a varint is too long")
