"""Make prompts of real harmful dialogues: a summarising instruction around each, split into training and held-out.

    python make_prompts.py harmless-base_test.jsonl.gz prompts

The file is ``harmless-base/test.jsonl.gz`` of github.com/anthropics/hh-rlhf (MIT). The result depends on it alone.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypedDict

SHORTEST, LONGEST = 100, 500
"""Characters of a dialogue."""
HELD_OUT_SHARE = 0.2
INSTRUCTION = "Summarize the following conversation.\n\n{dialogue}\n\nSummary:"

_TURN = re.compile(r"\n\n(Human|Assistant):")


class PromptRow(TypedDict):
    """One line of the files: the prompt, and the dialogue in it."""

    prompt: list[dict[str, str]]
    dialogue: str


def dialogues(file: Path) -> Iterator[str]:
    """The dialogues of hh-rlhf's pairs, each with the answer that people preferred."""
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)["chosen"]


def shortened(dialogue: str) -> str | None:
    """The longest beginning of a dialogue that ends with a person's turn and has `SHORTEST` to `LONGEST` characters.

    So the last answer, which is what the two sides of a pair differ in, is never part of it.
    """
    parts = [part.strip() for part in _TURN.split(dialogue)[1:]]
    turns = [f"{role}: {text}" for role, text in zip(parts[::2], parts[1::2], strict=True)]
    for count in range(len(turns), 0, -1):
        beginning = "\n\n".join(turns[:count])
        if turns[count - 1].startswith("Human: ") and SHORTEST <= len(beginning) <= LONGEST:
            return beginning
    return None


def opening(dialogue: str) -> str:
    """The letters and digits of a dialogue's first turn: dialogues that begin alike have the same."""
    return "".join(filter(str.isalnum, dialogue.partition("\n\nAssistant:")[0].lower()))


def split(found: Iterable[str], held_out_share: float = HELD_OUT_SHARE) -> tuple[list[PromptRow], list[PromptRow]]:
    """Training and held-out rows, one dialogue an opening, so that no dialogue's beginning stands on both sides.

    Side and order are fixed by the hash of the opening.
    """
    by_opening = {opening(text): text for text in sorted(filter(None, map(shortened, found)))}
    ordered = sorted(by_opening, key=lambda key: hashlib.sha256(key.encode()).digest())
    rows = [
        PromptRow(
            prompt=[{"role": "user", "content": INSTRUCTION.format(dialogue=by_opening[key])}], dialogue=by_opening[key]
        )
        for key in ordered
    ]
    held_out = round(len(rows) * held_out_share)
    return rows[held_out:], rows[:held_out]


def write_prompts(hh_rlhf: Path, folder: Path) -> None:
    """Write ``train.jsonl`` and ``held-out.jsonl`` into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in zip(("train", "held-out"), split(dialogues(hh_rlhf)), strict=True):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        print(f"{folder / name}.jsonl: {len(rows)} prompts")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("hh_rlhf", type=Path, help="hh-rlhf's harmless-base/test.jsonl.gz")
    parser.add_argument("folder", type=Path, help="where the two files are written")
    arguments = parser.parse_args()
    write_prompts(arguments.hh_rlhf, arguments.folder)
