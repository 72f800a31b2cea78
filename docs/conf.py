"""Sphinx configuration; `nox -s docs` builds with every warning an error, references included."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import typing
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from docutils import nodes
    from sphinx.addnodes import pending_xref
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

project = "rlaif_sdk"
author = "the rlaif_sdk authors"
copyright = "2026, the rlaif_sdk authors"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
html_theme = "furo"
html_title = "rlaif_sdk"
exclude_patterns = ["_build"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # their outputs are committed, see docs/run_notebooks.py
myst_enable_extensions = ["colon_fence"]
autodoc_member_order = "bysource"
autodoc_typehints = "description"
default_role = "code"  # a name in single backticks is code; tests/docs/test_references.py checks that it exists

# What other projects define is documented there. Whatever begins with rlaif_sdk has to be found on these pages.
_OTHER_PROJECTS = "accelerate|annotated_types|collections|concurrent|datasets|numpy|pathlib|pd|peft|pydantic|random|torch|transformers|trl"
nitpick_ignore_regex = [
    ("py:.*", rf"({_OTHER_PROJECTS})\..+"),
    # imported by signatures for type checkers only, so that their libraries load late: they have no module in front
    (
        "py:class",
        "BaseModel|BitsAndBytesConfig|Dataset|IterableDataset|Path|PeftConfig|PreTrainedTokenizerBase|Tokenizer|TrainerCallback",
    ),
    ("py:class", r"(rlaif_sdk\.[\w.]+\.)?[A-Z]\w*T"),  # type variables
    ("py:class", "Array"),  # NumPy's, of doubles
]


def _plain_hints(_: Sphinx) -> None:
    """Leaves out of the config models' types what pydantic reads in them: a page shows `int`, not its validators."""
    import pydantic

    import rlaif_sdk

    for module in pkgutil.walk_packages(rlaif_sdk.__path__, "rlaif_sdk."):
        if module.name.rpartition(".")[2] == "__main__":
            continue
        try:
            importlib.import_module(module.name)
        except ImportError:  # an adapter of a stack that is not installed here
            continue
    models = [pydantic.BaseModel]
    while models:
        model = models.pop()
        models += model.__subclasses__()
        if not model.__module__.startswith("rlaif_sdk."):
            continue
        hints = typing.get_type_hints(model)
        model.__annotations__ = {name: hints[name] for name in inspect.get_annotations(model)}
        signature = inspect.signature(model)
        plain = [p.replace(annotation=hints.get(p.name, p.annotation)) for p in signature.parameters.values()]
        model.__signature__ = signature.replace(parameters=plain)


def _same_object(app: Sphinx, env: BuildEnvironment, node: pending_xref, shown: nodes.Node) -> nodes.Node | None:
    """Finds what a signature names by the module that defines it, or by its bare name, where it is documented.

    A class is documented under its public name, and a signature spells out where it is defined.
    """
    from sphinx.util.nodes import make_refnode

    if node.get("refdomain") != "py":
        return None
    documented = env.get_domain("py").objects  # type: ignore[attr-defined]
    target = node["reftarget"]
    if "." in target:
        wanted = _resolve(target)
        names = [name for name in documented if wanted is not None and _resolve(name) is wanted]
    else:
        names = [name for name in documented if name.rpartition(".")[2] == target]
        if len({id(_resolve(name)) for name in names}) > 1:
            return None
    if not names:
        return None
    entry = documented[names[0]]
    return make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, shown, names[0])


def _resolve(name: str) -> Any:
    """The object of a dotted name; None where there is none."""
    module, _, attribute = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute, None)
    except (ImportError, ValueError):
        return None


def setup(app: Sphinx) -> None:
    """Connects what is above."""
    app.connect("builder-inited", _plain_hints)
    app.connect("missing-reference", _same_object)
