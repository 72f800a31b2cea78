"""Text for terminals: what it says is seen, and nothing in it acts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rlaif_sdk.io.text import printable


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("\x1b]8;;http://evil\x07click\x1b]8;;\x07", r"\x1b]8;;http://evil\x07click\x1b]8;;\x07"),
        ("\x1b[2Jgone", r"\x1b[2Jgone"),
        ("a\rb", r"a\x0db"),
        ("\x9b31mred", r"\x9b31mred"),
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
