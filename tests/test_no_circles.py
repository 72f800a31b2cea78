"""No two modules import each other, however far round: what one needs can be read before it."""

from __future__ import annotations

import grimp
import pytest

ROOMS = ("composer", "scoring", "diagnostics", "statistics", "judges", "preferences", "evaluation", "attacks")
"""Rooms of which this holds; imports within functions and for type checkers count, since a reader follows them."""


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    """All imports between modules of the SDK."""
    return grimp.build_graph("rlaif_sdk", include_external_packages=False, exclude_type_checking_imports=False)


@pytest.mark.parametrize("room", ROOMS)
def test_no_module_of_a_room_imports_itself_in_the_end(graph: grimp.ImportGraph, room: str) -> None:
    """Neither within the room nor by way of another."""
    inside = {name for name in graph.modules if name.startswith(f"rlaif_sdk.{room}")}
    assert inside
    circles = {}
    for module in sorted(inside):
        for imported in graph.find_modules_directly_imported_by(module):
            if chain := graph.find_shortest_chain(imported, module):
                circles[module] = chain
    assert circles == {}
