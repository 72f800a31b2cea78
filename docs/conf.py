"""Sphinx configuration; `nox -s docs` builds with every warning an error."""

project = "rlaif_sdk"
author = "the rlaif_sdk authors"
copyright = "2026, the rlaif_sdk authors"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
html_theme = "furo"
html_title = "rlaif_sdk"
exclude_patterns = ["_build"]
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_mock_imports: list[str] = []
default_role = "code"
nitpick_ignore_regex = [("py:.*", r".*")]
