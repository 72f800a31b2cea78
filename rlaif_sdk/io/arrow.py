"""Rows as Arrow columns, and back, as exactly as Arrow can: what a column cannot hold travels in it as JSON text.

A column is typed by all its values and never by the first. Where they are of one kind (text, whole numbers, lists of
text, objects with the same keys, ...) it has Arrow's type for that kind. Where they are not (objects with different
keys, text beside numbers, whole numbers beyond 64 bits, half a character) it has the type ``arrow.json``, which
pyarrow, `datasets` and Spark know, and is opened again on reading.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from rlaif_sdk.exceptions import DataError, needs_extra
from rlaif_sdk.io.jsonl import Row, json_cell, parse_json
from rlaif_sdk.io.text import is_safe_text

if TYPE_CHECKING:
    import pyarrow as pa

Kind: TypeAlias = Any
"""What values a column holds: a word, or ``(word, ...)`` with what is inside; see `kind_of`."""

JSON = "json"
NOTHING = "null"
CHUNK = 4096
"""Rows that are made an Arrow table at once."""
_CHUNKS_OF_A_ROW_GROUP = 8
_CHUNK_CHARACTERS = 1 << 26
_EXACT_IN_DOUBLE = 1 << 53
_DEEPEST = 32
"""Lists and objects in one another; Parquet takes about 50, and Arrow's files 64."""


def kind_of(value: Any, depth: int = 0) -> Kind:  # noqa: C901, PLR0911, PLR0912 - one case a kind
    """What kind of value it is, so many levels within another; ``json`` where Arrow cannot hold it exactly."""
    kind = _PLAIN.get(type(value))
    if kind is not None:
        return kind
    if isinstance(value, str):
        return "text" if is_safe_text(value) else JSON
    if isinstance(value, int):
        if -_EXACT_IN_DOUBLE <= value <= _EXACT_IN_DOUBLE:
            return "int"
        return "long" if -(1 << 63) <= value < 1 << 63 else JSON
    if isinstance(value, float):
        return "float"
    numpy = None if type(value) in {list, dict} else sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.generic) and value.dtype.kind in "biufU":
        return kind_of(value.item())
    if numpy is not None and isinstance(value, numpy.ndarray) and value.ndim == 1:
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        inside: Kind = JSON
        if depth < _DEEPEST:
            inside = reduce(united, (kind_of(item, depth + 1) for item in value), NOTHING)
        return JSON if inside == JSON else ("list", inside)
    if isinstance(value, Mapping):
        if depth >= _DEEPEST:
            return JSON
        inside = tuple((key, kind_of(item, depth + 1)) for key, item in value.items())
        exact = inside and all(_is_name(key) and kind != JSON for key, kind in inside)
        return ("object", inside) if exact else JSON
    if isinstance(value, Decimal):
        return _decimal(value)
    if isinstance(value, datetime) and value == value and not getattr(value, "nanosecond", 0):  # noqa: PLR0124 - NaT
        return ("datetime", None if value.tzinfo is None else _zone(value))
    return JSON


def _is_name(key: Any) -> bool:
    """Whether Arrow can name a field so: its C interface, through which tables pass, ends names at a NUL."""
    return isinstance(key, str) and "\x00" not in key and is_safe_text(key)


_PLAIN: dict[type, Kind] = {
    type(None): NOTHING,
    bool: "bool",
    float: "float",
    bytes: "bytes",
    date: "date",
    time: "time",
    timedelta: "timedelta",
}


def _decimal(value: Decimal) -> Kind:
    _, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int):
        return JSON
    return _checked_decimal(max(len(digits) + exponent, 0), max(-exponent, 0))


def _checked_decimal(whole: int, fraction: int) -> Kind:
    return ("decimal", whole, fraction) if 0 < whole + fraction <= 76 else JSON


def _zone(value: datetime) -> str:
    return getattr(value.tzinfo, "key", None) or f"{value:%z}"[:3] + ":" + f"{value:%z}"[3:5]


def united(one: Kind, other: Kind) -> Kind:  # noqa: PLR0911 - likewise
    """The kind that holds the values of both; ``json`` where only JSON does."""
    if other in (one, NOTHING):
        return one
    if one == NOTHING:
        return other
    if isinstance(one, str) or isinstance(other, str):
        return _NUMBERS.get(frozenset({one, other}), JSON)
    if one[0] == other[0] == "list":
        inside = united(one[1], other[1])
        return JSON if inside == JSON else ("list", inside)
    if one[0] == other[0] == "decimal":
        return _checked_decimal(max(one[1], other[1]), max(one[2], other[2]))
    if one[0] == other[0] == "object" and [key for key, _ in one[1]] == [key for key, _ in other[1]]:
        inside = tuple((key, united(a, b)) for (key, a), (_, b) in zip(one[1], other[1], strict=True))
        return JSON if any(kind == JSON for _, kind in inside) else ("object", inside)
    return JSON


_NUMBERS: dict[frozenset[Any], Kind] = {
    frozenset({"int", "long"}): "long",
    frozenset({"int", "float"}): "number",
    frozenset({"int", "number"}): "number",
    frozenset({"float", "number"}): "number",
}
"""Whole numbers and fractions together are ``number``, where no whole one is lost in a double."""


def exact_kind(kind: Kind) -> Kind:
    """The kind under which every value comes back as it was: a whole number among fractions is no double either."""
    if kind == "number":
        return JSON
    if isinstance(kind, tuple) and kind[0] == "list":
        return JSON if exact_kind(kind[1]) == JSON else kind
    if isinstance(kind, tuple) and kind[0] == "object":
        return JSON if any(exact_kind(inside) == JSON for _, inside in kind[1]) else kind
    return kind


@dataclass(slots=True)
class Columns:
    """The columns of rows that were seen, in order of appearance, and the kind of each.

    Attributes:
        kinds: By name.
    """

    kinds: dict[str, Kind] = field(default_factory=dict)

    @classmethod
    def exact(cls, rows: Iterable[Mapping[str, Any]]) -> Self:
        """The columns of these rows, of kinds under which every value comes back as it was."""
        columns = cls()
        for row in rows:
            columns.add(row)
        columns.kinds = {name: exact_kind(kind) for name, kind in columns.kinds.items()}
        return columns

    def add(self, row: Mapping[str, Any]) -> None:
        """Take in a row."""
        kinds = self.kinds
        for name, value in row.items():
            known = kinds.get(name)
            if known != JSON:
                kind = kind_of(value)
                if kind is not known:
                    kinds[name] = kind if known is None else united(known, kind)

    def unite(self, other: Columns) -> None:
        """Take in what was seen of other rows."""
        for name, kind in other.kinds.items():
            self.kinds[name] = united(self.kinds.get(name, NOTHING), kind)

    def check_names(self, name: str) -> None:
        """Check the names of the columns.

        Args:
            name: The table's name in errors.

        Raises:
            DataError: Arrow cannot hold one.
        """
        if refused := next((column for column in self.kinds if not _is_name(column)), None):
            problem = f"the column {refused!r} has a character in its name that Arrow and Parquet cannot hold"
            raise DataError(problem, file=name, hint="rename it, or write JSONL")

    def schema(self, name: str) -> pa.Schema:
        """The Arrow types of the columns.

        Args:
            name: The table's name in errors.

        Raises:
            DataError: Arrow cannot hold the name of a column.
        """
        pa = arrow()
        self.check_names(name)
        return pa.schema([(name, arrow_type(kind)) for name, kind in self.kinds.items()])


def arrow() -> Any:
    """The package pyarrow.

    Raises:
        MissingExtraError: It is not installed.
    """
    with needs_extra("parquet", "pyarrow, which reads and writes Parquet and Arrow,"):
        import pyarrow as pa
    return pa


def arrow_type(kind: Kind) -> pa.DataType:
    """Arrow's type for a kind."""
    pa = arrow()
    if isinstance(kind, str):
        types = {
            NOTHING: pa.null,
            "bool": pa.bool_,
            "int": pa.int64,
            "long": pa.int64,
            "float": pa.float64,
            "number": pa.float64,
            "text": pa.string,
            "bytes": pa.binary,
            "date": pa.date32,
            JSON: pa.json_,
        }
        exact = {"time": pa.time64, "timedelta": pa.duration}
        return types[kind]() if kind in types else exact[kind]("us")
    if kind[0] == "list":
        return pa.list_(arrow_type(kind[1]))
    if kind[0] == "object":
        return pa.struct([(key, arrow_type(inside)) for key, inside in kind[1]])
    if kind[0] == "decimal":
        digits = kind[1] + kind[2]
        return (pa.decimal128 if digits <= 38 else pa.decimal256)(digits, kind[2])
    return pa.timestamp("us", tz=kind[1])


def as_table(rows: Sequence[Mapping[str, Any]], schema: pa.Schema, name: str, *, first_row: int = 1) -> pa.Table:
    """Rows as an Arrow table; a column that is missing in a row is null there.

    Args:
        rows: The rows.
        schema: Their columns, as `Columns.schema` gives them.
        name: The file, for errors.
        first_row: The number of the first row, for errors.

    Raises:
        DataError: A column has another type than its values, or a value is none of a table; names the row.
    """
    pa = arrow()
    return pa.table([_column(rows, one, name, first_row) for one in schema], schema=schema)


def _column(rows: Sequence[Mapping[str, Any]], column: pa.Field, name: str, first_row: int) -> Any:
    pa = arrow()
    values = [row.get(column.name) for row in rows]
    if isinstance(column.type, pa.JsonType):
        values = [
            None if value is None else json_cell(value, column.name, name, first_row + row)
            for row, value in enumerate(values)
        ]
        return json_array(pa.array(values, pa.string()), column.type)
    try:
        return pa.array(values, column.type)
    except (pa.ArrowException, OverflowError, UnicodeError, TypeError) as error:
        last = first_row + len(rows) - 1
        problem = f"the column {column.name!r} of rows {first_row} to {last} is not of one kind: {error}"
        raise DataError(problem, file=name) from error


def json_array(texts: Any, kind: Any) -> Any:
    """Texts, which may be too many for one array, as an array of JSON."""
    pa = arrow()
    if isinstance(texts, pa.ChunkedArray):
        return pa.chunked_array([pa.ExtensionArray.from_storage(kind, chunk) for chunk in texts.chunks], kind)
    return pa.ExtensionArray.from_storage(kind, texts)


def rows_of(table: Any, name: str) -> Iterator[Row]:
    """The rows of an Arrow table or record batch.

    Raises:
        DataError: Two columns have one name, or a value is none that Python knows.
    """
    pa = arrow()
    names = table.schema.names
    if len(set(names)) < len(names):
        repeated = next(column for column in names if names.count(column) > 1)
        raise DataError(f"has two columns {repeated!r}", file=name, hint="rename one")
    columns = []
    for column, values in zip(table.schema, table.columns, strict=True):
        try:
            columns.append(_values(column.type, values))
        except (pa.ArrowException, ValueError, OverflowError, KeyError) as error:
            raise DataError(f"the column {column.name!r} cannot be read: {error}", file=name) from error
    if not columns:
        yield from ({} for _ in range(table.num_rows))
        return
    for row in zip(*columns, strict=True):
        yield dict(zip(names, row, strict=True))


def _values(kind: Any, values: Any) -> list[Any]:
    pa = arrow()
    if isinstance(kind, pa.JsonType):
        return [None if value is None else parse_json(value) for value in values.cast(pa.string()).to_pylist()]
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        try:
            values = values.cast(pa.timestamp("us", kind.tz))
        except pa.ArrowInvalid:  # finer than Python knows
            values = values.cast(pa.string())
    elif pa.types.is_duration(kind) and kind.unit == "ns":
        values = values.cast(pa.duration("us"))
    elif pa.types.is_time64(kind) and kind.unit == "ns":
        values = values.cast(pa.time64("us"))
    found: list[Any] = values.to_pylist(maps_as_pydicts="strict")
    return found


@contextmanager
def opened_parquet(path: Path, name: str | None = None) -> Iterator[Any]:
    """A `pyarrow.parquet.ParquetFile`, closed at the end.

    Raises:
        DataError: The file is no valid Parquet.
        MissingExtraError: pyarrow is not installed.
    """
    pa = arrow()
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        raise _invalid("Parquet", error, name or str(path), "write it again, or name the file by what it is") from error


def read_parquet(path: Path, name: str) -> Iterator[Row]:
    """The rows of a Parquet file, a few thousand in memory."""
    with opened_parquet(path, name) as file:
        for batch in file.iter_batches(CHUNK):
            yield from rows_of(batch, name)


def read_arrow(path: Path, name: str) -> Iterator[Row]:
    """The rows of an Arrow IPC file (Feather) or stream, a record batch in memory."""
    pa = arrow()
    try:
        with pa.OSFile(str(path)) as file:  # memory of a file that is cut meanwhile ends the process
            if file.read(6) == b"ARROW1":
                reader = pa.ipc.open_file(file)
                for index in range(reader.num_record_batches):
                    yield from _checked_rows(reader.get_batch(index), name)
                return
            file.seek(0)
            for batch in pa.ipc.open_stream(file):
                yield from _checked_rows(batch, name)
    except (pa.ArrowException, OSError) as error:
        hint = "Feather of version 1 is not read" if path.suffix == ".feather" else None
        raise _invalid("Arrow file", error, name, hint) from error


def _invalid(form: str, error: Exception, name: str, hint: str | None = None) -> DataError:
    """What pyarrow says of a damaged file, which may be an `OSError` without a number, on one line."""
    if getattr(error, "errno", None):
        return DataError(f"cannot be read: {getattr(error, 'strerror', error)}", file=name)
    return DataError(f"no valid {form}: {' '.join(str(error).split())}", file=name, hint=hint)


def _checked_rows(batch: Any, name: str) -> Iterator[Row]:
    """Its rows; places that lie outside the batch, as of a damaged file, are found before they are read."""
    batch.validate(full=True)
    yield from rows_of(batch, name)


def in_chunks(rows: Iterable[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    """Lists of rows that are short enough for an Arrow array, by their number and their texts."""
    chunk: list[Mapping[str, Any]] = []
    characters = 0
    for row in rows:
        chunk.append(row)
        characters += sum(len(value) for value in row.values() if isinstance(value, (str, list, bytes)))
        if len(chunk) >= CHUNK or characters > _CHUNK_CHARACTERS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


class ParquetWriter:
    """Takes rows for a Parquet file, and writes them a row group at a time; `parquet_writer` makes it."""

    def __init__(self, writer: Any, schema: pa.Schema, name: str) -> None:
        self._writer = writer
        self._schema = schema
        self._name = name
        self._rows = 0
        self._waiting: list[Any] = []

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add some rows, few enough for an Arrow array; see `in_chunks`.

        Raises:
            DataError: A row cannot be written; names it.
        """
        self._waiting.append(as_table(rows, self._schema, self._name, first_row=self._rows + 1))
        self._rows += len(rows)
        tables = self._waiting
        if (
            sum(map(len, tables)) >= _CHUNKS_OF_A_ROW_GROUP * CHUNK
            or sum(table.nbytes for table in tables) > _CHUNK_CHARACTERS
        ):
            self.flush()

    def flush(self) -> None:
        """Write what is waiting."""
        if self._waiting:
            self._writer.write_table(arrow().concat_tables(self._waiting))
            self._waiting = []

    def note(self, notes: Mapping[bytes, bytes]) -> None:
        """Put notes into the file's footer."""
        self._writer.add_key_value_metadata(dict(notes))


@contextmanager
def parquet_writer(path: Path, schema: pa.Schema, name: str) -> Iterator[ParquetWriter]:
    """Write a Parquet file.

    Args:
        path: The file.
        schema: Its columns.
        name: Its name in errors.
    """
    arrow()
    from pyarrow import parquet

    with parquet.ParquetWriter(path, schema) as opened:
        writer = ParquetWriter(opened, schema, name)
        yield writer
        writer.flush()


def write_parquet(path: Path, rows: Iterable[Row], schema: pa.Schema, name: str) -> None:
    """Write rows as Parquet, a row group in memory."""
    with parquet_writer(path, schema, name) as writer:
        for chunk in in_chunks(rows):
            writer.write(chunk)


def write_arrow(path: Path, rows: Iterable[Row], schema: pa.Schema, name: str) -> None:
    """Write rows as an Arrow IPC file, which Feather of version 2 is."""
    pa = arrow()
    first_row = 1
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema) as writer:
        for chunk in in_chunks(rows):
            writer.write_table(as_table(chunk, schema, name, first_row=first_row))
            first_row += len(chunk)


def to_dataset(rows: Iterable[Mapping[str, Any]]) -> Any:
    """Rows as a `datasets.Dataset` that gives every value as it is in the rows.

    A column that Arrow cannot hold exactly is kept as JSON text and opened by the data set itself, wherever a row or a
    column is read: trainers and rewards see the values as they were written. A key that a row lacks is null there.

    Raises:
        DataError: A value is none of a table; names the row and the column.
        MissingExtraError: datasets is not installed.

    Examples:
        >>> prompts = to_dataset([{"tests": {"a": 1}}, {"tests": {"b": [2]}}])  # doctest: +SKIP
        >>> prompts[1]  # doctest: +SKIP
        {'tests': {'b': [2]}}
    """
    datasets = dataset_library()
    pa = arrow()
    from rlaif_sdk.io.exact_json import ExactJson

    kept = [*rows]
    columns = Columns.exact(kept)
    schema = columns.schema("the rows")
    parts = []
    first_row = 1
    for chunk in in_chunks(kept):
        parts.append(as_table(chunk, schema, "the rows", first_row=first_row))
        first_row += len(chunk)
    features = datasets.Features.from_arrow_schema(schema)
    features |= {name: ExactJson() for name, kind in columns.kinds.items() if kind == JSON}
    table = pa.concat_tables(parts) if parts else schema.empty_table()
    return datasets.Dataset(table.replace_schema_metadata(features.arrow_schema.metadata))


def empty_dataset(features: Any) -> Any:
    """A `datasets.Dataset` with columns and no rows."""
    return dataset_library().Dataset.from_dict({name: [] for name in features}, features=features)


def distinct(dataset: Any, column: str, path: Sequence[str]) -> set[Any]:
    """The values that a column of objects has in one place, such as ``["rewards", "toxicity", "status"]``."""
    arrow()
    from pyarrow import compute

    values = dataset.select_columns([column]).with_format("arrow")[:][column]
    return {*compute.unique(compute.struct_field(values, [*path])).to_pylist()}


def dataset_library() -> Any:
    """The package datasets.

    Raises:
        MissingExtraError: It is not installed.
    """
    with needs_extra("train"):
        import datasets
    return datasets


def load_dataset(name: str, config: str | None, split: str | None) -> Any:
    """A data set of the hub, or a folder that is laid out like one.

    Raises:
        DataError: It cannot be loaded, or has splits and none is named.
        MissingExtraError: datasets is not installed.
    """
    datasets = dataset_library()
    try:
        found = datasets.load_dataset(name, config, split=split)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        asked = f"subset: {config}, split: {split}" if config else f"split: {split}"
        hint = (
            f"asked for {asked}; a configuration is named by subset, and a file's name ends in its form, such as .jsonl"
        )
        said = " ".join(str(error).partition("\nExample of usage")[0].split())
        raise DataError(f"cannot be loaded from the hub: {said}", file=name, hint=hint) from error
    refuse_splits(found, name)
    return found


def refuse_splits(dataset: Any, name: str) -> None:
    """Refuse a mapping of splits where one data set is wanted.

    Raises:
        DataError: It is one; names the splits.
    """
    if isinstance(dataset, Mapping):
        hint = f"name one: {', '.join(map(str, dataset))}"
        raise DataError("has several splits, where one is wanted", file=name, hint=hint)


def read_dataset(dataset: Any) -> Iterator[Row]:
    """The rows of a `datasets.Dataset` or ``IterableDataset``."""
    for row in dataset.with_format(None):
        yield dict(row)


def read_frame(frame: Any) -> Iterator[Row]:
    """The rows of a pandas DataFrame: Python's own values, with None for what is missing in a column without numbers."""
    if repeated := [str(name) for name in frame.columns[frame.columns.duplicated()]]:
        raise DataError(f"has two columns {repeated[0]!r}", file="the DataFrame", hint="rename one")
    import numpy as np

    columns = []
    for name in frame.columns:
        values = frame[name]
        is_number = isinstance(values.dtype, np.dtype) and values.dtype.kind == "f"
        missing = [False] * len(values) if is_number else values.isna().tolist()
        columns.append([None if gone else value for value, gone in zip(values.tolist(), missing, strict=True)])
    names = [str(name) for name in frame.columns]
    for row in zip(*columns, strict=True):
        yield dict(zip(names, row, strict=True))
