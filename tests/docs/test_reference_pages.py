"""The reference pages of configs say what the schemas say."""

import dataclasses
import importlib.util
import re
from importlib.metadata import version

import pytest
from pydantic import Field

from rlaif_sdk.config.base import ConfigModel
from tests.docs.names import ROOT

REFERENCE = ROOT / "docs" / "reference"


@pytest.fixture(scope="module")
def make_reference():
    """The command that writes the pages."""
    spec = importlib.util.spec_from_file_location("make_reference", ROOT / "docs" / "make_reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_pages_are_up_to_date(make_reference):
    """A key, default, range or line that has changed since the pages were written; `nox -s reference` writes them anew."""
    for package in ("trl", *make_reference.BUNDLED):
        pytest.importorskip(package)
    committed = (REFERENCE / f"{make_reference.COMMON}.md").read_text(encoding="utf-8")
    for library in make_reference.LIBRARIES:
        if f"{library} {version(library)}" not in committed:
            pytest.skip(f"the pages are of another {library} than {version(library)}")
    outdated = [
        name
        for name, text in make_reference.pages().items()
        if not (REFERENCE / name).exists() or (REFERENCE / name).read_text(encoding="utf-8") != text
    ]
    assert outdated == []


def test_a_part_has_each_key_with_type_range_default_and_meaning(make_reference):
    """What a model states, a reader sees: requirements, choices, bounds, and mappings under their own heading."""

    class Inner(ConfigModel):
        """One of several."""

        size: int = Field(default=3, ge=1, lt=9)
        """How ``large``
        it is."""

    class Outer(ConfigModel):
        """All."""

        name: str
        """What it is called | known as."""
        inner: dict[str, Inner] = Field(default_factory=dict)
        """By name."""
        share: float | None = Field(default=None, gt=0)

    assert (
        make_reference._parts(Outer.model_json_schema())
        == r"""
| key | type | range | default | meaning |
| --- | --- | --- | --- | --- |
| `name` | text |  | **required** | What it is called \| known as. |
| `inner` | mapping of name to [mapping](#innername) |  | `{}` | By name. |
| `share` | number or null | above 0 | `null` |  |

## `inner.NAME`

One of several.

| key | type | range | default | meaning |
| --- | --- | --- | --- | --- |
| `size` | whole number | at least 1, below 9 | `3` | How `large` it is. |
"""
    )


def test_every_link_within_a_page_leads_to_a_heading(make_reference):
    """A mapping's link is the anchor that GitHub makes of the heading below."""
    for page in REFERENCE.glob("*.md"):
        text = page.read_text(encoding="utf-8")
        anchors = {make_reference._anchor(heading) for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}
        assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= anchors, page.name


def test_settings_of_other_projects_are_linked_and_not_explained(make_reference):
    """What TRL's and transformers' settings mean is in their words, which stay on their pages; ours have a meaning here."""
    pytest.importorskip("trl")
    from rlaif_sdk.training.ppo.config import PPOConfig

    shown = "".join(text for common in (False, True) for text in make_reference._settings(PPOConfig, common=common))
    assert "(https://huggingface.co/docs/trl/v" in shown
    assert "(https://huggingface.co/docs/transformers/v" in shown
    ours = vars(PPOConfig)["__annotations__"]
    meanings = dict(re.findall(r"^\| `(\w+)` \|.*\| ([^|`]*) \|$", shown, re.MULTILINE))
    assert meanings.keys() == set(ours)
    helps = {field.name: field.metadata["help"] for field in dataclasses.fields(PPOConfig) if field.name in ours}
    assert meanings["gae_lambda"] == helps["gae_lambda"]
