"""What the program says where files cannot be written, and where text is no text."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from rlaif_sdk.io.tables import read_rows

REWARDS = """
from rlaif_sdk import Score

def cut(completions):
    return [Score(1.0, reason="cut \\ud83d off") for _ in completions]
"""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    (tmp_path / "rewards.py").write_text(REWARDS)
    (tmp_path / "composition.yaml").write_text("rewards:\n  cut: {use: 'rewards.py:cut'}\n")
    (tmp_path / "table.jsonl").write_text(json.dumps({"prompt": "p \ud83d", "completion": "c \udc00"}) + "\n")
    return tmp_path / "table.jsonl"


def rlaif(folder: Path, *arguments: str, limit: int | None = None) -> subprocess.CompletedProcess[str]:
    """Run the program; with a limit, no file may grow beyond so many blocks of 512 bytes, as on a full disk."""
    command = [sys.executable, "-c", "from rlaif_sdk.cli import main; main()", *arguments]
    if limit is not None:
        command = ["sh", "-c", f'ulimit -f {limit}; trap "" XFSZ; exec "$0" "$@"', *command]
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8", "COLUMNS": "100"}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, check=False)


def test_half_a_character_is_printed(table: Path) -> None:
    """Explain shows a prompt, a completion and a reason that are cut; it ends well."""
    config = str(table.parent / "composition.yaml")
    ended = rlaif(table.parent, "explain", "--config", config, "--prompt", "p", "--completion", "c")
    assert (ended.returncode, "Traceback" in ended.stderr) == (0, False), ended.stderr
    assert "cut \ufffd off" in ended.stdout


def test_a_full_disk_is_told_in_a_line_and_leaves_nothing(table: Path) -> None:
    """For a page as for a table."""
    page = table.parent / "page.html"
    ledger = table.parent / "ledger.sqlite"
    config = table.parent / "composition.yaml"
    config.write_text(config.read_text() + f"ledger: {ledger}\n")
    scored = rlaif(table.parent, "score", str(table), "--config", str(config), "--output", "scored.jsonl")
    assert scored.returncode == 0, scored.stderr
    before = sorted(path.name for path in table.parent.iterdir())
    ended = rlaif(table.parent, "report", str(ledger), "--output", str(page), limit=200)
    assert ended.returncode == 2, ended.stderr
    assert ended.stderr.strip().splitlines()[-1].startswith("error: ")
    assert "Traceback" not in ended.stderr
    assert sorted(path.name for path in table.parent.iterdir()) == before


def test_an_output_that_cannot_be_is_told_in_a_line(table: Path) -> None:
    """A folder beneath a file, a name that is too long, and a folder in the file's place."""
    config = str(table.parent / "composition.yaml")
    for output in (f"{table}/out.jsonl", "x" * 300 + ".jsonl", "taken.jsonl"):
        (table.parent / "taken.jsonl").mkdir(exist_ok=True)
        ended = rlaif(table.parent, "score", str(table), "--config", config, "--output", output)
        assert ended.returncode == 2, (output, ended.stderr)
        assert "Traceback" not in ended.stderr, output


@pytest.mark.parametrize(
    "module", ["rlaif_sdk", "rlaif_sdk.io.jobs", "rlaif_sdk.composer.ledger", "rlaif_sdk.cli.main"]
)
def test_nothing_needs_unix_to_be_imported(module: str) -> None:
    """Windows has neither fcntl nor forks."""
    program = (
        "import os, sys\n"
        "sys.modules['fcntl'] = None\n"
        "import importlib\n"
        f"importlib.import_module({module!r})\n"
        "assert 'fcntl' not in sys.modules or sys.modules['fcntl'] is None\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("suffix", ["jsonl", "parquet", "csv"])
def test_two_commands_that_write_one_file_at_once_do_not_mix(tmp_path: Path, suffix: str) -> None:
    """Each ends with 0, and the file is the whole table of one of them."""
    (tmp_path / "rewards.py").write_text(
        "import time\nfrom pathlib import Path\n\ndef meets(prompts, completions):\n"
        "    Path(f'{prompts[0]}.begun').touch()\n"
        "    while not (Path('a.begun').exists() and Path('b.begun').exists()):\n        time.sleep(0.01)\n"
        "    return [float(len(c)) for c in completions]\n"
    )
    (tmp_path / "composition.yaml").write_text("rewards:\n  meets: {use: 'rewards.py:meets'}\n")
    output = tmp_path / f"scored.{suffix}"
    started = []
    for name in ("a", "b"):
        rows = [{"prompt": name, "completion": name * (row % 50 + 1)} for row in range(4_000)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        command = ["score", f"{name}.jsonl", "--config", "composition.yaml", "--output", str(output)]
        program = [sys.executable, "-c", "from rlaif_sdk.cli import main; main()", *command]
        started.append(subprocess.Popen(program, cwd=tmp_path, stderr=subprocess.PIPE, text=True))
    for each in started:
        _, said = each.communicate()
        assert each.returncode == 0, said
    rows = list(read_rows(output))
    assert len(rows) == 4_000
    assert len({row["prompt"] for row in rows}) == 1
    assert {path.name for path in tmp_path.iterdir()} - {"__pycache__", "a.begun", "b.begun"} == {
        "__job__", "a.jsonl", "b.jsonl", "composition.yaml", "rewards.py", output.name
    }  # fmt: skip


def test_a_reader_that_leaves_ends_the_program_as_sigpipe_would(table: Path) -> None:
    """``rlaif … | head -1``: no trace, and the code that a shell knows; with a sound reader all is done."""
    table.write_text(500 * (json.dumps({"prompt": "p", "completion": "c", "filler": "x" * 1000}) + "\n"))
    rlaif = f"{sys.executable} -c 'from rlaif_sdk.cli import main; main()'"
    score = f"{rlaif} score {table} {table.parent / 'composition.yaml'} -o - --quiet"
    for line, expected in (
        (f"{score} | head -1", 141),
        (f"{rlaif} cache list nothing 2>&1 | true", 141),
        (f"{rlaif} --version | tail -1", 0),
    ):
        done = subprocess.run(
            ["bash", "-c", f"{line} >&2; echo ${{PIPESTATUS[0]}}"], capture_output=True, text=True, check=True
        )
        assert (line, int(done.stdout)) == (line, expected)
        assert "Traceback" not in done.stderr


def test_streams_of_a_caller_stay_open() -> None:
    """Who runs commands within a process of its own goes on with its standard output and error, however they ended."""
    program = """
import io, sys
from rlaif_sdk.cli.main import main
own = sys.stdout
for arguments in (["--version"], ["rewards", "list"], ["score", "nowhere.jsonl"], ["nonsense"]):
    streams = [io.TextIOWrapper(io.BytesIO()) for _ in range(2)]
    sys.stdout, sys.stderr = streams
    sys.argv = ["rlaif", *arguments]
    try:
        main()
    except SystemExit:
        pass
    sys.stdout = sys.stderr = own
    print(any(stream.buffer.getvalue() for stream in streams))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["True"] * 4, done.stderr


def test_streams_that_nobody_else_holds_are_written_to() -> None:
    """A caller may put new ones in the place of its own and keep no reference."""
    program = """
import sys
from rlaif_sdk.cli.main import main
sys.stdout, sys.stderr = (open(number, "w", closefd=False) for number in (1, 2))
main()
"""
    for arguments, code, told in (["--version"], 0, "rlaif_sdk "), (["score", "nowhere.jsonl"], 2, "nowhere.jsonl"):
        done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)
        assert (done.returncode, told in done.stdout + done.stderr) == (code, True), done.stderr


def test_a_stream_in_ascii_or_closed_is_one_too(table: Path) -> None:
    """As of a daemon: the exit codes are the same, nothing acts on a terminal, and all characters are written."""
    rlaif = f"{sys.executable} -c 'from rlaif_sdk.cli import main; main()'"
    bad = shlex.quote(str(table.parent / "bad\x1b[2J é.jsonl"))
    for line, expected, told in (
        (f"{rlaif} --version | true", 141, ""),
        (f"{rlaif} --version >&-", 0, ""),
        (f"{rlaif} cache list {bad} 2>&1 | cat", 2, "bad\\x1b[2J é.jsonl"),
        (f"{rlaif} cache list {bad} 2>&-", 2, ""),
    ):
        done = subprocess.run(
            ["bash", "-c", f"{line}\necho ${{PIPESTATUS[0]}}"],
            env={**os.environ, "PYTHONIOENCODING": "ascii"}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        *said, code = done.stdout.splitlines()
        assert (line, int(code)) == (line, expected)
        assert told in "".join(said)
        assert "Traceback" not in done.stderr
