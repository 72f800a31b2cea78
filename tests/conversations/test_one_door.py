from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FIELDS = frozenset({"content", "tool_calls", "tool_call_id", "function_call", "reasoning_content", "refusal", "role"})
EXCEPTIONS = {
    "rlaif_sdk/judges/backends/openai.py": "a server's reply: log-probabilities under 'content', an error of the judge under 'refusal'",
    "rlaif_sdk/models/onnx_engine.py": "a tokenizer's special token: its text stands under 'content'",
    "rlaif_sdk/training/run_folder.py": "a model's part in a run, under 'role'",
    "rlaif_sdk/preferences/review/store.py": "a column of the review's database",
}
"""Modules that may, and why."""


def modules() -> Iterator[Path]:
    for folder in ("rlaif_sdk", *(f"plugins/{plugin.name}" for plugin in (ROOT / "plugins").iterdir())):
        for path in sorted((ROOT / folder).rglob("*.py")):
            place = path.relative_to(ROOT)
            if "tests" not in place.parts and "conversations" not in place.parts and ".venv" not in place.parts:
                yield path


def reads(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and field of each subscript (not assigned to) and each `.get` of a message's field."""
    for node in ast.walk(tree):
        field: ast.expr | None = None
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
            field = node.slice
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "get"
            and node.args
        ):
            field = node.args[0]
        if isinstance(field, ast.Constant) and field.value in FIELDS:
            yield node.lineno, str(field.value)  # type: ignore[attr-defined]


def test_no_module_outside_the_door_looks_into_a_message() -> None:
    """Each that did read messages in its own way, and missed what the others knew."""
    found = {
        f"{path.relative_to(ROOT)}:{line} reads {field!r}"
        for path in modules()
        for line, field in reads(ast.parse(path.read_text(encoding="utf-8")))
        if str(path.relative_to(ROOT)) not in EXCEPTIONS
    }
    assert not found, "ask rlaif_sdk.conversations for a view:\n" + "\n".join(sorted(found))


@pytest.mark.parametrize("place", EXCEPTIONS)
def test_every_exception_is_still_needed(place: str) -> None:
    """An exception whose module reads no such field any more hides the next one that does."""
    assert list(reads(ast.parse((ROOT / place).read_text(encoding="utf-8"))))


def test_the_rule_sees_what_it_is_for() -> None:
    """Reading is found, and building a message is not."""
    code = 'a = m["content"]; b = m.get("tool_calls", []); c = {"content": 1}; m["content"] = 2'
    assert list(reads(ast.parse(code))) == [(1, "content"), (1, "tool_calls")]
