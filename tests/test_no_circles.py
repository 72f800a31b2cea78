"""No two modules import each other, however far round: what one needs can be read before it."""

from __future__ import annotations

import grimp


def test_no_module_imports_itself_in_the_end() -> None:
    """Imports within functions and for type checkers count too, since a reader follows them."""
    graph = grimp.build_graph("rlaif_sdk", include_external_packages=False, exclude_type_checking_imports=False)
    assert len(graph.modules) > 100
    circles = {}
    for module in sorted(graph.modules):
        for imported in graph.find_modules_directly_imported_by(module):
            if chain := graph.find_shortest_chain(imported, module):
                circles[module] = chain
    assert circles == {}
