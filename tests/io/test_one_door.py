"""No module outside `rlaif_sdk.io` parses a table: whatever reads or writes rows goes through the one door."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import rlaif_sdk

PACKAGE = Path(rlaif_sdk.__file__).parent
READERS = {
    "load_dataset",
    "from_list",
    "from_dict",
    "from_pandas",
    "read_csv",
    "read_json",
    "read_parquet",
    "from_pylist",
}
MODULES = {"csv", "pyarrow"}
ALLOWED = {
    # a log of jobs that is appended to and read by offset, and ends torn when a job is killed
    "preferences/resumable_job.py": {"a line of JSON"},
    # a log of samples that is appended to while training goes on, and cut where a run goes on from a checkpoint
    "training/ppo/samples.py": {"a line of JSON"},
    # one message a line between processes
}


def found(tree: ast.AST) -> Iterator[str]:
    """What a module has of its own to read or write tables with."""
    typing_only = {
        inside
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inside in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names if one.name.partition(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom):
            if (node.module or "").partition(".")[0] in MODULES:
                yield str(node.module)
            yield from (one.name for one in node.names if one.name in READERS and node.module == "datasets")
        elif isinstance(node, ast.Attribute) and node.attr in READERS:
            base = ast.unparse(node.value)
            if base in {"Dataset", "datasets", "datasets.Dataset", "pd", "pandas", "pa.Table", "parquet"}:
                yield f"{base}.{node.attr}"
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "json.loads" and node.args:
            argument = ast.unparse(node.args[0])
            if argument in {"line", "row", "request"} or "readline" in argument:
                yield "a line of JSON"


def test_no_other_module_parses_a_table() -> None:
    """Each exception has its reason here, and is still one."""
    outside = {
        str(file.relative_to(PACKAGE)): set(found(ast.parse(file.read_text(encoding="utf-8"))))
        for file in PACKAGE.rglob("*.py")
        if not file.is_relative_to(PACKAGE / "io")
    }
    assert {name: what for name, what in outside.items() if what} == ALLOWED


def test_the_rule_would_find_them() -> None:
    """Each way to read a table is one that it knows."""
    for text in (
        "import csv",
        "def f():\n    from pyarrow import parquet",
        "from datasets import load_dataset",
        "Dataset.from_list([])",
        "datasets.load_dataset('x')",
        "for line in file:\n    json.loads(line)",
        "json.loads(file.readline())",
    ):
        assert [*found(ast.parse(text))], text
    assert not [*found(ast.parse("if TYPE_CHECKING:\n    import pyarrow as pa"))]
