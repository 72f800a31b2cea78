"""Counts the asserts of a row's tests while they run."""

from __future__ import annotations

import ast
import builtins

from rlaif_execution.inside import wire

TYPE_CHECKING = False  # as a type checker knows it; importing typing costs a sandbox a tenth of its start
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

TALLY = "__tally__"
"""The name by which the counted asserts reach their `Tally`."""

_QUOTED = 200


class Stop(BaseException):
    """The first test that fails is enough."""


class BrokenAssert(BaseException):
    """An assert failed by itself."""


class Tally:
    """What the asserts found. Each statement is one test: it passes if it was reached and held every time.

    So the function, which may decide how often a statement runs, cannot decide how many tests there are.
    """

    def __init__(self, asserts: AssertRewriter, calls: Callable[[], int], *, stop_at_first: bool) -> None:
        self._first: dict[str, Any] | None = None
        self._asserts = asserts
        self._calls = calls
        self._held: dict[int, bool] = {}
        self._stop_at_first = stop_at_first

    def record(self, number: int, outcome: Any) -> None:
        """Note that an assert ran."""
        if outcome:
            self._held.setdefault(number, True)
        else:
            self._fail(number, {"type": None, "message": "is false"})

    def raised(self, number: int, error: Exception) -> None:
        """Note that an assert ran and raised."""
        if not self._calls() or self._asserts.undefined(error):
            raise BrokenAssert from error
        self._fail(number, wire.describe(error))

    def as_dict(self, *, went_on: bool) -> dict[str, Any]:
        """How many asserts passed and failed; none where none was reached and the function was not called.

        Args:
            went_on: Whether the tests ended by themselves, so that an assert that was not reached is the reason.
        """
        total = len(self._asserts.shown) if self._held or self._calls() else 0
        unreached = [text for number, text in enumerate(self._asserts.shown[:total]) if number not in self._held]
        first = self._first
        if first is None and went_on and unreached:
            first = {"type": None, "message": "is not reached", "test": unreached[0]}
        passed = sum(self._held.values())
        return {"passed": passed, "failed": total - passed, "first": first}

    def _fail(self, number: int, why: dict[str, Any]) -> None:
        self._held[number] = False
        self._first = self._first or {**why, "test": self._asserts.shown[number]}
        if self._stop_at_first:
            raise Stop


class AssertRewriter(ast.NodeTransformer):
    """Turns each assert into one that is counted and lets the rest go on; one of a constant asks nothing and stays.

    Attributes:
        shown: The texts of those that are counted.
    """

    def __init__(self) -> None:
        self.shown: list[str] = []
        self._loaded: set[str] = set()
        self._bound = set(dir(builtins))

    def count_in(self, source: str, defined: Iterable[str]) -> ast.Module:
        """The tests in a text, with their asserts counted.

        Args:
            source: The text.
            defined: Names that are there before the tests run.

        Raises:
            SyntaxError: It is no Python.
        """
        self._bound |= {*defined}
        tests: ast.Module = self.visit(ast.parse(source))
        return tests

    def undefined(self, error: BaseException) -> bool:
        """Whether an error names a variable that the tests use and nobody defines, whatever the function returns."""
        return isinstance(error, NameError) and error.name in self._loaded - self._bound

    def visit_Assert(self, node: ast.Assert) -> ast.stmt:
        self.generic_visit(node)
        if isinstance(node.test, ast.Constant):
            return node
        number = len(self.shown)
        self.shown.append(ast.unparse(node.test)[:_QUOTED])
        counted: Any = ast.parse(
            f"try: {TALLY}.record({number}, None)\nexcept Exception as __error__: {TALLY}.raised({number}, __error__)"
        ).body[0]
        counted.body[0].value.args[1] = node.test
        result: ast.stmt = counted
        return result

    def visit_Name(self, node: ast.Name) -> ast.expr:
        (self._loaded if isinstance(node.ctx, ast.Load) else self._bound).add(node.id)
        return node

    def generic_visit(self, node: ast.AST) -> ast.AST:
        if isinstance(node, ast.alias):
            self._bound.add((node.asname or node.name).partition(".")[0])
        for field in ("name", "arg", "rest"):
            if isinstance(bound := getattr(node, field, None), str):
                self._bound.add(bound)
        return super().generic_visit(node)
