"""Tables, compositions, and a Ray of the test's own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

REWARDS = '''
import math


def length(prompts, completions, **columns):
    return [len(text) / 100 for text in completions]


def picky(prompts, completions, **columns):
    """No opinion of some, and broken on others."""
    return [None if "3" in text else (math.nan if "7" in text else 0.5) for text in completions]
'''


@pytest.fixture
def composition(write: Callable[[str, str], Path]) -> Path:
    """Two rewards, of which one abstains and fails, without anything that depends on other rows."""
    write("rewards.py", REWARDS)
    return write(
        "composition.yaml",
        """\
        rewards:
          length: {use: "rewards.py:length"}
          picky: {use: "rewards.py:picky", weight: 0.5}
        """,
    )


@pytest.fixture
def table(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes so many rows, in groups of three, and returns the file."""

    def write_table(rows: int, name: str = "table.jsonl") -> Path:
        path = tmp_path / name
        records = [
            {
                "prompt": [{"role": "user", "content": f"question {row // 3}"}],
                "completion": f"answer {'x' * (row % 11)} {row}",
                "n": row if row % 2 else row + 0.5,
                "g": row // 3,
                **({"late": {"deep": [row]}, "empty": {}} if row > rows // 2 else {}),
            }
            for row in range(rows)
        ]
        if path.suffix == ".parquet":
            import pyarrow as pa
            from pyarrow import parquet

            for record in records:
                record.pop("empty", None)
            parquet.write_table(pa.Table.from_pylist(records), path, row_group_size=17)
        else:
            path.write_text("\n\n".join(map(json.dumps, records)) + "\n", encoding="utf-8")
        return path

    return write_table


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A Ray of two cores, ended with its processes when the module's tests are done."""
    ray = pytest.importorskip("ray")
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    yield ray
    ray.shutdown()
