"""The commands that are killed: tiny inputs, what is run, and what must be there at the end."""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rlaif_sdk.io.digests import file_digest
from rlaif_sdk.io.tables import read_rows
from rlaif_sdk.preferences.review import ReviewStore
from rlaif_sdk.preferences.review.app import side
from rlaif_sdk.preferences.review.pairs import left_response
from tests.models.tiny_classifiers import build as build_classifier
from tests.preferences.review.conftest import Page, labelled
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
        client: Of a command that serves: uses it from beside until there is nothing left to do. The command is then
            told to end.
        check: Finds what was promised to that client and is not there.
    """

    prepare: Callable[[Path], None]
    arguments: Sequence[str]
    result: Callable[[Path], Any]
    resume: Sequence[str] = ()
    client: Callable[[Path, threading.Event], None] | None = None
    check: Callable[[Path], None] = lambda _: None


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


def prepare_fit(folder: Path) -> None:
    (folder / "r.py").write_text(REWARDS)
    rewards = {name: {"use": f"./r.py:{name}"} for name in ("wanted", "length")}
    write_config(folder / "c.yaml", {"rewards": rewards, "ledger": "ledger.sqlite"})
    draw = random.Random(0)
    pairs = []
    for row in range(100):
        texts = [" ".join(f"w{draw.randrange(20)}" for _ in range(8)) for _ in range(2)]
        chosen, rejected = sorted(texts, key=lambda text: -text.count("w1") - 3 * draw.random())
        pairs.append({"prompt": f"p{row}", "chosen": chosen, "rejected": rejected})
    write_jsonl(folder / "pairs.jsonl", pairs)


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
    config = loop_config(folder, build_llama(), build_tokenizer())
    config["dpo"] |= {"save_strategy": "steps", "save_steps": 1}
    write_config(folder / "c.yaml", config)


def prepare_distill(folder: Path) -> None:
    config = distill_config(folder)
    for stage in ("reward_model", "ppo"):
        config[stage] |= {"save_strategy": "steps", "save_steps": 1}
    write_config(folder / "c.yaml", config)


def prepare_sweep(folder: Path) -> None:
    prepare_training("ppo")(folder)
    run = yaml.safe_load((folder / "c.yaml").read_text())
    del run["output"]
    run["composition"]["rewards"] = {name: {"use": f"./r.py:{name}"} for name in ("wanted", "length")}
    run["ppo"] |= {"max_steps": 3}
    write_config(
        folder / "c.yaml", {"run": run, "weights": {"wanted": [0, 1], "length": [1.0]}, "seeds": [0], "output": "out"}
    )


REVIEWERS = ("ann", "ben")
with socket.create_server(("127.0.0.1", 0)) as _free:
    PORT: int = _free.getsockname()[1]


def prepare_review(folder: Path) -> None:
    write_jsonl(folder / "labels.jsonl", [labelled(row, 0.5 + row / 60) for row in range(24)])


@contextmanager
def reviewed(folder: Path) -> Iterator[ReviewStore]:
    """The review in a copy: opening it would tidy up what a kill left."""
    with tempfile.TemporaryDirectory() as copies:
        for part in folder.glob("review.sqlite*"):
            shutil.copy(part, copies)
        with closing(ReviewStore(Path(copies, "review.sqlite"))) as store:
            yield store


def review(folder: Path, ended: threading.Event) -> None:
    """Judge pair after pair as the page does, and note each verdict that the server says it has."""
    while not ended.wait(0.02):
        with contextlib.suppress(OSError, http.client.HTTPException):  # it does not listen yet
            socket.create_connection(("127.0.0.1", PORT), 1).close()
            with reviewed(folder) as store:
                page = Page(f"http://127.0.0.1:{PORT}", store.token(), store)
            for reviewer in REVIEWERS:
                while (pair := page.next(reviewer)) is not None:
                    better = 1 + int(pair["id"][0], 16) % 2
                    page.judge(reviewer, pair["id"], side(better, left_response(pair["id"], reviewer)))
                    with (folder / "journal.jsonl").open("a") as journal:
                        journal.write(json.dumps([pair["id"], reviewer, str(better)]) + "\n")
            return


def verdicts(folder: Path) -> list[list[str]]:
    with reviewed(folder) as store:
        found = [each for _, annotations in store.results() for each in annotations]
    return sorted([each.pair, each.reviewer, each.choice] for each in found)


def check_noted_verdicts(folder: Path) -> None:
    """Whether the review has every verdict that its server said it has."""
    journal = folder / "journal.jsonl"
    noted = [json.loads(line) for line in journal.read_text().splitlines()] if journal.exists() else []
    kept = verdicts(folder) if noted else []
    assert all(each in kept for each in noted)


def prepare_export(folder: Path) -> None:
    build_classifier(folder / "classifier", "distilbert")


def table(name: str, *columns: str) -> Callable[[Path], Any]:
    return lambda folder: [[row[column] for column in columns] for row in read_rows(folder / name)]


def totals(folder: Path) -> Any:
    """A row's status tells whether its score came from the ledger."""
    return [row["reward"]["total"] for row in read_rows(folder / "scored.jsonl")]


def fitted(folder: Path) -> Any:
    """The composition, and that its card is there."""
    return (folder / "fitted.yaml").read_text(), (folder / "fitted.card.md").exists()


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
    "fit": Command(prepare_fit, ("fit", "pairs.jsonl", *CONFIG, "-o", "fitted.yaml"), fitted),
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
    "review": Command(
        prepare_review,
        ("review", "labels.jsonl", "--store", "review.sqlite", "--overlap", "2", "--port", str(PORT)),
        verdicts,
        client=review,
        check=check_noted_verdicts,
    ),
    "export": Command(prepare_export, ("export", "classifier", "out"), exported),
}
