"""Every how-to's Python, run in order in a folder with the page's files.

Training stacks that are not installed here are stood for by ``shapes``, behind the packages that are; models and data sets
of the hub by tiny ones in a local cache.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from rlaif_sdk.config import CompositionConfig
from rlaif_sdk.config.documents import parse_document, validate
from tests.docs.markdown_blocks import blocks
from tests.local_hub import MODELS, TABLES

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs" / "howto").glob("*.md"))
README = ROOT / "README.md"
TRAINING = {"choose-ppo-models", "steer-ppo", "train-with-dpo"}
"""Pages that train for half a minute each; two others of their kind are always run."""
ALLOWED = [
    part
    for warning in ("ignore::FutureWarning", "ignore:'pin_memory' argument is set:UserWarning")
    for part in ("-W", warning)
]
SHAPES = Path(__file__).parent / "shapes"


def needs_a_sandbox():
    """Skips where untrusted code cannot be confined, as the reward itself refuses to run there."""
    sandlock = pytest.importorskip("sandlock", reason="sandlock is for Linux")
    if sandlock.landlock_abi_version() < sandlock.min_landlock_abi():
        pytest.skip("this kernel's Landlock is too old for the sandbox, or there is none")


RUNS = [
    pytest.param(page, id=page.stem, marks=[pytest.mark.slow] if page.stem in TRAINING else [])
    for page in (*PAGES, README)
]


@pytest.mark.parametrize("page", RUNS)
def test_the_python_of_a_page_runs(page, tmp_path, request):
    """The page's files are written and its Python blocks run as one script, without an error or a warning.

    FutureWarnings are let through, since transformers gives itself some while it generates; so is what says that a
    machine has no GPU.
    """
    if page.stem == "reward-code":
        needs_a_sandbox()
    script = [f"import sys\nsys.path += [{str(SHAPES)!r}, {str(ROOT)!r}]"]
    for block in blocks(page):
        if block.file:
            (tmp_path / block.file).write_text(block.code, encoding="utf-8")
        elif block.language == "python":
            script.append(block.code)
    if len(script) == 1:
        pytest.skip("the page shows no Python")
    named = any(name in block.code for block in blocks(page) for name in (*MODELS, *(name for name, _ in TABLES)))
    done = subprocess.run(
        [sys.executable, "-W", "error", *ALLOWED, "-c", "\n".join(script)],
        env=request.getfixturevalue("hub") if named else None,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", [*PAGES, README], ids=lambda page: page.stem)
def test_the_compositions_of_a_page_are_accepted(page):
    """Blocks that are read and not run, too: a key or number that the loader refuses is refused here."""
    for block in blocks(page):
        if block.language == "yaml" and block.code.startswith(("rewards:", "ledger:")):
            validate(CompositionConfig, parse_document(block.code, file=page.name))


def test_the_readme_example_is_at_most_15_lines():
    """The README opens with an example that a reader takes in at a glance."""
    first = next(block for block in blocks(README) if block.language == "python")
    assert len(first.code.splitlines()) <= 15
