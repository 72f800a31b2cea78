"""Text for terminals: what it says is seen, and nothing in it acts."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from rlaif_sdk.io.text import PrintableStream, printable

pytest.importorskip("transformers")
from rlaif_sdk.reporting.progress import TrainingProgress


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("\x1b]8;;http://evil\x07click\x1b]8;;\x07", r"\x1b]8;;http://evil\x07click\x1b]8;;\x07"),
        ("\x1b[2Jgone", r"\x1b[2Jgone"),
        ("a\rb", r"a\x0db"),
        ("\x9b31mred", r"\u009b31mred"),
        ("kept\tand\nkept, Grüße", "kept\tand\nkept, Grüße"),
    ],
)
def test_control_characters_are_shown_and_do_not_act(text: str, told: str) -> None:
    """Screens are not cleared, links not made, lines not overwritten."""
    assert printable(text) == told


def test_an_error_of_a_command_has_none(tmp_path: Path) -> None:
    """Whoever wrote the file name, or what a server says in an error."""
    config = tmp_path / "label.yaml"
    config.write_text('pairs: {file: "\\e]0;title\\a.jsonl"}\njudge: {model: m}\n', encoding="utf-8")
    ended = subprocess.run(
        [sys.executable, "-c", "from rlaif_sdk.cli import main; main()", "label", str(config)],
        capture_output=True,
        check=False,
    )
    assert b"\x1b" not in ended.stderr
    assert b"\\x1b]0;title" in ended.stderr


@pytest.mark.parametrize("sign", ["\u202e", "\u2066", "\u2028", "\u200f"])
def test_a_terminal_shows_no_text_in_another_order(sign: str) -> None:
    """What reorders or breaks a line is escaped like what moves the cursor."""
    assert printable(f"a{sign}b") == f"a\\u{ord(sign):04x}b"


def test_json_stays_json_of_the_same_value() -> None:
    """Rows on standard output are data, whoever wrote them."""
    row = {"a": "\x1b[2J \x7f\x9b\u202e \ud83d", "b": "Grüße"}
    line = json.dumps(row, ensure_ascii=False).replace("\ud83d", "\\ud83d")
    assert json.loads(printable(line)) == row


def test_nothing_acts_on_a_stream_but_a_progress_bar_s_return() -> None:
    """Whoever writes: a command, logging, a traceback; what else the stream has is there."""
    shown = io.StringIO()
    stream = PrintableStream(shown)
    stream.write("\r50%\x1b[2J\r")
    stream.writelines(["\x9bm\n"])
    stream.flush()
    assert shown.getvalue() == "\r50%\\x1b[2J\\x0d\\u009bm\n"
    assert not stream.isatty()


def test_rich_s_own_marks_act_in_a_table_and_while_a_bar_is_live(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has colours, and moves a bar; and what others print meanwhile does not act."""
    shown = io.StringIO()
    monkeypatch.setattr(sys, "stdout", PrintableStream(PrintableStream(shown)))
    console = Console(force_terminal=True, width=60)
    console.print("red", style="red")
    assert shown.getvalue() == "\x1b[31mred\x1b[0m\n"
    with TrainingProgress(console) as bar:
        bar.on_train_begin(None, SimpleNamespace(max_steps=2, global_step=0), None)
        sys.stdout.write(printable("told \x1b]0;title\x07\n"))
    assert "\x1b[?25l" in shown.getvalue()
    assert "\x1b]" not in shown.getvalue()
    assert r"told \x1b]0;title" in shown.getvalue()
