"""Names in backticks, on pages and in docstrings, are names of something.

Sphinx checks the references of signatures (`nox -s docs`); what prose names, it does not look at.
"""

import builtins
import re
from functools import cache

import pytest

from tests.docs.names import PACKAGE, ROOT, docstrings, dotted_names, exists, modules, pages, paths

CAMEL = re.compile(r"(?<!`)`@?([A-Z][a-z0-9]+(?:[A-Z][A-Za-z0-9]*)+)(?:\(.*?\))?`(?!`)")
"""An identifier in CamelCase, alone in its backticks: the way that this project writes a class."""

OTHERS = {
    "ConnectError", "DataFrame", "DatasetDict", "DistributedDataParallel", "InferenceSession", "IterableDataset", "MatMulNBits", "MultiTurnEnv", "OnlineDPOTrainer", "SamplingParams", "ToolEnv",
}  # fmt: skip
"""Classes of the libraries that this project builds on."""


@cache
def package_names() -> frozenset[str]:
    """What the package and its plugins define."""
    defines = re.compile(r"^\s*(?:class|def|async def) (\w+)|^(\w+)(?:: [\w\[\], ]+)? = ", re.MULTILINE)
    sources = [*modules(), *(ROOT / "plugins").rglob("*.py"), *(ROOT / "tests" / "docs" / "shapes").rglob("*.py")]
    found = (defines.findall(path.read_text(encoding="utf-8")) for path in sources)
    return frozenset(first or second for names in found for first, second in names)


def unknown(text: str) -> list[str]:
    """What a text names that there is not."""
    written = set(re.findall(r"(?:class|import|as) (\w+)", text))  # what the page itself defines or imports
    known = package_names() | OTHERS | set(dir(builtins)) | written
    return sorted(
        {name for name in dotted_names(text) if not exists(name)}
        | {name for name in CAMEL.findall(text) if name not in known and not from_libraries(name)}
        | {path for path in paths(text) if not (ROOT / path).exists() and not re.search(r"results?/", path)}
    )


@cache
def from_libraries(name: str) -> bool:
    """Whether the trainers' libraries have a class of this name; they are asked only where they are installed."""
    for library in ("trl", "transformers", "torch", "peft"):
        try:
            module = __import__(library)
        except ImportError:
            continue
        if hasattr(module, name):
            return True
    return False


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_what_a_page_names_exists(page):
    """Each `rlaif_sdk` name, class and path of the repository on a page is there."""
    assert unknown(page.read_text(encoding="utf-8")) == []


def test_what_the_docstrings_name_exists():
    """The same in the package's docstrings, with the place of each wrong name."""
    wrong = {
        f"{path.relative_to(PACKAGE.parent)}:{line}": names
        for path in modules()
        for line, text in docstrings(path)
        if (names := unknown(text))
    }
    assert wrong == {}


def test_what_the_reference_pages_document_is_where_they_say():
    """A class that moved to another module is found without a build of the pages."""
    reference = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "reference").glob("*.md"))
    documented = re.findall(r"^\.\. auto\w+:: (rlaif_sdk[\w.]+)$", reference, re.MULTILINE)
    assert documented
    assert [name for name in documented if not exists(name)] == []


def test_the_reference_lists_every_public_name():
    """What `from rlaif_sdk import` offers is on the reference pages, under that name or the room's."""
    shown = " ".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "reference").glob("*.md"))
    documented = set(re.findall(r"(?:auto|py:)\w+:: [\w.]*?(\w+)$", shown, re.MULTILINE))
    import rlaif_sdk

    errors = {name for name in rlaif_sdk.__all__ if isinstance(getattr(rlaif_sdk, name), type)
              and issubclass(getattr(rlaif_sdk, name), Exception)}  # fmt: skip
    assert set(rlaif_sdk.__all__) - errors - documented == set()


def test_every_session_that_a_page_or_a_workflow_runs_is_there():
    """`nox -s NAME` does something wherever a person or a machine is told to type it."""
    noxfile = (ROOT / "noxfile.py").read_text(encoding="utf-8")
    sessions = re.findall(r"^@nox\.session(?:\(name=\"(.+)\"\))?\n(?:@.*\n)*def (\w+)", noxfile, re.MULTILINE)
    told = [*pages(), *(ROOT / ".github" / "workflows").iterdir()]
    found = {
        name
        for file in told
        for names in re.findall(r"nox -s ((?:[a-z][a-z-]* ?)+)(?=`|\s|$)", file.read_text(encoding="utf-8"))
        for name in names.split()
    }
    assert len(found) > 10
    assert found - {given or function for given, function in sessions} == set()


def test_only_other_projects_are_exempt_from_the_check_of_references():
    """No pattern of the docs' configuration lets a name of this package through, but its type variables."""
    source = (ROOT / "docs" / "conf.py").read_text(encoding="utf-8")
    namespace: dict = {}
    exec(compile(source, "conf.py", "exec"), namespace)
    names = {"rlaif_sdk.Composer", "rlaif_sdk.composer.composer.Composer", "RewardBatch", "rlaif_sdk.types.Message"}
    for _, pattern in namespace["nitpick_ignore_regex"]:
        assert not [name for name in names if re.fullmatch(pattern, name)], pattern


def test_every_picture_is_there_small_and_described():
    """What a page shows is a file of the repository below 150 kB, and says in words what it shows."""
    shown = [
        (page, words, page.parent / file)
        for page in pages()
        for words, file in re.findall(r"!\[(.*?)\]\(([^)]+)\)", page.read_text(encoding="utf-8"))
    ]
    assert {path.resolve() for _, _, path in shown} == {*(ROOT / "docs" / "pictures").iterdir()}
    assert [str(path) for _, words, path in shown if not words or path.stat().st_size > 150_000] == []
