"""The door for rows: every table is read here, as it was written, and written here.

A row is a dict of plain Python values. No key is added, dropped or retyped by what other rows hold; what a form of file
cannot carry is converted by the rule of `rlaif_sdk.io.jsonl`, or refused with the row.
"""

from __future__ import annotations

import atexit
import csv
import gzip
import json
import re
import secrets
import shutil
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any, Literal, Protocol, Self, TypeAlias

from rlaif_sdk.exceptions import DataError
from rlaif_sdk.io import arrow
from rlaif_sdk.io.digests import file_digest, files_digest, rows_digest
from rlaif_sdk.io.files import atomic_path, nearest_file, other_kind
from rlaif_sdk.io.jsonl import (
    Row,
    as_json,
    check_encoding,
    json_cell,
    parse_json,
    plain,
    read_array,
    read_lines,
    row_as_json,
    utf_8_json,
    write_array,
)
from rlaif_sdk.io.text import safe_text
from rlaif_sdk.io.typed_text import of_typed_text, typed_text

Source: TypeAlias = Any
"""A path, ``-`` for standard input, a folder of parts, a name on the hub, a `TableSource`, a `datasets.Dataset` or
``IterableDataset``, a mapping of columns such as a batch of one, a pandas DataFrame, or any iterable of mappings."""

STANDARD_INPUT = "-"
"""The name of standard input, and where rows are written of standard output."""
TableForm: TypeAlias = Literal["jsonl", "json", "csv", "parquet", "arrow"]
"""The forms of file that a config names."""
LINES = frozenset({".jsonl", ".ndjson"})
_SPLITS = ("train", "test", "validation", "valid", "val", "dev", "eval")


@dataclass(frozen=True, slots=True)
class TableSource:
    """A table as a command or a config names it.

    Attributes:
        path: A file, a folder of parts, ``-``, or the name of a data set on the hub.
        subset: The configuration of a data set on the hub.
        split: The split of one, or of a folder that has several.

    Examples:
        >>> from pathlib import Path
        >>> str(TableSource(Path("org/name"), split="test"))
        'org/name[test]'
    """

    path: Path
    subset: str | None = None
    split: str | None = None

    @classmethod
    def within(cls, folder: Path, name: str, subset: str | None = None, split: str | None = None) -> Self:
        """The table that a config in a folder names: ``-``, a path relative to the folder, or else a name on the hub."""
        if name == STANDARD_INPUT:
            return cls(Path(name), subset, split)
        local = folder / name
        on_hub = (subset or split) and not is_table_file(local) and not local.exists()
        return cls(Path(name) if on_hub else local, subset, split)

    @classmethod
    def of(cls, name: TableName) -> Self:
        """A table by any name of it."""
        return name if isinstance(name, cls) else cls(Path(str(name)))

    @property
    def name(self) -> str:
        """The last part of the path, without the suffix of a table."""
        return self.path.name.removesuffix(_suffix(self.path) if is_table_file(self.path) else "")

    def __str__(self) -> str:
        part = ", ".join(filter(None, (self.subset, self.split)))
        return f"{self.path}[{part}]" if part else str(self.path)


TableName: TypeAlias = str | Path | TableSource
"""A table by name: a path, or a `TableSource`."""


@dataclass(frozen=True, slots=True)
class _Form:
    """A form of file.

    Attributes:
        read: The rows of a file, which is given with its name for errors.
        write: Writes the rows of a spool to a file; None for lines, which need none.
    """

    read: Callable[[Path, str], Iterator[Row]]
    write: Callable[[Path, _Spool], None] | None


def read_rows(source: Source, *, config: str | None = None, split: str | None = None) -> Iterator[Row]:
    """The rows of a table, one at a time, as they were written.

    A file is what its suffix says: ``.jsonl`` or ``.ndjson`` (also with ``.gz``), ``.json`` (an array of objects, or an
    object a line), ``.csv`` (all values are text), ``.parquet``, ``.arrow`` or ``.feather``. Of standard input, which
    is kept in a temporary file, the first bytes say what it is: text that begins with neither ``{`` nor ``[`` is CSV.
    A folder is read in the order of its parts' names; what begins with ``_`` or ``.`` is none of them. Memory holds one row, or a few thousand of Parquet and Arrow.

    Args:
        source: A path; ``-``; a name on the hub, such as ``org/name``, with a split; a `datasets.Dataset` or
            ``IterableDataset``; a mapping of columns, as a slice or a batch of one is; a pandas DataFrame; or mappings.
        config: The configuration of a data set of the hub.
        split: Which split, of a data set of the hub or a folder that has several.

    Raises:
        DataError: There is no such table, it is of another form, or a row is refused; names the file and the row.
        MissingExtraError: What reads it is not installed.

    Examples:
        >>> [row["prompt"] for row in read_rows([{"prompt": "a"}, {"prompt": "b", "reference": None}])]
        ['a', 'b']
    """
    if isinstance(source, TableSource):
        source, config, split = source.path, source.subset, source.split
    if isinstance(source, (str, Path)):
        yield from _read_path(source, config, split)
        return
    yield from _read_object(source, split)


def _read_object(source: Source, split: str | None) -> Iterator[Row]:
    """The rows of what is in memory already, or of a data set that reads itself."""
    name = table_name(source)
    if _is_of(source, "datasets", "DatasetDict", "IterableDatasetDict"):
        if split is None:
            arrow.refuse_splits(source, name)
        if split not in source:
            raise DataError(f"has no split {split!r}", file=name, hint=f"it has {', '.join(source)}")
        source = source[split]
    if isinstance(source, Mapping):
        yield from _read_columns(source, name)
    elif _is_of(source, "datasets", "Dataset", "IterableDataset"):
        yield from arrow.read_dataset(source)
    elif _is_of(source, "pandas", "DataFrame"):
        yield from arrow.read_frame(source)
    else:
        for number, row in enumerate(source, start=1):
            if not isinstance(row, Mapping):
                raise DataError(f"a {type(row).__name__} where a row is wanted", file=name, row=number)
            yield dict(row)


def _read_columns(columns: Mapping[Any, Any], name: str) -> Iterator[Row]:
    """The rows of equally long columns."""
    for column, values in columns.items():
        if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
            hint = "several rows are a list of mappings, or a mapping of lists"
            raise DataError(f"has a {type(values).__name__} as the column {column!r}", file=name, hint=hint)
    lists = [values.tolist() if hasattr(values, "tolist") else [*values] for values in columns.values()]
    if len({*map(len, lists)}) > 1:
        lengths = ", ".join(f"{column} has {len(values)}" for column, values in zip(columns, lists, strict=True))
        raise DataError(f"has columns of several lengths: {lengths}", file=name)
    for row in zip(*lists, strict=True):
        yield dict(zip(map(str, columns), row, strict=True))


def open_dataset(source: Source, *, config: str | None = None, split: str | None = None) -> Any:
    """A table as a `datasets.Dataset`, for trainers.

    What is a data set already stays it, also one of the hub, which is not read into memory; of everything else the rows
    become one by `rlaif_sdk.io.arrow.to_dataset`, where every value stays as it was written.

    Args:
        source: See `read_rows`, as for what follows.
        config: See there.
        split: See there.

    Raises:
        DataError: See there.
        MissingExtraError: datasets is not installed, or what reads the table.
    """
    found = _library_dataset(source, config, split)
    return arrow.to_dataset(read_rows(source, config=config, split=split)) if found is None else found


def _library_dataset(source: Source, config: str | None, split: str | None) -> Any:
    """What the library datasets reads, or has read; None of a table that is read here."""
    if _is_of(source, "datasets", "Dataset"):
        return source
    if isinstance(source, TableSource):
        source, config, split = source.path, source.subset, source.split
    if isinstance(source, (str, Path)) and str(source) != STANDARD_INPUT:
        path = Path(source)
        if path.is_dir():
            if config is not None or not table_files(path, split):
                return arrow.load_dataset(str(path), config, split)
        elif not path.exists() and not is_table_file(path):
            return arrow.load_dataset(str(source), config, split)
    return None


class PlainTable(Sequence[Row]):
    """Rows in memory, with what a check asks of a `datasets.Dataset`, whose library takes a second to import.

    A key that a row lacks is null, and what a data set refuses is refused, as by `open_dataset`.
    """

    def __init__(self, rows: Sequence[Row], columns: Sequence[str]) -> None:
        self.column_names = [*columns]
        self._rows = rows

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]]) -> Self:
        """The table of these rows.

        Raises:
            DataError: A value is none of a table; names the row and the column.
        """
        given = [*rows]
        columns = arrow.Columns.exact(given)
        columns.check_names("the rows")
        kept = [{name: row.get(name) for name in columns.kinds} for row in given]
        for name in (name for name, kind in columns.kinds.items() if kind == arrow.JSON):
            for number, row in enumerate(kept, start=1):
                if row[name] is not None:
                    row[name] = parse_json(json_cell(row[name], name, "the rows", number))
        return cls(kept, [*columns.kinds])

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, key: Any) -> Any:
        """A row by its number, or a column by its name."""
        return [row[key] for row in self._rows] if isinstance(key, str) else self._rows[key]

    def select(self, numbers: Iterable[int]) -> Self:
        """Some of the rows."""
        return type(self)([self._rows[number] for number in numbers], self.column_names)

    def select_columns(self, names: Sequence[str]) -> Self:
        """Some of the columns."""
        return type(self)([{name: row[name] for name in names} for row in self._rows], names)

    def remove_columns(self, names: str | Sequence[str]) -> Self:
        """The other columns."""
        left_out = {names} if isinstance(names, str) else {*names}
        return self.select_columns([name for name in self.column_names if name not in left_out])

    def rename_columns(self, names: Mapping[str, str]) -> Self:
        """The columns by new names."""
        columns = [names.get(name, name) for name in self.column_names]
        return type(self)([dict(zip(columns, row.values(), strict=True)) for row in self._rows], columns)

    def rename_column(self, old: str, new: str) -> Self:
        """A column by a new name."""
        return self.rename_columns({old: new})


def open_rows(source: Source, *, config: str | None = None, split: str | None = None) -> Any:
    """As `open_dataset`, without the library datasets where the table is read without it: then a `PlainTable`."""
    found = _library_dataset(source, config, split)
    return PlainTable.of(read_rows(source, config=config, split=split)) if found is None else found


def table_name(source: Source) -> str:
    """What a table is called in errors."""
    if str(source) == STANDARD_INPUT:
        return "standard input"
    return str(source) if isinstance(source, TableName) else f"the {type(source).__name__}"


def _is_of(source: Source, package: str, *names: str) -> bool:
    """Whether it is an object of a package that may not be installed."""
    return any(one.__module__.partition(".")[0] == package and one.__name__ in names for one in type(source).__mro__)


def _read_path(source: str | Path, config: str | None, split: str | None) -> Iterator[Row]:
    path = Path(source)
    if str(source) == STANDARD_INPUT:
        path = _standard_input()
        yield from _sniffed(path).read(path, "standard input")
    elif path.is_dir():
        found = table_files(path, split) if config is None else []
        if found:
            for part in found:
                yield from _form(part).read(part, str(part))
        elif split is None:
            raise DataError("is a folder without a table in it", file=str(path), hint=f"parts end in {_known()}")
        else:
            yield from arrow.read_dataset(arrow.load_dataset(str(path), config, split))
    elif not path.exists() and _form_of(path) is None and (split is not None or config is not None):
        yield from arrow.read_dataset(arrow.load_dataset(str(source), config, split))
    else:
        check_file(path)
        yield from _form(path).read(path, str(path))


def check_file(path: Path) -> None:
    """Check that a path is a file of its own, which can be read twice and ends.

    Raises:
        DataError: There is none, or it is a folder, a pipe, a device or a socket.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        if _form_of(path):
            hint = nearest_file(path, {suffix.removesuffix(".gz") for suffix in _FORMS} | {".gz"})
        else:
            hint = "a data set on the hub needs its split: --split train, or in a config split: train"
        raise DataError("there is no such file", file=str(path), hint=hint) from error
    except (OSError, ValueError) as error:
        raise DataError(f"cannot be read: {getattr(error, 'strerror', error)}", file=str(path)) from error
    kind = other_kind(mode)
    if kind is not None:
        hint = "name a file; - reads standard input, which may be a pipe"
        raise DataError(f"is {kind}, where a table is wanted", file=str(path), hint=hint)


def table_files(folder: Path, split: str | None = None) -> list[Path]:
    """The parts of a folder, in the order of their names; what a job keeps in ``__job__/`` is none.

    Args:
        folder: The folder.
        split: Where names say of which split a part is (``train-00000.parquet``), the one that is wanted.

    Raises:
        DataError: The parts are of several splits, and none is named or there is no such.
    """
    files = sorted(filter(_is_part, folder.iterdir()))
    splits = {one: _split_of(one) for one in files}
    if not any(splits.values()):
        return files
    wanted = [one for one in files if splits[one] == split] if split else files
    if not wanted or (split is None and len(set(splits.values())) > 1):
        found = ", ".join(sorted({name or "no split" for name in splits.values()}))
        problem = f"has parts of {found}" if wanted else f"has no part of the split {split!r}, only of {found}"
        raise DataError(problem, file=str(folder), hint="name one split, or one file")
    return wanted


def table_digest(source: TableName) -> str:
    """SHA-256 of a table's content, which says whether a job's input is the one that it was begun with.

    Of a file it is the file's, and of a folder that of all its parts with their names. Of a data set on the hub it is
    that of the rows in their order: equal on every machine, whatever brings the rows there, and another one when the
    data set is changed.

    Raises:
        DataError: See `read_rows`; or a value has no digest.
    """
    table = TableSource.of(source)
    path = _standard_input() if str(table.path) == STANDARD_INPUT else table.path
    parts = table_files(path, table.split) if path.is_dir() and table.subset is None else []
    if parts:
        return files_digest(parts)
    if path.is_file() or (table.subset is None and table.split is None):
        return file_digest(path)
    try:
        return rows_digest(read_rows(table))
    except DataError:
        raise
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(f"a row has no digest: {error}", file=str(table), hint="leave the column out") from error


def _is_part(file: Path) -> bool:
    about = file.name[0] in "._" or file.name in {"dataset_info.json", "state.json"}  # as `Dataset.save_to_disk` writes
    return not about and is_table_file(file) and file.is_file()


def _split_of(file: Path) -> str | None:
    words = re.split(r"[^a-zA-Z]+", file.name.lower())
    found = next((name for name in _SPLITS if name in words), None)
    return "validation" if found in {"valid", "val", "dev", "eval"} else found


@cache
def _standard_input() -> Path:
    """What standard input holds, in a file that can be read twice."""
    folder = Path(tempfile.mkdtemp(prefix="rlaif-stdin-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    file = folder / "rows"
    with file.open("wb") as kept:
        shutil.copyfileobj(sys.stdin.buffer, kept)
    return file


def _sniffed(path: Path) -> _Form:
    with path.open("rb") as file:
        start = file.read(6)
    if start[:4] == b"PAR1":
        return _FORMS[".parquet"]
    if start == b"ARROW1":
        return _FORMS[".arrow"]
    if start[:2] == b"\x1f\x8b":
        return _FORMS[".jsonl.gz"]
    return _FORMS[".json" if start.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in {b"{", b"[", b""} else ".csv"]


def _read_jsonl(path: Path, name: str) -> Iterator[Row]:
    with _opened(path, name) as file:
        yield from read_lines(file, name)


def _read_json(path: Path, name: str) -> Iterator[Row]:
    """An array of objects, or an object a line: the first character says which."""
    with _opened(path, name) as file:
        start = file.read(1 << 12).removeprefix(b"\xef\xbb\xbf").lstrip()
        file.seek(0)
        yield from read_array(file, name) if start[:1] == b"[" else read_lines(file, name)


def _read_gzip(path: Path, name: str) -> Iterator[Row]:
    try:
        with gzip.open(path, "rb") as file:
            yield from read_lines(file, name)  # type: ignore[arg-type]
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"no valid gzip: {error}", file=name) from error


def _read_csv(path: Path, name: str) -> Iterator[Row]:
    """Rows of text, under the names of the first line."""
    with _opened(path, name) as start:
        check_encoding(start.read(2), name)
    csv.field_size_limit(1 << 30)  # by default the module refuses what a long completion holds
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            header = next(reader, None)
            if header is None:
                return
            if repeated := [column for column in header if header.count(column) > 1]:
                raise DataError(f"names the column {repeated[0]!r} twice", file=name, row=1, hint="rename one")
            for cells in reader:
                if not cells:
                    continue
                if len(cells) != len(header):
                    problem = f"has {len(cells)} cells where the header has {len(header)}"
                    hint = "quote a cell with a comma, a quote or a line break in it"
                    raise DataError(problem, file=name, row=reader.line_num, hint=hint)
                yield dict(zip(header, cells, strict=True))
        except UnicodeDecodeError as error:
            raise DataError(f"is not UTF-8: {error}", file=name, hint="save the file as UTF-8") from error
        except csv.Error as error:
            raise DataError(f"no valid CSV: {error}", file=name, row=reader.line_num) from error


@contextmanager
def _opened(path: Path, name: str) -> Iterator[IO[bytes]]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", file=name) from error
    with file:
        yield file


@dataclass(frozen=True, slots=True)
class Survey:
    """A look over a whole table.

    Attributes:
        rows: How many rows it has.
        columns: Every column that any row has, in order of appearance.
    """

    rows: int
    columns: tuple[str, ...]


def survey(
    source: Source, *, config: str | None = None, split: str | None = None, output: str | Path | None = None
) -> Survey:
    """Look a table over before work is spent on it.

    Args:
        source: See `read_rows`, as for what follows; it is read once, or twice for a Parquet or Arrow output.
        config: See there.
        split: See there.
        output: The file that its rows will be written to, with others: what that cannot hold is refused now.

    Raises:
        DataError: The table cannot be read or has no rows, or a row cannot be written; names the row.
    """
    name = table_name(source)
    count = 0
    columns = arrow.Columns()
    names: dict[str, None] = {}
    form = None if output is None else _writable(output)
    typed = form in _TYPED
    for count, row in enumerate(read_rows(source, config=config, split=split), start=1):
        if row.keys() - names.keys():
            names |= dict.fromkeys(row)
        if typed:
            columns.add(row)
        elif form is not None:
            row_as_json(row, name, count)
    if not count:
        raise DataError("has no rows", file=name)
    if typed:
        columns.schema(name)
    if as_text := [column for column, kind in columns.kinds.items() if kind == arrow.JSON]:
        for number, row in enumerate(read_rows(source, config=config, split=split), start=1):
            row_as_json({column: row[column] for column in as_text if column in row}, name, number)
    return Survey(count, tuple(names))


class Writer(Protocol):
    """Takes rows."""

    def write(self, row: Mapping[str, Any]) -> None:
        """Add one row.

        Raises:
            DataError: The form of file cannot hold it; names the row and the column.
        """


@contextmanager
def write_rows(path: str | Path) -> Iterator[Writer]:
    """Write a table; it appears under its name only when every row is written.

    ``-`` is standard output, where each row is a line of JSON at once. Else the suffix says the form: ``.jsonl`` or ``.ndjson`` (also with ``.gz``), ``.json`` (an array), ``.csv`` (text as it
    is, nothing for null, JSON for all else), ``.parquet``, ``.arrow`` or ``.feather``. In the last three a column has
    the type of all its values, and is JSON text where they are of several kinds, see `rlaif_sdk.io.arrow`. Memory holds
    some thousand rows.

    Where the writing ends with an error, the rows written until then stay beside it in ``.NAME.partial`` (JSONL, also
    where another form was to be written: then it is ``.NAME.partial.jsonl``); the error's notes name the file. An older
    file of the name stays as it is.

    Raises:
        DataError: The suffix is none of these, or a row cannot be written.
        MissingExtraError: It is Parquet or Arrow and pyarrow is not installed.

    Examples:
        >>> with write_rows("scored.jsonl") as writer:  # doctest: +SKIP
        ...     writer.write({"prompt": "2 + 2?", "completion": "4", "reward": 1.0})
    """
    path = Path(path)
    form = _writable(path)
    if str(path) == STANDARD_INPUT:
        yield _StandardOutput()
        return
    if form.write is None:
        kept = path.with_name(f".{path.name}.partial")
        with (
            atomic_path(path, kept=kept) as unfinished,
            _closing(_LineWriter(unfinished, str(path)), kept) as writer,
        ):
            yield writer
        return
    spool = path.with_name(f".{path.name}.partial.jsonl")
    with atomic_path(path) as unfinished, atomic_path(path.with_name(f"{path.name}.rows"), kept=spool) as lines:
        with _closing(_Spool(lines, str(path), typed=form in _TYPED), spool) as writer:
            yield writer
            writer.end()
            form.write(unfinished, writer)
        lines.unlink()


def write_table(rows: Iterable[Mapping[str, Any]], path: str | Path) -> None:
    """Write all rows of an iterable; see `write_rows`."""
    with write_rows(path) as writer:
        for row in rows:
            writer.write(row)


class _StandardOutput:
    """Rows as JSONL on standard output."""

    def __init__(self) -> None:
        self._rows = 0

    def write(self, row: Mapping[str, Any]) -> None:
        self._rows += 1
        sys.stdout.write(utf_8_json(row_as_json(row, "standard output", self._rows)) + "\n")


@contextmanager
def _closing(writer: _LineWriter, kept: Path) -> Iterator[Any]:
    """Close a writer of lines; after an error keep whole lines and say where they will be."""
    try:
        yield writer
        writer.end()
    except BaseException as error:
        with suppress(Exception):  # the first error is the one to tell
            if left := writer.abandon(kept):
                error.add_note(f"the rows written until then are in {left}")
        raise


class _LineWriter:
    """Rows as JSONL."""

    def __init__(self, path: Path, name: str) -> None:
        self._path = path
        self.name = name
        self._rows = 0
        self._file = path.open(
            "w", encoding="utf-8", errors="backslashreplace", newline="\n"
        )  # JSON's escape of a surrogate

    def write(self, row: Mapping[str, Any]) -> None:
        line = self._line(row) + "\n"
        self._rows += 1
        self._file.write(line)

    def _line(self, row: Mapping[str, Any]) -> str:
        return row_as_json(row, self.name, self._rows + 1)

    def end(self) -> None:
        """Close the file."""
        self._file.close()

    def abandon(self, kept: Path) -> str | None:
        """End after an error: cut what is no whole line.

        Returns:
            The file's name to come and how many rows there was room for; None, and no file, where there are none.
        """
        with suppress(OSError):
            self._file.close()
        if not self._path.is_file():  # a device keeps nothing, and may be read for ever
            return None
        rows = size = 0
        with self._path.open("r+b") as file:
            for line in file:
                if line.endswith(b"\n"):
                    rows, size = rows + 1, size + len(line)
            file.truncate(size)
        if not rows:
            self._path.unlink()
            return None
        return str(kept) if rows == self._rows else f"{kept} ({rows} of {self._rows}, for want of room)"


class _Spool(_LineWriter):
    """Rows that are kept until it is known what columns they have.

    Args:
        path: Where they are kept.
        name: The table's name in errors.
        typed: Whether the table holds more than JSON does, such as dates.
    """

    def __init__(self, path: Path, name: str, *, typed: bool) -> None:
        super().__init__(path, name)
        self.columns = arrow.Columns()
        self._typed = typed
        self._tag = f"\x00{secrets.token_hex(8)}"  # no row's own key
        self._encode = json.JSONEncoder(ensure_ascii=False, default=self._tagged).encode
        self._has_tags = False

    def _line(self, row: Mapping[str, Any]) -> str:
        row = {str(name): value for name, value in row.items()}
        self.columns.add(row)
        if not self._typed:
            return super()._line(row)
        try:
            return self._encode(row)
        except (ValueError, TypeError, RecursionError) as error:
            raise DataError(f"cannot be written: {error}", file=self.name, row=self._rows + 1) from error

    def _tagged(self, value: Any) -> Any:
        """A value that JSON does not know, so that `_untagged` gives the same value back."""
        plain(value)  # refuses what is no value of a table
        if (found := typed_text(value)) is None:
            return value.tolist() if hasattr(value, "tolist") else plain(value)
        self._has_tags = True
        return {self._tag: found}

    def _untagged(self, value: Row) -> Any:
        return of_typed_text(*value[self._tag]) if self._tag in value else value

    def rows(self) -> Iterator[Row]:
        """The rows, once more."""
        hook = self._untagged if self._has_tags else None
        with self._path.open(encoding="utf-8") as file:
            for line in file:
                yield json.loads(line, object_hook=hook)


def check_writable(path: str | Path) -> None:
    """Check that `write_rows` can write a file of that name, before work is spent on its rows.

    Raises:
        DataError: The suffix is that of no form.
        MissingExtraError: It is Parquet or Arrow and pyarrow is not installed.
    """
    _writable(path)


def _writable(path: str | Path) -> _Form:
    form = _FORMS[".jsonl"] if str(path) == STANDARD_INPUT else _form_of(Path(path))
    if form is None:
        raise DataError("the output's suffix says no form of table", file=str(path), hint=f"it ends in {_known()}")
    if form in _TYPED:
        arrow.arrow()
    return form


def _write_parquet(path: Path, spool: _Spool) -> None:
    arrow.write_parquet(path, spool.rows(), spool.columns.schema(spool.name), spool.name)


def _write_arrow(path: Path, spool: _Spool) -> None:
    arrow.write_arrow(path, spool.rows(), spool.columns.schema(spool.name), spool.name)


def _write_csv(path: Path, spool: _Spool) -> None:
    names = [*spool.columns.kinds]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(map(safe_text, names))
        for row in spool.rows():
            writer.writerow([_cell(row.get(column)) for column in names])


def _cell(value: Any) -> str:
    text = value if isinstance(value, str) else as_json(value)
    return safe_text(text if text is value or text != "null" else "")


def _write_json(path: Path, spool: _Spool) -> None:
    with path.open("w", encoding="utf-8", errors="backslashreplace") as file:
        write_array(map(as_json, spool.rows()), file)


def _write_gzip(path: Path, spool: _Spool) -> None:
    with gzip.open(path, "wt", encoding="utf-8", errors="backslashreplace") as file:
        file.writelines(f"{as_json(row)}\n" for row in spool.rows())


_FORMS = {
    ".jsonl": _Form(_read_jsonl, None),
    ".ndjson": _Form(_read_jsonl, None),
    ".jsonl.gz": _Form(_read_gzip, _write_gzip),
    ".ndjson.gz": _Form(_read_gzip, _write_gzip),
    ".json": _Form(_read_json, _write_json),
    ".csv": _Form(_read_csv, _write_csv),
    ".parquet": _Form(arrow.read_parquet, _write_parquet),
    ".arrow": _Form(arrow.read_arrow, _write_arrow),
    ".feather": _Form(arrow.read_arrow, _write_arrow),
}
_TYPED = (_FORMS[".parquet"], _FORMS[".arrow"])
"""Forms that hold more than JSON does, such as dates."""


def _form_of(path: Path) -> _Form | None:
    return _FORMS.get(_suffix(path).lower())


def _suffix(path: Path) -> str:
    return "".join(path.suffixes[-2:] if path.suffix == ".gz" else path.suffixes[-1:])


def _form(path: Path) -> _Form:
    form = _form_of(path)
    if form is None:
        raise DataError(f"files with the suffix {path.suffix!r} are not read", file=str(path), hint=f"use {_known()}")
    return form


def is_table_file(path: str | Path) -> bool:
    """Whether a name is that of a file of a table, by its suffix."""
    return _form_of(Path(path)) is not None


def check_form(path: Path) -> None:
    """Check that a file is one of a table by its suffix; a folder, and what is not there, may be something else.

    Raises:
        DataError: It is another file.
    """
    if path.is_file():
        _form(path)


def has_types(source: TableName) -> bool:
    """Whether the columns of a table have types: it is Parquet or Arrow by its name, or loaded by `datasets`."""
    table = TableSource.of(source)
    if table.path.is_dir():
        return all(_form_of(part) in _TYPED for part in table_files(table.path, table.split))
    form = _form_of(table.path)
    return form in _TYPED or (form is None and str(table.path) != STANDARD_INPUT)


def _known() -> str:
    *others, last = _FORMS
    return f"{', '.join(others)} or {last}"
