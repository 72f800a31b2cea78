"""What a command costs until its first message: processor time, whatever else the machine does.

Modules are compiled before the first round, as pip leaves them, also where PYTHONDONTWRITEBYTECODE is set. The check of
`scored.yaml` ends at a reward that fails, after rows, files and rewards and before torch; a check with nothing wrong goes on
to the policy and its memory, for which it imports torch and the trainer's libraries.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from _report import interleaved, save

LINES = (
    "--help",
    "score --help",
    "rewards list",
    "score none.jsonl c.yaml",
    "score in.jsonl none.yaml",
    "score in.jsonl misspelt.yaml",
    "explain in.jsonl misspelt.yaml",
    "label none.yaml",
    "make pairs",
    "train ppo none.yaml",
    "train ppo run.yaml --check --set ppo.learning_rat=1",
    "train ppo run.yaml --check --set ppo.max_steps=soon",
    "train ppo run.yaml --check",
    "train ppo scored.yaml --check",
    "train dpo pairs.yaml --check",
)
BESIDE = {"Python alone": "pass", "Python with pydantic, typer and rich": "import pydantic, rich, typer"}
"""What no command does without."""
FILES = {
    "in.jsonl": '{"prompt": "p", "completion": "a"}\n',
    "c.yaml": "rewards: {words: {use: 'rewards.py:words'}}\n",
    "misspelt.yaml": "rewards: {words: {us: 'rewards.py:words'}}\n",
    "rewards.py": "def words(completion_texts):\n    return [1.0 for _ in completion_texts]\n\n\ndef broken(completion_texts):\n    return [1 / 0]\n",
    "run.yaml": "model: {name: none}\ndata: {train: in.jsonl}\ncomposition: c.yaml\n",
    "scored.yaml": "model: {name: model}\ndata: {train: in.jsonl, held_out: in.jsonl}\n"
    "composition: {rewards: {words: {use: 'rewards.py:words'}, broken: {use: 'rewards.py:broken'}}}\n",
    "pairs.jsonl": '{"prompt": "p", "chosen": "a", "rejected": "b"}\n',
    "pairs.yaml": "model: {name: none}\ndata: {train: pairs.jsonl, held_out: pairs.jsonl}\n",
    "model/config.json": '{"model_type": "llama"}',
    "model/model.safetensors": "\x02\0\0\0\0\0\0\0{}",
}


def children() -> float:
    """Seconds that the processors spent in this process's children."""
    times = os.times()
    return times.children_user + times.children_system


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name, text in FILES.items():
            (Path(folder) / name).parent.mkdir(exist_ok=True)
            (Path(folder) / name).write_text(text, encoding="utf-8")
        compiled = {**os.environ, "PYTHONPYCACHEPREFIX": str(Path(folder) / "compiled"), "PYTHONDONTWRITEBYTECODE": ""}

        def run(*arguments: str) -> None:
            subprocess.run([sys.executable, *arguments], cwd=folder, env=compiled, capture_output=True, check=False)

        variants = {line: partial(run, "-m", "rlaif_sdk", *line.split()) for line in LINES}
        for first in variants.values():
            first()
        seconds = interleaved(
            {**{name: partial(run, "-c", code) for name, code in BESIDE.items()}, **variants},
            repeats=options.repeats,
            clock=children,
        )
    medians = {name: statistics.median(own) for name, own in seconds.items()}
    lines = [f"| {name if name in BESIDE else f'`rlaif {name}`'} | {value:.2f} |" for name, value in medians.items()]
    table = "\n".join(
        [
            f"Processor time until the first message, median of {options.repeats} interleaved rounds:",
            "",
            "| | seconds |",
            "|---|---|",
            *lines,
        ]
    )
    save("command_line", {f"{name} (s)": value for name, value in medians.items()}, table)


if __name__ == "__main__":
    main()
