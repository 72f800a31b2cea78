"""Which text of a prompt and an answer is code, and how both make one program."""

from __future__ import annotations

TYPE_CHECKING = False  # as a type checker knows it; importing typing costs a sandbox a tenth of its start
if TYPE_CHECKING:
    from typing import Any

_FENCE = (
    r"(?m)^(?P<indent>[ \t]*+)(?P<fence>`{3,}+|~{3,}+)(?P<tag>[^\n`]*+)$"  # never goes back, so it takes linear time
)
_PYTHON = {"python", "py", "python3"}


def last_block(text: str) -> str | None:
    """The content of the last fenced Python block of a text, or of the last block without a language, or None.

    A fence that is never closed reaches to the end: answers are often cut there. Where the fence is indented, as in an
    item of a list, its lines lose as much of their own indentation.
    """
    import re

    fence = re.compile(_FENCE)
    found: dict[bool, str] = {}
    position = 0
    while opening := fence.search(text, position):
        start = min(opening.end() + 1, len(text))
        closing = next(
            (
                mark
                for mark in fence.finditer(text, start)
                if not mark["tag"].strip() and mark["fence"].startswith(opening["fence"])
            ),
            None,
        )
        position = closing.end() if closing else len(text)
        tag = (opening["tag"].split() or [""])[0].lower()
        if tag in _PYTHON or not tag:
            found[tag in _PYTHON] = _unindented(
                text[start : closing.start() if closing else None], len(opening["indent"])
            )
    return found.get(True, found.get(False))


def _unindented(block: str, width: int) -> str:
    """A block without the indentation of its fence, as far as its first line has it."""
    import re

    first = re.search(r"(?m)^([ \t]*+)\S", block)
    width = min(width, len(first[1]) if first else 0)
    return re.sub(rf"(?m)^[ \t]{{1,{width}}}", "", block) if width else block


def defines(source: str, name: str) -> bool:
    """Whether a text is Python that defines the name at its top level."""
    import ast

    try:
        body = ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    for statement in body:
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and statement.name == name:
            return True
        targets = statement.targets if isinstance(statement, ast.Assign) else []
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            return True
    return False


def beginning(prompt: str, name: str) -> tuple[str, str]:
    """The Python in a prompt that begins the function of that name: the prompt, or its last fenced block.

    Returns:
        The text, and the same as a program that runs; both are empty where there is none.
    """
    for text in (prompt, last_block(prompt)):
        for ending in ("", "\n    pass\n"):
            if text and defines(text + ending, name):
                return text, text + ending
    return "", ""


def load(prompt: str, code: str, name: str, namespace: dict[str, Any]) -> Any:
    """Run the code of an answer after the beginning that its prompt may hold, and return what it calls ``name``.

    An answer that does not define the name itself goes on where the prompt stops.

    Raises:
        NameError: The code does not define it.
    """
    start, runs = beginning(prompt, name) if name in prompt else ("", "")
    parts = [runs, code] if not start or defines(code, name) else [start + code]
    for part in parts:
        exec(compile(part, "<answer>", "exec", dont_inherit=True), namespace)  # noqa: S102 - this is the sandbox
    if name not in namespace:
        raise NameError(f"the code defines no {name!r}")
    return namespace[name]
