"""The feature of `datasets` for a column of JSON text; this module alone imports that library when it is imported."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from datasets import Json
from datasets.features.features import register_feature

from rlaif_sdk.io.jsonl import json_cell, parse_json


@dataclass(repr=False)
class ExactJson(Json):  # type: ignore[misc]
    """A column of JSON text that is opened with every digit, at any size.

    `datasets.Json` rounds numbers to some digits, refuses whole numbers beyond 64 bits, and opens text that looks like
    JSON.
    """

    _type: str = field(default="ExactJson", init=False, repr=False)

    def encode_example(self, value: Any) -> str | None:
        return None if value is None else json_cell(value, "", "the rows", 1)

    def decode_example(self, value: str | None, token_per_repo_id: Any = None) -> Any:
        return None if value is None else parse_json(value)

    def cast_storage(self, storage: Any) -> Any:
        if isinstance(storage.type, pa.JsonType):
            return storage
        if not pa.types.is_string(storage.type):
            storage = pa.array([self.encode_example(value) for value in storage.to_pylist()], pa.string())
        return pa.ExtensionArray.from_storage(pa.json_(), storage)


with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it says that the way to register is new
    register_feature(ExactJson, "ExactJson")
