"""What the command line says to wrong inputs, held in ``messages.txt`` for a person to read."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import sys
import tempfile
import textwrap
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

import pytest
import typer

from rlaif_sdk.cli.main import app, main
from rlaif_sdk.io import retries
from rlaif_sdk.plugins import registry

MESSAGES = Path(__file__).with_name("messages.txt")
COMMANDS = typer.main.get_command(app)
"""Built once: typer takes a tenth of a second for it."""
MOST_LINES = 8
"""Of 80 columns, that a message may take."""
FILES = {
    "rows.jsonl": '{"prompt": "a", "completion": "one two"}\n{"prompt": "b", "completion": "three"}\n',
    "pairs.jsonl": '{"prompt": "a", "response_1": "yes", "response_2": "no"}\n',
    "mine.py": """
        def brevity(completions, *, limit: int = 3):
            return [min(1.0, limit / max(1, len(c.split()))) for c in completions]

        def match(completions, reference):
            return [float(c == r) for c, r in zip(completions, reference)]

        def first(completions):
            return [1.0]

        def misspelt(completions):
            return [lenght(c) for c in completions]

        def wordy(completions):
            return ["good" for _ in completions]

        def lone(completions):
            return 1.0

        def shout(completions):
            return [float(c.isupper()) for c in completions]

        def solved(completions, ground_truth, extra_info):
            return [1.0 for _ in completions]

        def picky(completions):
            return [float("nan") if c == "three" else 1.0 for c in completions]
    """,
    "c.yaml": 'rewards:\n  brevity: {use: "./mine.py:brevity"}\n',
    "run.yaml": """
        model: {name: ./no-such-model}
        data: {train: rows.jsonl, held_out_rows: 1}
        composition: c.yaml
        ppo: {max_steps: 1}
    """,
    "grpo.yaml": """
        model: {name: ./no-such-model}
        data: {train: rows.jsonl, held_out_rows: 1}
        composition: c.yaml
        grpo: {max_steps: 1, bf16: false}
    """,
}


@dataclass(frozen=True)
class Entry:
    """A mistake, and what is said to it."""

    title: str
    setting: str
    command: str
    said: str

    def __str__(self) -> str:
        return f"{self.title}\n{self.setting}    $ rlaif {self.command}\n{textwrap.indent(self.said, '    ')}"


def entries() -> list[Entry]:
    """Those of ``messages.txt``."""
    found = []
    for text in re.split(r"\n\n(?=\S)", MESSAGES.read_text().partition("\n\n\n")[2]):
        title, _, body = text.partition("\n")
        setting, command, said = re.split(r"^    \$ rlaif (.*)\n", body + "\n", maxsplit=1, flags=re.MULTILINE)
        found.append(Entry(title, setting, command, textwrap.dedent(said).strip()))
    return found


@contextlib.contextmanager
def prepared(setting: str) -> Iterator[None]:
    """The files of all entries and those of one, in a new working directory."""
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name), contextlib.ExitStack() as stack:
        for file, text in FILES.items():
            Path(file).write_text(textwrap.dedent(text))
        Path("folder").mkdir()
        Path("torn.parquet").write_bytes(b"PAR1\x00\x01 torn")
        Path("table-utf16.csv").write_text("prompt,completion\na,b\n", encoding="utf-16")
        for block in re.split(r"^    (?=\S)", setting, flags=re.MULTILINE)[1:]:
            what, _, text = block.partition(":")
            if what == "without":
                stack.enter_context(without(text.strip()))
            elif what == "plugin":
                stack.enter_context(installed(text.strip(), Path(name)))
            else:
                Path(what).write_text(textwrap.dedent(text.removeprefix("\n")))
        yield


@contextlib.contextmanager
def without(module: str) -> Iterator[None]:
    """An environment where a module cannot be imported, and none of ours has imported it."""
    loaded = list(sys.modules.items())
    ours = {name for name, found in loaded if name.startswith("rlaif_sdk.") and module in vars(found)}
    there = {name: sys.modules.pop(name) for name, _ in loaded if name in ours or name.partition(".")[0] == module}
    sys.modules[module] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[module]
        sys.modules.update(there)


@contextlib.contextmanager
def installed(plugin: str, folder: Path) -> Iterator[None]:
    """A plugin that fails at import, as pip leaves it in a folder."""
    (folder / f"{plugin}_plugin.py").write_text("import a_package_that_is_gone\n")
    (info := folder / f"rlaif_{plugin}-1.0.dist-info").mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: rlaif-{plugin}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[rlaif_sdk]\n{plugin} = {plugin}_plugin\n")
    registry._default_registry.cache_clear()
    with mock.patch.object(sys, "path", [str(folder), *sys.path]):
        yield
    registry._default_registry.cache_clear()


def told(entry: Entry) -> str:
    """All that the program prints, and its exit code where that is not 2."""
    environment = {"COLUMNS": "80", "NO_COLOR": "1", "TERM": "dumb", "HF_HUB_OFFLINE": "1"}
    printed = io.StringIO()
    code: object = 0
    with (
        prepared(entry.setting),
        mock.patch.dict(os.environ, environment),
        mock.patch.object(sys, "argv", ["rlaif", *shlex.split(entry.command)]),
        mock.patch.dict(main.__globals__, app=COMMANDS),
        mock.patch.object(retries, "listeners", []),
        contextlib.redirect_stdout(printed),
        contextlib.redirect_stderr(printed),
        warnings.catch_warnings(),
    ):
        warnings.resetwarnings()
        for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
            warnings.simplefilter("ignore", category)  # as Python itself does
        try:
            main()
        except SystemExit as end:
            code = end.code
        lines = printed.getvalue().replace(str(Path.cwd()), "FOLDER").splitlines()
    return "\n".join([line.rstrip() for line in lines] + ([] if code == 2 else [f"exit {code}"])).strip()


@pytest.mark.parametrize("entry", [pytest.param(entry, id=entry.title) for entry in entries()])
def test_a_mistake_is_told_as_it_is_written_there(entry: Entry) -> None:
    """Each in few lines, without a traceback."""
    said = told(entry)
    assert said == entry.said
    assert "Traceback" not in said
    assert sum(len(textwrap.wrap(line, 80)) for line in said.splitlines()) <= MOST_LINES


def rewrite() -> None:
    """Write ``messages.txt`` anew, with what is said now."""
    head = MESSAGES.read_text().partition("\n\n\n")[0]
    found = [str(replace(entry, said=told(entry))) for entry in entries()]
    MESSAGES.write_text("\n\n\n".join([head, "\n\n".join(found)]) + "\n")


if __name__ == "__main__":
    rewrite()
