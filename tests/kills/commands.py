"""The commands that are killed: tiny inputs, what is run, and what must be there at the end."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rlaif_sdk.io.digests import file_digest
from rlaif_sdk.io.tables import read_rows
from tests.models.tiny_classifiers import build as build_classifier
from tests.training.conftest import build_llama, build_tokenizer
from tests.training.distill_runs import distill_config
from tests.training.iterate_runs import loop_config
from tests.training.preference_models import planted_pairs

REWARDS = """
import time

def length(completions):
    time.sleep(0.004)
    return [float(len(text)) for text in completions]

def wanted(completions, **_):
    return [sum(word.startswith("w1") for word in text.split()) / 8 for text in completions]
"""


@dataclass(frozen=True)
class Command:
    """A command.

    Attributes:
        prepare: Writes its inputs into a folder.
        arguments: What follows ``rlaif``.
        resume: What is added when it is started again and there is something to resume.
        result: What it made, for the comparison with a run that was not killed.
    """

    prepare: Callable[[Path], None]
    arguments: Sequence[str]
    result: Callable[[Path], Any]
    resume: Sequence[str] = ()


def write_jsonl(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_config(path: Path, config: dict[str, Any]) -> None:
    path.write_text(yaml.safe_dump(config))


def start_model(folder: Path) -> None:
    build_llama(max_position_embeddings=512).save_pretrained(folder / "start")
    build_tokenizer().save_pretrained(folder / "start")


def prepare_score(folder: Path) -> None:
    (folder / "r.py").write_text(REWARDS)
    write_config(folder / "c.yaml", {"rewards": {"length": {"use": "./r.py:length"}}, "ledger": "ledger.sqlite"})
    write_jsonl(folder / "rows.jsonl", [{"prompt": "p", "completion": "x" * row} for row in range(400)])


def prepare_label(folder: Path) -> None:
    distill_config(folder)
    pairs = [
        {"prompt": f"w{row % 7}", "response_1": f"w{row % 5} w3", "response_2": f"w{row % 3} w9"} for row in range(64)
    ]
    write_jsonl(folder / "pairs.jsonl", pairs)
    judge = {"model": "start", "device": "cpu"}
    write_config(
        folder / "c.yaml",
        {"pairs": {"file": "pairs.jsonl"}, "judge": judge, "rows_per_call": 2, "max_failed_share": 1},
    )


def prepare_make(folder: Path) -> None:
    start_model(folder)
    write_jsonl(folder / "prompts.jsonl", [{"prompt": f"w{row % 9} w{row}"} for row in range(24)])
    config = {
        "prompts": {"file": "prompts.jsonl"},
        "policies": {"one": {"model": "start", "device": "cpu"}},
        "completions": 2,
        "max_new_tokens": 6,
        "temperature": 0,
        "rows_per_call": 2,
    }
    write_config(folder / "c.yaml", config)


TRAINER = {
    "max_steps": 6,
    "per_device_train_batch_size": 4,
    "learning_rate": 1e-2,
    "use_cpu": True,
    "save_strategy": "steps",
    "save_steps": 1,
    "save_total_limit": 2,
    "logging_steps": 1,
}
SETTINGS: dict[str, dict[str, Any]] = {
    "ppo": {"steps_per_generation": 1, "max_completion_length": 8},
    "grpo": {"num_generations": 4, "max_completion_length": 8},
    "dpo": {},
    "sft": {},
    "reward_model": {},
}


def prepare_training(method: str) -> Callable[[Path], None]:
    def prepare(folder: Path) -> None:
        start_model(folder)
        (folder / "r.py").write_text(REWARDS)
        rows: list[dict[str, Any]]
        if method in {"ppo", "grpo"}:
            rows = [{"prompt": f"w{row % 9} w3"} for row in range(16)]
        elif method == "sft":
            rows = [{"prompt": f"w{row % 6} ", "completion": "w7 w8 w9"} for row in range(24)]
        else:
            rows = list(planted_pairs(32))
        write_jsonl(folder / "rows.jsonl", rows)
        composed = {"composition": {"rewards": {"wanted": {"use": "./r.py:wanted", "normalize": "zscore"}}}}
        config = {
            "model": {"name": "start"},
            "data": {"train": "rows.jsonl", "held_out_rows": 4},
            **(composed if method in {"ppo", "grpo"} else {}),
            method: {**TRAINER, **SETTINGS[method]},
            "output": "out",
        }
        write_config(folder / "c.yaml", config)

    return prepare


def prepare_iterate(folder: Path) -> None:
    write_config(folder / "c.yaml", loop_config(folder, build_llama(), build_tokenizer()))


def prepare_distill(folder: Path) -> None:
    write_config(folder / "c.yaml", distill_config(folder))


def prepare_sweep(folder: Path) -> None:
    prepare_training("ppo")(folder)
    run = yaml.safe_load((folder / "c.yaml").read_text())
    del run["output"]
    run["composition"]["rewards"] = {name: {"use": f"./r.py:{name}"} for name in ("wanted", "length")}
    run["ppo"] |= {"max_steps": 1, "save_strategy": "no"}
    write_config(
        folder / "c.yaml", {"run": run, "weights": {"wanted": [0, 1], "length": [1.0]}, "seeds": [0], "output": "out"}
    )


def prepare_export(folder: Path) -> None:
    build_classifier(folder / "classifier", "distilbert")


def table(name: str, *columns: str) -> Callable[[Path], Any]:
    return lambda folder: [[row[column] for column in columns] for row in read_rows(folder / name)]


def totals(folder: Path) -> Any:
    """A row's status tells whether its score came from the ledger."""
    return [row["reward"]["total"] for row in read_rows(folder / "scored.jsonl")]


def weights(folder: Path) -> Any:
    """What the trained models' files hold, to the last bit."""
    files = sorted((folder / "out").rglob("model/model.safetensors"))
    assert files
    return {str(file.relative_to(folder)): file_digest(file) for file in files}


def exported(folder: Path) -> Any:
    from rlaif_sdk import OnnxScorer

    return OnnxScorer(folder / "out").score(["a", "good answer", "bad!"]).tolist()


CONFIG = ("-c", "c.yaml")
COMMANDS: dict[str, Command] = {
    "score": Command(
        prepare_score,
        ("score", "rows.jsonl", *CONFIG, "-o", "scored.jsonl", "--chunk", "8"),
        totals,
    ),
    "label": Command(prepare_label, ("label", "c.yaml"), table("labels/labels.jsonl", "prompt", "prob_1")),
    "make": Command(
        prepare_make, ("make", "candidates", "c.yaml"), table("made/candidates.jsonl", "prompt", "completion")
    ),
    **{
        f"train {method}": Command(
            prepare_training(method), ("train", method.replace("_", "-"), *CONFIG), weights, ("--resume",)
        )
        for method in SETTINGS
    },
    "iterate": Command(prepare_iterate, ("iterate", *CONFIG, "--resume"), weights),
    "sweep": Command(prepare_sweep, ("sweep", "c.yaml"), weights),
    "distill": Command(prepare_distill, ("distill", "c.yaml", "--resume"), weights),
    "export": Command(prepare_export, ("export", "classifier", "out"), exported),
}
