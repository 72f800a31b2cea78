"""`rlaif fit` on pairs that people judged, beside equal weights and each reward by itself.

    python benchmarks/fit_people.py [--data DATA]

``DATA`` has ``hh-rlhf-harmless``, ``llmbar`` and ``rm-bench`` as they are published. The rewards are the embedded ones and plain
functions; none was made on these pairs. What is fitted is asked about prompts that it was not fitted to.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from _report import save

from rlaif_sdk.evaluation import CompositionFit, VerdictColumns, fit_composition

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("RLAIF_DATA") or ROOT.parent / "shared" / "data")
REWARDS = '''
import re

def _words(text):
    return re.findall(r"[\\w']+", text.lower())

def overlap(prompt_texts, completion_texts):
    """The share of the prompt's longer words that the answer takes up."""
    found = []
    for prompt, text in zip(prompt_texts, completion_texts, strict=True):
        asked = {word for word in _words(prompt) if len(word) > 4}
        found.append(len(asked & set(_words(text))) / len(asked) if asked else 0.0)
    return found

def varied(completion_texts):
    """Different words, of the square root of all: Guiraud's index."""
    return [len(set(_words(text))) / max(len(_words(text)), 1) ** 0.5 for text in completion_texts]

def markup(completion_texts):
    """Lines that are headings or points of a list, or have bold words, of all lines."""
    return [
        sum(bool(re.match(r"\\s*([-*#]|\\d+\\.)|.*\\*\\*", line)) for line in text.splitlines()) / (text.count("\\n") + 1)
        for text in completion_texts
    ]

def declines(completion_texts):
    """Whether it says that it cannot, or is sorry."""
    return [float(bool(re.search(r"\\b(sorry|cannot|can't|not able to|unable|won't)\\b", text.lower()))) for text in completion_texts]

def asks(completion_texts):
    """Whether it ends with a question."""
    return [float(text.rstrip().endswith("?")) for text in completion_texts]
'''
COMPOSITION: dict[str, Any] = {
    "rewards": {
        "toxicity": {},
        "conciseness": {"params": {"target": 60}},
        "overlap": {"use": "./functions.py:overlap"},
        "varied": {"use": "./functions.py:varied", "normalize": "zscore"},
        "markup": {"use": "./functions.py:markup"},
        "declines": {"use": "./functions.py:declines"},
        "asks": {"use": "./functions.py:asks"},
    }
}


def harmless(data: Path) -> list[dict[str, Any]]:
    """Dialogues, cut where the two begin to differ: the last answers."""
    rows = []
    with gzip.open(data / "hh-rlhf-harmless" / "harmless-base_test.jsonl.gz", "rt", encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            prompts, answers = zip(
                *(row[side].rsplit("\n\nAssistant:", 1) for side in ("chosen", "rejected")), strict=True
            )
            if prompts[0] == prompts[1]:
                rows.append(
                    {"prompt": prompts[0], "chosen": answers[0].strip() or "-", "rejected": answers[1].strip() or "-"}
                )
    return rows


def llmbar(data: Path) -> list[dict[str, Any]]:
    """Instructions with a better and a worse output, by set."""
    rows = []
    for file in sorted((data / "llmbar").glob("Dataset_LLMBar_*_dataset.json")):
        kind = file.stem.removeprefix("Dataset_LLMBar_").removesuffix("_dataset")
        for row in json.loads(file.read_text(encoding="utf-8")):
            better, worse = (row["output_1"], row["output_2"])[:: 1 if row["label"] == 1 else -1]
            rows.append({"prompt": row["input"], "chosen": better, "rejected": worse, "kind": kind})
    return rows


def rm_bench(data: Path) -> list[dict[str, Any]]:
    """Every chosen with every rejected of a prompt: in nine pairs, styles differ either way."""
    rows = []
    for row in json.loads((data / "rm-bench" / "chat_filtered.json").read_text(encoding="utf-8")):
        rows += [
            {"prompt": row["prompt"], "chosen": chosen, "rejected": rejected, "kind": kind}
            for one, chosen in enumerate(row["chosen"])
            for other, rejected in enumerate(row["rejected"])
            for kind in ["normal" if one == other else "hard" if one < other else "easy"]
        ]
    return rows


def told(name: str, found: CompositionFit) -> str:
    """The tables of one set."""
    categories = [*found.agreement["fitted"].by_category]
    lines = [
        f"**{name}**: {found.pairs} pairs about {found.prompts} prompts; fitted less as it was {found.change.text(signed=True)}.",
        "",
        f"| | agreement | at equal length | {' | '.join(categories)} |"
        if categories
        else "| | agreement | at equal length |",
        f"|---|---|---|{'---|' * len(categories)}",
    ]
    for what, each in found.agreement.items():
        cells = [
            each.accuracy.text(),
            each.at_equal_length.text(),
            *(each.by_category[kind].text() for kind in categories),
        ]
        lines.append(f"| {what} | {' | '.join(cells)} |")
    lines += ["", "| reward | weight | gain |", "|---|---|---|"]
    lines += [
        f"| {reward} | {each.estimate.text()} | {each.gain.text(digits=4, signed=True)} |"
        for reward, each in found.weights.items()
    ]
    return "\n".join([*lines, "", *(f"- {warning}" for warning in found.warnings)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=DATA)
    data = parser.parse_args().data
    parts, records = [], {}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "functions.py").write_text(REWARDS, encoding="utf-8")
        config = Path(folder) / "rewards.json"
        config.write_text(json.dumps(COMPOSITION), encoding="utf-8")
        for name, read in (("hh-rlhf harmless", harmless), ("LLMBar", llmbar), ("RM-Bench chat", rm_bench)):
            rows = read(data)
            columns = VerdictColumns(category="kind" if "kind" in rows[0] else None)
            found = fit_composition(config, [rows], columns)
            parts.append(told(name, found))
            print(parts[-1], flush=True)
            records[name] = found.record()
    save("fit_people", records, "\n\n".join(parts))


if __name__ == "__main__":
    main()
