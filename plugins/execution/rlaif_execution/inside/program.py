"""Which text of a prompt and an answer is code, and how both make one program."""

from __future__ import annotations

TYPE_CHECKING = False  # as a type checker knows it; importing typing costs a sandbox a tenth of its start
if TYPE_CHECKING:
    import ast
    from collections.abc import Iterable, Iterator
    from typing import Any

_FENCE = (
    r"(?m)^(?P<indent>[ \t]*+)(?P<fence>`{3,}+|~{3,}+)(?P<tag>[^\n`]*+)$"  # never goes back, so it takes linear time
)
_PYTHON = {"python", "py", "python3"}


def code_blocks(text: str) -> list[str]:
    """The contents of the fenced Python blocks of a text, or of those without a language where none is Python.

    A fence that is never closed reaches to the end: answers are often cut there. Where the fence is indented, as in an
    item of a list, its lines lose as much of their own indentation.
    """
    return [_unindented(text[start:end], indent) for start, end, indent in _blocks(text)]


def code_span(text: str) -> tuple[int, int]:
    """From the first character of the first of `code_blocks`, where there is one, to the end of the last."""
    blocks = _blocks(text)
    return blocks[0][0], blocks[-1][1]


def _blocks(text: str) -> list[tuple[int, int, int]]:
    """Where each of `code_blocks` begins and ends, and how far its fence is indented."""
    import re

    fence = re.compile(_FENCE)
    found: dict[bool, list[tuple[int, int, int]]] = {True: [], False: []}
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
            end = closing.start() if closing else len(text)
            found[tag in _PYTHON].append((start, end, len(opening["indent"])))
    return found[True] or found[False]


def _unindented(block: str, width: int) -> str:
    """A block without the indentation of its fence, as far as its first line has it."""
    import re

    first = re.search(r"(?m)^([ \t]*+)\S", block)
    width = min(width, len(first[1]) if first else 0)
    return re.sub(rf"(?m)^[ \t]{{1,{width}}}", "", block) if width else block


def parsed(source: str) -> list[ast.stmt] | None:
    """The statements of a text, or None where it is no Python."""
    import ast

    try:
        return ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def binds(statement: ast.stmt, name: str) -> bool:
    """Whether a statement defines, imports or assigns the name at the top level of its module."""
    import ast

    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return statement.name == name
    if isinstance(statement, (ast.Import, ast.ImportFrom)):
        return any((alias.asname or alias.name.partition(".")[0]) == name for alias in statement.names)
    if isinstance(statement, ast.Try):
        bodies = [statement.body, *(handler.body for handler in statement.handlers)]
        return any(binds(part, name) for body in bodies for part in body)
    targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", statement)]
    assigns = isinstance(statement, (ast.Assign, ast.AnnAssign))
    return assigns and any(
        isinstance(part, ast.Name) and part.id == name for target in targets for part in ast.walk(target)
    )


def defines(source: str, name: str) -> bool:
    """Whether a text is Python that defines the name at its top level; an import does not."""
    import ast

    return any(
        binds(statement, name) and not isinstance(statement, (ast.Import, ast.ImportFrom))
        for statement in parsed(source) or ()
    )


def _makes(block: str, name: str) -> bool:
    """Whether a block defines the name anew: not from what had the name before, nor as a head without a body."""
    import ast

    def renews(statement: ast.stmt) -> bool:
        return isinstance(statement, ast.Assign) and any(
            isinstance(part, ast.Name) and part.id == name for part in ast.walk(statement.value)
        )

    return defines(block, name) and any(
        binds(statement, name) and not renews(statement) and not _is_stub(statement)
        for statement in parsed(block) or ()
    )


def _is_stub(statement: ast.stmt) -> bool:
    """Whether it is the head of a function without a body, as an explanation quotes it."""
    import ast

    return isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)) and all(
        isinstance(part, ast.Pass) or (isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant))
        for part in statement.body
    )


def assembled(blocks: list[str], name: str) -> tuple[str, str]:
    """The program that an answer in several blocks is: one block, and what it needs of the others.

    The block is the last that defines the function, whatever stands there to show its use; of a program, which has no
    function to be called, the last that reads its input; where there is none, the last. Of the other blocks it gets the
    definitions, imports and constants that it uses and lacks; everything else in them is not run.

    Args:
        blocks: The code blocks of an answer, at least one.
        name: The function, or "".

    Returns:
        The definitions, and the block.
    """
    if len(blocks) == 1:
        return "", blocks[0]
    main = _main_block(blocks, name)
    return _needed(blocks, main), blocks[main]


def _main_block(blocks: list[str], name: str) -> int:
    import re

    if not name:
        reads = [
            index
            for index, block in enumerate(blocks)
            if re.search(r"\binput\s*\(|\bstdin\b|\bopen\(0", block) and "StringIO" not in block
        ]
        return reads[-1] if reads else len(blocks) - 1
    # A definition that was cut short is the answer's last word, too, and not the attempt before it.
    begins = re.compile(rf"(?m)^(?:async[ \t]+def|def|class)[ \t]+{re.escape(name)}\b")
    made = [
        index
        for index, block in enumerate(blocks)
        if _makes(block, name) or (begins.search(block) and parsed(block) is None)
    ]
    bound = [index for index, block in enumerate(blocks) if any(binds(part, name) for part in parsed(block) or ())]
    indented = [index for index, block in enumerate(blocks) if re.match(r"\s*^[ \t]+\S", block, re.MULTILINE)]
    return (made or bound or indented or [len(blocks) - 1])[-1]


def _needed(blocks: list[str], main: int) -> str:
    """The statements of the other blocks that define what a block uses and lacks, and what they use in turn."""
    import ast

    nearest = [*range(main - 1, -1, -1), *range(main + 1, len(blocks))]
    statements = {index: parsed(blocks[index]) or [] for index in nearest}
    taken: set[tuple[int, int]] = set()
    wanted = sorted(_lacking(blocks[main]))
    seen: set[str] = set()
    while wanted:
        name = wanted.pop()
        if name in seen:
            continue
        seen.add(name)
        for index in nearest:
            found = [(index, row) for row, part in enumerate(statements[index]) if binds(part, name)]
            if found:
                taken.update(found)
                wanted += sorted(_lacking("\n".join(ast.unparse(statements[index][row]) for _, row in found)))
                break
        else:
            taken.update(_star_imports(statements, main))
    first = {index for index, _ in taken}
    taken |= {
        (index, row)
        for index in first
        for row, part in enumerate(statements[index])
        if isinstance(part, ast.ImportFrom) and part.module == "__future__"
    }
    parts = [statements[index][row] for index, row in sorted(taken)]
    parts.sort(key=lambda part: not (isinstance(part, ast.ImportFrom) and part.module == "__future__"))
    return "\n".join(map(ast.unparse, parts))


def _star_imports(statements: dict[int, list[ast.stmt]], main: int) -> Iterator[tuple[int, int]]:
    """Where the blocks before the main one import all names of a module of Python's own."""
    import ast
    import sys

    for index, parts in statements.items():
        for row, part in enumerate(parts if index < main else ()):
            if (
                isinstance(part, ast.ImportFrom)
                and part.names[0].name == "*"
                and part.module in sys.stdlib_module_names
            ):
                yield index, row


def _lacking(source: str) -> set[str]:
    """The global names that a text uses, and that neither it nor Python defines."""
    import builtins
    import symtable

    try:
        module = symtable.symtable(source, "<answer>", "exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set()
    used: set[str] = set()
    made = set(dir(builtins)) | {
        symbol.get_name() for symbol in module.get_symbols() if symbol.is_assigned() or symbol.is_imported()
    }
    tables = [module]
    while tables:
        table = tables.pop()
        tables += table.get_children()
        for symbol in table.get_symbols():
            if table is module or symbol.is_global():
                if symbol.is_referenced():
                    used.add(symbol.get_name())
                if symbol.is_assigned():
                    made.add(symbol.get_name())
    return used - made


def beginning(prompt: str, name: str) -> tuple[str, str]:
    """The Python in a prompt that begins the function of that name: the prompt, or its last fenced block.

    Returns:
        The text, and the same as a program that runs; both are empty where there is none.
    """
    for text in (prompt, (code_blocks(prompt) or [""])[-1]):
        for ending in ("", "\n    pass\n"):
            if text and defines(text + ending, name):
                return text, text + ending
    return "", ""


def load(prompt: str, blocks: list[str], name: str, namespace: dict[str, Any]) -> Any:
    """Run the code of an answer after the beginning that its prompt may hold, and return what it calls ``name``.

    An answer that does not define the name itself goes on where the prompt stops.

    Raises:
        NameError: The code does not define it.
    """
    start, runs = beginning(prompt, name) if name in prompt else ("", "")
    needed, code = assembled(blocks, name)
    run((runs, needed, code) if not start or defines(code, name) else (needed, start + code), namespace)
    if name not in namespace:
        raise NameError(f"the code defines no {name!r}")
    return namespace[name]


def run(parts: Iterable[str], namespace: dict[str, Any]) -> None:
    """Run the parts of a program one after the other, as one module."""
    for part in parts:
        exec(compile(part, "<answer>", "exec", dont_inherit=True), namespace)  # noqa: S102 - this is the sandbox
